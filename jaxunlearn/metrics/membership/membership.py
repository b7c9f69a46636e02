"""Membership attacks on one model's outputs: features, per-class thresholds, entropy regression. NumPy on the host.

    logits [N, C], labels [N] --features--> correctness, confidence, entropy, modified entropy, probability
    shadow members, shadow non-members --class_thresholds--> one threshold per class --song_mittal--> hit rates
    entropies of retained and test samples --entropy_attack--> share of forgotten samples called members

A shadow sample is one whose membership the attacker knows; in the evaluation of unlearning the shadows are retained
samples (members) and test samples (non-members) of the audited model itself.

Features are float32 like the published ones, and are made from logits: a float32 probability of exactly 1 no longer
says how far from 1 it was. Only the published form of the threshold attack starts from probabilities.
Source: Song and Mittal, Systematic evaluation of privacy risks of machine learning models (thresholds, modified
entropy); the evaluation of the SalUn code (five features); Chundawat et al. and the SSD code (entropy regression).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from jaxunlearn import checks, errors

COMPAT = ("corrected", "faithful")
# Published logarithms of a probability are floored here: log 1e-30 = -69.08.
LOG_FLOOR = 1e-30
NEWTON_STEPS = 100
SETS = ("shadow_member", "shadow_non_member", "target_member", "target_non_member")
Samples = tuple[np.ndarray, np.ndarray]


class Features(NamedTuple):
    """What the attacks look at, float32 (float64 where probabilities were).

    Attributes:
      correctness: [..., N] 1 where the most probable class is the label, else 0; higher = more like a member.
      confidence: [..., N] probability of the label in [0, 1]; higher = more like a member.
      entropy: [..., N] in nats, >= 0; LOWER = more like a member.
      modified_entropy: [..., N] >= 0, also grows where the model is sure of a wrong class; LOWER = more like a member.
      probability: [..., N, C] the whole softmax.
    """

    correctness: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    modified_entropy: np.ndarray
    probability: np.ndarray


class Rates(NamedTuple):
    """How often one attack is right.

    Attributes:
      member: share of target members called members, NaN without such targets; higher = more leaks.
      non_member: share of target non-members called non-members, NaN without them; for forgotten samples higher =
        better forgotten, to be compared with the retrained model.
      thresholds: [C] float64, a sample of class c is called a member from there on; None for correctness. On
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


def features(logits: np.ndarray, labels: np.ndarray, *, compat: str = "corrected", name: str = "") -> Features:
    """Features of one model, or of M models at once.

    Args:
      logits: [N, C] or [M, N, C] float, C >= 2, N >= 1; float16 and bfloat16 are computed in float32.
      labels: [N] int.
      compat: of the modified entropy. "corrected": -(1 - p_y) log p_y - sum over c != y of p_c log(1 - p_c), with
        1 - p taken from the logits, so that it is right to rounding where p is nearly 1. "faithful": as in the SalUn
        code, whose values depend on which labels occur: for every class c of S, the set of labels in this call,
        -(1 - p_c) log p_c; for every other class -p_c log p_c. Logarithms are floored at 1e-30 in both.
      name: what errors call these samples ("retain": retain_logits, retain_labels).

    Raises:
      ConfigError: unknown compat. ShapeError: arrays do not fit together. DataError: no sample, fewer than 2 classes,
      NaN or infinite logits, labels out of range.

    Source: SalUn code, evaluation with SVCs; Song and Mittal, section 3.
    """
    checks.choice("compat", compat, COMPAT)
    logits, labels = _checked(f"{name}_logits" if name else "logits", logits, labels)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    total = exponentials.sum(-1, keepdims=True)
    probability = exponentials / total
    top = probability.argmax(-1)[..., None]
    np.put_along_axis(exponentials, top, 0, -1)
    rest = 1 - probability
    np.put_along_axis(rest, top, exponentials.sum(-1, keepdims=True) / total, -1)
    return _features(probability, rest, labels, compat)


def probability_features(
    probability: np.ndarray, labels: np.ndarray, *, compat: str = "corrected", name: str = ""
) -> Features:
    """`features` from softmax outputs [N, C] or [M, N, C], in their own precision; 1 - p is only as good as p is.

    Raises:
      As `features`; DataError also where rows are not probabilities.
    """
    checks.choice("compat", compat, COMPAT)
    dtype = np.float64 if np.asarray(probability).dtype == np.float64 else np.float32
    title = f"{name}_probabilities" if name else "probabilities"
    probability, labels = _checked(title, probability, labels, dtype)
    _check_probability(title, probability)
    return _features(probability, 1 - probability, labels, compat)


def entropies(logits: np.ndarray, *, name: str = "logits") -> np.ndarray:
    """Entropy of the softmax in nats: [..., N] float32 of logits [N, C] or [M, N, C]; LOWER = more like a member.

    Raises:
      ShapeError, DataError: as `features`.
    """
    logits = _checked_outputs(name, logits)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return _entropy(exponentials / exponentials.sum(-1, keepdims=True))


def class_thresholds(
    member: np.ndarray,
    member_labels: np.ndarray,
    non_member: np.ndarray,
    non_member_labels: np.ndarray,
    num_classes: int,
    *,
    compat: str = "corrected",
) -> np.ndarray:
    """The threshold of each class that tells shadow members from non-members best.

    Among the observed values v of a class it is the one with the largest
    (P(member >= v) + P(non-member < v)) / 2; among equals the first, members before non-members, in data order. One
    sort per class, so 50,000 samples take milliseconds.

    Args:
      member: [n] values of shadow members, higher = more like a member; `member_labels` [n] int.
      member_labels: see above.
      non_member: [k] values of shadow non-members; `non_member_labels` [k] int.
      non_member_labels: see above.
      num_classes: C.
      compat: of a class that has no shadow members or no shadow non-members, where no rate is defined. "corrected":
        the threshold of all classes together. "faithful": 0, where the published search starts.

    Returns:
      [C] float64.

    Raises:
      ConfigError: unknown compat. ShapeError: values and labels differ in length. DataError: NaN or infinite values,
      labels out of range, or a side without samples.

    Source: Song and Mittal, section 3 and code.
    """
    checks.choice("compat", compat, COMPAT)
    member, non_member = np.asarray(member), np.asarray(non_member)
    checks.shape("N N K K", member=member, member_labels=member_labels, non_member=non_member,
                 non_member_labels=non_member_labels)  # fmt: skip
    for name, values, labels in (("member", member, member_labels), ("non_member", non_member, non_member_labels)):
        if not len(values):
            raise errors.DataError(f"{name} holds no sample; thresholds need shadow members and shadow non-members.")
        checks.finite(name, values)
        checks.labels(f"{name}_labels", labels, num_classes)
    found = np.zeros(num_classes)
    if compat == "corrected":
        found[:] = best_threshold(member, non_member)
    own, others = _by_class(member, member_labels, num_classes), _by_class(non_member, non_member_labels, num_classes)
    for number in range(num_classes):
        if len(own[number]) and len(others[number]):
            found[number] = best_threshold(own[number], others[number])
    return found


def best_threshold(member: np.ndarray, non_member: np.ndarray) -> float:
    """The observed value of [n] members and [k] non-members with the best balanced accuracy; first among equals."""
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
    """Per-class threshold attacks; each set of samples is a pair (logits [n, C], labels [n]).

    Args:
      shadow_member: known members, retained samples for instance.
      shadow_non_member: known non-members, test samples for instance.
      target_member: members to be judged, or None.
      target_non_member: non-members to be judged, the forgotten samples of an unlearned model for instance, or None.
      compat: of classes without shadows, see `class_thresholds`. The modified entropy is the corrected one in both.

    Returns:
      "correctness", "confidence", "entropy", "modified_entropy" -> Rates. The attack's accuracy is the mean of the
      two rates.

    Raises:
      As `features` and `class_thresholds`; ShapeError where sets differ in C.

    Source: Song and Mittal, section 3 and code.
    """
    given = (shadow_member, shadow_non_member, target_member, target_non_member)
    return _threshold_rates(features, given, compat)


def song_mittal_probabilities(
    shadow_member: Samples,
    shadow_non_member: Samples,
    target_member: Samples | None,
    target_non_member: Samples | None,
    *,
    compat: str = "corrected",
) -> dict[str, Rates]:
    """`song_mittal` on pairs (softmax probabilities [n, C], labels [n]), as the published code takes them."""
    given = (shadow_member, shadow_non_member, target_member, target_non_member)
    return _threshold_rates(probability_features, given, compat)


def entropy_attack(retain_logits: np.ndarray, test_logits: np.ndarray, forget_logits: np.ndarray) -> EntropyAttack:
    """Share of forgotten samples that a logistic regression on the entropy calls members, in [0, 1].

    Lower = better forgotten; compare with the retrained model, which is not at 0. The regression is fitted to all
    retained samples (members) and the test set (non-members), both kinds weighing the same, with the ridge
    slope^2 / 2 of the published one; by Newton's method, so to the last digits.

    Args:
      retain_logits: [n, C] float, of one model.
      test_logits: [k, C].
      forget_logits: [f, C].

    Raises:
      ShapeError: sets differ in C. DataError: an empty set, fewer than 2 classes, NaN or infinite logits.

    Source: Chundawat et al., Can bad teaching induce forgetting?; SSD code.
    """
    given: dict[str, Any] = {"retain_logits": retain_logits, "test_logits": test_logits, "forget_logits": forget_logits}
    checks.shape("RC TC FC", **given)
    members, others, forgotten = (entropies(logits, name=name).astype(np.float64) for name, logits in given.items())
    values = np.concatenate([members, others])
    is_member = np.arange(len(values)) < len(members)
    weights = len(values) / (2 * np.where(is_member, len(members), len(others)))
    sigmoid = fit_sigmoid(values, is_member.astype(np.float64), weights, ridge=1.0)
    return EntropyAttack(float((sigmoid.slope * forgotten + sigmoid.intercept > 0).mean()), sigmoid)


def fit_sigmoid(values: np.ndarray, targets: np.ndarray, weights: np.ndarray, ridge: float) -> Sigmoid:
    """Logistic regression of one variable: values, targets in [0, 1] and weights, each [n] float64.

    Minimises sum w (softplus(s) - t s) + ridge slope^2 / 2 with s = slope x + intercept, by Newton's method with
    halved steps (Lin, Lin and Weng, A note on Platt's probabilistic outputs).
    """
    x = np.stack([values, np.ones_like(values)])
    penalty = np.array([ridge, 0.0])

    def loss(theta: np.ndarray) -> float:
        line = theta @ x
        return float(weights @ (np.logaddexp(0, line) - targets * line) + 0.5 * penalty @ theta**2)

    theta = np.array([0.0, scipy.special.logit(np.clip(weights @ targets / weights.sum(), 1e-12, 1 - 1e-12))])
    current = loss(theta)
    for _ in range(NEWTON_STEPS):
        p = scipy.special.expit(theta @ x)
        gradient = x @ (weights * (p - targets)) + penalty * theta
        curvature = (x * (weights * p * (1 - p))) @ x.T + np.diag(penalty)
        # A constant variable, or a slope that has saturated every sample, leaves the curvature singular.
        step = np.linalg.solve(curvature + 1e-12 * (1 + np.trace(curvature)) * np.eye(2), gradient)
        if gradient @ step <= 1e-14 * (1 + current):
            break  # what a step can still gain is lost in rounding
        size = 1.0
        while size > 1e-10 and loss(theta - size * step) > current - 1e-4 * size * (gradient @ step):
            size /= 2
        if size <= 1e-10:
            break
        theta = theta - size * step
        current = loss(theta)
    return Sigmoid(float(theta[0]), float(theta[1]))


def _checked(name: str, values: Any, labels: Any, dtype: type = np.float32) -> Samples:
    """Outputs as float arrays and labels, checked against each other."""
    labels_name = name.removesuffix("logits").removesuffix("probabilities") + "labels"
    axes = "MNC" if np.ndim(values) == 3 else "NC"
    sizes = checks.shape(f"{axes} N", **{name: values, labels_name: labels})
    values, labels = _checked_outputs(name, values, dtype), np.asarray(labels)
    checks.labels(labels_name, labels, sizes["C"])
    return values, labels


def _checked_outputs(name: str, values: Any, dtype: type = np.float32) -> np.ndarray:
    axes = "MNC" if np.ndim(values) == 3 else "NC"
    sizes = checks.shape(axes, **{name: values})
    if sizes["C"] < 2 or not np.size(values):
        raise errors.DataError(f"{name} has shape {np.shape(values)}: attacks need at least 1 sample and 2 classes.")
    with np.errstate(over="ignore"):
        values = np.asarray(values, dtype)
    checks.finite(name, values, axes)
    return values


def _entropy(probability: np.ndarray) -> np.ndarray:
    return -(probability * np.log(np.maximum(probability, probability.dtype.type(LOG_FLOOR)))).sum(-1)


def _check_probability(name: str, probability: np.ndarray) -> None:
    total = probability.sum(-1)
    if probability.min() < 0 or probability.max() > 1 + 1e-6 or np.abs(total - 1).max() > 1e-2:
        raise errors.DataError(
            f"{name} range from {probability.min():.4g} to {probability.max():.4g} and rows sum to "
            f"{total.min():.4g} to {total.max():.4g}; expected softmax outputs. Are these logits?"
        )


def _features(probability: np.ndarray, rest: np.ndarray, labels: np.ndarray, compat: str) -> Features:
    """Features from probabilities [..., N, C] and `rest`, what they leave to 1."""
    logs = -np.log(np.maximum(probability, probability.dtype.type(LOG_FLOOR)))
    if compat == "faithful":
        # The published floor is for p = 0 alone.
        exact = -np.log(np.where(probability > 0, probability, probability.dtype.type(LOG_FLOOR)))
        occurs = np.isin(np.arange(probability.shape[-1]), labels)
        modified = (np.where(occurs, 1 - probability, probability) * exact).sum(-1)
    else:
        own = np.arange(probability.shape[-1]) == labels[:, None]
        rest_logs = -np.log(np.maximum(rest, rest.dtype.type(LOG_FLOOR)))
        modified = (np.where(own, rest, probability) * np.where(own, logs, rest_logs)).sum(-1)
    index = np.broadcast_to(labels[:, None], (*probability.shape[:-1], 1))
    return Features(
        correctness=(probability.argmax(-1) == labels).astype(probability.dtype),
        confidence=np.take_along_axis(probability, index, -1)[..., 0],
        entropy=_entropy(probability),
        modified_entropy=modified,
        probability=probability,
    )


def _by_class(values: np.ndarray, labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    order = np.argsort(labels, kind="stable")
    return np.split(values[order], np.searchsorted(np.asarray(labels)[order], np.arange(1, num_classes)))


def _threshold_rates(
    features_of: Callable[..., Features], given: tuple[Samples | None, ...], compat: str
) -> dict[str, Rates]:
    """Both attacks: `given` in the order of SETS, as pairs (outputs, labels) that `features_of` takes."""
    sets = {
        name: None if samples is None else (features_of(*samples, name=name), np.asarray(samples[1]))
        for name, samples in zip(SETS, given, strict=True)
    }
    present: dict[str, Any] = {name: one[0].probability for name, one in sets.items() if one is not None}
    for name, probability in present.items():
        if probability.ndim != 2:
            raise errors.ShapeError(f"{name} has {probability.ndim} axes, expected [n, C]: one model at a time.")
    sizes = checks.shape(" ".join(f"{letter}C" for letter in "STKN"[: len(present)]), **present)
    members, non_members = sets["target_member"], sets["target_non_member"]

    def values(samples: tuple[Features, np.ndarray], name: str) -> np.ndarray:
        """[n] higher = more like a member."""
        found = getattr(samples[0], name)
        return -found if "entropy" in name else found

    shadow, outside = sets["shadow_member"], sets["shadow_non_member"]
    if shadow is None or outside is None:
        raise errors.DataError("threshold attacks need shadow members and shadow non-members.")
    found = {}
    for name in ("correctness", "confidence", "entropy", "modified_entropy"):
        if name == "correctness":
            thresholds, borders = None, np.ones(sizes["C"])
        else:
            thresholds = borders = class_thresholds(
                values(shadow, name), shadow[1], values(outside, name), outside[1], sizes["C"], compat=compat
            )
        hits = np.nan if members is None else (values(members, name) >= borders[members[1]]).mean()
        rejections = np.nan if non_members is None else (values(non_members, name) < borders[non_members[1]]).mean()
        found[name] = Rates(float(hits), float(rejections), thresholds)
    return found
