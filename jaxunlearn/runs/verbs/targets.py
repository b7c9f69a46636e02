"""The audited side: originals, exact retrains, and what the scores need beside them, trained and recorded.

    shadows (reused) -> one population per role -> logits/ROLE.npy -> targets.json

`roles.audited` says what each role is. The accuracy of the originals on forgotten rows against that of the retrained
models is the effect that every audit looks for.
"""

import time
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import progress, records, store
from jaxunlearn.metrics import utility
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import variance
from jaxunlearn.population import chunked
from jaxunlearn.report import number_format, sentences
from jaxunlearn.runs import answers, execution, experiments, roles, splits
from jaxunlearn.runs.execution import members
from jaxunlearn.runs.roles import audited
from jaxunlearn.runs.verbs import shadows
from jaxunlearn.settings import Settings


class RoleSummary(NamedTuple):
    """What came out of one role.

    Attributes:
      members: M; `diverged`: member -> step at which it was frozen; `steps_per_member`: of the largest one.
      train_accuracy: [M] on the member's own rows. NaN for diverged members, here and below.
      held_out_accuracy: [M] on the recorded held-out rows that it did not train on.
      forget_accuracy: [M, R] on the rows of each forget set.
      spent: what training cost in this run.
    """

    members: int
    diverged: dict[int, int]
    steps_per_member: int
    train_accuracy: np.ndarray
    held_out_accuracy: np.ndarray
    forget_accuracy: np.ndarray
    spent: chunked.TrainingCost = chunked.TrainingCost()


class Summary(NamedTuple):
    """All roles of a run, in the order in which they are trained; also targets.json.

    Attributes:
      roles: name -> what came out; `shadow`: the shadow models.
      seconds: of everything.
      design: whose originals the models of forget sets come from.
    """

    roles: dict[str, RoleSummary]
    shadow: shadows.Summary
    seconds: float
    design: records.Design


def run(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    only: tuple[str, ...] = audited.NAMES,
) -> Summary:
    """Trains and records every role that the settings ask for, the shadows first; finished work is reused.

    Args:
      run_folder: the run folder.
      reporter: for progress.
      experiment: of checked settings.
      only: roles to look at.

    Raises:
      ConfigError: settings that do not fit together; before any training.
      StoreError: not enough disk space, or the folder holds results of other settings.
    """
    begun = time.monotonic()
    audited.check(experiment)
    names = [name for name in audited.wanted(experiment.settings) if name in only]
    if "snapshots" in names:
        _mention(reporter, experiment.settings)
    shadow_summary = shadows.run(run_folder, reporter, experiment)
    split = splits.obtain(run_folder, experiment)
    specs = [roles.claim(run_folder, audited.describe(experiment, split, name)) for name in names]
    store.files.require_space(run_folder.root, sum(roles.missing_bytes(run_folder, spec) for spec in specs))
    found = {spec.name: produce(run_folder, reporter, spec, split) for spec in specs}
    design = audited.design(experiment.settings, len(np.asarray(split.forget)))
    summary = Summary(found, shadow_summary, time.monotonic() - begun, design)
    if len(names) == len(audited.wanted(experiment.settings)):
        store.files.write_json(run_folder.path("targets.json"), plain(summary))
    return summary


def _mention(reporter: progress.Reporter, settings: Settings) -> None:
    """Notes what the user might not expect of the snapshots."""
    targets = settings.targets
    if not targets.snapshots:
        return
    epochs = audited.snapshot_epochs(settings)
    if epochs - 1 < targets.breaks:
        reporter.note(
            f"snapshots: {epochs} epoch(s) allow {epochs - 1} equal steps, not targets.breaks = {targets.breaks}"
        )
    if settings.shadows.pool != "shadow":
        reporter.note(
            f"snapshots start from shadow models that may know target rows (shadows.pool = {settings.shadows.pool!r}): "
            "the lowest level is then not free of them"
        )


def produce(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, split: records.Split
) -> RoleSummary:  # fmt: skip
    """Trains and records what is missing of one role, and sums it up."""
    made = execution.make(run_folder, reporter, spec)
    diverged = members.diverged(run_folder, spec)
    if diverged:
        frozen = (f"member {member} diverged and was frozen at step {step}" for member, step in diverged.items())
        reporter.note(f"{spec.name}: {'; '.join(frozen)}")
    return summarise(spec, made.logits[spec.name], split, diverged)._replace(spent=made.spent)


def summarise(
    spec: roles.RoleSpec, values: np.ndarray, split: records.Split, diverged: dict[int, int]
) -> RoleSummary:  # fmt: skip
    """Accuracies of every member from its recorded logits, of the last snapshot where there are several."""
    rows, each = spec.rows, max(len(spec.snapshots), 1)
    held_out = np.isin(rows, np.concatenate([split.test, split.population]))
    forget = np.asarray(split.forget)[:, rows]
    member = spec.membership[:, rows]
    accuracies = np.full((2, len(member)), np.nan)
    forgotten = np.full((len(member), len(forget)), np.nan)
    for number, inside in enumerate(member):
        if number in diverged:
            continue
        right = answers.right(spec.experiment.dataset, values[number * each + each - 1], rows)
        accuracies[:, number] = right[inside].mean(), right[held_out & ~inside].mean()
        forgotten[number] = (forget * right).sum(1) / forget.sum(1)
    train = spec.experiment.settings.train
    steps = -(-int(member.sum(1).max()) // train.batch) * train.epochs
    return RoleSummary(len(member), diverged, steps, accuracies[0], accuracies[1], forgotten)


def own_forget_accuracy(summary: Summary, name: str) -> np.ndarray:
    """[R] accuracy on forget set r of the model that belongs to it: member r, or the original that it comes from.

    For roles without a member per forget set it is the mean over members.
    """
    found = summary.roles[name]
    sets = found.forget_accuracy.shape[1]
    if name in audited.PER_SET:
        own = variance.design_factors(summary.design)[0] if name == "original" else np.arange(sets)
        return found.forget_accuracy[own, np.arange(sets)]
    return np.asarray([utility.finite_mean(one) for one in found.forget_accuracy.T])


def plain(summary: Summary) -> dict[str, Any]:
    """What targets.json holds: per role members, accuracies, diverged members, cost."""
    return {
        "roles": {name: {**found._asdict(), "spent": found.spent._asdict()} for name, found in summary.roles.items()},
        "seconds": summary.seconds,
    }


def text(summary: Summary) -> str:
    """The summary as a table with one row per role, then the effect of forgetting and members that diverged."""
    lines: list[tuple[str, ...]] = [("role", "members", "train", "held-out", "forgotten", "steps", "seconds")]
    for name, found in summary.roles.items():
        means = found.train_accuracy, found.held_out_accuracy, own_forget_accuracy(summary, name)
        shown = [f"{utility.finite_mean(values):.4f}" for values in means]
        lines.append((name, str(found.members), *shown, f"{found.steps_per_member:,}", f"{found.spent.seconds:.1f}"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) if not column else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
             for line in lines]  # fmt: skip
    gap = own_forget_accuracy(summary, "original") - own_forget_accuracy(summary, "retrained")
    kept = gap[np.isfinite(gap)]
    if len(kept):
        effect = intervals.half(variance.mean(gap, summary.design, metric="effect of forgetting", of="retrained"))
        table.append(
            "\neffect of forgetting: accuracy on forgotten rows, original minus retrained: "
            f"{number_format.long(effect, 4)}. {sentences.plus_minus(summary.design)}"
        )
    for name, found in summary.roles.items():
        table += [f"diverged, frozen: {name} member {number} at step {step}" for number, step in found.diverged.items()]
    table.append(f"in all {progress.duration(summary.seconds)}; columns 3 to 5 are accuracies, means over members")
    return "\n".join(table)


def files_text(run_folder: store.Run, settings: Settings) -> str:
    """Where the results are."""
    names = audited.wanted(settings)
    listed = "\n".join(f"  logits/{name}.npy  populations/{name}/" for name in names)
    return f"files in {run_folder.root}:\n{listed}\n  targets.json  per role: members, accuracies, cost"
