"""Intervals for what a report prints. NumPy and SciPy on the host: tiny inputs, special functions."""

import numpy as np
import scipy.stats

from jaxunlearn.records import Finding


def mean(values: np.ndarray, *, metric: str, of: str, against: str = "", level: float = 0.95) -> Finding:
    """Mean over independent models with Student's t interval.

    Args:
      values: [n] one number per model; non-finite ones (diverged models) are left out and not counted.
      metric: what is measured.
      of: of whom.
      against: on what.
      level: of the interval.

    Returns:
      A Finding; low = high = NaN for n < 2, value NaN for n = 0.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    if n == 0:
        return Finding(float("nan"), metric=metric, n=0, level=level, of=of, against=against)
    center = float(values.mean())
    if n == 1:
        return Finding(center, metric=metric, n=1, level=level, of=of, against=against)
    half = float(scipy.stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Finding(center, center - half, center + half, metric=metric, n=n, level=level, of=of, against=against)
