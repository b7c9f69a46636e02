"""Every score as a function (measured, options) -> [N]: which signals it reads, and which form `compat` asks for.

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

# AuditSignals in which every field that the score `needs` is there.
Given = Any
Entry = Callable[[Given, Options], Array]
SignalFn = Callable[[Signals], Array]


def _confidence(read: Signals) -> Array:
    return signals.log_odds_confidence(read.log_odds)


def _carlini(read: Signals) -> Array:
    return signals.log_odds_carlini(read.log_odds)


def _minus_loss(read: Signals) -> Array:
    return -signals.log_odds_cross_entropy(read.log_odds)


def _margin(read: Signals) -> Array:
    return read.margin


def _log_log(options: Options, offline: bool = False) -> SignalFn:
    c = options.constants
    e1, e2 = (c.offline_e1, c.offline_e2) if offline else (c.e1, c.e2)
    return lambda read: signals.log_log_normalised(read.log_odds, e1, e2)


def own_level(audit_signals: Given, read: SignalFn) -> Array:
    """[N] the offline fitting level: the mean over shadows of the mean signal on their own training rows, repeated."""
    return jnp.full(audit_signals.unlearned.log_odds.shape, jnp.mean(jnp.mean(read(audit_signals.own), -1)))


def iam_on(audit_signals: Given, options: Options) -> Array:
    """IAM-On: log-log signal, IN level = the original model's signal of the sample."""
    read = _log_log(options)
    return _iam(audit_signals, read(audit_signals.original), read, options.family, options)


def iam_off(audit_signals: Given, options: Options) -> Array:
    """IAM-Off: log-log signal, IN level = what shadows answer on their own training rows; needs no original model.

    Faithful, for purchase and texas: u and s are normalised with the limits of e1 = 1e-2, e2 = 1e-5, the level is not.
    """
    read = _log_log(options, offline=True)
    level = own_level(audit_signals, read)
    if not is_stale(options):
        return _iam(audit_signals, level, read, options.family, options)
    c = options.constants
    low, high = signals.log_log_limits(c.e1, c.e2)

    def stale(answers: Signals) -> Array:
        return (signals.log_log(answers.log_odds, c.offline_e1, c.offline_e2) - low) / (high - low)

    return _iam(audit_signals, level, stale, options.family, options)


def iam_raw(audit_signals: Given, options: Options) -> Array:
    """IAM-On with the log-log signal as it is, not scaled to [0, 1]; the published class report uses it.

    It is IAM-On but for rounding; faithful, for purchase and texas, it has the constants of IAM-Off.
    """
    c = options.constants
    e1, e2 = (c.offline_e1, c.offline_e2) if is_stale(options) else (c.e1, c.e2)

    def read(answers: Signals) -> Array:
        return signals.log_log(answers.log_odds, e1, e2)

    return _iam(audit_signals, read(audit_signals.original), read, options.family, options)


def iam_gauss(read: SignalFn, offline: bool, audit_signals: Given, options: Options) -> Array:
    """The same interpolation on another signal with a Gaussian CDF."""
    level = own_level(audit_signals, read) if offline else read(audit_signals.original)
    return _iam(audit_signals, level, read, "norm", options)


def iam_family(family: str, offline: bool, audit_signals: Given, options: Options) -> Array:
    """Table 5: the confidence under another distribution; faithful mixes it with the shadows' carlini logits."""
    level = own_level(audit_signals, _confidence) if offline else _confidence(audit_signals.original)
    of_shadows = _carlini if options.compat == "faithful" else _confidence
    return _iam(audit_signals, level, _confidence, family, options, of_shadows)


def _iam(
    audit_signals: Given,
    level: Array,
    read: SignalFn,
    family: str,
    options: Options,
    of_shadows: SignalFn | None = None,
) -> Array:
    return iam.interpolate(
        level, read(audit_signals.unlearned), (of_shadows or read)(audit_signals.shadows),
        interpolation_steps=options.interpolation_steps, family=family, std=options.std,
    )  # fmt: skip


def lira_off(audit_signals: Given, options: Options) -> Array:
    """LiRA-Off; faithful: two-sided density for random forgetting, one tail for classes, deviation not floored."""
    unlearned, shadows = _carlini(audit_signals.unlearned), _carlini(audit_signals.shadows)
    if options.compat == "faithful":
        return lira.faithful_offline(unlearned, shadows, options.forget_type)
    return lira.offline(unlearned, shadows, variance=options.variance)


def lira_on(audit_signals: Given, options: Options) -> Array:
    """LiRA-On with the one original model as IN; faithful: its deviation is 1e-30."""
    given = _carlini(audit_signals.unlearned), _carlini(audit_signals.original), _carlini(audit_signals.shadows)
    if options.compat == "faithful":
        return lira.faithful_online(*given)
    return lira.online(*given, variance=options.variance)


def lira_standard(audit_signals: Given, options: Options) -> Array:
    """The standard online LiRA with real IN and OUT models of every sample."""
    return lira.standard(
        _carlini(audit_signals.unlearned), _carlini(audit_signals.reference), audit_signals.reference_member,
        variance=options.variance,
    )  # fmt: skip


def update(audit_signals: Given, options: Options) -> Array:
    """Update attack."""
    given = _carlini(audit_signals.unlearned), _carlini(audit_signals.original), _carlini(audit_signals.shadows)
    if options.compat == "faithful":
        return lira.faithful_update(*given)
    return lira.update(*given, variance=options.variance)


def rmia_off(audit_signals: Given, options: Options) -> Array:
    """RMIA-Off."""
    return rmia.offline(
        audit_signals.unlearned.ratio, audit_signals.shadows.ratio, audit_signals.population_unlearned.ratio,
        audit_signals.population_shadows.ratio, options.constants.offline_a, options.gamma,
    )  # fmt: skip


def rmia_on(audit_signals: Given, options: Options) -> Array:
    """RMIA-On."""
    return rmia.online(
        audit_signals.unlearned.ratio, audit_signals.original.ratio, audit_signals.shadows.ratio,
        audit_signals.population_unlearned.ratio, audit_signals.population_in.ratio,
        audit_signals.population_shadows.ratio,
        options.gamma,
    )  # fmt: skip


def emia_r(audit_signals: Given, options: Options) -> Array:
    """EMIA-R."""
    return emia.reference(audit_signals.unlearned.true_logit, audit_signals.shadows.true_logit)


def emia_p(audit_signals: Given, options: Options) -> Array:
    """EMIA-P."""
    return emia.population(audit_signals.unlearned.true_logit, audit_signals.population_unlearned.true_logit)


def bavaria(density: str, audit_signals: Given, options: Options) -> Array:
    """BaVarIA: LiRA with variances shrunk to a prior, made for few shadow models; IN = the original's own answers."""
    return few_shadow.from_original(
        audit_signals.unlearned.log_odds,
        audit_signals.original.log_odds,
        audit_signals.shadows.log_odds,
        density,
        options.compat,
    )


def base(audit_signals: Given, options: Options) -> Array:
    """BASE: log probability against its mean over shadows."""
    return few_shadow.base(audit_signals.unlearned.log_odds, audit_signals.shadows.log_odds, options.compat)


def informia(audit_signals: Given, options: Options) -> Array:
    """InfoRMIA with OUT references."""
    return few_shadow.informia(
        audit_signals.unlearned.log_odds, audit_signals.shadows.log_odds, audit_signals.population_unlearned.log_odds,
        audit_signals.population_shadows.log_odds, options.constants.offline_a,
    )  # fmt: skip


def unleak_score(audit_signals: Given, options: Options) -> Array:
    """UnLeak, trained on the pairs of the shadows at hand."""
    return unleak_cases(audit_signals, single_model(audit_signals), options)[0]


def unleak_cases(audit_signals: Given, cases: AuditedModels, options: Options) -> np.ndarray:
    """[K, N] UnLeak of K audited models: one classifier, trained once."""
    known, pairs = audit_signals.posterior_pairs_known, np.asarray(cases.posterior_pairs)
    classes = known.shape[-1]
    unleak.check_classes(classes)
    scored = unleak.fit_and_score(
        known.reshape(-1, classes),
        audit_signals.posterior_pairs_forgotten.reshape(-1),
        pairs.reshape(-1, classes),
        options.seed,
    )
    return scored.reshape(pairs.shape[:2])


def confidence(audit_signals: Given, options: Options) -> np.ndarray:
    """Confidence of the unlearned model alone; it ranks as the log-odds do, also where a softmax saturates."""
    return signals.strict_confidence(audit_signals.unlearned.log_odds)


def minus_loss(audit_signals: Given, options: Options) -> np.ndarray:
    """Minus the cross entropy of the unlearned model alone; it ranks as the log-odds do."""
    return -signals.strict_cross_entropy(audit_signals.unlearned.log_odds)


def margin(audit_signals: Given, options: Options) -> Array:
    """Taylor soft margin of the unlearned model alone."""
    return _margin(audit_signals.unlearned)


def change(read: SignalFn, audit_signals: Given, options: Options) -> Array:
    """A signal of the unlearned model minus that of the original."""
    return read(audit_signals.unlearned) - read(audit_signals.original)


def log_log_change(audit_signals: Given, options: Options) -> Array:
    """Change of the normalised log-log signal."""
    return change(_log_log(options), audit_signals, options)


def ldiff(audit_signals: Given, options: Options) -> Array:
    """LDiff."""
    return difference.ldiff(
        _carlini(audit_signals.unlearned), _carlini(audit_signals.original),
        _carlini(audit_signals.population_unlearned), _carlini(audit_signals.population_original),
    )  # fmt: skip


def random(audit_signals: Given, options: Options) -> Array:
    """Uniform noise, the baseline; its seed takes in what the models answer, so every audit and group has its own."""
    answers = [audit_signals.unlearned.log_odds] + (
        [] if audit_signals.shadows is None else [np.sort(audit_signals.shadows.log_odds[:, 0])]
    )
    words = [np.frombuffer(np.ascontiguousarray(line[:64]).tobytes(), np.uint32).tolist() for line in answers]
    return np.random.default_rng([options.seed, *sum(words, [])]).random(len(answers[0])).astype(np.float32)


def over_views(entry: Entry, audit_signals: Given, options: Options) -> Array:
    """The mean of a score over augmented views of the samples; population samples stay clean.

    For LiRA-On it ranks as the joint likelihood ratio of all views, taken as independent.
    """
    shared = audit_signals._replace(views=())
    views = [
        shared._replace(unlearned=view.unlearned, original=view.original, shadows=view.shadows)
        for view in audit_signals.views
    ]
    # A plain sum: faithful LiRA is float64 in NumPy, everything else is being traced.
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
