"""Studies: experiments that join several stages and end in one table.

`methods`: every unlearning method on every forget set, beside the originals (nothing unlearned) and exact retraining
(the goal): what it forgets and keeps (UA, RA, TA), what IAM-On sees of it in single samples, what it costs.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import records, settings, store
from jaxunlearn.metrics import intervals, pooled
from jaxunlearn.protocols import opening, splits, workbench
from jaxunlearn.protocols.audit import bank as banks
from jaxunlearn.protocols.audit import binui, presenting, publishing
from jaxunlearn.protocols.unlearned import listing, runs
from jaxunlearn.report import cells, tables

SCORE = "iam_on"
STEM = "methods"


class Seen(NamedTuple):
    """What IAM-On sees of one role: Findings over forget sets.

    Attributes:
      forgotten, retained: mean membership score of the forgotten and of the retained samples.
      auc: how well the score tells them apart; 0.5 = the method left no difference.
    """

    forgotten: records.Finding
    retained: records.Finding
    auc: records.Finding


def from_config(
    chosen: settings.Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:
    """Runs the study `methods`; trains and unlearns first what is missing. Returns what the terminal shows.

    Raises:
      UserError: anything the user can mend, before any training.
    """
    bench, asked = runs.check(workbench.prepare(narrowed(chosen)))
    splits.require_units(bench)
    banks.groups(bench.settings, chosen.shadows.count)
    if dry_run:
        return listing.plan(bench, asked)
    with opening.opened(bench, chosen, workdir, overwrite, overrides) as (run, reporter, bench, plain, begun):
        summary = runs.run(run, reporter, bench, asked)
        audit = dataclasses.replace(bench.settings.audit, unlearned=tuple(one.role for one in asked))
        bench = bench._replace(settings=dataclasses.replace(bench.settings, audit=audit))
        bank = banks.open_bank(run, reporter, bench)
        seen = {name: see(bank, bench.settings, name, one.diverged) for name, one in summary.roles.items()}
        piece = present(summary, seen)
        facts = {
            "config": f"{chosen.data.name}, {chosen.model.name}, seed {chosen.seed}",
            "forget sets": f"{len(summary.roles['retrained'].forget_error)} ({chosen.split.forget.kind})",
            "shadow models": f"{chosen.shadows.count}, {chosen.audit.group_size} per group",
        }
        made = presenting.provenance(banks.options_of(chosen), time.monotonic() - begun, store.versions(), **facts)
        answer = in_words(summary, seen)
        files = publishing.publish(
            run, f"Unlearning methods on {chosen.data.name}", answer, [piece], made, list(piece.findings), plain, STEM
        )
        assert piece.table is not None
        return f"{answer}\n\n{tables.text(piece.table, percent=False, width=140)}\n\n{files}"


def narrowed(chosen: settings.Settings) -> settings.Settings:
    """The settings with only what IAM-On needs: no models for other scores."""
    targets = dataclasses.replace(chosen.targets, population_in=False, reference=0, snapshots=0)
    audit = dataclasses.replace(chosen.audit, scores=(SCORE,))
    return dataclasses.replace(chosen, targets=targets, audit=audit)


def see(bank: banks.Bank, chosen: settings.Settings, role: str, diverged: dict[int, int]) -> Seen:
    """IAM-On's view of one role, mean over groups of shadow models; forget sets whose model diverged are left out."""
    kept = [number for number in range(len(bank.forgotten)) if number not in diverged]
    if not kept:
        nothing = records.Finding(float("nan"), of=role)
        return Seen(nothing, nothing, nothing)
    if diverged:
        bank = banks.only_sets(bank, kept)
    values = binui.score_all(bank, [SCORE], banks.groups(chosen, len(bank.shadow.target.log_odds)), role)[SCORE]
    truth, level = ~bank.forgotten, chosen.audit.interval
    means = values.mean(0)
    by_set = [np.asarray([line[mask].mean() for line, mask in zip(means, masks, strict=True)])
              for masks in (bank.forgotten, truth)]  # fmt: skip
    forgotten, retained = (
        intervals.with_spread(intervals.mean(one, metric=f"{SCORE} {name}", of=role, level=level), one)
        for one, name in zip(by_set, ("forgotten", "retained"), strict=True)
    )
    auc = pooled.table(values, truth, level=level, of=role)["auc"]
    return Seen(forgotten, retained, auc)


def present(summary: runs.Summary, seen: dict[str, Seen]) -> presenting.Piece:
    """The table of the study."""
    rows: list[tuple[cells.Cell, ...]] = []
    every: list[records.Finding] = []
    for name, one in summary.roles.items():
        found = [*runs.findings(name, one), *seen[name]]
        every += found
        bare = [intervals.without_interval(finding) for finding in found]
        moved = "" if np.isnan(one.moved) else f"{one.moved:.2g}"
        rows.append((runs.shown(name), *bare, moved, runs.number(one.retain_epochs), runs.number(one.seconds)))
    caption = (
        "UA = 1 - accuracy on the forget set, RA and TA = accuracy on retained and held-out samples; IAM-On = mean "
        "membership score (1 = looks trained on) of forgotten and of retained samples, AUC = how well it tells them "
        "apart; moved = relative change of the parameters; epochs = rows read in passes over the retained samples; "
        "seconds for all forget sets. ± is the deviation over forget sets, of the AUC over groups of shadow models."
    )
    header = ("method", "UA", "RA", "TA", "IAM-On forgotten", "IAM-On retained", "AUC", "moved", "epochs", "seconds")
    told = "The goal is to look like the retrained models: not 0, not 1."
    table = cells.Table("", caption, header, tuple(rows), ("original", "retrained"))
    return presenting.Piece(STEM, "Methods beside exact retraining", told, table, None, tuple(every))


def in_words(summary: runs.Summary, seen: dict[str, Seen]) -> str:
    """The closest and the farthest methods, and those that did next to nothing, in a few sentences."""
    goal, start = seen["retrained"], seen["original"]
    names = [name for name in summary.roles if name not in runs.NEEDED]
    if not names:
        return "No method was asked for."
    effect = start.forgotten.value - goal.forgotten.value
    reached = (
        {name: (start.forgotten.value - seen[name].forgotten.value) / effect for name in names} if effect > 0 else {}
    )
    gaps = {name: runs.gap(summary.roles[name], summary.roles["retrained"]) for name in names}
    gaps = {name: gap for name, gap in gaps.items() if np.isfinite(gap)}  # all members of the others diverged
    best = sorted(gaps, key=lambda name: gaps[name])[:3]
    said = [
        f"Exact retraining takes the forgotten samples' membership score (IAM-On) from {start.forgotten.value:.3f} to "
        f"{goal.forgotten.value:.3f}, and forgotten from retained samples apart with AUC {goal.auc.value:.3f}.",
    ]
    if best:
        shown = (f"{runs.shown(name)} ({100 * gaps[name]:.1f} points)" for name in best)
        said.append(f"Closest to it in accuracies: {', '.join(shown)}.")
    idle = [runs.shown(name) for name, part in reached.items() if part < 0.1]
    if idle and effect > 0:
        said.append(f"Less than a tenth of that effect on forgotten samples: {', '.join(idle)}.")
    beyond = [runs.shown(name) for name, part in reached.items()
              if part > 1 and seen[name].retained.value < goal.retained.value - 0.05]  # fmt: skip
    if beyond and effect > 0:
        said.append(f"Over-unlearning (retained samples lose membership too): {', '.join(beyond)}.")
    return " ".join(said)
