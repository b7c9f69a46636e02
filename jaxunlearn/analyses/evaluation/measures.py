"""Metrics of M models of one role: arrays in, numbers per model out. No model code, no files.

    measure_models(values [M, N, C], labels [N], subsets, options) -> name -> [M], or [M, A] for A levels alpha

| names | what |
| --- | --- |
| UA, RA, TA | 1 - accuracy on forgotten, accuracy on retained and on test samples |
| confidence_forget, confidence_test | mean probability of the true label |
| svc_FEATURE | share of forgotten samples that an SVC on this feature calls non-members (SalUn: MIA efficacy) |
| threshold_FEATURE | the same by per-class thresholds (Song and Mittal) |
| entropy_mia | share of forgotten samples that a logistic regression on the entropy calls members (SSD) |
| zrf, activation_distance | distance to an untrained network, and to the retrained model |
| coverage_SUBSET, size_SUBSET, cr_SUBSET, empty_SUBSET | of prediction sets, of forget, retain, test, test_forget |
| class_coverage_test, class_size_test | [M, C, A], of the test samples of each class |
| recover_ratio, mistaken | of the misclassified forgotten samples, those whose label is in the set |
| miacr, miacr_exact, miacr_size, miacr_member | conformal membership attack: share whose set lacks "member"; is {non-\
member}; mean size; share called members |
| UA_test, miacr_test_excluded ... | where whole classes were forgotten, on their test samples; share whose set lacks \
"non-member" (lower = better, the other way round than miacr) |

All metrics of forgotten samples are to be compared with those of the retrained model, which is the goal.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors
from jaxunlearn.metrics import distances, utility
from jaxunlearn.metrics.conformal import conformal, prediction_sets
from jaxunlearn.metrics.membership import membership, miacr, svc
from jaxunlearn.scores import signals
from jaxunlearn.settings import EvaluateSettings

GROUPS = ("svc", "thresholds", "entropy", "distances", "conformal", "miacr")
EXPENSIVE = ("distribution",)  # takes seconds per model: `all` leaves it out (see `distributions`)
ModelMetrics = dict[str, Any]


class Subsets(NamedTuple):
    """Subsets of the samples for each of M models, [M, N] bool each.

    Attributes:
      forget, retain, test: forgotten, retained, and held out (of classes that are still trained on).
      calibration: held out as well, for thresholds.
      test_forget, calibration_forget: held-out samples of classes that were forgotten wholly; empty otherwise.
    """

    forget: np.ndarray
    retain: np.ndarray
    test: np.ndarray
    calibration: np.ndarray
    test_forget: np.ndarray
    calibration_forget: np.ndarray


class EvaluationOptions(NamedTuple):
    """Options of a measurement.

    Attributes:
      settings: see `EvaluateSettings`; `groups`: of GROUPS and EXPENSIVE.
      compat: "corrected" or "faithful"; `seed`: of the draws of shadow members.
    """

    settings: EvaluateSettings
    groups: tuple[str, ...]
    compat: str = "corrected"
    seed: int = 0


def groups_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the requested groups of metrics, with `all` expanded (without the expensive ones).

    Raises:
      ConfigError: an unknown group.
    """
    groups: list[str] = []
    for name in names:
        if name not in (*GROUPS, *EXPENSIVE, "all"):
            raise errors.unknown("group of metrics", name, (*GROUPS, *EXPENSIVE, "all"))
        groups += GROUPS if name == "all" else [name]
    return tuple(dict.fromkeys(groups))


def conformal_options_of(settings: EvaluateSettings) -> conformal.Options:
    """Returns the non-conformity score and the quantile rule from the settings."""
    return conformal.Options(settings.score, settings.quantile_rule, settings.raps_lam, settings.raps_k_reg)


def check_choices(settings: EvaluateSettings) -> None:
    """Raises a ConfigError for alphas outside (0, 1), unknown groups, scores or ranks."""
    conformal.check_alphas(settings.alphas)
    conformal.check_alphas(settings.miacr_alpha)
    conformal.check_options(conformal_options_of(settings))
    groups_of(settings.metrics)


def check_calibration(labels: np.ndarray, subsets: Subsets, options: EvaluationOptions) -> list[str]:
    """Returns warnings about the calibration samples, for settings that are not strict.

    Raises:
      DataError: under `strict`, with the first of them.
    """
    settings, sentences = options.settings, []
    alphas = (*(settings.alphas if "conformal" in options.groups else ()),
              *((settings.miacr_alpha,) if "miacr" in options.groups else ()))  # fmt: skip
    if not alphas:
        return []
    smallest = min(alphas)
    min_samples = conformal.smallest_calibration(smallest)
    kinds = [("", subsets.calibration, subsets.test)]
    if settings.qhat == "own" and subsets.test_forget.any():
        has_classes = subsets.test_forget.any(1)
        kinds.append(
            (" of forgotten classes", subsets.calibration_forget[has_classes], subsets.test_forget[has_classes])
        )
    for name, is_calibration, is_test in kinds:
        count = int(is_calibration.sum(1).min())
        if count < min_samples:
            sentences.append(
                f"{count} calibration sample(s){name} are too few for alpha = {smallest}: at least {min_samples} are "
                "needed, or the sets hold every label."
            )
        for model in range(len(is_calibration)):
            missing = np.setdiff1d(labels[is_test[model]], labels[is_calibration[model]])
            if len(missing):
                sentences.append(
                    f"class {int(missing[0])} has test samples{name} but no calibration sample: coverage is promised "
                    "only where calibration and test samples are drawn alike."
                )
                break
    if sentences and settings.strict:
        remedies = "Give more calibration samples (of a run: split.population, data.test_rows), a larger alpha"
        own_remedy = ", the threshold of retained classes (qhat=retain)" if len(kinds) > 1 else ""
        raise errors.DataError(f"{sentences[0]} {remedies}{own_remedy}, or accept it with strict=False.")
    return sentences


def measure_models(
    values: np.ndarray,
    labels: np.ndarray,
    subsets: Subsets,
    options: EvaluationOptions,
    retrained: np.ndarray | None = None,
    untrained: np.ndarray | None = None,
    is_alive: np.ndarray | None = None,
) -> ModelMetrics:
    """Computes the requested metrics for the M models of one role.

    Args:
      values: [M, N, C] float logits.
      labels: [N] int.
      subsets: masks of the samples.
      options: of the measurement.
      retrained: [M, N, C] logits of the retrained models, or None.
      untrained: [N, C] logits of an untrained network on (at least) the forgotten samples, or None.
      is_alive: [M] bool, models that did not diverge; the others' metrics are NaN.

    Returns:
      name -> [M] or [M, A] float64, see the module.
    """
    is_kept = np.ones(len(values), bool) if is_alive is None else is_alive
    model_metrics: list[ModelMetrics] = []
    for model in np.flatnonzero(is_kept):
        view = _View(np.asarray(values[model], np.float32), labels, Subsets(*(subset[model] for subset in subsets)))
        metrics = _utility(view)
        for name, attack in _ATTACKS.items():
            if name in options.groups and view.subsets.retain.any():
                metrics |= attack(view, options, int(model))
        if "distances" in options.groups:
            metrics |= _distances(view, options, None if retrained is None else retrained[model], untrained)
        model_metrics.append(metrics)
    # Metrics that only some models have (those of a wholly forgotten class) are NaN for the others.
    names = dict.fromkeys(name for metrics in model_metrics for name in metrics)
    stacked = {name: np.stack([np.float64(metrics.get(name, np.nan)) for metrics in model_metrics]) for name in names}
    if "conformal" in options.groups and is_kept.any():
        stacked |= _conformal(values[is_kept], labels, Subsets(*(subset[is_kept] for subset in subsets)), options)
    return {name: _scatter(np.asarray(rows, np.float64), is_kept) for name, rows in stacked.items()}


def sets_of(
    values: np.ndarray, labels: np.ndarray, subsets: Subsets, options: EvaluationOptions, metrics: ModelMetrics
) -> ModelMetrics:
    """Computes prediction sets per sample: covered [M, A, N] bool, size [M, A, N] int32; 0 for models without metrics.

    Args:
      values: [M, N, C] logits, finite where the model has thresholds.
      labels: [N].
      subsets: as for `measure_models`.
      options: as for `measure_models`.
      metrics: result of `measure_models` with the group conformal.
    """
    is_alive = ~np.isnan(metrics["q_hat"]).any(1)
    conformal_options = conformal_options_of(options.settings)
    sets = conformal.predict(values[is_alive], labels, metrics["q_hat"][is_alive], conformal_options)
    covered, size = np.asarray(sets.covered), np.asarray(sets.size)
    if "q_hat_forget" in metrics:
        own_sets = conformal.predict(values[is_alive], labels, metrics["q_hat_forget"][is_alive], conformal_options)
        has_own_threshold = (subsets.forget | subsets.test_forget)[is_alive][:, None]
        covered, size = (
            np.where(has_own_threshold, own_sets.covered, covered),
            np.where(has_own_threshold, own_sets.size, size),
        )
    shape = (len(values), len(options.settings.alphas), len(labels))
    result = {"covered": np.zeros(shape, bool), "size": np.zeros(shape, np.int32)}
    result["covered"][is_alive], result["size"][is_alive] = covered, size
    return result


class _View(NamedTuple):
    """One model: logits [N, C], labels [N] and its subsets, [N] bool each."""

    logits: np.ndarray
    labels: np.ndarray
    subsets: Subsets


def _scatter(rows: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
    result = np.full((len(is_kept), *rows.shape[1:]), np.nan)
    result[is_kept] = rows
    return result


def _subset_pair(view: _View, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return view.logits[subset], view.labels[subset]


def _utility(view: _View) -> ModelMetrics:
    is_correct = view.logits.argmax(-1) == view.labels
    confidence = np.asarray(membership.features(view.logits, view.labels).confidence).ravel()

    metrics: ModelMetrics = {
        **utility.utility(is_correct, view.subsets.forget, view.subsets.retain, view.subsets.test),
        "confidence_forget": utility.accuracy(confidence, view.subsets.forget),
        "confidence_test": utility.accuracy(confidence, view.subsets.test),
    }
    if view.subsets.test_forget.any():
        metrics["UA_test"] = 1 - utility.accuracy(is_correct, view.subsets.test_forget)
    return metrics


def _conformal(values: np.ndarray, labels: np.ndarray, subsets: Subsets, options: EvaluationOptions) -> ModelMetrics:
    """Computes thresholds, and the quality of prediction sets on every subset, for all models in one call."""
    settings, conformal_options = options.settings, conformal_options_of(options.settings)

    def threshold(is_calibration: np.ndarray) -> np.ndarray:
        columns = is_calibration.any(0) | subsets.calibration.any(
            0
        )  # never empty; what a model does not calibrate on is masked
        return conformal.calibrate(
            values[:, columns], labels[columns], settings.alphas, conformal_options, is_calibration[:, columns]
        )

    q_hat = q_hat_forget = threshold(subsets.calibration)
    metrics: ModelMetrics = {"q_hat": q_hat}
    if subsets.test_forget.any() and settings.qhat == "own":
        q_hat_forget = metrics["q_hat_forget"] = threshold(subsets.calibration_forget)
    # Subsets with the same threshold are judged in one call.
    for names, threshold_values in ((("retain", "test"), q_hat), (("forget", "test_forget"), q_hat_forget)):
        masks = {name: getattr(subsets, name) for name in names if getattr(subsets, name).any()}
        if not masks:
            continue
        columns = np.any([subset.any(0) for subset in masks.values()], axis=0)
        sets = conformal.predict(values[:, columns], labels[columns], threshold_values, conformal_options)
        quality = prediction_sets.summarise(sets, np.stack([subset[:, columns] for subset in masks.values()], axis=1))
        for index, name in enumerate(masks):
            metrics[f"coverage_{name}"] = quality.coverage[:, index]
            metrics[f"size_{name}"] = quality.set_size[:, index]
            metrics[f"cr_{name}"] = quality.cr[:, index]
            metrics[f"empty_{name}"] = quality.empty[:, index]
            if name == "forget":
                metrics["recover_ratio"] = quality.recover_ratio[:, index]
                metrics["mistaken"] = quality.mistaken[:, index]
            if name == "test":
                classes = prediction_sets.of_classes(labels[columns], values.shape[-1])
                class_quality = prediction_sets.summarise(sets, classes & subsets.test[:, None, columns])
                metrics["class_coverage_test"], metrics["class_size_test"] = (
                    class_quality.coverage,
                    class_quality.set_size,
                )
    return metrics


def _svc(view: _View, options: EvaluationOptions, model: int) -> ModelMetrics:
    pairs = (_subset_pair(view, subset) for subset in (view.subsets.retain, view.subsets.test, view.subsets.forget))
    arrays = [array for pair in pairs for array in pair]
    rates = svc.svc_mia(*arrays, compat=options.compat, most=options.settings.svc_rows, seed=options.seed)
    return {f"svc_{name}": np.float64(value) for name, value in rates.items()}


def _thresholds(view: _View, options: EvaluationOptions, model: int) -> ModelMetrics:
    retain, test, forget = (
        _subset_pair(view, subset) for subset in (view.subsets.retain, view.subsets.test, view.subsets.forget)
    )
    rates_of = membership.song_mittal(retain, test, None, forget, compat=options.compat)
    return {f"threshold_{name}": np.float64(attack_rates.non_member) for name, attack_rates in rates_of.items()}


def _entropy(view: _View, options: EvaluationOptions, model: int) -> ModelMetrics:
    retain, test, forget = (
        view.logits[subset] for subset in (view.subsets.retain, view.subsets.test, view.subsets.forget)
    )
    attack = membership.entropy_attack(retain, test, forget)
    return {"entropy_mia": np.float64(attack.member_rate)}


def _miacr(view: _View, options: EvaluationOptions, model: int) -> ModelMetrics:
    settings = options.settings
    is_fast = settings.miacr_attack == "threshold"

    def evidence(subset: np.ndarray) -> np.ndarray:
        """Returns the confidence; log-odds for the threshold attack, which needs only the order: fewer ties near 1."""
        logits, labels = _subset_pair(view, subset)
        if is_fast:
            return np.asarray(signals.log_odds(jnp.asarray(logits), jnp.asarray(labels)))
        return np.asarray(membership.features(logits, labels).confidence).ravel()

    retained = np.flatnonzero(view.subsets.retain)
    rng = np.random.default_rng([options.seed, model])
    drawn = rng.choice(retained, min(int(view.subsets.test.sum()), len(retained)), replace=False)
    subsets = view.subsets
    attack = miacr.miacr(
        evidence(drawn),
        evidence(subsets.test),
        evidence(subsets.calibration),
        evidence(subsets.forget),
        alpha=settings.miacr_alpha,
        attack=settings.miacr_attack,
        quantile_rule=settings.quantile_rule,
        test_forget=evidence(subsets.test_forget) if subsets.test_forget.any() else None,
        compat=options.compat,
        seed=options.seed,
        most=settings.svc_rows,
    )
    metrics = {"miacr": attack.miacr, "miacr_exact": attack.exact, "miacr_size": attack.set_size,
               "miacr_member": attack.traditional, "miacr_q_hat": attack.q_hat}  # fmt: skip
    if attack.test is not None:
        metrics |= {"miacr_test_excluded": attack.test.excluded, "miacr_test_size": attack.test.set_size,
                    "miacr_test_non_member": attack.test.non_member}  # fmt: skip
    return metrics


def _distances(
    view: _View, options: EvaluationOptions, retrained: np.ndarray | None, untrained: np.ndarray | None
) -> ModelMetrics:
    metrics: ModelMetrics = {}
    logits = view.logits[view.subsets.forget]
    if untrained is not None:
        untrained_logits = np.asarray(untrained)[view.subsets.forget]
        if untrained_logits.shape[-1] == logits.shape[-1]:
            metrics["zrf"] = distances.zrf(logits, untrained_logits, compat=options.compat)
    if retrained is not None:
        retrained_logits = np.asarray(retrained, np.float32)[view.subsets.forget]
        # A method may add a class (boundary expanding); a retrained model may have diverged.
        is_comparable = retrained_logits.shape[-1] == logits.shape[-1] and np.isfinite(retrained_logits).all()
        metrics["activation_distance"] = (
            distances.activation_distance(logits, retrained_logits) if is_comparable else np.nan
        )
    return metrics


_ATTACKS: dict[str, Callable[[_View, EvaluationOptions, int], ModelMetrics]] = {
    "svc": _svc, "thresholds": _thresholds, "entropy": _entropy, "miacr": _miacr,
}  # fmt: skip
