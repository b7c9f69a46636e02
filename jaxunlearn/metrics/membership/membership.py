"""Membership attacks on one model's outputs: per-class thresholds and entropy regression. NumPy on the host.

    logits [N, C], labels [N] --output_features--> correctness, confidence, entropy, modified entropy, probability
    shadow members, shadow non-members --class_thresholds--> one threshold per class --song_mittal--> hit rates
    entropies of retained and test samples --entropy_attack--> share of forgotten samples called members

A shadow sample is one whose membership the attacker knows; in the evaluation of unlearning the shadows are retained
samples (members) and test samples (non-members) of the audited model itself.

Source: Song and Mittal, Systematic evaluation of privacy risks of machine learning models (thresholds); Chundawat et
al. and the SSD code (entropy regression).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from jaxunlearn import checks, errors
from jaxunlearn.metrics.membership.output_features import (
    COMPAT,
    Features,
    Samples,
    entropies,
    features,
    probability_features,
)

NEWTON_STEPS = 100
SETS = ("shadow_member", "shadow_non_member", "target_member", "target_non_member")


class Rates(NamedTuple):
    """Hit rates of one attack.

    Attributes:
      member: share of target members called members, NaN without such targets; higher = more leakage.
      non_member: share of target non-members called non-members, NaN without them; for forgotten samples higher =
        better forgotten, to be compared with the retrained model.
      thresholds: [C] float64, per class the smallest value that is called a member; None for correctness. On
        confidence, and on MINUS entropy and MINUS modified entropy.
    """

    member: float
    non_member: float
    thresholds: np.ndarray | None


class Sigmoid(NamedTuple):
    """P(member | x) = 1 / (1 + exp(-(slope x + intercept)))."""

    slope: float
    intercept: float


class EntropyAttack(NamedTuple):
    """Result of `entropy_attack`: share of forgotten samples called members, and the regression on the entropy."""

    member_rate: float
    sigmoid: Sigmoid


def class_thresholds(
    member: np.ndarray,
    member_labels: np.ndarray,
    non_member: np.ndarray,
    non_member_labels: np.ndarray,
    num_classes: int,
    *,
    compat: str = "corrected",
) -> np.ndarray:
    """Computes, for each class, the threshold that separates shadow members from non-members best.

    Among the observed values v of a class it is the one with the largest
    (P(member >= v) + P(non-member < v)) / 2; among equals the first, members before non-members, in data order. One
    sort per class, so 50,000 samples take milliseconds.

    Args:
      member: [n] values of shadow members, higher = more like a member.
      member_labels: [n] int.
      non_member: [k] values of shadow non-members.
      non_member_labels: [k] int.
      num_classes: C.
      compat: of a class without shadow members or without shadow non-members, where no rate is defined. "corrected":
        the threshold of all classes together. "faithful": 0, where the published search starts.

    Returns:
      [C] float64.

    Raises:
      ConfigError: unknown compat. ShapeError: values and labels differ in length. DataError: NaN or infinite values,
      labels out of range, or a side without samples.

    Source: Song and Mittal, section 3 and code.

    Example:
      >>> from jaxunlearn.metrics.membership import class_thresholds
      >>> class_thresholds([0.9, 0.8], [0, 1], [0.3, 0.5], [0, 1], num_classes=2).tolist()
      [0.9, 0.8]
    """
    checks.choice("compat", compat, COMPAT)
    member, non_member = np.asarray(member), np.asarray(non_member)
    checks.shape("N N K K", member=member, member_labels=member_labels, non_member=non_member,
                 non_member_labels=non_member_labels)  # fmt: skip
    for name, values, labels in (("member", member, member_labels), ("non_member", non_member, non_member_labels)):
        if not len(values):
            raise errors.DataError(f"{name} contains no sample; thresholds need shadow members and shadow non-members.")
        checks.finite(name, values)
        checks.labels(f"{name}_labels", labels, num_classes)
    thresholds = np.zeros(num_classes)
    if compat == "corrected":
        thresholds[:] = best_threshold(member, non_member)
    member_values, non_member_values = (
        _by_class(member, member_labels, num_classes),
        _by_class(non_member, non_member_labels, num_classes),
    )
    for label in range(num_classes):
        if len(member_values[label]) and len(non_member_values[label]):
            thresholds[label] = best_threshold(member_values[label], non_member_values[label])
    return thresholds


def best_threshold(member: np.ndarray, non_member: np.ndarray) -> float:
    """Returns the value of [n] members and [k] non-members with the best balanced accuracy; first among equals.

    Example:
      >>> from jaxunlearn.metrics.membership import best_threshold
      >>> best_threshold([0.9, 0.7], [0.3, 0.5])
      0.7
    """
    values = np.concatenate([member, non_member])
    hits = (len(member) - np.searchsorted(np.sort(member), values, "left")) / len(member)
    rejections = np.searchsorted(np.sort(non_member), values, "left") / len(non_member)
    return float(values[np.argmax(0.5 * (hits + rejections))])


def song_mittal(
    shadow_member: Samples,
    shadow_non_member: Samples,
    target_member: Samples | None,
    target_non_member: Samples | None,
    *,
    compat: str = "corrected",
) -> dict[str, Rates]:
    """Runs the per-class threshold attacks; each set of samples is a pair (logits [n, C], labels [n]).

    Args:
      shadow_member: known members, for example retained samples.
      shadow_non_member: known non-members, for example test samples.
      target_member: members to be judged, or None.
      target_non_member: non-members to be judged, for example the forgotten samples of an unlearned model, or None.
      compat: of classes without shadows, see `class_thresholds`. The modified entropy is the corrected one in both.

    Returns:
      "correctness", "confidence", "entropy", "modified_entropy" -> Rates. The attack's accuracy is the mean of the
      two rates.

    Raises:
      As `features` and `class_thresholds`; ShapeError if sets differ in C.

    Source: Song and Mittal, section 3 and code.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import song_mittal
      >>> confident, uncertain, labels = np.array([[9.0, 0.0]] * 3), np.array([[1.0, 0.0]] * 3), np.zeros(3, int)
      >>> rates = song_mittal((confident, labels), (uncertain, labels), None, (uncertain, labels))["confidence"]
      >>> rates.member, rates.non_member
      (nan, 1.0)
    """
    sample_sets = (shadow_member, shadow_non_member, target_member, target_non_member)
    return _threshold_rates(features, sample_sets, compat)


def song_mittal_probabilities(
    shadow_member: Samples,
    shadow_non_member: Samples,
    target_member: Samples | None,
    target_non_member: Samples | None,
    *,
    compat: str = "corrected",
) -> dict[str, Rates]:
    """Runs `song_mittal` on pairs (softmax probabilities [n, C], labels [n]), as the published code takes them.

    Args:
      shadow_member: known members.
      shadow_non_member: known non-members.
      target_member: members to be judged, or None.
      target_non_member: non-members to be judged, or None.
      compat: see `song_mittal`.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import song_mittal_probabilities
      >>> member, other = (np.array([[0.9, 0.1]]), np.array([0])), (np.array([[0.6, 0.4]]), np.array([0]))
      >>> song_mittal_probabilities(member, other, member, other)["entropy"].non_member
      1.0
    """
    sample_sets = (shadow_member, shadow_non_member, target_member, target_non_member)
    return _threshold_rates(probability_features, sample_sets, compat)


def entropy_attack(retain_logits: np.ndarray, test_logits: np.ndarray, forget_logits: np.ndarray) -> EntropyAttack:
    """Computes the share of forgotten samples that a logistic regression on the entropy calls members, in [0, 1].

    Lower = better forgotten; compare with the retrained model, whose share is not 0. The regression is fitted to all
    retained samples (members) and the test set (non-members), both kinds with equal total weight, with the published
    ridge slope^2 / 2; by Newton's method, to full precision.

    Args:
      retain_logits: [n, C] float, of one model.
      test_logits: [k, C].
      forget_logits: [f, C].

    Raises:
      ShapeError: sets differ in C. DataError: an empty set, fewer than 2 classes, NaN or infinite logits.

    Source: Chundawat et al., Can bad teaching induce forgetting?; SSD code.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import entropy_attack
      >>> confident, uncertain = np.array([[9.0, 0.0]] * 4), np.array([[0.5, 0.0]] * 4)
      >>> entropy_attack(confident, uncertain, forget_logits=uncertain).member_rate
      0.0
    """
    logits_by_name: dict[str, Any] = {
        "retain_logits": retain_logits,
        "test_logits": test_logits,
        "forget_logits": forget_logits,
    }
    checks.shape("RC TC FC", **logits_by_name)
    members, non_members, forgotten = (
        entropies(logits, name=name).astype(np.float64) for name, logits in logits_by_name.items()
    )
    values = np.concatenate([members, non_members])
    is_member = np.arange(len(values)) < len(members)
    weights = len(values) / (2 * np.where(is_member, len(members), len(non_members)))
    sigmoid = fit_sigmoid(values, is_member.astype(np.float64), weights, ridge=1.0)
    return EntropyAttack(float((sigmoid.slope * forgotten + sigmoid.intercept > 0).mean()), sigmoid)


def fit_sigmoid(values: np.ndarray, targets: np.ndarray, weights: np.ndarray, ridge: float) -> Sigmoid:
    """Fits a logistic regression of one variable.

    Minimises sum w (softplus(s) - t s) + ridge slope^2 / 2 with s = slope x + intercept, by Newton's method with
    halved steps (Lin, Lin and Weng, A note on Platt's probabilistic outputs).

    Args:
      values: [n] float64, x.
      targets: [n] float64, t in [0, 1].
      weights: [n] float64, w > 0.
      ridge: penalty on the slope, >= 0.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import fit_sigmoid
      >>> round(fit_sigmoid(np.array([-1.0, 1.0]), np.array([0.25, 0.75]), np.ones(2), ridge=0.0).slope, 3)
      1.099
    """
    x = np.stack([values, np.ones_like(values)])
    penalty = np.array([ridge, 0.0])

    def loss(theta: np.ndarray) -> float:
        logits = theta @ x
        return float(weights @ (np.logaddexp(0, logits) - targets * logits) + 0.5 * penalty @ theta**2)

    theta = np.array([0.0, scipy.special.logit(np.clip(weights @ targets / weights.sum(), 1e-12, 1 - 1e-12))])
    current = loss(theta)
    for _ in range(NEWTON_STEPS):
        p = scipy.special.expit(theta @ x)
        gradient = x @ (weights * (p - targets)) + penalty * theta
        curvature = (x * (weights * p * (1 - p))) @ x.T + np.diag(penalty)
        # The curvature is singular for a constant variable, or if the slope has saturated every sample.
        step = np.linalg.solve(curvature + 1e-12 * (1 + np.trace(curvature)) * np.eye(2), gradient)
        if gradient @ step <= 1e-14 * (1 + current):
            break  # further gains are lost in rounding
        size = 1.0
        while size > 1e-10 and loss(theta - size * step) > current - 1e-4 * size * (gradient @ step):
            size /= 2
        if size <= 1e-10:
            break
        theta = theta - size * step
        current = loss(theta)
    return Sigmoid(float(theta[0]), float(theta[1]))


def _by_class(values: np.ndarray, labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    order = np.argsort(labels, kind="stable")
    return np.split(values[order], np.searchsorted(np.asarray(labels)[order], np.arange(1, num_classes)))


def _threshold_rates(
    features_of: Callable[..., Features], sample_sets: tuple[Samples | None, ...], compat: str
) -> dict[str, Rates]:
    """Runs both attacks; `sample_sets` in the order of SETS, as pairs (outputs, labels) that `features_of` takes."""
    sets = {
        name: None if samples is None else (features_of(*samples, name=name), np.asarray(samples[1]))
        for name, samples in zip(SETS, sample_sets, strict=True)
    }
    probabilities: dict[str, Any] = {
        name: entry[0].probability for name, entry in sets.items() if entry is not None
    }  # fmt: skip
    for name, probability in probabilities.items():
        if probability.ndim != 2:
            raise errors.ShapeError(f"{name} has {probability.ndim} axes, expected [n, C]: one model at a time.")
    sizes = checks.shape(" ".join(f"{letter}C" for letter in "STKN"[: len(probabilities)]), **probabilities)
    members, non_members = sets["target_member"], sets["target_non_member"]

    def values(samples: tuple[Features, np.ndarray], name: str) -> np.ndarray:
        """Returns [n] values, higher = more like a member."""
        feature = getattr(samples[0], name)
        return -feature if "entropy" in name else feature

    shadow, shadow_outsiders = sets["shadow_member"], sets["shadow_non_member"]
    if shadow is None or shadow_outsiders is None:
        raise errors.DataError("threshold attacks need shadow members and shadow non-members.")
    rates = {}
    for name in ("correctness", "confidence", "entropy", "modified_entropy"):
        if name == "correctness":
            thresholds, borders = None, np.ones(sizes["C"])
        else:
            thresholds = borders = class_thresholds(
                values(shadow, name),
                shadow[1],
                values(shadow_outsiders, name),
                shadow_outsiders[1],
                sizes["C"],
                compat=compat,
            )
        hits = np.nan if members is None else (values(members, name) >= borders[members[1]]).mean()
        rejections = np.nan if non_members is None else (values(non_members, name) < borders[non_members[1]]).mean()
        rates[name] = Rates(float(hits), float(rejections), thresholds)
    return rates
