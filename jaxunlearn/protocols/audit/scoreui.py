"""ScoreUI: does a score grow with how much was trained, sample by sample?

L trainings on all target rows start from shadow weights (never seen) and are kept at B + 1 epochs; every sample of
snapshot b counts as trained to the part b / B. Each score's [N, B + 1] matrix is scaled to [0, 1] and compared with
it. Source: IAM, section on ScoreUI.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import progress, scores, store
from jaxunlearn.metrics import correlation
from jaxunlearn.protocols import splits, targets, workbench
from jaxunlearn.protocols.audit import bank as banks
from jaxunlearn.protocols.audit import binui
from jaxunlearn.records import Finding
from jaxunlearn.scores.entries import TABLE_FIVE


class Levels(NamedTuple):
    """What ScoreUI found.

    Attributes:
      table: score -> spearman, pearson, mse, kl as Findings: mean over trainings and groups, sd over groups, interval
        over trainings.
      curves: score -> [L, B + 1] mean scaled score of each training at each snapshot (group 0).
      parts: [B + 1] the truth, b / B.
      skipped: name -> why.
    """

    table: dict[str, dict[str, Finding]]
    curves: dict[str, np.ndarray]
    parts: np.ndarray
    skipped: dict[str, str]


def snapshot_cases(
    run: store.Run, bench: workbench.Workbench, bank: banks.Bank
) -> tuple[scores.Cases, int]:  # fmt: skip
    """All snapshots as audited models [L * K, ...] against the (first) original, and K = B + 1 snapshots each."""
    recorded = targets.role_logits(run, bench, "snapshots")
    split, _ = splits.obtain(run, bench)
    target, population = (np.searchsorted(recorded.rows, rows) for rows in (split.target, split.population))
    after = scores.signals_of(recorded.values, recorded.labels[target], bank.options, rows=target)
    others = scores.signals_of(recorded.values, recorded.labels[population], bank.options, rows=population)
    count = len(recorded.values)

    def repeat(signals: scores.Signals) -> scores.Signals:
        return jax.tree.map(lambda field: np.broadcast_to(field[:1], (count, *field.shape[1:])), signals)

    before = bank.original
    cases = scores.Cases(after, repeat(before.target), others, repeat(before.population))
    return cases, len(recorded.snapshots)


def run(run_folder: store.Run, bench: workbench.Workbench, bank: banks.Bank, reporter: progress.Reporter) -> Levels:
    """ScoreUI of every score that needs neither pairs nor views, over the groups of shadows."""
    settings = bench.settings
    names, skipped = binui.runnable(bank, scores.names_of(settings.audit.scores))
    # Snapshots are recorded clean and without UnLeak features: what the shadows have of both is left out below, too.
    left_out = [name for name in names if name == "unleak" or name.endswith("_views")]
    if "all" in settings.audit.scores:
        # Published ScoreUI has none of Table 5's distributions, and beta takes minutes on hundreds of snapshots.
        left_out += [name for name in names if name in TABLE_FIVE]
    skipped = skipped | {name: "left out for snapshots" for name in left_out}
    names = [name for name in names if name not in left_out]
    cases, each = snapshot_cases(run_folder, bench, bank)
    bank = bank._replace(shadow=bank.shadow._replace(views=()))
    chosen = banks.groups(settings, len(bank.shadow.target.log_odds))
    table, curves = {}, {}
    reporter.begin("scoring snapshots")
    for place, name in enumerate(names):
        # Lines are training * K + snapshot; a matrix has samples in lines and snapshots in columns.
        matrices = np.stack([
            scores.compute_cases(name, banks.shared(bank, group), cases, bank.options)
            .reshape(-1, each, len(bank.labels)).swapaxes(1, 2)
            for group in chosen
        ])  # fmt: skip
        table[name] = correlation.table(matrices, settings.audit.interval, name)
        curves[name] = correlation.normalise(matrices[0]).mean(1)
        reporter.update(place + 1, len(names), "scores", name)
    order = sorted(table, key=lambda name: -np.nan_to_num(table[name]["spearman"].value, nan=-2.0))
    return Levels({name: table[name] for name in order}, curves, correlation.degrees(each), skipped)
