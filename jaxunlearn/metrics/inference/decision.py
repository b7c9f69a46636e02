"""Decisions per sample: p-values, and control of their false discovery rate.

    statistic [n], null [k] --p_values--> p [n] --benjamini_hochberg--> rejected [n]

NumPy and SciPy on the host; a null of 10^7 values costs one sort. A p-value here is a rank: the share of values at
least as extreme, among the k null values and the sample's own, which are exchangeable if the null is true.
Source: Vovk, Gammerman and Shafer, Algorithmic learning in a random world (conformal p-values, Mondrian groups);
Benjamini and Hochberg 1995; Bates, Candes, Lei, Romano and Sesia, Testing for outliers with conformal p-values (that
p-values sharing one null may go into Benjamini-Hochberg).
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors


class Rejections(NamedTuple):
    """Result of a multiple test.

    Attributes:
      rejected: [n] bool.
      adjusted: [n] float64, the smallest level at which each null would be rejected.
    """

    rejected: np.ndarray
    adjusted: np.ndarray


def p_values(
    statistic: np.ndarray,
    null: np.ndarray,
    *,
    side: str = "greater",
    seed: int | None = None,
    groups: np.ndarray | None = None,
    null_groups: np.ndarray | None = None,
) -> np.ndarray:
    """Computes conformal p-values; small = more extreme than the null explains.

    Without a seed, (1 + #{null >= t}) / (k + 1): P(p <= u) <= u if t and the null are exchangeable.
    With a seed, (#{null > t} + U (1 + #{null = t})) / (k + 1) with U uniform on (0, 1]: exactly uniform, ties or not.

    Args:
      statistic: [n] finite numbers.
      null: [k] the statistic of samples for which the null is true, k >= 1.
      side: "greater" if large values are evidence against the null, "less" if small ones are.
      seed: None for the conservative form, or the seed of U, drawn in the order of the samples.
      groups: [n] integers such as class labels: each sample is ranked only among null values of its own group
        (Mondrian), which makes p-values valid within every group. A group without null values gets p = 1 (with a
        seed: U), which is valid and never rejects.
      null_groups: [k], required with `groups`.

    Returns:
      [n] float64 in (0, 1].

    Raises:
      ShapeError: arrays do not fit together. DataError: non-finite values or an empty null.
      ConfigError: unknown side, or only one of the two group arrays.

    Example:
      >>> from jaxunlearn.metrics.inference import decision
      >>> decision.p_values([2.5, 0.5], null=[0.0, 1.0, 2.0]).tolist()
      [0.25, 0.75]
    """
    checks.choice("side", side, ("greater", "less"))
    statistic, null = np.asarray(statistic), np.asarray(null)
    sizes = checks.shape("N K", statistic=statistic, null=null)
    checks.finite("statistic", statistic)
    checks.finite("null", null)
    if not sizes["K"]:
        raise errors.DataError("null contains no values; p-values need at least one sample for which the null is true.")
    uniform = None if seed is None else 1.0 - np.random.default_rng(seed).random(sizes["N"])
    if groups is None and null_groups is None:
        return _p_values(statistic, null, side, uniform)
    if groups is None or null_groups is None:
        name = "groups" if groups is None else "null_groups"
        raise errors.ConfigError(f"{name} is missing: calibration by group needs both groups and null_groups.")
    groups, null_groups = np.asarray(groups), np.asarray(null_groups)
    checks.shape("N K", sizes, groups=groups, null_groups=null_groups)
    p = np.empty(sizes["N"])
    for group in np.unique(groups):
        mask = groups == group
        p[mask] = _p_values(
            statistic[mask], null[null_groups == group], side, None if uniform is None else uniform[mask]
        )
    return p


def _p_values(statistic: np.ndarray, null: np.ndarray, side: str, uniform: np.ndarray | None) -> np.ndarray:
    ascending = np.sort(null)
    below = np.searchsorted(ascending, statistic, "left")
    not_above = np.searchsorted(ascending, statistic, "right")
    extreme_count = len(null) - not_above if side == "greater" else below
    tie_share: np.ndarray | float = 1.0 if uniform is None else uniform
    return (extreme_count + tie_share * (1 + not_above - below)) / (len(null) + 1)


def benjamini_hochberg(p: np.ndarray, fdr: float = 0.05) -> Rejections:
    """Performs the Benjamini-Hochberg test: an expected share of at most `fdr` of the rejected nulls is true.

    Holds for independent p-values, and for conservative conformal ones sharing a null (positively dependent).

    Args:
      p: [n] p-values in [0, 1].
      fdr: bound on the false discovery rate, in [0, 1].

    Returns:
      Rejections: adjusted = min over larger ranks of n p / rank, rejected where it is at most `fdr`.

    Raises:
      ShapeError: not a vector. DataError: p-values outside [0, 1] or NaN. ConfigError: fdr.

    Source: Benjamini and Hochberg 1995.

    Example:
      >>> from jaxunlearn.metrics.inference import decision
      >>> decision.benjamini_hochberg([0.01, 0.5, 0.02], fdr=0.05).rejected.tolist()
      [True, False, True]
    """
    checks.in_range("fdr", fdr, 0, 1)
    p = check(p)
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return Rejections(adjusted <= fdr, adjusted)


def check(p: np.ndarray) -> np.ndarray:
    """Returns p-values as float64 [n], checked to lie in [0, 1]; raises ShapeError or DataError."""
    p = np.asarray(p, np.float64)
    checks.shape("N", p=p)
    outside = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(outside):
        raise errors.DataError(
            f"p-values must lie in [0, 1], but entry {int(outside[0])} is {p[outside[0]]} ({len(outside)} out of "
            "range). Give p-values, not scores; `p_values` makes them from scores."
        )
    return p


def positive_predictive_value(true_rate: np.ndarray, false_rate: np.ndarray, prior: float) -> np.ndarray:
    """Returns the share of flagged samples that are members; NaN where nothing is flagged.

    Args:
      true_rate: [...] share of members that are flagged.
      false_rate: [...] share of non-members that are flagged.
      prior: share of members among all samples, in [0, 1].

    Source: Jayaraman et al. 2021, "Revisiting membership inference under realistic assumptions", section 3.
    """
    true_positives = prior * np.asarray(true_rate, np.float64)
    positives = true_positives + (1 - prior) * np.asarray(false_rate, np.float64)
    return np.divide(true_positives, positives, out=np.full(np.shape(positives), np.nan), where=positives > 0)
