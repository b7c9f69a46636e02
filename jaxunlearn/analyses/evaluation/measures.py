"""What is measured of M models of one role: arrays in, numbers per model out. No model code, no files.

    measure(values [M, N, C], labels [N], parts, choices) -> name -> [M], or [M, A] for A levels alpha

| names | what |
| --- | --- |
| UA, RA, TA | 1 - accuracy on forgotten, accuracy on retained and on test samples |
| confidence_forget, confidence_test | mean probability of the true label |
| svc_FEATURE | share of forgotten samples that an SVC on this feature calls non-members (SalUn: MIA efficacy) |
| threshold_FEATURE | the same by per-class thresholds (Song and Mittal) |
| entropy_mia | share of forgotten samples that a logistic regression on the entropy calls members (SSD) |
| zrf, activation_distance | distance to an untrained network, and to the retrained model |
| coverage_PART, size_PART, cr_PART, empty_PART | of prediction sets, PART in forget, retain, test, test_forget |
| class_coverage_test, class_size_test | [M, C, A], of the test samples of each class |
| recover_ratio, mistaken | of the misclassified forgotten samples, those whose label is in the set |
| miacr, miacr_exact, miacr_size, miacr_member | conformal membership attack: share whose set lacks "member"; is {non-\
member}; mean size; share called members |
| UA_test, miacr_test_excluded ... | where whole classes were forgotten, on their test samples; share whose set lacks \
"non-member" (lower = better, the other way round than miacr) |

All numbers of forgotten samples are read beside those of the retrained model, which is the goal.
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
APART = ("distribution",)  # takes seconds per model: `all` leaves it out (see `distributions`)
ModelMetrics = dict[str, Any]


class Subsets(NamedTuple):
    """Which samples play which part for each of M models, [M, N] bool each.

    Attributes:
      forget, retain, test: asked to be forgotten, kept, and held out (of classes that are still trained on).
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
    """How it is measured.

    Attributes:
      settings: see `sections.EvaluateSettings`; `groups`: of GROUPS and APART.
      compat: "corrected" or "faithful"; `seed`: of the draws of shadow members.
    """

    settings: EvaluateSettings
    groups: tuple[str, ...]
    compat: str = "corrected"
    seed: int = 0


def groups_of(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The groups of metrics that are asked for, `all` spelled out (which leaves out the costly ones).

    Raises:
      ConfigError: an unknown one.
    """
    found: list[str] = []
    for name in asked:
        if name not in (*GROUPS, *APART, "all"):
            raise errors.unknown("group of metrics", name, (*GROUPS, *APART, "all"))
        found += GROUPS if name == "all" else [name]
    return tuple(dict.fromkeys(found))


def options_of(settings: EvaluateSettings) -> conformal.Options:
    """How labels are scored and thresholds chosen."""
    return conformal.Options(settings.score, settings.quantile_rule, settings.raps_lam, settings.raps_k_reg)


def check_choices(settings: EvaluateSettings) -> None:
    """Raises a ConfigError for alphas outside (0, 1), unknown groups, scores or ranks."""
    conformal.check_alphas(settings.alphas)
    conformal.check_alphas(settings.miacr_alpha)
    conformal.check_options(options_of(settings))
    groups_of(settings.metrics)


def check_calibration(labels: np.ndarray, parts: Subsets, choices: EvaluationOptions) -> list[str]:
    """What is wrong with the calibration samples, as sentences, for settings that are not strict.

    Raises:
      DataError: under `strict`, the first of them.
    """
    settings, said = choices.settings, []
    levels = (*(settings.alphas if "conformal" in choices.groups else ()),
              *((settings.miacr_alpha,) if "miacr" in choices.groups else ()))  # fmt: skip
    if not levels:
        return []
    smallest = min(levels)
    needed = conformal.smallest_calibration(smallest)
    kinds = [("", parts.calibration, parts.test)]
    if settings.qhat == "own" and parts.test_forget.any():
        has_classes = parts.test_forget.any(1)
        kinds.append((" of forgotten classes", parts.calibration_forget[has_classes], parts.test_forget[has_classes]))
    for name, known, test in kinds:
        count = int(known.sum(1).min())
        if count < needed:
            said.append(
                f"{count} calibration sample(s){name} are too few for alpha = {smallest}: at least {needed} are "
                "needed, or the sets hold every label."
            )
        for model in range(len(known)):
            absent = np.setdiff1d(labels[test[model]], labels[known[model]])
            if len(absent):
                said.append(
                    f"class {int(absent[0])} has test samples{name} but no calibration sample: coverage is promised "
                    "only where calibration and test samples are drawn alike."
                )
                break
    if said and settings.strict:
        ways = "Give more calibration samples (of a run: split.population, data.test_rows), a larger alpha"
        own = ", the threshold of retained classes (qhat=retain)" if len(kinds) > 1 else ""
        raise errors.DataError(f"{said[0]} {ways}{own}, or accept it with strict=False.")
    return said


def measure_models(
    values: np.ndarray,
    labels: np.ndarray,
    parts: Subsets,
    choices: EvaluationOptions,
    retrained: np.ndarray | None = None,
    untrained: np.ndarray | None = None,
    is_alive: np.ndarray | None = None,
) -> ModelMetrics:
    """Everything asked for, of M models of one role.

    Args:
      values: [M, N, C] float logits.
      labels: [N] int.
      parts: who plays which part.
      choices: what is measured, and how.
      retrained: [M, N, C] logits of the retrained models, or None.
      untrained: [N, C] logits of an untrained network on (at least) the forgotten samples, or None.
      is_alive: [M] bool, models that did not diverge; the others' numbers are NaN.

    Returns:
      name -> [M] or [M, A] float64, see the module.
    """
    kept = np.ones(len(values), bool) if is_alive is None else is_alive
    each: list[ModelMetrics] = []
    for model in np.flatnonzero(kept):
        one = _View(np.asarray(values[model], np.float32), labels, Subsets(*(part[model] for part in parts)))
        numbers = _utility(one)
        for name, attack in _ATTACKS.items():
            if name in choices.groups and one.parts.retain.any():
                numbers |= attack(one, choices, int(model))
        if "distances" in choices.groups:
            numbers |= _distances(one, choices, None if retrained is None else retrained[model], untrained)
        each.append(numbers)
    # What only some models have (numbers of a class that vanished wholly) is NaN for the others.
    names = dict.fromkeys(name for numbers in each for name in numbers)
    whole = {name: np.stack([np.float64(numbers.get(name, np.nan)) for numbers in each]) for name in names}
    if "conformal" in choices.groups and kept.any():
        whole |= _conformal(values[kept], labels, Subsets(*(part[kept] for part in parts)), choices)
    return {name: _spread_out(np.asarray(lines, np.float64), kept) for name, lines in whole.items()}


def sets_of(
    values: np.ndarray, labels: np.ndarray, parts: Subsets, choices: EvaluationOptions, numbers: ModelMetrics
) -> ModelMetrics:
    """Prediction sets sample by sample: covered [M, A, N] bool and size [M, A, N] int32; models without numbers: 0.

    Args:
      values: [M, N, C] logits, finite where the model has thresholds.
      labels: [N].
      parts: as for `measure`.
      choices: as for `measure`.
      numbers: what `measure` found, with the group conformal.
    """
    alive = ~np.isnan(numbers["q_hat"]).any(1)
    options = options_of(choices.settings)
    sets = conformal.predict(values[alive], labels, numbers["q_hat"][alive], options)
    covered, size = np.asarray(sets.covered), np.asarray(sets.size)
    if "q_hat_forget" in numbers:
        apart = conformal.predict(values[alive], labels, numbers["q_hat_forget"][alive], options)
        is_apart = (parts.forget | parts.test_forget)[alive][:, None]
        covered, size = np.where(is_apart, apart.covered, covered), np.where(is_apart, apart.size, size)
    shape = (len(values), len(choices.settings.alphas), len(labels))
    found = {"covered": np.zeros(shape, bool), "size": np.zeros(shape, np.int32)}
    found["covered"][alive], found["size"][alive] = covered, size
    return found


class _View(NamedTuple):
    """One model: logits [N, C], labels [N] and its parts, [N] bool each."""

    logits: np.ndarray
    labels: np.ndarray
    parts: Subsets


def _spread_out(lines: np.ndarray, kept: np.ndarray) -> np.ndarray:
    whole = np.full((len(kept), *lines.shape[1:]), np.nan)
    whole[kept] = lines
    return whole


def _pair(one: _View, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return one.logits[part], one.labels[part]


def _utility(one: _View) -> ModelMetrics:
    right = one.logits.argmax(-1) == one.labels
    confidence = np.asarray(membership.features(one.logits, one.labels).confidence).ravel()

    found: ModelMetrics = {
        **utility.utility(right, one.parts.forget, one.parts.retain, one.parts.test),
        "confidence_forget": utility.accuracy(confidence, one.parts.forget),
        "confidence_test": utility.accuracy(confidence, one.parts.test),
    }
    if one.parts.test_forget.any():
        found["UA_test"] = 1 - utility.accuracy(right, one.parts.test_forget)
    return found


def _conformal(values: np.ndarray, labels: np.ndarray, parts: Subsets, choices: EvaluationOptions) -> ModelMetrics:
    """Thresholds, and what prediction sets are worth on every part; all models in one call."""
    settings, options = choices.settings, options_of(choices.settings)

    def threshold(known: np.ndarray) -> np.ndarray:
        some = known.any(0) | parts.calibration.any(0)  # never empty; what a model does not calibrate on is masked
        return conformal.calibrate(values[:, some], labels[some], settings.alphas, options, known[:, some])

    q_hat = of_forgotten = threshold(parts.calibration)
    found: ModelMetrics = {"q_hat": q_hat}
    if parts.test_forget.any() and settings.qhat == "own":
        of_forgotten = found["q_hat_forget"] = threshold(parts.calibration_forget)
    # Parts under one threshold are judged in one call.
    for names, own in ((("retain", "test"), q_hat), (("forget", "test_forget"), of_forgotten)):
        chosen = {name: getattr(parts, name) for name in names if getattr(parts, name).any()}
        if not chosen:
            continue
        some = np.any([part.any(0) for part in chosen.values()], axis=0)
        sets = conformal.predict(values[:, some], labels[some], own, options)
        quality = prediction_sets.summarise(sets, np.stack([part[:, some] for part in chosen.values()], axis=1))
        for place, name in enumerate(chosen):
            found[f"coverage_{name}"] = quality.coverage[:, place]
            found[f"size_{name}"] = quality.set_size[:, place]
            found[f"cr_{name}"] = quality.cr[:, place]
            found[f"empty_{name}"] = quality.empty[:, place]
            if name == "forget":
                found["recover_ratio"] = quality.recover_ratio[:, place]
                found["mistaken"] = quality.mistaken[:, place]
            if name == "test":
                classes = prediction_sets.of_classes(labels[some], values.shape[-1])
                each = prediction_sets.summarise(sets, classes & parts.test[:, None, some])
                found["class_coverage_test"], found["class_size_test"] = each.coverage, each.set_size
    return found


def _svc(one: _View, choices: EvaluationOptions, model: int) -> ModelMetrics:
    pairs = (_pair(one, part) for part in (one.parts.retain, one.parts.test, one.parts.forget))
    arrays = [array for pair in pairs for array in pair]
    found = svc.svc_mia(*arrays, compat=choices.compat, most=choices.settings.svc_rows, seed=choices.seed)
    return {f"svc_{name}": np.float64(value) for name, value in found.items()}


def _thresholds(one: _View, choices: EvaluationOptions, model: int) -> ModelMetrics:
    retain, test, forget = (_pair(one, part) for part in (one.parts.retain, one.parts.test, one.parts.forget))
    found = membership.song_mittal(retain, test, None, forget, compat=choices.compat)
    return {f"threshold_{name}": np.float64(rates.non_member) for name, rates in found.items()}


def _entropy(one: _View, choices: EvaluationOptions, model: int) -> ModelMetrics:
    retain, test, forget = (one.logits[part] for part in (one.parts.retain, one.parts.test, one.parts.forget))
    attack = membership.entropy_attack(retain, test, forget)
    return {"entropy_mia": np.float64(attack.member_rate)}


def _miacr(one: _View, choices: EvaluationOptions, model: int) -> ModelMetrics:
    settings = choices.settings
    fast = settings.miacr_attack == "threshold"

    def evidence(part: np.ndarray) -> np.ndarray:
        """The confidence; log-odds for the threshold attack, which only needs its order: fewer ties near 1."""
        logits, labels = _pair(one, part)
        if fast:
            return np.asarray(signals.log_odds(jnp.asarray(logits), jnp.asarray(labels)))
        return np.asarray(membership.features(logits, labels).confidence).ravel()

    retained = np.flatnonzero(one.parts.retain)
    rng = np.random.default_rng([choices.seed, model])
    drawn = rng.choice(retained, min(int(one.parts.test.sum()), len(retained)), replace=False)
    found = miacr.miacr(
        evidence(drawn), evidence(one.parts.test), evidence(one.parts.calibration), evidence(one.parts.forget),
        alpha=settings.miacr_alpha, attack=settings.miacr_attack, quantile_rule=settings.quantile_rule,
        test_forget=evidence(one.parts.test_forget) if one.parts.test_forget.any() else None, compat=choices.compat,
        seed=choices.seed, most=settings.svc_rows,
    )  # fmt: skip
    numbers = {"miacr": found.miacr, "miacr_exact": found.exact, "miacr_size": found.set_size,
               "miacr_member": found.traditional, "miacr_q_hat": found.q_hat}  # fmt: skip
    if found.test is not None:
        numbers |= {"miacr_test_excluded": found.test.excluded, "miacr_test_size": found.test.set_size,
                    "miacr_test_non_member": found.test.non_member}  # fmt: skip
    return numbers


def _distances(
    one: _View, choices: EvaluationOptions, retrained: np.ndarray | None, untrained: np.ndarray | None
) -> ModelMetrics:
    found: ModelMetrics = {}
    own = one.logits[one.parts.forget]
    if untrained is not None:
        fresh = np.asarray(untrained)[one.parts.forget]
        if fresh.shape[-1] == own.shape[-1]:
            found["zrf"] = distances.zrf(own, fresh, compat=choices.compat)
    if retrained is not None:
        goal = np.asarray(retrained, np.float32)[one.parts.forget]
        # A method may answer for one class more (boundary expanding); a retrained model may have diverged.
        fits = goal.shape[-1] == own.shape[-1] and np.isfinite(goal).all()
        found["activation_distance"] = distances.activation_distance(own, goal) if fits else np.nan
    return found


_ATTACKS: dict[str, Callable[[_View, EvaluationOptions, int], ModelMetrics]] = {
    "svc": _svc, "thresholds": _thresholds, "entropy": _entropy, "miacr": _miacr,
}  # fmt: skip
