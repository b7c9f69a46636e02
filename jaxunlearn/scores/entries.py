"""Every score as a function (audit_signals, options) -> [N]: the signals it reads, and the form that `compat` selects.

All return membership scores: higher = the sample still looks trained on. Where a published unlearning score lies in
[0, 1] it is one minus this one, elsewhere minus this one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxunlearn.records import Array
from jaxunlearn.scores import signals
from jaxunlearn.scores.audit_signals import AuditedModels, Signals, single_model
from jaxunlearn.scores.families import difference, emia, few_shadow, iam, lira, rmia, unleak
from jaxunlearn.scores.options import Options, is_stale

# AuditSignals in which every field that the score `needs` is present.
Inputs = Any
ScoreFn = Callable[[Inputs, Options], Array]
SignalFn = Callable[[Signals], Array]


def _confidence(answers: Signals) -> Array:
    return signals.log_odds_confidence(answers.log_odds)


def _carlini(answers: Signals) -> Array:
    return signals.log_odds_carlini(answers.log_odds)


def _minus_loss(answers: Signals) -> Array:
    return -signals.log_odds_cross_entropy(answers.log_odds)


def _margin(answers: Signals) -> Array:
    return answers.margin


def _log_log(options: Options, offline: bool = False) -> SignalFn:
    c = options.constants
    e1, e2 = (c.offline_e1, c.offline_e2) if offline else (c.e1, c.e2)
    return lambda answers: signals.log_log_normalised(answers.log_odds, e1, e2)


def offline_level(audit_signals: Inputs, signal: SignalFn) -> Array:
    """Returns the IN level [N] of offline scores: the mean signal of shadows on their own training rows, repeated."""
    return jnp.full(audit_signals.unlearned.log_odds.shape, jnp.mean(jnp.mean(signal(audit_signals.shadow_train), -1)))


def iam_on(audit_signals: Inputs, options: Options) -> Array:
    """Computes IAM-On on the log-log signal; the IN level is the original model's signal of the sample."""
    signal = _log_log(options)
    return _iam(audit_signals, signal(audit_signals.original), signal, options.family, options)


def iam_off(audit_signals: Inputs, options: Options) -> Array:
    """Computes IAM-Off on the log-log signal; the IN level is that of shadows on their own training rows.

    It needs no original model. Faithful, for purchase and texas: u and s are normalised with the limits of e1 = 1e-2,
    e2 = 1e-5, the level is not.
    """
    signal = _log_log(options, offline=True)
    level = offline_level(audit_signals, signal)
    if not is_stale(options):
        return _iam(audit_signals, level, signal, options.family, options)
    c = options.constants
    low, high = signals.log_log_limits(c.e1, c.e2)

    def stale_signal(answers: Signals) -> Array:
        return (signals.log_log(answers.log_odds, c.offline_e1, c.offline_e2) - low) / (high - low)

    return _iam(audit_signals, level, stale_signal, options.family, options)


def iam_raw(audit_signals: Inputs, options: Options) -> Array:
    """Computes IAM-On on the log-log signal without scaling to [0, 1], as in the published class report.

    It equals IAM-On up to rounding; faithful, for purchase and texas, it has the constants of IAM-Off.
    """
    c = options.constants
    e1, e2 = (c.offline_e1, c.offline_e2) if is_stale(options) else (c.e1, c.e2)

    def signal(answers: Signals) -> Array:
        return signals.log_log(answers.log_odds, e1, e2)

    return _iam(audit_signals, signal(audit_signals.original), signal, options.family, options)


def iam_gauss(signal: SignalFn, offline: bool, audit_signals: Inputs, options: Options) -> Array:
    """Computes IAM on another signal, with a Gaussian CDF.

    Args:
      signal: Signals -> [..., N].
      offline: IAM-Off instead of IAM-On.
      audit_signals: of the audit.
      options: of the audit.
    """
    level = offline_level(audit_signals, signal) if offline else signal(audit_signals.original)
    return _iam(audit_signals, level, signal, "norm", options)


def iam_family(family: str, offline: bool, audit_signals: Inputs, options: Options) -> Array:
    """Computes IAM on the confidence under another distribution (Table 5).

    Faithful mixes the confidence with the carlini logits of the shadows.

    Args:
      family: of `iam.FAMILIES`.
      offline: IAM-Off instead of IAM-On.
      audit_signals: of the audit.
      options: of the audit.
    """
    level = offline_level(audit_signals, _confidence) if offline else _confidence(audit_signals.original)
    shadow_signal = _carlini if options.compat == "faithful" else _confidence
    return _iam(audit_signals, level, _confidence, family, options, shadow_signal)


def _iam(
    audit_signals: Inputs,
    level: Array,
    signal: SignalFn,
    family: str,
    options: Options,
    shadow_signal: SignalFn | None = None,
) -> Array:
    return iam.interpolate(
        level, signal(audit_signals.unlearned), (shadow_signal or signal)(audit_signals.shadows),
        interpolation_steps=options.interpolation_steps, family=family, std=options.std,
    )  # fmt: skip


def lira_off(audit_signals: Inputs, options: Options) -> Array:
    """Computes LiRA-Off.

    Faithful: a two-sided density for random forgetting, one tail for classes, no floor on the deviation.
    """
    unlearned, shadows = _carlini(audit_signals.unlearned), _carlini(audit_signals.shadows)
    if options.compat == "faithful":
        return lira.faithful_offline(unlearned, shadows, options.forget_type)
    return lira.offline(unlearned, shadows, variance=options.variance)


def lira_on(audit_signals: Inputs, options: Options) -> Array:
    """Computes LiRA-On with the original model as the only IN model; faithful: its deviation is 1e-30."""
    logits = _carlini(audit_signals.unlearned), _carlini(audit_signals.original), _carlini(audit_signals.shadows)
    if options.compat == "faithful":
        return lira.faithful_online(*logits)
    return lira.online(*logits, variance=options.variance)


def lira_standard(audit_signals: Inputs, options: Options) -> Array:
    """Computes the standard online LiRA with real IN and OUT models of every sample."""
    return lira.standard(
        _carlini(audit_signals.unlearned), _carlini(audit_signals.reference), audit_signals.reference_member,
        variance=options.variance,
    )  # fmt: skip


def update(audit_signals: Inputs, options: Options) -> Array:
    """Computes the update attack."""
    logits = _carlini(audit_signals.unlearned), _carlini(audit_signals.original), _carlini(audit_signals.shadows)
    if options.compat == "faithful":
        return lira.faithful_update(*logits)
    return lira.update(*logits, variance=options.variance)


def rmia_off(audit_signals: Inputs, options: Options) -> Array:
    """Computes RMIA-Off."""
    return rmia.offline(
        audit_signals.unlearned.ratio, audit_signals.shadows.ratio, audit_signals.population_unlearned.ratio,
        audit_signals.population_shadows.ratio, options.constants.offline_a, options.gamma,
    )  # fmt: skip


def rmia_on(audit_signals: Inputs, options: Options) -> Array:
    """Computes RMIA-On."""
    return rmia.online(
        audit_signals.unlearned.ratio, audit_signals.original.ratio, audit_signals.shadows.ratio,
        audit_signals.population_unlearned.ratio, audit_signals.population_in.ratio,
        audit_signals.population_shadows.ratio,
        options.gamma,
    )  # fmt: skip


def emia_r(audit_signals: Inputs, options: Options) -> Array:
    """Computes EMIA-R."""
    return emia.reference(audit_signals.unlearned.true_logit, audit_signals.shadows.true_logit)


def emia_p(audit_signals: Inputs, options: Options) -> Array:
    """Computes EMIA-P."""
    return emia.population(audit_signals.unlearned.true_logit, audit_signals.population_unlearned.true_logit)


def bavaria(density: str, audit_signals: Inputs, options: Options) -> Array:
    """Computes BaVarIA, LiRA with variances shrunk to a prior; IN is fitted to the original's own answers."""
    return few_shadow.from_original(
        audit_signals.unlearned.log_odds,
        audit_signals.original.log_odds,
        audit_signals.shadows.log_odds,
        density,
        options.compat,
    )


def base(audit_signals: Inputs, options: Options) -> Array:
    """Computes BASE: the log probability against its mean over shadows."""
    return few_shadow.base(audit_signals.unlearned.log_odds, audit_signals.shadows.log_odds, options.compat)


def informia(audit_signals: Inputs, options: Options) -> Array:
    """Computes InfoRMIA with OUT references."""
    return few_shadow.informia(
        audit_signals.unlearned.log_odds, audit_signals.shadows.log_odds, audit_signals.population_unlearned.log_odds,
        audit_signals.population_shadows.log_odds, options.constants.offline_a,
    )  # fmt: skip


def unleak_score(audit_signals: Inputs, options: Options) -> Array:
    """Computes UnLeak, trained on the posterior pairs of the shadows."""
    return unleak_models(audit_signals, single_model(audit_signals), options)[0]


def unleak_models(audit_signals: Inputs, models: AuditedModels, options: Options) -> np.ndarray:
    """Computes UnLeak [K, N] of K audited models with one classifier, trained once."""
    known_pairs, pairs = audit_signals.posterior_pairs_known, np.asarray(models.posterior_pairs)
    classes = known_pairs.shape[-1]
    unleak.check_classes(classes)
    memberships = unleak.fit_and_score(
        known_pairs.reshape(-1, classes),
        audit_signals.posterior_pairs_forgotten.reshape(-1),
        pairs.reshape(-1, classes),
        options.seed,
    )
    return memberships.reshape(pairs.shape[:2])


def confidence(audit_signals: Inputs, options: Options) -> np.ndarray:
    """Returns the confidence of the unlearned model; it ranks as the log-odds do, even where a softmax saturates."""
    return signals.strict_confidence(audit_signals.unlearned.log_odds)


def minus_loss(audit_signals: Inputs, options: Options) -> np.ndarray:
    """Returns minus the cross entropy of the unlearned model; it ranks as the log-odds do."""
    return -signals.strict_cross_entropy(audit_signals.unlearned.log_odds)


def margin(audit_signals: Inputs, options: Options) -> Array:
    """Returns the Taylor soft margin of the unlearned model."""
    return _margin(audit_signals.unlearned)


def change(signal: SignalFn, audit_signals: Inputs, options: Options) -> Array:
    """Returns a signal of the unlearned model minus that of the original."""
    return signal(audit_signals.unlearned) - signal(audit_signals.original)


def log_log_change(audit_signals: Inputs, options: Options) -> Array:
    """Returns the change of the normalised log-log signal."""
    return change(_log_log(options), audit_signals, options)


def ldiff(audit_signals: Inputs, options: Options) -> Array:
    """Computes LDiff."""
    return difference.ldiff(
        _carlini(audit_signals.unlearned), _carlini(audit_signals.original),
        _carlini(audit_signals.population_unlearned), _carlini(audit_signals.population_original),
    )  # fmt: skip


def random(audit_signals: Inputs, options: Options) -> Array:
    """Draws uniform noise, the baseline; its seed includes answers of the models, so that audits and groups differ."""
    answers = [audit_signals.unlearned.log_odds] + (
        [] if audit_signals.shadows is None else [np.sort(audit_signals.shadows.log_odds[:, 0])]
    )
    words = [np.frombuffer(np.ascontiguousarray(answer[:64]).tobytes(), np.uint32).tolist() for answer in answers]
    return np.random.default_rng([options.seed, *sum(words, [])]).random(len(answers[0])).astype(np.float32)


def over_views(entry: ScoreFn, audit_signals: Inputs, options: Options) -> Array:
    """Computes the mean of a score over augmented views of the samples; population samples stay clean.

    For LiRA-On it ranks as the joint likelihood ratio of all views would if they were independent.
    """
    shared = audit_signals._replace(views=())
    views = [
        shared._replace(unlearned=view.unlearned, original=view.original, shadows=view.shadows)
        for view in audit_signals.views
    ]
    # A plain sum: faithful LiRA is float64 in NumPy, all other scores are traced.
    total = entry(views[0], options)
    for view in views[1:]:
        total = total + entry(view, options)
    return total / len(views)


CONFIDENCE, LOSS, CARLINI, MARGIN = _confidence, _minus_loss, _carlini, _margin
TABLE_FIVE = {
    f"iam_{family}_{side}": partial(iam_family, family, side == "off")
    for family in ("ecdf", "kde", "beta")
    for side in ("off", "on")
}
