"""The evaluation: utility, membership attacks, distances and conformal numbers of unlearned models."""
