"""epsilon-hat and challenge epsilon the plain way, one sample and one rule at a time: baselines of bench `epsilon`."""

import math

import numpy as np
import scipy.stats
from sklearn.metrics import det_curve


def epsilon_hat(retrained: np.ndarray, unlearned: np.ndarray, labels: np.ndarray, delta: float = 0.05) -> np.ndarray:
    """[S] from logits [S, N, C]: Gaussian fits, a density per model, scikit-learn's curve, a loop over its points."""
    found = np.empty(len(labels))
    for sample, label in enumerate(labels):
        groups = [_margins(one[sample].astype(np.float64), label) for one in (retrained, unlearned)]
        fits = [(values.mean(), values.std()) for values in groups]
        first, second = (
            np.array(
                [scipy.stats.norm.pdf(value, *fits[1]) / scipy.stats.norm.pdf(value, *fits[0]) for value in values]
            )
            for values in groups
        )
        if np.median(first) > np.median(second):
            truth = np.append(np.ones(len(first)), np.zeros(len(second)))
        else:
            truth = np.append(np.zeros(len(first)), np.ones(len(second)))
        fpr, fnr, _ = det_curve(truth, np.append(first, second))
        found[sample] = _largest(fpr, fnr, delta)
    return found


def _margins(logits: np.ndarray, label: int) -> np.ndarray:
    return np.array([row[label] - np.delete(row, label).max() for row in logits])


def _largest(fpr: np.ndarray, fnr: np.ndarray, delta: float, slack: float = 1e-8) -> float:
    best = math.nan
    for one, other in zip(fpr.tolist(), fnr.tolist(), strict=True):
        if one == 0 and other == 0:
            return math.inf
        if one == 0 or other == 0:
            continue
        for a, b in ((one, other), (other, one)):
            if 1 - delta - a + slack > 0:
                best = np.fmax(best, math.log(1 - delta - a + slack) - math.log(b + slack))
    return float(best)


def challenge_epsilon(retrained: np.ndarray, unlearned: np.ndarray, delta: float = 1e-5) -> np.ndarray:
    """[S] from confidences [S, N]: every one- and two-sided rule of the challenge on every model."""
    return np.array([_every_rule(*pair, delta) for pair in zip(retrained, unlearned, strict=True)])


def _every_rule(retrained: np.ndarray, unlearned: np.ndarray, delta: float) -> float:
    is_upper = np.median(retrained) > np.median(unlearned)
    positive, negative = (retrained, unlearned) if is_upper else (unlearned, retrained)
    ranges = np.ptp(positive), np.ptp(negative)
    if min(ranges) < 0.01 * max(ranges):
        return 50.0
    both = np.concatenate([positive, negative])
    at = np.linspace(both.min(), both.max(), math.ceil(np.ptp(both) * 100), dtype=np.float32)
    best = _best(positive[:, None] >= at, negative[:, None] >= at, delta)
    inner, outer = (positive, negative) if ranges[0] < ranges[1] else (negative, positive)
    width = np.ptp(inner)
    low, high = inner.min() + width - 2, inner.max() + 2
    for right in np.linspace(low, high, math.ceil((high - low) * 100)):
        left = np.linspace(right - width - 2, right - width + 2, 400)
        is_inside = [(left <= one[:, None]) & (one[:, None] <= right) for one in (inner, outer)]
        best = max(best, _best(*is_inside, delta))
    return min(best, 50.0)


def _best(is_hit: np.ndarray, is_false: np.ndarray, delta: float) -> float:
    """Largest epsilon of rules from what they take of the group they mean [N, T] and of the other one."""
    fnr, fpr = (1 - is_hit.mean(0)).astype(np.float32), is_false.mean(0).astype(np.float32)
    if ((fnr == 0) & (fpr == 0)).any():
        return math.inf
    kept = (fnr > 0) & (fpr > 0)
    if not kept.any():
        return 0.0
    fnr, fpr = fnr[kept], fpr[kept]
    with np.errstate(invalid="ignore", divide="ignore"):
        forms = np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr)
    return float(np.fmax(np.fmax(*forms), 0).max())
