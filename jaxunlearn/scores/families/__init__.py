"""Kernels of the scores, one file per family."""

from jaxunlearn.scores.families import difference, emia, few_shadow, iam, lira, rmia, unleak

__all__ = ["difference", "emia", "few_shadow", "iam", "lira", "rmia", "unleak"]
