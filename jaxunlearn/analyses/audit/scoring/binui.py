"""BinUI: how well does each score tell forgotten from retained samples, with exact retraining as the truth?

All scores are computed on the whole target set, for every group of shadows and every forget set. The sets are pooled
(N * R values, one ROC per group); the table shows mean and standard deviation over groups. Source: IAM, section on
BinUI.
"""

import time

import numpy as np

from jaxunlearn import errors, progress, scores
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.analyses.audit.scoring import scoreboard
from jaxunlearn.analyses.base import Context
from jaxunlearn.settings import Settings


def score_all(
    signals: AuditInputs,
    names: list[str],
    groups: list[np.ndarray],
    role: str,
    context: Context | None = None,
    failures: dict[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Computes the membership scores of all groups and forget sets, name -> [G, R, N].

    Args:
      signals: the evidence.
      names: scores whose inputs are available.
      groups: [G] groups of shadow indices.
      role: the audited role.
      context: for progress, or None.
      failures: filled with the scores that are not finite and the reasons; if None, they are an error.

    Raises:
      DataError: a score is not finite, and `failures` is None.
    """
    models = signals.roles[role]
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for group_index, group in enumerate(groups):
        shared = audit_signals.with_shadows(signals, group)
        for name_index, name in enumerate(names):
            # A score without shadows is the same in every group.
            if group_index and not scores.find(name).reads_shadows and values[name]:
                values[name].append(values[name][0])
                continue
            if failures is not None and name in failures:
                continue
            try:
                values[name].append(scores.compute_models(name, shared, models, signals.options))
            except errors.DataError as error:
                if failures is None:
                    raise
                failures[name] = str(error).rstrip(".")
            if context is not None:
                num_done = group_index * len(names) + name_index + 1
                context.progress(num_done, len(groups) * len(names), "scores", f"{name}, shadow group {group_index}")
    return {name: np.stack(by_group) for name, by_group in values.items() if not failures or name not in failures}


def run(signals: AuditInputs, settings: Settings, role: str, context: Context) -> scoreboard.RoleScores:
    """Computes all scores of one role over all groups of shadows.

    Args:
      signals: inputs of the audit.
      settings: of the audit.
      role: the audited role.
      context: for messages and progress.
    """
    start = time.monotonic()
    names, skipped = audit_signals.runnable(signals, audit_signals.names_of(signals, settings), role)
    groups = audit_signals.groups(signals, settings)
    values = score_all(signals, names, groups, role, context, skipped)
    if not values:
        name, reason = next(iter(skipped.items()))
        raise errors.DataError(f"no score of {role} could be computed: {name}: {reason}.")
    truth = None if signals.forgotten is None else ~signals.forgotten
    num_samples = len(signals.labels) if truth is None else truth.size
    context.log(
        f"{role}: {len(names)} scores x {len(groups)} shadow group(s) x {num_samples:,} pooled samples in "
        f"{progress.duration(time.monotonic() - start)}"
    )
    return scoreboard.RoleScores(values, truth, skipped)
