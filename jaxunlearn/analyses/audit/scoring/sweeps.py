"""Sweeps of an audit: number of shadows, interpolation steps with e1 and e2, source of the shadow models.

Source: IAM, sections on the number of shadow models, parameter sensitivity, distribution shift, architecture shift.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
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
      values: the axis: numbers of shadows, or interpolation steps.
      lines: name of a curve -> one Finding (AUC) per value.
      groups: number of groups of shadows behind each value.
      skipped: curve -> reason: its score is not finite somewhere on the axis.
    """

    values: tuple[int, ...]
    lines: dict[str, list[Finding]]
    groups: tuple[int, ...]
    skipped: dict[str, str] = {}


def auc(values: np.ndarray, truth: np.ndarray, settings: Settings, of: str) -> Finding:
    """Computes the pooled AUC of scores with its interval.

    Args:
      values: [G, R, N] scores; HIGHER = still looks trained on.
      truth: [R, N] bool, True = retained.
      settings: for the confidence level.
      of: name of the score.
    """
    return pooled.table(values, truth, confidence_level=settings.audit.confidence_level, of=of)["auc"]


def shadow_counts(signals: AuditInputs, settings: Settings, role: str, context: Context) -> Sweep:
    """Computes AUC against the number of shadows per group, for the requested scores in `CURVES` (or the first eight).

    Args:
      signals: inputs of the audit.
      settings: of the audit.
      role: the audited role.
      context: for messages.
    """
    assert signals.forgotten is not None
    available = audit_signals.num_shadows(signals)
    counts = tuple(count for count in dict.fromkeys(settings.audit.counts) if count <= available)
    requested = audit_signals.names_of(signals, settings)
    names, _ = audit_signals.runnable(
        signals, tuple(name for name in (*CURVES, *TEXT_CURVES) if name in requested) or requested[: len(CURVES)], role
    )  # fmt: skip
    lines: dict[str, list[Finding]] = {name: [] for name in names}
    skipped: dict[str, str] = {}
    num_groups = []
    for count in counts:
        groups = audit_signals.groups(signals, settings, count)
        num_groups.append(len(groups))
        values = binui.score_all(signals, names, groups, role, failures=skipped)
        context.log(f"{count} shadow(s) per group, {len(groups)} group(s)")
        for name in values:
            lines[name].append(auc(values[name], ~signals.forgotten, settings, name))
    return _swept(counts, lines, tuple(num_groups), skipped)


def sensitivity(signals: AuditInputs, settings: Settings, role: str, context: Context) -> Sweep:
    """Computes AUC of IAM-On and IAM-Off against interpolation steps, one curve per score, e1 and e2.

    Args:
      signals: inputs of the audit.
      settings: of the audit.
      role: the audited role.
      context: for messages.
    """
    assert signals.forgotten is not None
    audit = settings.audit
    groups = audit_signals.groups(signals, settings)
    names, _ = audit_signals.runnable(signals, ("iam_on", "iam_off"), role)
    lines: dict[str, list[Finding]] = {}
    skipped: dict[str, str] = {}
    pairs = [(e1, e2) for e1 in audit.sweep_e1 for e2 in audit.sweep_e2 if 0 < e2 < np.expm1(e1)]
    for e1, e2 in pairs:
        constants = signals.options.constants._replace(e1=e1, e2=e2, offline_e1=e1, offline_e2=e2)
        for name in names:
            label = f"{name} e1={e1:g} e2={e2:g}"
            lines[label] = []
            for steps in audit.sweep_interpolation_steps:
                changed = signals._replace(
                    options=signals.options._replace(constants=constants, interpolation_steps=steps)
                )
                not_finite: dict[str, str] = {}
                values = binui.score_all(changed, [name], groups, role, failures=not_finite)
                if name in not_finite:
                    skipped[label] = not_finite[name]
                lines[label] += [auc(array, ~signals.forgotten, settings, label) for array in values.values()]
        context.log(f"e1 = {e1:g}, e2 = {e2:g}: {len(audit.sweep_interpolation_steps)} numbers of steps")
    return _swept(
        tuple(audit.sweep_interpolation_steps), lines, (len(groups),) * len(audit.sweep_interpolation_steps), skipped
    )


def _swept(
    values: tuple[int, ...], lines: dict[str, list[Finding]], groups: tuple[int, ...], skipped: dict[str, str]
) -> Sweep:  # fmt: skip
    """Returns the sweep without the skipped curves.

    Raises:
      DataError: none is left.
    """
    complete = {name: findings for name, findings in lines.items() if name not in skipped}
    if skipped and not complete:
        reasons = "; ".join(dict.fromkeys(skipped.values()))
        raise errors.DataError(f"no score could be computed along the sweep: {reasons}.")
    return Sweep(values, complete, groups, skipped)


def shadow_sources(
    signals: AuditInputs, settings: Settings, role: str, context: Context
) -> dict[str, scoreboard.Scoreboard]:
    """Computes a BinUI scoreboard per source of shadows: this run (not with the protocol incremental), and other runs.

    Args:
      signals: inputs of the audit.
      settings: of the audit.
      role: the audited role.
      context: for messages and progress.
    """
    run_shadows = {} if settings.audit.protocol == "incremental" else {"own": signals.shared}
    return {
        source: scoreboard.judge(binui.run(with_source(signals, shared), settings, role, context),
                                 settings.audit.confidence_level)
        for source, shared in {**run_shadows, **signals.external}.items()
    }  # fmt: skip


def with_source(signals: AuditInputs, shared: scores.AuditSignals) -> AuditInputs:
    """Returns the signals with other shadow models, without what is recorded only for the run's shadows."""
    if shared is signals.shared:
        return signals
    roles = {name: models._replace(posterior_pairs=None, views=()) for name, models in signals.roles.items()}
    return signals._replace(shared=shared, roles=roles)
