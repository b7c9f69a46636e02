"""Unlearning-Leaks as an analysis: posteriors of both versions in, metrics of the attack out."""

__all__: list[str] = []
