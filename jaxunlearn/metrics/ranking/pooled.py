"""The pooled protocol: R forget sets and G shadow groups give one value per metric, with std and interval.

    scores [G, R, N], truth [R, N]  ->  per group one ROC of R * N samples  ->  mean over groups

NumPy on the host. `std` is the published "±", the population standard deviation over shadow groups: groups audit the
same models, so it measures how much the choice of shadows matters, not how certain the value is. That is the interval:
its unit is the forget set, because all samples of one forget set were judged by one unlearned model. Each group is
sorted once; leaving out a forget set sets its weights to 0 along that order.
Source: IAM, section on BinUI (pooling and std); the interval is this package's.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

AGAINST = "retained against forgotten"
# From this many forget sets on the interval is the jackknife's.
FEWEST_SETS = 3
RESAMPLES = 400


class PooledCurve(NamedTuple):
    """One row of the table: how its value is read from a curve, and the denominator of a rate.

    Attributes:
      title: the metric's name in reports.
      read: curve -> number in [0, 1], higher = separates members better.
      trials: the samples that a rate is a fraction of: "positive", "negative", or "" (no rate).
    """

    title: str
    read: Callable[[roc.Curve], float]
    trials: str = ""


def metric_columns(interpolation: str) -> dict[str, PooledCurve]:
    """Returns the published columns, by their names in METRICS."""
    return {
        "auc": PooledCurve("AUC", roc.area),
        "balanced_accuracy": PooledCurve("balanced accuracy", roc.best_balanced),
        "tpr_at_fpr_1e-2": PooledCurve(
            "TPR at FPR 1e-2", lambda c: roc.member_rate(c, 1e-2, interpolation), "positive"
        ),
        "tpr_at_fpr_1e-3": PooledCurve(
            "TPR at FPR 1e-3", lambda c: roc.member_rate(c, 1e-3, interpolation), "positive"
        ),
        "tnr_at_fnr_1e-2": PooledCurve(
            "TNR at FNR 1e-2", lambda c: roc.forgotten_rate(c, 1e-2, interpolation), "negative"
        ),
        "tnr_at_fnr_1e-3": PooledCurve(
            "TNR at FNR 1e-3", lambda c: roc.forgotten_rate(c, 1e-3, interpolation), "negative"
        ),
    }


def table(
    scores: np.ndarray,
    truth: np.ndarray,
    confidence_level: float = 0.95,
    of: str = "",
    *,
    interpolation: str = "linear",
    seed: int = 0,
    extra: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] | None = None,
) -> dict[str, Finding]:
    """Computes AUC, balanced accuracy, TPR and TNR at low levels over pooled forget sets; higher = separates better.

    From 3 forget sets on, the interval is the delete-one-forget-set jackknife on the mean over groups. With fewer, or
    if a deletion leaves only one kind of sample or a perfect separation leaves no variance, samples are treated as
    independent: DeLong for the AUC (components averaged over groups, which share samples), Clopper-Pearson with a fixed
    threshold for TPR and TNR, a stratified basic bootstrap for balanced accuracy. Such an interval ignores the
    variation between unlearned models and is too short as a statement about the method.

    Args:
      scores: [G, R, N] of G shadow groups on R forget sets of N samples, higher = member.
      truth: [R, N] bool, True = member (retained), False = forgotten.
      confidence_level: of the intervals, in [0, 1].
      of: whose scores these are.
      interpolation: see `roc.tpr_at_fpr`.
      seed: of the bootstrap.
      extra: further metrics name -> function(scores [n], truth [n]) -> number; their interval is the jackknife's only,
        not clipped.

    Returns:
      name -> Finding with n = R * N and `method` naming the interval; `std` is NaN for one group.

    Raises:
      ShapeError: arrays do not fit together. DataError: non-finite scores, truth with one kind only.
      ConfigError: level or interpolation.

    Example:
      >>> from jaxunlearn.metrics.ranking import pooled
      >>> scores = [[[0.9, 0.8, 0.4, 0.1], [0.7, 0.3, 0.6, 0.2]]]  # 1 shadow group, 2 forget sets of 4 samples
      >>> finding = pooled.table(scores, [[1, 0, 1, 0], [1, 1, 0, 0]])["auc"]
      >>> finding.value, finding.n, finding.method
      (0.6875, 8, 'DeLong')
    """
    scores, truth = check(scores, truth, confidence_level)
    checks.choice("interpolation", interpolation, roc.INTERPOLATIONS)
    columns, extra = metric_columns(interpolation), dict(extra or {})
    groups, sets, _ = scores.shape
    is_deletable = sets >= FEWEST_SETS and _every_deletion_keeps_both_kinds(truth)
    values = np.empty((len(columns) + len(extra), groups))
    deletion_values = np.full((len(columns) + len(extra), groups, sets), np.nan)
    masks = np.repeat(~np.eye(sets, dtype=bool), truth.shape[1], axis=1)
    flat_truth = truth.ravel()
    for group in range(groups):
        flat = scores[group].ravel()
        ranked = roc.rank(flat, flat_truth)
        values[:, group] = _metric_values(columns, extra, roc.count(ranked), flat, flat_truth)
        for forget_set in range(sets if is_deletable else 0):
            mask = masks[forget_set]
            deletion_values[:, group, forget_set] = _metric_values(
                columns, extra, roc.count(ranked, mask), flat[mask], flat_truth[mask]
            )
    findings = {}
    for row, name in enumerate([*columns, *extra]):
        interval = intervals.jackknife(values[row].mean(), deletion_values[row].mean(0), confidence_level)
        method = f"jackknife over {sets} forget sets"
        is_separated = interval.value in (0.0, 1.0) and interval.low == interval.high
        if name in columns:
            if not is_deletable or is_separated:
                interval, method = _sampling_interval(
                    name, columns[name], interval.value, scores, truth, confidence_level, seed
                )
            interval = intervals.clip(interval)
        elif not is_deletable:
            method = f"none: fewer than {FEWEST_SETS} forget sets of both kinds"
        findings[name] = Finding(
            *interval,
            std=intervals.std(values[row]),
            metric=columns[name].title if name in columns else name,
            n=truth.size,
            confidence_level=confidence_level,
            of=of,
            against=AGAINST,
            method=method,
        )
    return findings


def paired_auc(
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    truth: np.ndarray,
    confidence_level: float = 0.95,
    of: str = "",
    against: str = "",
) -> Finding:
    """Computes AUC of scores a minus AUC of scores b on the same samples, in [-1, 1]; above 0 = a separates better.

    Jackknife over forget sets from 3 sets on, otherwise DeLong for correlated curves (samples treated as independent).
    A difference is significant at 1 - level if the interval excludes 0.

    Args:
      scores_a: [n], or [G, R, N] as in `table`.
      scores_b: the same shape.
      truth: [n], or [R, N].
      confidence_level: of the interval, in [0, 1].
      of: name of a.
      against: name of b.

    Returns:
      A Finding with metric "AUC difference" and n samples.

    Raises:
      ShapeError, DataError, ConfigError: as `table`.

    Source: DeLong, DeLong and Clarke-Pearson 1988.

    Example:
      >>> from jaxunlearn.metrics.ranking import pooled
      >>> pooled.paired_auc([0.9, 0.8, 0.4, 0.1], [0.1, 0.8, 0.4, 0.9], truth=[1, 0, 1, 0]).value
      0.75
    """
    if np.ndim(truth) == 1:
        checks.shape("N", scores_a=scores_a, scores_b=scores_b, truth=truth)
        scores_a, scores_b, truth = (
            np.asarray(scores_a)[None, None],
            np.asarray(scores_b)[None, None],
            np.asarray(truth)[None],
        )
    checks.shape("GRN", scores_a=scores_a, scores_b=scores_b)
    scores_a, truth = check(scores_a, truth, confidence_level)
    scores_b, _ = check(scores_b, truth, confidence_level)
    groups, sets, size = scores_a.shape
    flat_truth = truth.ravel()
    differences = np.empty(groups)
    deletion_differences = np.full((groups, sets), np.nan)
    is_deletable = sets >= FEWEST_SETS and _every_deletion_keeps_both_kinds(truth)
    for group in range(groups):
        pair = [roc.rank(scores[group].ravel(), flat_truth) for scores in (scores_a, scores_b)]
        differences[group] = roc.area(roc.count(pair[0])) - roc.area(roc.count(pair[1]))
        for forget_set in range(sets if is_deletable else 0):
            mask = np.repeat(np.arange(sets) != forget_set, size)
            deletion_differences[group, forget_set] = roc.area(roc.count(pair[0], mask)) - roc.area(
                roc.count(pair[1], mask)
            )
    if is_deletable:
        interval = intervals.jackknife(differences.mean(), deletion_differences.mean(0), confidence_level)
        method = f"jackknife over {sets} forget sets"
    else:
        a, b = mean_placements(scores_a, flat_truth), mean_placements(scores_b, flat_truth)
        components = intervals.Placements(a.positive - b.positive, a.negative - b.negative)
        interval, method = intervals.delong_from(components, confidence_level), "DeLong"
    return Finding(
        *intervals.clip(interval, -1.0, 1.0),
        std=intervals.std(differences),
        metric="AUC difference",
        n=truth.size,
        confidence_level=confidence_level,
        of=of,
        against=against,
        method=method,
    )


def check(scores: np.ndarray, truth: np.ndarray, confidence_level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores [G, R, N] and truth [R, N] as arrays that can be pooled; raises as `table` does."""
    checks.in_range("confidence_level", confidence_level, 0, 1)
    checks.shape("GRN RN", scores=scores, truth=truth)
    return roc.finite_scores(scores), roc.both_kinds(truth)


def mean_placements(scores: np.ndarray, truth: np.ndarray) -> intervals.Placements:
    """Computes the DeLong components of the mean AUC over groups: scores [G, ...], truth flat.

    Groups share samples: components are averaged sample by sample, which carries their correlation.
    """
    placements = [intervals.placements(group.ravel(), truth) for group in scores]
    return intervals.Placements(*(np.mean(components, 0) for components in zip(*placements, strict=True)))


def _every_deletion_keeps_both_kinds(truth: np.ndarray) -> bool:
    members = truth.sum(1)
    non_members = truth.shape[1] - members
    return bool(((members.sum() - members > 0) & (non_members.sum() - non_members > 0)).all())


def _metric_values(
    columns: Mapping[str, PooledCurve],
    extra: Mapping[str, Callable],
    curve: roc.Curve,
    scores: np.ndarray,
    truth: np.ndarray,
) -> list[float]:
    """Computes all metrics of one pooled group, in the order of the table."""
    return [column.read(curve) for column in columns.values()] + [float(f(scores, truth)) for f in extra.values()]


def _sampling_interval(
    name: str,
    column: PooledCurve,
    value: float,
    scores: np.ndarray,
    truth: np.ndarray,
    confidence_level: float,
    seed: int,
) -> tuple[intervals.Interval, str]:
    """Computes the interval of a mean over groups with independent samples, and returns it with its name."""
    flat = truth.ravel()
    trials = {"positive": int(flat.sum()), "negative": int((~flat).sum())}
    if column.trials:
        n = trials[column.trials]
        return intervals.clopper_pearson(value * n, n, confidence_level)._replace(value=value), "Clopper-Pearson"
    if name == "auc":
        components = mean_placements(scores, flat)
        return intervals.proportion_delong(components, confidence_level)._replace(value=value), "DeLong"
    if value == 1.0:
        # A resampled perfect separation stays perfect: bound both rates instead, each at half the error level.
        ends = [intervals.clopper_pearson(n, n, (1 + confidence_level) / 2) for n in trials.values()]
        return intervals.Interval(1.0, float(np.mean([end.low for end in ends])), 1.0), "Clopper-Pearson"
    return _bootstrap(column, value, scores, flat, confidence_level, seed), "bootstrap"


def _bootstrap(
    column: PooledCurve, value: float, scores: np.ndarray, truth: np.ndarray, confidence_level: float, seed: int
) -> intervals.Interval:
    """Computes the stratified basic bootstrap; all groups get the same draws, because groups share samples."""
    generator = np.random.default_rng(seed)
    ranked = [roc.rank(group.ravel(), truth) for group in scores]
    kinds = np.flatnonzero(truth), np.flatnonzero(~truth)
    draws = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        rows = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds])
        weights = np.bincount(rows, minlength=len(truth))
        draws[i] = np.mean([column.read(roc.count(group, weights)) for group in ranked])
    return intervals.resampled(value, draws, confidence_level, "basic")
