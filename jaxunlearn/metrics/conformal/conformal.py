"""Split conformal prediction: thresholds, prediction sets, coverage, set size, CR, recover ratio; all models at once.

    q_hat = calibrate(calibration_logits, calibration_labels, alphas)     [..., A]
    sets = predict(logits, labels, q_hat)                                 per sample: covered, size, correct
    prediction_sets.summarise(sets)                                       coverage, set size, CR, recover ratio ...
    evaluate(...)                                                         the three in one jitted call, [M, N, C] in

A label is in the set of a sample if its non-conformity score is at most q_hat. One function of (logits, label) serves
calibration and prediction, so the guarantee is exact: for exchangeable samples P(label in set) >= 1 - alpha.
Differs from the published code in float32 rounding: that code compares p_c >= 1 - q_hat, which rounds a second time, so
a label may lie outside a set whose threshold is its own score (relevant for q_hat within 1e-5 of 1, and for ties).

| score | of a label c | source |
| --- | --- | --- |
| lac | 1 - p_c, float32 | Sadinle et al. 2019; the conformal unlearning code |
| log | -log p_c: the same sets, but no rounding of 1 - p where confidences are tiny | |
| aps | total probability of the labels up to c, most probable first (not randomised) | Romano et al. 2020 |
| raps | aps + lam * max(0, rank of c - k_reg) | Angelopoulos et al. 2021 |

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
    """How labels are scored and how thresholds are chosen.

    Attributes:
      score: one of `SCORES`.
      quantile_rule: "textbook": the threshold is the k-th smallest calibration score, k = ceil((n + 1) (1 - alpha));
        "published": the next larger one (the published code: a quantile call that rounds up), which raises coverage by
        up to 1 / (n + 1).
      lam, k_reg: weight and first penalised rank of raps.
    """

    score: str = "lac"
    quantile_rule: str = "published"
    lam: float = 0.01
    k_reg: int = 5


STANDARD = Options()


class ConformalResult(NamedTuple):
    """Thresholds q_hat [..., A] and the quality of their prediction sets."""

    q_hat: Any
    quality: Quality


def check_alphas(alphas: Any) -> tuple[float, ...]:
    """Returns the levels as plain floats.

    Raises:
      ConfigError: no level, or one outside (0, 1).

    Example:
      >>> from jaxunlearn.metrics.conformal import check_alphas
      >>> check_alphas([0.05, 0.1])
      (0.05, 0.1)
    """
    levels = tuple(float(level) for level in np.atleast_1d(np.asarray(alphas, np.float64)))
    if not levels:
        raise errors.ConfigError("no alpha given; give at least one in (0, 1), e.g. 0.1.")
    for level in levels:
        if not 0.0 < level < 1.0:
            raise errors.ConfigError(
                f"alpha = {level}: must lie between 0 and 1, both excluded. It is the share of samples that may miss "
                "their label, e.g. 0.05 or 0.1."
            )
    return levels


def check_options(options: Options) -> None:
    """Raises a ConfigError for an unknown score or quantile rule, or values of raps out of range.

    Example:
      >>> from jaxunlearn.metrics.conformal import Options, check_options
      >>> check_options(Options(score="raps", k_reg=2))
    """
    checks.choice("conformal score", options.score, SCORES)
    checks.choice("quantile rule", options.quantile_rule, QUANTILE_RULES)
    checks.in_range("raps lam", options.lam, 0.0)
    checks.in_range("raps k_reg", options.k_reg, 0)


def rank_of(n: int, alpha: float, quantile_rule: str = "published") -> int:
    """Returns the index of the threshold among n ascending scores; n if no finite threshold keeps the guarantee.

    With k = ceil((n + 1) (1 - alpha)): k - 1 by "textbook", min(k, n - 1) by "published"; n where k > n (the published
    code raises there): the sets are then full.

    Example:
      >>> from jaxunlearn.metrics.conformal import rank_of
      >>> rank_of(19, 0.1, "textbook"), rank_of(19, 0.1), rank_of(8, 0.1)
      (17, 18, 8)
    """
    k = math.ceil((n + 1) * (1 - alpha))
    if k > n:
        return n
    return k - 1 if quantile_rule == "textbook" else min(k, n - 1)


def smallest_calibration(alpha: float) -> int:
    """Returns the smallest number of calibration samples with a finite threshold at this level.

    Example:
      >>> from jaxunlearn.metrics.conformal import smallest_calibration
      >>> smallest_calibration(0.05)
      19
    """
    n = max(1, math.floor(1 / alpha) - 2)
    while rank_of(n, alpha) >= n:
        n += 1
    return n


def threshold(scores: Any, alpha: float, quantile_rule: str = "published") -> float:
    """Computes q_hat of calibration scores [n] on the host, in their own precision; inf if n is too small for alpha.

    Raises:
      ConfigError: alpha outside (0, 1), unknown quantile rule. DataError: no score, or NaN among them.

    Example:
      >>> from jaxunlearn.metrics.conformal import threshold
      >>> threshold([0.5, 0.1, 0.3, 0.2], alpha=0.4, quantile_rule="textbook")
      0.3
    """
    (alpha,) = check_alphas(alpha)
    checks.choice("quantile rule", quantile_rule, QUANTILE_RULES)
    values = np.asarray(scores).ravel()
    if not len(values) or np.isnan(values).any():
        raise errors.DataError("calibration scores must be at least one number and no NaN.")
    index = rank_of(len(values), alpha, quantile_rule)
    return float(np.sort(values)[index]) if index < len(values) else math.inf


def label_scores(logits: jax.Array, options: Options = STANDARD) -> jax.Array:
    """Computes the non-conformity [..., C] float32 of every label from logits [..., C]; higher = fits the sample less.

    Example:
      >>> from jaxunlearn.metrics.conformal import label_scores
      >>> label_scores([[0.0, 0.0], [0.0, float("-inf")]]).tolist()
      [[0.5, 0.5], [0.0, 1.0]]
    """
    logits = jnp.asarray(logits, jnp.float32)
    if options.score == "log":
        return -jax.nn.log_softmax(logits)
    probabilities = jax.nn.softmax(logits)
    if options.score == "lac":
        return 1.0 - probabilities
    order = jnp.argsort(-probabilities, axis=-1)  # stable: among equals the lower label comes first, always
    ordered = jnp.take_along_axis(probabilities, order, -1)
    # From the small end, so that the last label scores exactly 1 whatever float32 makes of the sum.
    tail_sums = jnp.cumsum(ordered[..., ::-1], -1)[..., ::-1]
    cumulative = 1.0 - jnp.concatenate([tail_sums[..., 1:], jnp.zeros_like(tail_sums[..., :1])], -1)
    if options.score == "raps":
        label_ranks = jnp.arange(1, logits.shape[-1] + 1)
        cumulative = cumulative + options.lam * jnp.maximum(label_ranks - options.k_reg, 0)
    return jnp.take_along_axis(cumulative, jnp.argsort(order, axis=-1), -1)


def true_label_scores(logits: jax.Array, labels: jax.Array, options: Options = STANDARD) -> jax.Array:
    """Computes the non-conformity [..., N] of the true labels [N] or [..., N] from logits [..., N, C].

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.conformal import true_label_scores
      >>> [round(float(score), 2) for score in true_label_scores(np.log([[0.7, 0.3], [0.6, 0.4]]), np.array([0, 1]))]
      [0.3, 0.6]
    """
    scores = label_scores(logits, options)
    index = jnp.broadcast_to(labels, scores.shape[:-1])[..., None]
    return jnp.take_along_axis(scores, index, -1)[..., 0]


def quantiles(scores: jax.Array, indices: Any) -> jax.Array:
    """Returns the calibration scores [n] at `indices` [A] in ascending order, as q_hat [A]; inf at index n.

    Scores that shall not count are +inf; the indices then refer to the other ones.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.metrics.conformal import quantiles
      >>> quantiles(jnp.array([3.0, 1.0, 2.0]), [0, 2, 3]).tolist()
      [1.0, 3.0, inf]
    """
    return jnp.append(jnp.sort(scores), jnp.inf)[jnp.asarray(indices)]


def calibrate(logits: Any, labels: Any, alphas: Any, options: Options = STANDARD, where: Any = None) -> np.ndarray:
    """Computes the thresholds of one model or of M models.

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

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.conformal import calibrate
      >>> logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
      >>> [round(float(q), 2) for q in calibrate(logits, [0, 0, 1, 1], [0.5, 0.1])]
      [0.4, inf]
    """
    alphas = check_alphas(alphas)
    check_options(options)
    values, mask, is_single = _checked("calibration logits", logits, labels, where)
    indices = _threshold_indices(mask, alphas, options)
    return _squeeze(_calibrate(values, np.asarray(labels, np.int32), mask, indices, options), is_single)


def predict(logits: Any, labels: Any, q_hat: Any, options: Options = STANDARD) -> Sets:
    """Predicts, for every sample of one or M models, whether its label is in the set, and how large the set is.

    Args:
      logits: [N, C] or [M, N, C] float.
      labels: [N] int.
      q_hat: [A] or [M, A], of `calibrate` with the same options.
      options: score and quantile rule.

    Raises:
      ConfigError, ShapeError, DataError: as `calibrate`; q_hat that does not fit or is NaN.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.conformal import predict
      >>> sets = predict(np.log([[0.9, 0.1], [0.45, 0.55]]), [0, 0], q_hat=[0.6])
      >>> sets.covered.tolist(), sets.size.tolist(), sets.correct.tolist()
      ([[True, True]], [[1, 2]], [True, False])
    """
    check_options(options)
    values, _, is_single = _checked("logits", logits, labels, None)
    thresholds = np.asarray(q_hat, np.float32)
    checks.shape("A" if is_single else "MA", {} if is_single else {"M": len(values)}, q_hat=thresholds)
    if np.isnan(thresholds).any():
        raise errors.DataError("q_hat contains NaN; thresholds are numbers or +inf.")
    sets = _predict(values, np.asarray(labels, np.int32), thresholds[None] if is_single else thresholds, options)
    return _squeeze(sets, is_single)


def prediction_sets(logits: Any, q_hat: Any, options: Options = STANDARD) -> np.ndarray:
    """Computes the sets themselves, [A, N, C] bool, from ONE model's logits [N, C] at thresholds [A]."""
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
) -> ConformalResult:
    """Computes thresholds and set quality for all alphas in one jitted call, for one or M models.

    Args:
      calibration_logits: [n, C] or [M, n, C] float.
      calibration_labels: [n] int.
      logits: [N, C] or [M, N, C] float, of the samples to predict.
      labels: [N] int.
      alphas: A levels in (0, 1).
      options: score and quantile rule.

    Returns:
      `Report`, with the axes [A] or [M, A].

    Raises:
      ConfigError, ShapeError, DataError: as `calibrate`.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.conformal import evaluate
      >>> logits, labels = np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]), [0, 0, 1, 1]
      >>> report = evaluate(logits, labels, logits, labels, alphas=[0.2])
      >>> report.quality.coverage.tolist(), report.quality.set_size.tolist()
      ([1.0], [1.0])
    """
    alphas = check_alphas(alphas)
    check_options(options)
    calibration_values, mask, is_single = _checked("calibration logits", calibration_logits, calibration_labels, None)
    values, _, is_target_single = _checked("logits", logits, labels, None)
    models, classes = (len(calibration_values), len(values)), (calibration_values.shape[-1], values.shape[-1])
    if is_single != is_target_single or models[0] != models[1] or classes[0] != classes[1]:
        raise errors.ShapeError(
            f"calibration logits have shape {np.shape(calibration_logits)} and logits {np.shape(logits)}: both must "
            "be of the same models and classes, [M, n, C] and [M, N, C]."
        )
    indices = _threshold_indices(mask, alphas, options)
    q_hat, counts = _evaluate(
        calibration_values, np.asarray(calibration_labels, np.int32), mask, indices, values,
        np.asarray(labels, np.int32), options,
    )  # fmt: skip
    return _squeeze(ConformalResult(q_hat, quality(counts)), is_single)


def _checked(name: str, logits: Any, labels: Any, where: Any) -> tuple[Any, np.ndarray, bool]:
    """Returns logits [M, N, C], the mask [M, N] of samples that count, and whether a model axis was added."""
    is_single = np.ndim(logits) == 2
    sizes = checks.shape("NC N" if is_single else "MNC N", **{name: logits, "labels": labels})
    if not sizes["N"]:
        raise errors.DataError(f"{name} contain no sample.")
    checks.labels("labels", labels, sizes["C"])
    values = jnp.asarray(logits)[None] if is_single else jnp.asarray(logits)
    for model in np.flatnonzero(~np.asarray(_are_finite(values))).tolist():
        checks.finite(name if is_single else f"{name} of model {model}", values[model], "NC")
    mask = np.ones(len(np.asarray(labels)), bool) if where is None else np.asarray(where, bool)
    try:
        mask = np.broadcast_to(mask, (len(values), sizes["N"]))
    except ValueError as error:
        raise errors.ShapeError(f"where has shape {mask.shape}, expected [N] or [M, N] like the {name}.") from error
    return values, mask, is_single


def _threshold_indices(masks: np.ndarray, alphas: tuple[float, ...], options: Options) -> np.ndarray:
    """Returns the [M, A] indices of the thresholds among the scores that count; N where these are too few."""
    total = masks.shape[1]
    rows = []
    for n in masks.sum(1).tolist():
        ranks = [rank_of(n, alpha, options.quantile_rule) for alpha in alphas]
        rows.append([rank if rank < n else total for rank in ranks])
    return np.asarray(rows, np.int32)


def _squeeze(tree: Any, is_single: bool) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0] if is_single else np.asarray(leaf), tree)


def _calibrate_one(logits: Any, labels: Any, mask: Any, indices: Any, options: Options) -> jax.Array:
    return quantiles(jnp.where(mask, true_label_scores(logits, labels, options), jnp.inf), indices)


def _predict_one(logits: Any, labels: Any, q_hat: Any, options: Options) -> Sets:
    scores = label_scores(logits, options)
    true_scores = jnp.take_along_axis(scores, labels[:, None], -1)[:, 0]
    # One pass per threshold: on a CPU three times as fast as one comparison with an axis of thresholds.
    size = jax.lax.map(lambda threshold: jnp.sum(scores <= threshold, -1, dtype=jnp.int32), q_hat)
    return Sets(true_scores <= q_hat[:, None], size, jnp.argmax(logits, -1) == labels)


# Models one after another: intermediate arrays (scores of all labels) are then as large as one model's logits.
@partial(jax.jit, static_argnames="options")
def _calibrate(logits: Any, labels: Any, masks: Any, indices: Any, options: Options) -> jax.Array:
    return jax.lax.map(
        lambda model: _calibrate_one(model[0], labels, model[1], model[2], options), (logits, masks, indices)
    )


@partial(jax.jit, static_argnames="options")
def _predict(logits: Any, labels: Any, q_hat: Any, options: Options) -> Sets:
    return jax.lax.map(lambda model: _predict_one(model[0], labels, model[1], options), (logits, q_hat))


@jax.jit
def _are_finite(logits: Any) -> jax.Array:
    return jnp.all(jnp.isfinite(logits), (1, 2))


@partial(jax.jit, static_argnames="options")
def _evaluate(
    calibration: Any, calibration_labels: Any, masks: Any, indices: Any, logits: Any, labels: Any, options: Options
) -> tuple[jax.Array, Counts]:
    all_samples = jnp.ones((1, labels.shape[0]), bool)

    def evaluate_model(model: Any) -> tuple[jax.Array, Counts]:
        model_calibration, mask, model_indices, model_logits = model
        q_hat = _calibrate_one(model_calibration, calibration_labels, mask, model_indices, options)
        counts = count(_predict_one(model_logits, labels, q_hat, options), all_samples)
        return q_hat, jax.tree.map(lambda leaf: leaf[0], counts)

    return jax.lax.map(evaluate_model, (calibration, masks, indices, logits))
