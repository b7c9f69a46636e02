"""The audited side: originals, exact retrains, and the other models that scores need, trained and recorded.

    shadows (reused) -> one population per role -> logits/ROLE.npy -> targets.json

`roles.audited_models` describes each role. The difference between the accuracies of originals and retrained models on
forgotten rows is the effect that every audit looks for.
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
from jaxunlearn.runs.roles import audited_models
from jaxunlearn.runs.verbs import shadows
from jaxunlearn.settings import Settings


class RoleSummary(NamedTuple):
    """Accuracies and cost of one role.

    Attributes:
      members: M.
      diverged: member -> step at which it was frozen.
      steps_per_member: of the member with the most rows.
      train_accuracy: [M] on the member's own rows. NaN for diverged members, here and below.
      held_out_accuracy: [M] on the recorded held-out rows that it did not train on.
      forget_accuracy: [M, R] on the rows of each forget set.
      training_cost: training cost in this run.
    """

    members: int
    diverged: dict[int, int]
    steps_per_member: int
    train_accuracy: np.ndarray
    held_out_accuracy: np.ndarray
    forget_accuracy: np.ndarray
    training_cost: chunked.TrainingCost = chunked.TrainingCost()


class TargetsSummary(NamedTuple):
    """All roles of a run, in the order in which they are trained; also targets.json.

    Attributes:
      roles: name -> summary of the role.
      shadow: summary of the shadow models.
      seconds: in total.
      design: which originals the models of forget sets come from.
    """

    roles: dict[str, RoleSummary]
    shadow: shadows.ShadowSummary
    seconds: float
    design: records.Design


def run(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    only: tuple[str, ...] = audited_models.NAMES,
) -> TargetsSummary:
    """Trains and records every role that the settings request, the shadows first; finished work is reused.

    Args:
      run_folder: the run folder.
      reporter: for progress.
      experiment: of checked settings.
      only: names of the roles to run.

    Raises:
      ConfigError: incompatible settings; before any training.
      StoreError: not enough disk space, or the folder holds results of other settings.
    """
    start_time = time.monotonic()
    audited_models.check(experiment)
    names = [name for name in audited_models.requested_roles(experiment.settings) if name in only]
    if "snapshots" in names:
        _note_snapshot_limits(reporter, experiment.settings)
    shadow_summary = shadows.run(run_folder, reporter, experiment)
    split = splits.obtain(run_folder, experiment)
    specs = [roles.claim(run_folder, audited_models.describe(experiment, split, name)) for name in names]
    store.files.require_space(run_folder.root, sum(roles.missing_bytes(run_folder, spec) for spec in specs))
    role_summaries = {spec.name: produce(run_folder, reporter, spec, split) for spec in specs}
    design = audited_models.design(experiment.settings, len(np.asarray(split.forget)))
    summary = TargetsSummary(role_summaries, shadow_summary, time.monotonic() - start_time, design)
    if len(names) == len(audited_models.requested_roles(experiment.settings)):
        store.files.write_json(run_folder.path("targets.json"), plain(summary))
    return summary


def _note_snapshot_limits(reporter: progress.Reporter, settings: Settings) -> None:
    """Notes unexpected consequences of the snapshot settings."""
    targets = settings.targets
    if not targets.snapshots:
        return
    epochs = audited_models.snapshot_epochs(settings)
    if epochs - 1 < targets.breaks:
        reporter.note(
            f"snapshots: {epochs} epoch(s) allow {epochs - 1} equal steps, not targets.breaks = {targets.breaks}"
        )
    if settings.shadows.pool != "shadow":
        reporter.note(
            "snapshots start from shadow models that may have trained on target rows (shadows.pool = "
            f"{settings.shadows.pool!r}): the lowest ScoreUI level is then not free of target rows"
        )


def produce(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, split: records.Split
) -> RoleSummary:  # fmt: skip
    """Trains and records the missing members of one role, and summarises it.

    Args:
      run_folder: the run folder.
      reporter: for progress.
      spec: the role.
      split: of the run.
    """
    recorded_roles = execution.make(run_folder, reporter, spec)
    diverged = members.divergence_steps(run_folder, spec)
    if diverged:
        messages = (f"member {member} diverged and was frozen at step {step}" for member, step in diverged.items())
        reporter.note(f"{spec.name}: {'; '.join(messages)}")
    summary = summarise(spec, recorded_roles.logits[spec.name], split, diverged)
    return summary._replace(training_cost=recorded_roles.cost)


def summarise(
    spec: roles.RoleSpec, values: np.ndarray, split: records.Split, diverged: dict[int, int]
) -> RoleSummary:  # fmt: skip
    """Computes accuracies of every member from its recorded logits, at the last snapshot if there are several.

    Args:
      spec: the role.
      values: [M * K, n, C] logits on the role's rows.
      split: of the run.
      diverged: member -> step at which it was frozen.
    """
    rows, num_snapshots = spec.rows, max(len(spec.snapshots), 1)
    held_out = np.isin(rows, np.concatenate([split.test, split.population]))
    forget = np.asarray(split.forget)[:, rows]
    membership = spec.membership[:, rows]
    accuracies = np.full((2, len(membership)), np.nan)
    forget_accuracies = np.full((len(membership), len(forget)), np.nan)
    for member_id, is_trained in enumerate(membership):
        if member_id in diverged:
            continue
        correctness = answers.correctness(
            spec.experiment.dataset, values[member_id * num_snapshots + num_snapshots - 1], rows
        )
        accuracies[:, member_id] = correctness[is_trained].mean(), correctness[held_out & ~is_trained].mean()
        forget_accuracies[member_id] = (forget * correctness).sum(1) / forget.sum(1)
    train = spec.experiment.settings.train
    steps = -(-int(membership.sum(1).max()) // train.batch) * train.epochs
    return RoleSummary(len(membership), diverged, steps, accuracies[0], accuracies[1], forget_accuracies)


def own_forget_accuracy(summary: TargetsSummary, name: str) -> np.ndarray:
    """Returns [R]: accuracy on forget set r of its own model: member r, or the original that member r comes from.

    For roles without a member per forget set it is the mean over members.
    """
    role_summary = summary.roles[name]
    num_sets = role_summary.forget_accuracy.shape[1]
    if name in audited_models.PER_SET:
        member_ids = audited_models.members_of_sets(summary.design, name)
        return role_summary.forget_accuracy[member_ids, np.arange(num_sets)]
    return np.asarray([utility.finite_mean(accuracies) for accuracies in role_summary.forget_accuracy.T])


def plain(summary: TargetsSummary) -> dict[str, Any]:
    """Returns the content of targets.json: per role members, accuracies, diverged members, cost."""
    return {
        "roles": {
            name: {**role_summary._asdict(), "training_cost": role_summary.training_cost._asdict()}
            for name, role_summary in summary.roles.items()
        },
        "seconds": summary.seconds,
    }


def text(summary: TargetsSummary) -> str:
    """Returns the summary as a table with one row per role, the effect of forgetting, and diverged members."""
    rows: list[tuple[str, ...]] = [("role", "members", "train", "held-out", "forgotten", "steps", "seconds")]
    for name, role_summary in summary.roles.items():
        means = role_summary.train_accuracy, role_summary.held_out_accuracy, own_forget_accuracy(summary, name)
        accuracies = [f"{utility.finite_mean(values):.4f}" for values in means]
        cost = f"{role_summary.steps_per_member:,}", f"{role_summary.training_cost.seconds:.1f}"
        rows.append((name, str(role_summary.members), *accuracies, *cost))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if not column else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    gap = own_forget_accuracy(summary, "original") - own_forget_accuracy(summary, "retrained")
    finite_gaps = gap[np.isfinite(gap)]
    if len(finite_gaps):
        effect = intervals.with_half_width(
            variance.mean(gap, summary.design, metric="effect of forgetting", of="retrained")
        )
        lines.append(
            "\neffect of forgetting: accuracy on forgotten rows, original minus retrained: "
            f"{number_format.long(effect, 4)}. {sentences.plus_minus(summary.design)}"
        )
    for name, role_summary in summary.roles.items():
        lines += [
            f"diverged, frozen: {name} member {member} at step {step}" for member, step in role_summary.diverged.items()
        ]
    lines.append(f"total {progress.duration(summary.seconds)}; columns 3 to 5 are accuracies, means over members")
    return "\n".join(lines)


def files_text(run_folder: store.Run, settings: Settings) -> str:
    """Returns a list of the result files."""
    names = audited_models.requested_roles(settings)
    file_lines = "\n".join(f"  logits/{name}.npy  populations/{name}/" for name in names)
    return f"files in {run_folder.root}:\n{file_lines}\n  targets.json  per role: members, accuracies, cost"
