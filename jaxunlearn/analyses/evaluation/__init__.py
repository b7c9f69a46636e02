"""The evaluation: utility, membership attacks, distances and conformal metrics of unlearned models."""

__all__: list[str] = []
