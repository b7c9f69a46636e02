"""Plain epsilon-hat and challenge epsilon, one sample and one rule at a time: baselines of the bench `epsilon`."""

import math

import numpy as np
import scipy.stats
from sklearn.metrics import det_curve


def epsilon_hat(retrained: np.ndarray, unlearned: np.ndarray, labels: np.ndarray, delta: float = 0.05) -> np.ndarray:
    """Computes epsilon-hat [S]: Gaussian fits, a density per model, scikit-learn's curve, a loop over its points.

    Args:
      retrained: [S, N, C] logits.
      unlearned: [S, N, C] logits.
      labels: [S] true classes.
      delta: of (epsilon, delta)-unlearning.
    """
    epsilons = np.empty(len(labels))
    for sample, label in enumerate(labels):
        groups = [_margins(logits[sample].astype(np.float64), label) for logits in (retrained, unlearned)]
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
        epsilons[sample] = _largest(fpr, fnr, delta)
    return epsilons


def _margins(logits: np.ndarray, label: int) -> np.ndarray:
    return np.array([row[label] - np.delete(row, label).max() for row in logits])


def _largest(fpr: np.ndarray, fnr: np.ndarray, delta: float, smoothing: float = 1e-8) -> float:
    best = math.nan
    for false_positives, false_negatives in zip(fpr.tolist(), fnr.tolist(), strict=True):
        if false_positives == 0 and false_negatives == 0:
            return math.inf
        if false_positives == 0 or false_negatives == 0:
            continue
        for a, b in ((false_positives, false_negatives), (false_negatives, false_positives)):
            if 1 - delta - a + smoothing > 0:
                best = np.fmax(best, math.log(1 - delta - a + smoothing) - math.log(b + smoothing))
    return float(best)


def challenge_epsilon(retrained: np.ndarray, unlearned: np.ndarray, delta: float = 1e-5) -> np.ndarray:
    """Computes epsilon [S] from confidences [S, N]: every one- and two-sided rule of the challenge on every model."""
    return np.array([_every_rule(*pair, delta) for pair in zip(retrained, unlearned, strict=True)])


def _every_rule(retrained: np.ndarray, unlearned: np.ndarray, delta: float) -> float:
    is_upper = np.median(retrained) > np.median(unlearned)
    positive, negative = (retrained, unlearned) if is_upper else (unlearned, retrained)
    ranges = np.ptp(positive), np.ptp(negative)
    if min(ranges) < 0.01 * max(ranges):
        return 50.0
    pooled = np.concatenate([positive, negative])
    thresholds = np.linspace(pooled.min(), pooled.max(), math.ceil(np.ptp(pooled) * 100), dtype=np.float32)
    best = _best(positive[:, None] >= thresholds, negative[:, None] >= thresholds, delta)
    inner, outer = (positive, negative) if ranges[0] < ranges[1] else (negative, positive)
    width = np.ptp(inner)
    low, high = inner.min() + width - 2, inner.max() + 2
    for right in np.linspace(low, high, math.ceil((high - low) * 100)):
        left = np.linspace(right - width - 2, right - width + 2, 400)
        is_inside = [(left <= confidences[:, None]) & (confidences[:, None] <= right) for confidences in (inner, outer)]
        best = max(best, _best(*is_inside, delta))
    return min(best, 50.0)


def _best(is_hit: np.ndarray, is_false: np.ndarray, delta: float) -> float:
    """Returns the largest epsilon of T rules, from their hits [N, T] in the intended group and in the other one."""
    fnr, fpr = (1 - is_hit.mean(0)).astype(np.float32), is_false.mean(0).astype(np.float32)
    if ((fnr == 0) & (fpr == 0)).any():
        return math.inf
    is_finite = (fnr > 0) & (fpr > 0)
    if not is_finite.any():
        return 0.0
    fnr, fpr = fnr[is_finite], fpr[is_finite]
    with np.errstate(invalid="ignore", divide="ignore"):
        bounds = np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr)
    return float(np.fmax(np.fmax(*bounds), 0).max())
