"""The main job: a population of shadow models and their logits.

data -> split (drawn once) -> shadow population (chunks) -> logits [M, N, C] -> summary, findings, figure
"""

import time
from typing import NamedTuple

import numpy as np

from jaxunlearn import progress, records, store
from jaxunlearn.data.splitting.splits import shadow_pool
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.population import chunked
from jaxunlearn.report import page, tables
from jaxunlearn.report.figures import figures
from jaxunlearn.runs import answers, execution, experiments, roles, splits
from jaxunlearn.runs.execution import members, recording
from jaxunlearn.runs.roles import shadow
from jaxunlearn.settings import Settings


class ShadowSummary(NamedTuple):
    """Accuracies and cost of the shadow models; also summary.json.

    Attributes:
      members: M.
      diverged: member -> step at which it was frozen.
      steps_per_member: of the member with the most rows.
      train_accuracy, held_out_accuracy, auc: [M] per member (NaN for diverged ones).
      training_cost: training cost in this run.
      seconds: of the whole run.
    """

    members: int
    diverged: dict[int, int]
    steps_per_member: int
    train_accuracy: np.ndarray
    held_out_accuracy: np.ndarray
    auc: np.ndarray
    training_cost: chunked.TrainingCost = chunked.TrainingCost()
    seconds: float = 0.0


class Exposure(NamedTuple):
    """Log-odds of the true class, or of whole texts, on shadow rows, for the figure.

    Attributes:
      log_odds: [M, n] float32 of every member on every row of the shadow pool.
      member: [M, n] bool, whether the member trained on the row.
      rows: [n] rows of the data set.
    """

    log_odds: np.ndarray
    member: np.ndarray
    rows: np.ndarray


def run(run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment) -> ShadowSummary:
    """Trains the shadow population of a run folder and records its logits; finished work is reused.

    Raises:
      StoreError: not enough disk space, or the folder holds results of other settings.
    """
    start_time = time.monotonic()
    split = splits.obtain(run_folder, experiment)
    spec = roles.claim(run_folder, shadow.describe(experiment, split))
    store.files.require_space(run_folder.root, roles.missing_bytes(run_folder, spec))
    recorded_roles = execution.make(run_folder, reporter, spec)
    values = recorded_roles.logits[spec.name]
    shadow_exposure = exposure(spec, values, split)
    summary = summarise(spec, values, split, shadow_exposure, members.divergence_steps(run_folder, spec))
    if summary.diverged:
        reporter.note(f"{spec.name}: {len(summary.diverged)} of {summary.members} members diverged and were frozen")
    summary = summary._replace(training_cost=recorded_roles.cost, seconds=time.monotonic() - start_time)
    write_findings(run_folder, summary)
    draw_figure(run_folder, experiment, shadow_exposure)
    return summary


def summarise(
    spec: roles.RoleSpec, values: np.ndarray, split: records.Split, shadow_exposure: Exposure, diverged: dict[int, int]
) -> ShadowSummary:  # fmt: skip
    """Computes accuracies and leakage of every member from its recorded logits.

    Args:
      spec: the shadow role.
      values: [M, n, C] logits on the role's rows.
      split: of the run.
      shadow_exposure: from `exposure`.
      diverged: member -> step at which it was frozen.
    """
    train = spec.experiment.settings.train
    dataset = spec.experiment.dataset
    held_out = np.isin(spec.rows, np.concatenate([split.test, split.population]))
    membership = spec.membership[:, spec.rows]
    accuracies = np.full((2, len(membership)), np.nan)
    aucs = np.full(len(membership), np.nan)
    for member, is_trained in enumerate(membership):
        if member in diverged:
            continue
        correctness = answers.correctness(dataset, values[member], spec.rows)
        accuracies[:, member] = correctness[is_trained].mean(), correctness[held_out].mean()
        aucs[member] = roc.auc(shadow_exposure.log_odds[member], shadow_exposure.member[member])
    steps = -(-membership.sum(1).max() // train.batch) * train.epochs
    return ShadowSummary(len(membership), diverged, int(steps), accuracies[0], accuracies[1], aucs)


def exposure(spec: roles.RoleSpec, values: np.ndarray, split: records.Split) -> Exposure:
    """Computes the log-odds of every member on the shadow pool, for the figure."""
    rows = spec.rows
    in_pool = np.isin(rows, shadow_pool(split, spec.experiment.settings.shadows.pool))
    dataset = spec.experiment.dataset
    log_odds = np.stack([answers.log_odds(dataset, values[m][in_pool], rows[in_pool]) for m in spec.member_ids])
    return Exposure(log_odds, spec.membership[:, rows[in_pool]], rows[in_pool])


def draw_figure(run_folder: store.Run, experiment: experiments.Experiment, shadow_exposure: Exposure) -> None:
    """Draws report/shadows.svg: members against non-members, and the rows that training exposes most."""
    dataset = experiment.dataset
    labels = np.asarray(dataset.labels)[shadow_exposure.rows]
    images = np.asarray(dataset.inputs)[shadow_exposure.rows] if dataset.inputs.ndim == 4 else None
    figure = figures.exposure(
        shadow_exposure.log_odds, shadow_exposure.member, labels, np.asarray(dataset.ids)[shadow_exposure.rows], images,
        dataset.class_names, dataset.scale,
    )  # fmt: skip
    page.save_figure(figure, run_folder.output("report", "shadows.svg"))


def findings(summary: ShadowSummary) -> list[records.Finding]:
    """Returns the summary as findings with intervals over members."""
    gap, of = summary.train_accuracy - summary.held_out_accuracy, shadow.NAME
    against = "members' own rows"
    return [
        intervals.mean(summary.train_accuracy, metric="train accuracy", of=of, against=against),
        intervals.mean(summary.held_out_accuracy, metric="held-out accuracy", of=of, against="held-out pool"),
        intervals.mean(gap, metric="generalisation gap", of=of, against="train minus held-out accuracy"),
        intervals.mean(summary.auc, metric="AUC of confidence", of=of, against="own against other shadow rows"),
    ]


def write_findings(run_folder: store.Run, summary: ShadowSummary) -> None:
    """Writes summary.json (per member) and report/shadows_findings.json."""
    plain = {
        **summary._asdict(),
        "training_cost": summary.training_cost._asdict(),
        "member": list(range(summary.members)),
    }
    store.files.write_json(run_folder.path("summary.json"), plain)
    findings_path = run_folder.path("report", "shadows_findings.json")
    store.files.write_json(findings_path, [vars(finding) for finding in findings(summary)])


def summary_text(summary: ShadowSummary) -> str:
    """Returns the summary as a table."""

    def mean_and_deviation(values: np.ndarray) -> str:
        finite_values = values[np.isfinite(values)]
        if not len(finite_values):
            return "none finite"
        deviation = finite_values.std(ddof=min(1, len(finite_values) - 1))
        return f"{finite_values.mean():.4f} ± {deviation:.4f}, min {finite_values.min():.4f}"

    cost = summary.training_cost
    rate = (
        f"{progress.rate(cost.model_steps / cost.seconds)} model-steps/s"
        if cost.model_steps
        else "nothing left to train"
    )
    diverged_text = ", ".join(f"member {member} at step {step}" for member, step in list(summary.diverged.items())[:8])
    rows = [
        ("members", f"{summary.members}" + (f" ({len(summary.diverged)} diverged)" if summary.diverged else "")),
        ("steps per member", f"{summary.steps_per_member:,}"),
        ("train accuracy", mean_and_deviation(summary.train_accuracy)),
        ("held-out accuracy", mean_and_deviation(summary.held_out_accuracy)),
        ("generalisation gap", mean_and_deviation(summary.train_accuracy - summary.held_out_accuracy)),
        (
            "AUC of confidence",
            mean_and_deviation(summary.auc) + "  (members ↑ against other shadow rows; 0.5 = no leak)",
        ),
        ("±", "standard deviation over members, each with its own seed and rows"),
        ("training", f"{rate}, {progress.duration(cost.seconds)}"),
        ("compiling", progress.duration(cost.compile_seconds)),
        ("total", progress.duration(summary.seconds)),
        *([("diverged, frozen", diverged_text)] if diverged_text else []),
    ]
    return tables.pairs(rows)


def files_text(run_folder: store.Run, settings: Settings) -> str:
    """Returns a list of the result files."""
    rows = [
        ("  logits/shadow.npy", "[members, rows, classes]; logits/index.json names their rows and classes"),
        *[(f"  logits/{recording.file_name(shadow.NAME, view)}", "the same through the training augmentation")
          for view in shadow.views(settings)],
        ("  populations/shadow/", "weights (orbax chunks), membership.npz"),
        ("  split.npz", "shadow, target, population, test rows; forget sets"),
        ("  summary.json", "accuracies per member"),
        ("  report/shadows_findings.json", "means with 95 % intervals"),
        ("  report/shadows.svg", "confidence of members against non-members"),
    ]  # fmt: skip
    return f"files in {run_folder.root}:\n{tables.pairs(rows)}"
