"""Split conformal prediction: thresholds, prediction sets, coverage, set size, CR, recover ratio; all models at once.

    q_hat = calibrate(calibration_logits, calibration_labels, alphas)     [..., A]
    sets = predict(logits, labels, q_hat)                                 per sample: covered, size, correct
    prediction_sets.summarise(sets)                                       coverage, set size, CR, recover ratio ...
    evaluate(...)                                                         the three in one jitted call, [M, N, C] in

A label is in the set of a sample where its non-conformity score is at most q_hat, so one function of (logits, label)
serves calibration and prediction and the guarantee is exact: for exchangeable samples P(label in set) >= 1 - alpha.
Differs from the published code in float32 rounding: that compares p_c >= 1 - q_hat, which rounds a second time, so that
a label may lie outside a set whose threshold is its own score (it matters for q_hat within 1e-5 of 1, and for ties).

| score | of a label c | source |
| --- | --- | --- |
| lac | 1 - p_c, float32 | Sadinle et al. 2019; the conformal unlearning code |
| log | -log p_c: the same sets, but no rounding of 1 - p where confidences are tiny | |
| aps | probability of all labels up to c, most probable first (not randomised) | Romano et al. 2020 |
| raps | aps + lam * max(0, place of c - k_reg) | Angelopoulos et al. 2021 |

"Conformal unlearning" is "Redefining Machine Unlearning: A Conformal Prediction-Motivated Approach" and its code.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics.conformal.prediction_sets import Counts, Quality, Sets, count, quality

QUANTILE_RULES = ("published", "textbook")
SCORES = ("lac", "log", "aps", "raps")


class Options(NamedTuple):
    """How labels are scored and thresholds chosen.

    Attributes:
      score: one of `SCORES`.
      rank: of the calibration scores, ascending, the threshold is the k-th for k = ceil((n + 1) (1 - alpha)) by
        "textbook"; by "published" (the published code: a quantile call that rounds up) the next one, so that coverage
        is up to 1 / (n + 1) higher.
      lam, k_reg: of raps.
    """

    score: str = "lac"
    quantile_rule: str = "published"
    lam: float = 0.01
    k_reg: int = 5


STANDARD = Options()


class Report(NamedTuple):
    """q_hat [..., A] and the quality of the sets that it makes."""

    q_hat: Any
    quality: Quality


def check_alphas(alphas: Any) -> tuple[float, ...]:
    """The levels as plain floats.

    Raises:
      ConfigError: none at all, or one outside (0, 1).
    """
    found = tuple(float(one) for one in np.atleast_1d(np.asarray(alphas, np.float64)))
    if not found:
        raise errors.ConfigError("no alpha given; give at least one in (0, 1), e.g. 0.1.")
    for one in found:
        if not 0.0 < one < 1.0:
            raise errors.ConfigError(
                f"alpha = {one}: must lie between 0 and 1, both excluded. It is the share of samples that may miss "
                "their label, e.g. 0.05 or 0.1."
            )
    return found


def check_options(options: Options) -> None:
    """Raises a ConfigError for an unknown score or quantile rule, or values of raps out of range."""
    checks.choice("conformal score", options.score, SCORES)
    checks.choice("quantile rule", options.quantile_rule, QUANTILE_RULES)
    checks.in_range("raps lam", options.lam, 0.0)
    checks.in_range("raps k_reg", options.k_reg, 0)


def rank_of(n: int, alpha: float, quantile_rule: str = "published") -> int:
    """The place (from 0) of the threshold among n ascending scores; n where no finite threshold keeps the guarantee.

    With k = ceil((n + 1) (1 - alpha)): k - 1 by "textbook", min(k, n - 1) by "published"; n where k > n (the published
    code raises there): the sets are then full.
    """
    k = math.ceil((n + 1) * (1 - alpha))
    if k > n:
        return n
    return k - 1 if quantile_rule == "textbook" else min(k, n - 1)


def smallest_calibration(alpha: float) -> int:
    """The fewest calibration samples that give a finite threshold at this level."""
    n = max(1, math.floor(1 / alpha) - 2)
    while rank_of(n, alpha) >= n:
        n += 1
    return n


def threshold(scores: Any, alpha: float, quantile_rule: str = "published") -> float:
    """q_hat of calibration scores [n] on the host, in their own precision; inf where n is too small for alpha.

    Raises:
      ConfigError: alpha outside (0, 1), unknown quantile rule. DataError: no score, or NaN among them.
    """
    (alpha,) = check_alphas(alpha)
    checks.choice("quantile rule", quantile_rule, QUANTILE_RULES)
    values = np.asarray(scores).ravel()
    if not len(values) or np.isnan(values).any():
        raise errors.DataError("calibration scores must be at least one number and no NaN.")
    place = rank_of(len(values), alpha, quantile_rule)
    return float(np.sort(values)[place]) if place < len(values) else math.inf


def label_scores(logits: jax.Array, options: Options = STANDARD) -> jax.Array:
    """Non-conformity of every label: [..., C] float32, higher = fits the sample less. `logits` [..., C]."""
    logits = jnp.asarray(logits, jnp.float32)
    if options.score == "log":
        return -jax.nn.log_softmax(logits)
    probabilities = jax.nn.softmax(logits)
    if options.score == "lac":
        return 1.0 - probabilities
    order = jnp.argsort(-probabilities, axis=-1)  # stable: among equals the lower label comes first, always
    ordered = jnp.take_along_axis(probabilities, order, -1)
    # From the small end, so that the last label scores exactly 1 whatever float32 makes of the sum.
    behind = jnp.cumsum(ordered[..., ::-1], -1)[..., ::-1]
    upto = 1.0 - jnp.concatenate([behind[..., 1:], jnp.zeros_like(behind[..., :1])], -1)
    if options.score == "raps":
        place = jnp.arange(1, logits.shape[-1] + 1)
        upto = upto + options.lam * jnp.maximum(place - options.k_reg, 0)
    return jnp.take_along_axis(upto, jnp.argsort(order, axis=-1), -1)


def own_scores(logits: jax.Array, labels: jax.Array, options: Options = STANDARD) -> jax.Array:
    """Non-conformity [..., N] of each sample's own label. `logits` [..., N, C], `labels` [N] or [..., N]."""
    every = label_scores(logits, options)
    places = jnp.broadcast_to(labels, every.shape[:-1])[..., None]
    return jnp.take_along_axis(every, places, -1)[..., 0]


def quantiles(scores: jax.Array, places: Any) -> jax.Array:
    """q_hat [A] of calibration scores [n]: the values at `places` [A] (from 0, ascending); inf at place n.

    Scores that are not to count are +inf, with places worked out for the rest.
    """
    return jnp.append(jnp.sort(scores), jnp.inf)[jnp.asarray(places)]


def calibrate(logits: Any, labels: Any, alphas: Any, options: Options = STANDARD, where: Any = None) -> np.ndarray:
    """Thresholds of one model or of many.

    Args:
      logits: [n, C] or [M, n, C] float, of calibration samples: like the data the sets are for, and not trained on.
      labels: [n] int.
      alphas: A levels in (0, 1).
      options: score and quantile rule.
      where: [n] or [M, n] bool, the samples that count; None = all.

    Returns:
      q_hat [A] or [M, A] float32; inf where too few samples count for that alpha (`smallest_calibration`): sets are
      full there.

    Raises:
      ConfigError, ShapeError, DataError: bad alphas, options, shapes, labels, or logits that are not finite.
    """
    alphas = check_alphas(alphas)
    check_options(options)
    values, kept, single = _checked("calibration logits", logits, labels, where)
    return _squeeze(_calibrate(values, np.asarray(labels, np.int32), kept, _places(kept, alphas, options), options),
                    single)  # fmt: skip


def predict(logits: Any, labels: Any, q_hat: Any, options: Options = STANDARD) -> Sets:
    """What the prediction sets of one model or of many say of every sample.

    Args:
      logits: [N, C] or [M, N, C] float; `labels`: [N] int.
      labels: see above.
      q_hat: [A] or [M, A], of `calibrate` with the same options.
      options: score and quantile rule.

    Raises:
      ConfigError, ShapeError, DataError: as `calibrate`; q_hat that does not fit or is NaN.
    """
    check_options(options)
    values, _, single = _checked("logits", logits, labels, None)
    thresholds = np.asarray(q_hat, np.float32)
    checks.shape("A" if single else "MA", {} if single else {"M": len(values)}, q_hat=thresholds)
    if np.isnan(thresholds).any():
        raise errors.DataError("q_hat holds NaN; thresholds are numbers or +inf.")
    found = _predict(values, np.asarray(labels, np.int32), thresholds[None] if single else thresholds, options)
    return _squeeze(found, single)


def prediction_sets(logits: Any, q_hat: Any, options: Options = STANDARD) -> np.ndarray:
    """The sets themselves, [A, N, C] bool, of ONE model's logits [N, C] at thresholds [A]."""
    check_options(options)
    checks.shape("NC", logits=logits)
    thresholds = jnp.asarray(np.asarray(q_hat, np.float32))[:, None, None]
    return np.asarray(label_scores(jnp.asarray(logits), options) <= thresholds)


def evaluate(
    calibration_logits: Any,
    calibration_labels: Any,
    logits: Any,
    labels: Any,
    alphas: Any,
    options: Options = STANDARD,
) -> Report:
    """Thresholds and quality of the sets of one model or of many, for all alphas: one jitted call.

    Args:
      calibration_logits: [n, C] or [M, n, C]; `calibration_labels` [n].
      calibration_labels: see above.
      logits: [N, C] or [M, N, C]; `labels` [N].
      labels: see above.
      alphas: A levels.
      options: score and quantile rule.

    Returns:
      `Report`, with the axes [A] or [M, A].

    Raises:
      ConfigError, ShapeError, DataError: as `calibrate`.
    """
    alphas = check_alphas(alphas)
    check_options(options)
    known, kept, single = _checked("calibration logits", calibration_logits, calibration_labels, None)
    values, _, also = _checked("logits", logits, labels, None)
    if single != also or len(known) != len(values) or known.shape[-1] != values.shape[-1]:
        raise errors.ShapeError(
            f"calibration logits have shape {np.shape(calibration_logits)} and logits {np.shape(logits)}: both must "
            "be of the same models and classes, [M, n, C] and [M, N, C]."
        )
    found = _evaluate(known, np.asarray(calibration_labels, np.int32), kept, _places(kept, alphas, options), values,
                      np.asarray(labels, np.int32), options)  # fmt: skip
    return _squeeze(Report(found[0], quality(found[1])), single)


def _checked(name: str, logits: Any, labels: Any, where: Any) -> tuple[Any, np.ndarray, bool]:
    """(logits [M, N, C], which samples count [M, N], whether a model axis had to be added)."""
    single = np.ndim(logits) == 2
    sizes = checks.shape("NC N" if single else "MNC N", **{name: logits, "labels": labels})
    if not sizes["N"]:
        raise errors.DataError(f"{name} hold no sample.")
    checks.labels("labels", labels, sizes["C"])
    values = jnp.asarray(logits)[None] if single else jnp.asarray(logits)
    for number in np.flatnonzero(~np.asarray(_are_finite(values))).tolist():
        checks.finite(name if single else f"{name} of model {number}", values[number], "NC")
    kept = np.ones(len(np.asarray(labels)), bool) if where is None else np.asarray(where, bool)
    try:
        kept = np.broadcast_to(kept, (len(values), sizes["N"]))
    except ValueError as error:
        raise errors.ShapeError(f"where has shape {kept.shape}, expected [N] or [M, N] like the {name}.") from error
    return values, kept, single


def _places(kept: np.ndarray, alphas: tuple[float, ...], options: Options) -> np.ndarray:
    """[M, A] places of the thresholds among the counting scores; past all scores where there are too few."""
    total = kept.shape[1]
    found = []
    for n in kept.sum(1).tolist():
        own = [rank_of(n, alpha, options.quantile_rule) for alpha in alphas]
        found.append([place if place < n else total for place in own])
    return np.asarray(found, np.int32)


def _squeeze(found: Any, single: bool) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0] if single else np.asarray(leaf), found)


def _calibrate_one(logits: Any, labels: Any, kept: Any, places: Any, options: Options) -> jax.Array:
    return quantiles(jnp.where(kept, own_scores(logits, labels, options), jnp.inf), places)


def _predict_one(logits: Any, labels: Any, q_hat: Any, options: Options) -> Sets:
    every = label_scores(logits, options)
    own = jnp.take_along_axis(every, labels[:, None], -1)[:, 0]
    # One pass per threshold: on a CPU three times as fast as one comparison with an axis of thresholds.
    size = jax.lax.map(lambda threshold: jnp.sum(every <= threshold, -1, dtype=jnp.int32), q_hat)
    return Sets(own <= q_hat[:, None], size, jnp.argmax(logits, -1) == labels)


# Models one after another: what is made on the way (scores of all labels) is then as large as one model's logits.
@partial(jax.jit, static_argnames="options")
def _calibrate(logits: Any, labels: Any, kept: Any, places: Any, options: Options) -> jax.Array:
    return jax.lax.map(lambda one: _calibrate_one(one[0], labels, one[1], one[2], options), (logits, kept, places))


@partial(jax.jit, static_argnames="options")
def _predict(logits: Any, labels: Any, q_hat: Any, options: Options) -> Sets:
    return jax.lax.map(lambda one: _predict_one(one[0], labels, one[1], options), (logits, q_hat))


@jax.jit
def _are_finite(logits: Any) -> jax.Array:
    return jnp.all(jnp.isfinite(logits), (1, 2))


@partial(jax.jit, static_argnames="options")
def _evaluate(
    known: Any, known_labels: Any, kept: Any, places: Any, logits: Any, labels: Any, options: Options
) -> tuple[jax.Array, Counts]:
    every = jnp.ones((1, labels.shape[0]), bool)

    def one(given: Any) -> tuple[jax.Array, Counts]:
        own_known, own_kept, own_places, own_logits = given
        q_hat = _calibrate_one(own_known, known_labels, own_kept, own_places, options)
        found = count(_predict_one(own_logits, labels, q_hat, options), every)
        return q_hat, jax.tree.map(lambda leaf: leaf[0], found)

    return jax.lax.map(one, (known, kept, places, logits))
