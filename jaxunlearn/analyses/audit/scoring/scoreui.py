"""ScoreUI: does a score grow with the amount of training, sample by sample?

L trainings on all target rows start from shadow weights, which never saw these rows, and are saved at B + 1 epochs;
every sample of snapshot b counts as trained to the degree b / B. Each score's [N, B + 1] matrix is scaled to [0, 1]
and compared with it. Source: IAM, section on ScoreUI.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.analyses.base import Context
from jaxunlearn.metrics.ranking import correlation
from jaxunlearn.records import Finding
from jaxunlearn.settings import Settings


class ScoreuiResult(NamedTuple):
    """Results of ScoreUI.

    Attributes:
      table: score -> spearman, pearson, mse, kl as Findings: mean over trainings and groups, sd over groups, interval
        over trainings.
      curves: score -> [L, B + 1] mean scaled score of each training at each snapshot (group 0).
      degrees: [B + 1] true degrees b / B.
      skipped: name -> reason.
    """

    table: dict[str, dict[str, Finding]]
    curves: dict[str, np.ndarray]
    degrees: np.ndarray
    skipped: dict[str, str]


def run(signals: AuditInputs, settings: Settings, context: Context) -> ScoreuiResult:
    """Computes ScoreUI of every score that needs neither pairs nor views, over the groups of shadows."""
    assert signals.snapshots is not None
    models, per_training, truth = signals.snapshots
    role = signals.audited[0]
    names, skipped = audit_signals.runnable(signals, audit_signals.names_of(signals, settings), role)
    # Snapshots have neither augmented views nor UnLeak features, so those of the shadows are left out below, too.
    left_out = [name for name in names if not scores.find(name).clean_only]
    if "all" in settings.audit.scores:
        # Published ScoreUI has none of Table 5's distributions, and beta takes minutes on hundreds of snapshots.
        left_out += [name for name in names if scores.find(name).is_variant]
    if models.population_unlearned is None:
        of_population = ("population", "pop_")
        left_out += [name for name in names if any(field.startswith(of_population) for field in scores.needs(name))]
    skipped = skipped | {name: "left out for snapshots" for name in left_out}
    names = [name for name in names if name not in left_out]
    signals = signals._replace(shared=signals.shared._replace(views=()))
    groups = audit_signals.groups(signals, settings)
    table, curves = {}, {}
    for index, name in enumerate(names):
        # Models are ordered by training * K + snapshot; a matrix has samples as rows and snapshots as columns.
        matrices = np.stack([
            scores.compute_models(name, audit_signals.with_shadows(signals, group), models, signals.options)
            .reshape(-1, per_training, len(signals.labels)).swapaxes(1, 2)
            for group in groups
        ])  # fmt: skip
        table[name] = correlation.table(matrices, settings.audit.confidence_level, name, truth)
        curves[name] = correlation.normalise(matrices[0]).mean(1)
        context.progress(index + 1, len(names), "scores", name)
    order = sorted(table, key=lambda name: -np.nan_to_num(table[name]["spearman"].value, nan=-2.0))
    degrees = correlation.degrees(per_training) if truth is None else truth
    return ScoreuiResult({name: table[name] for name in order}, curves, degrees, skipped)
