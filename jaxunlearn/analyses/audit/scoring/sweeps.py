"""What an audit's quality depends on: number of shadows, interpolation levels and e1 / e2, and whose shadows they are.

Source: IAM, sections on the number of shadow models, parameter sensitivity, distribution shift, architecture shift.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditSignals
from jaxunlearn.analyses.audit.scoring import binui, scoreboard
from jaxunlearn.analyses.base import Context
from jaxunlearn.metrics.ranking import pooled
from jaxunlearn.records import Finding
from jaxunlearn.settings import Settings

# The scores whose dependence on shadows is worth a curve.
CURVES = ("iam_on", "iam_off", "rmia_on", "rmia_off", "lira_on", "lira_off", "emia_r", "update")
TEXT_CURVES = ("lm_iam", "lm_rmia", "lm_lira", "lm_ratio")


class Sweep(NamedTuple):
    """AUC along one axis.

    Attributes:
      values: the axis: numbers of shadows, or interpolation levels.
      lines: name of a line -> one Finding (AUC) per value.
      groups: how many groups of shadows stand behind each value.
      skipped: line -> why it is left out: a score that is not finite somewhere on the axis.
    """

    values: tuple[int, ...]
    lines: dict[str, list[Finding]]
    groups: tuple[int, ...]
    skipped: dict[str, str] = {}


def auc(values: np.ndarray, truth: np.ndarray, settings: Settings, of: str) -> Finding:
    """The pooled AUC of [G, R, N] scores with its interval."""
    return pooled.table(values, truth, confidence_level=settings.audit.confidence_level, of=of)["auc"]


def shadow_counts(signals: AuditSignals, settings: Settings, role: str, context: Context) -> Sweep:
    """AUC against the number of shadows per group, for those of `CURVES` (or the first eight) that are asked for."""
    assert signals.forgotten is not None
    there = audit_signals.num_shadows(signals)
    counts = tuple(count for count in dict.fromkeys(settings.audit.counts) if count <= there)
    wanted = audit_signals.names_of(signals, settings)
    names, _ = audit_signals.runnable(
        signals, tuple(name for name in (*CURVES, *TEXT_CURVES) if name in wanted) or wanted[: len(CURVES)], role
    )  # fmt: skip
    lines: dict[str, list[Finding]] = {name: [] for name in names}
    lost: dict[str, str] = {}
    numbers = []
    for count in counts:
        groups = audit_signals.groups(signals, settings, count)
        numbers.append(len(groups))
        values = binui.score_all(signals, names, groups, role, lost=lost)
        context.say(f"{count} shadow(s) per group, {len(groups)} group(s)")
        for name in values:
            lines[name].append(auc(values[name], ~signals.forgotten, settings, name))
    return _swept(counts, lines, tuple(numbers), lost)


def sensitivity(signals: AuditSignals, settings: Settings, role: str, context: Context) -> Sweep:
    """AUC of IAM-On and IAM-Off against interpolation levels, one line per score, e1 and e2."""
    assert signals.forgotten is not None
    audit = settings.audit
    groups = audit_signals.groups(signals, settings)
    names, _ = audit_signals.runnable(signals, ("iam_on", "iam_off"), role)
    lines: dict[str, list[Finding]] = {}
    lost: dict[str, str] = {}
    pairs = [(e1, e2) for e1 in audit.sweep_e1 for e2 in audit.sweep_e2 if 0 < e2 < np.expm1(e1)]
    for e1, e2 in pairs:
        constants = signals.options.constants._replace(e1=e1, e2=e2, offline_e1=e1, offline_e2=e2)
        for name in names:
            line = f"{name} e1={e1:g} e2={e2:g}"
            lines[line] = []
            for levels in audit.sweep_interpolation_steps:
                changed = signals._replace(
                    options=signals.options._replace(constants=constants, interpolation_steps=levels)
                )
                own: dict[str, str] = {}
                values = binui.score_all(changed, [name], groups, role, lost=own)
                if name in own:
                    lost[line] = own[name]
                lines[line] += [auc(one, ~signals.forgotten, settings, line) for one in values.values()]
        context.say(f"e1 = {e1:g}, e2 = {e2:g}: {len(audit.sweep_interpolation_steps)} numbers of levels")
    return _swept(
        tuple(audit.sweep_interpolation_steps), lines, (len(groups),) * len(audit.sweep_interpolation_steps), lost
    )


def _swept(
    values: tuple[int, ...], lines: dict[str, list[Finding]], groups: tuple[int, ...], lost: dict[str, str]
) -> Sweep:  # fmt: skip
    """The sweep without lines that were lost on the way.

    Raises:
      DataError: none is left.
    """
    kept = {name: line for name, line in lines.items() if name not in lost}
    if lost and not kept:
        reasons = "; ".join(dict.fromkeys(lost.values()))
        raise errors.DataError(f"no score could be computed along the sweep: {reasons}.")
    return Sweep(values, kept, groups, lost)


def shadow_sources(
    signals: AuditSignals, settings: Settings, role: str, context: Context
) -> dict[str, scoreboard.Scoreboard]:
    """One BinUI scoreboard per source of shadows: this run's (not with the protocol incremental), and other runs'."""
    own = {} if settings.audit.protocol == "incremental" else {"own": signals.shared}
    return {
        source: scoreboard.judge(binui.run(with_source(signals, shared), settings, role, context),
                                 settings.audit.confidence_level)
        for source, shared in {**own, **signals.external}.items()
    }  # fmt: skip


def with_source(signals: AuditSignals, shared: scores.AuditSignals) -> AuditSignals:
    """The signals with other shadow models, without what only the own ones have recorded."""
    if shared is signals.shared:
        return signals
    roles = {name: cases._replace(posterior_pairs=None, views=()) for name, cases in signals.roles.items()}
    return signals._replace(shared=shared, roles=roles)
