"""BinUI: how well does each score tell forgotten from retained samples, with exact retraining as the truth?

For every group of shadows and every forget set all scores of the whole target set; the sets are pooled (N * R values,
one ROC per group), the table shows the mean and deviation over groups. Source: IAM, section on BinUI.
"""

import time

import numpy as np

from jaxunlearn import errors, progress, scores
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditSignals
from jaxunlearn.analyses.audit.scoring import scoreboard
from jaxunlearn.analyses.base import Context
from jaxunlearn.settings import Settings


def score_all(
    signals: AuditSignals,
    names: list[str],
    groups: list[np.ndarray],
    role: str,
    context: Context | None = None,
    lost: dict[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Membership scores of all groups and forget sets, name -> [G, R, N].

    Args:
      signals: the evidence.
      names: scores whose inputs are there.
      groups: [G] groups of shadow numbers.
      role: whose models are audited.
      context: for progress, or None.
      lost: takes scores that are not finite, with the reason; where it is None they are an error.

    Raises:
      DataError: a score is not finite, and there is no `lost`.
    """
    cases = signals.roles[role]
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for number, group in enumerate(groups):
        shared = audit_signals.with_shadows(signals, group)
        for place, name in enumerate(names):
            # A score without shadows is the same in every group.
            if number and not scores.find(name).reads_shadows and values[name]:
                values[name].append(values[name][0])
                continue
            if lost is not None and name in lost:
                continue
            try:
                values[name].append(scores.compute_models(name, shared, cases, signals.options))
            except errors.DataError as error:
                if lost is None:
                    raise
                lost[name] = str(error).rstrip(".")
            if context is not None:
                done = number * len(names) + place + 1
                context.progress(done, len(groups) * len(names), "scores", f"{name}, shadow group {number}")
    return {name: np.stack(lines) for name, lines in values.items() if not lost or name not in lost}


def run(signals: AuditSignals, settings: Settings, role: str, context: Context) -> scoreboard.Scored:
    """All scores of one role over all groups of shadows."""
    begun = time.monotonic()
    names, skipped = audit_signals.runnable(signals, audit_signals.names_of(signals, settings), role)
    groups = audit_signals.groups(signals, settings)
    values = score_all(signals, names, groups, role, context, skipped)
    if not values:
        name, why = next(iter(skipped.items()))
        raise errors.DataError(f"no score of {role} could be computed: {name}: {why}.")
    truth = None if signals.forgotten is None else ~signals.forgotten
    count = len(signals.labels) if truth is None else truth.size
    context.say(
        f"{role}: {len(names)} scores x {len(groups)} shadow group(s) x {count:,} pooled samples in "
        f"{progress.duration(time.monotonic() - begun)}"
    )
    return scoreboard.Scored(values, truth, skipped)
