"""The main job: a population of shadow models and their logits.

    data -> split (drawn once) -> shadow population (chunks) -> logits [M, N, C] -> summary, findings, figure

Source: IAM, section on shadow training; every shadow model is OUT for every target row, because shadow and target rows
are disjoint.
"""

import time
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import progress, records, store
from jaxunlearn.data import naming
from jaxunlearn.data.splits import shadow_pool
from jaxunlearn.metrics import intervals, roc
from jaxunlearn.population import chunked
from jaxunlearn.report import figures, page, tables
from jaxunlearn.runs import experiments, recording, roles, splits
from jaxunlearn.scores import signals
from jaxunlearn.settings import Settings, to_dict

ROLE = "shadow"
STAGE_VERSION = 1


class Summary(NamedTuple):
    """What a run found; also summary.json.

    Attributes:
      members: M; `diverged`: member -> step at which it was frozen; `steps_per_member`: of the largest one.
      train_accuracy, held_out_accuracy, auc: [M] per member (NaN for diverged ones).
      spent: what training cost in this run; `seconds`: the whole run.
    """

    members: int
    diverged: dict[int, int]
    steps_per_member: int
    train_accuracy: np.ndarray
    held_out_accuracy: np.ndarray
    auc: np.ndarray
    spent: chunked.TrainingCost = chunked.TrainingCost()
    seconds: float = 0.0


class Exposure(NamedTuple):
    """Log-odds of the true class on shadow rows, for the figure.

    Attributes:
      log_odds: [M, n] float32 of every member on every row of the shadow pool.
      member: [M, n] bool, whether the member trained on the row.
      rows: [n] rows of the data set.
    """

    log_odds: np.ndarray
    member: np.ndarray
    rows: np.ndarray


def shadow_role(
    experiment: experiments.Experiment, split: records.Split, split_fingerprint: str, run: store.Run
) -> roles.Role:
    """The shadow role: member numbers, membership rows and what decides about their numbers."""
    settings = experiment.settings
    shadows = settings.shadows
    ids = np.arange(shadows.count, dtype=np.int32)
    table = splits.shadow_membership(run, experiment, split, split_fingerprint, ids)
    pool = shadow_pool(split, shadows.pool)
    inside = np.zeros(len(experiment.dataset.labels), bool)
    inside[pool] = True

    def factors(member_ids: np.ndarray) -> np.ndarray:
        given = np.asarray(shadows.learning_rate_factor or (1.0,), np.float32)
        return given[np.asarray(member_ids) % len(given)]

    facts = shadow_facts(experiment, split_fingerprint)
    fingerprint, _ = store.claim(
        run, "shadows", run.path("populations", ROLE, "stage.json"), facts, STAGE_VERSION
    )  # fmt: skip
    return roles.Role(
        name=ROLE,
        member_ids=ids,
        membership=lambda member_ids: table[np.asarray(member_ids)],
        factors=factors,
        held_out=lambda member_ids: inside & ~table[np.asarray(member_ids)],
        fingerprint=fingerprint,
    )


def shadow_facts(experiment: experiments.Experiment, split_fingerprint: str) -> dict[str, Any]:
    """Everything that decides about a shadow model's numbers; not how many there are, nor how they are mapped."""
    settings = experiment.settings
    own = {name: value for name, value in to_dict(settings.shadows).items() if name not in ("count", "views")}
    return {
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad},
        "split": split_fingerprint,
        "model": to_dict(settings.model),
        "train": to_dict(settings.train),
        "shadows": own,
    }


def run(run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment) -> Summary:
    """Trains the shadow population of a run folder and records its logits; finished work is reused.

    Raises:
      StoreError: not enough disk space, or the folder holds results of other settings.
    """
    begun = time.monotonic()
    settings = experiment.settings
    split, split_fingerprint = splits.obtain(run_folder, experiment)
    role = shadow_role(experiment, split, split_fingerprint, run_folder)
    rows = splits.recorded_rows(split)
    store.files.require_space(run_folder.root, _missing_bytes(run_folder, experiment, role, len(rows)))
    spent = chunked.TrainingCost()
    values, intact = None, False
    while not intact:  # a chunk found damaged while recording is trained again
        more = roles.train_missing(run_folder, reporter, experiment, role)
        spent = chunked.add(spent, more)
        values, intact = recording.record(run_folder, reporter, experiment, role, rows)
    for view in recorded_views(settings):
        recording.record(run_folder, reporter, experiment, role, rows, view)
    assert values is not None
    columns = {
        **naming.named(experiment.dataset, rows),
        "labels": np.asarray(experiment.dataset.labels)[rows],
        "places": rows,
    }
    for name, array in columns.items():
        store.files.write_npy(run_folder.path("logits", f"{name}.npy"), array)
    exposed = exposure(experiment, role, values, rows, split)
    diverged = diverged_members(run_folder, role)
    summary = summarise(experiment, role, values, rows, split, exposed, diverged)
    summary = summary._replace(spent=spent, seconds=time.monotonic() - begun)
    write_findings(run_folder, summary)
    draw_figure(run_folder, experiment, exposed)
    return summary


def recorded_views(settings: Settings) -> list[str]:
    """Names of the augmented views that are recorded beside the clean one."""
    wanted = max(settings.shadows.views, int(settings.compat.records == "faithful"))
    return [f"augmented_{i}" for i in range(wanted)]


def _missing_bytes(run_folder: store.Run, experiment: experiments.Experiment, role: roles.Role, num_rows: int) -> int:
    whole, _ = store.chunks.finished(run_folder.path("populations", ROLE), role.fingerprint)
    done = sum(len(chunk.member_ids) for chunk in whole)
    left = max(0.0, 1.0 - done / len(role.member_ids))
    return int(left * disk_bytes(experiment, num_rows))


def disk_bytes(experiment: experiments.Experiment, num_rows: int) -> int:
    """Bytes that the shadow models write: variables of every member, one rolling checkpoint, and the logits."""
    settings = experiment.settings
    kept = 1 + len(settings.train.snapshots)
    weights = settings.shadows.count * experiment.cost.parameters * 4 * (kept + 3)
    itemsize = np.dtype(settings.engine.logits_dtype).itemsize
    views = 1 + settings.shadows.views + (settings.compat.records == "faithful")
    return weights + views * settings.shadows.count * num_rows * experiment.dataset.num_classes * itemsize


def summarise(
    experiment: experiments.Experiment,
    role: roles.Role,
    values: np.ndarray,
    rows: np.ndarray,
    split: records.Split,
    exposed: Exposure,
    diverged: dict[int, int],
) -> Summary:
    """Accuracies and the confidence attack of every member, from the recorded logits (streamed member by member)."""
    labels = np.asarray(experiment.dataset.labels)[rows]
    held_out = np.isin(rows, np.concatenate([split.test, split.population]))
    members = role.membership(role.member_ids)[:, rows]
    accuracies = np.full((2, len(members)), np.nan)
    aucs = np.full(len(members), np.nan)
    for member, inside in enumerate(members):
        if member in diverged:
            continue
        right = np.asarray(values[member]).argmax(-1) == labels
        accuracies[:, member] = right[inside].mean(), right[held_out].mean()
        aucs[member] = roc.auc(exposed.log_odds[member], exposed.member[member])
    steps = -(-members.sum(1).max() // experiment.settings.train.batch) * experiment.settings.train.epochs
    return Summary(len(members), diverged, int(steps), accuracies[0], accuracies[1], aucs)


def diverged_members(run_folder: store.Run, role: roles.Role) -> dict[int, int]:
    """Member -> step at which its loss stopped being finite."""
    whole, _ = store.chunks.finished(run_folder.path("populations", role.name), role.fingerprint)
    diverged = {}
    for chunk in whole:
        diverged.update({int(m): int(s) for m, s in chunk.manifest["diverged"].items() if int(m) in role.member_ids})
    return dict(sorted(diverged.items()))


def exposure(
    experiment: experiments.Experiment, role: roles.Role, values: np.ndarray, rows: np.ndarray, split: records.Split
) -> Exposure:
    """Log-odds of every member on the shadow pool, for the figure."""
    wanted = np.isin(rows, shadow_pool(split, experiment.settings.shadows.pool))
    labels = np.asarray(experiment.dataset.labels)[rows[wanted]]
    log_odds = np.stack([
        np.asarray(signals.carlini_logit(np.asarray(values[m][wanted], np.float32), labels)) for m in role.member_ids
    ])  # fmt: skip
    return Exposure(log_odds, role.membership(role.member_ids)[:, rows[wanted]], rows[wanted])


def draw_figure(run_folder: store.Run, experiment: experiments.Experiment, exposed: Exposure) -> None:
    """Draws report/shadows.svg: members against non-members, and the rows that training exposes most."""
    dataset = experiment.dataset
    labels = np.asarray(dataset.labels)[exposed.rows]
    pictures = np.asarray(dataset.inputs)[exposed.rows] if dataset.inputs.ndim == 4 else None
    figure = figures.exposure(
        exposed.log_odds, exposed.member, labels, np.asarray(dataset.ids)[exposed.rows], pictures, dataset.class_names,
        dataset.scale,
    )  # fmt: skip
    page.save_figure(figure, run_folder.output("report", "shadows.svg"))


def findings(summary: Summary) -> list[records.Finding]:
    """The summary as findings with intervals over members."""
    gap = summary.train_accuracy - summary.held_out_accuracy
    against = "members' own rows"
    return [
        intervals.mean(summary.train_accuracy, metric="train accuracy", of=ROLE, against=against),
        intervals.mean(summary.held_out_accuracy, metric="held-out accuracy", of=ROLE, against="held-out pool"),
        intervals.mean(gap, metric="generalisation gap", of=ROLE, against="train minus held-out accuracy"),
        intervals.mean(summary.auc, metric="AUC of confidence", of=ROLE, against="own against other shadow rows"),
    ]


def write_findings(run_folder: store.Run, summary: Summary) -> None:
    """Writes summary.json (per member) and report/shadows_findings.json."""
    plain = {
        **summary._asdict(),
        "spent": summary.spent._asdict(),
        "member": list(range(summary.members)),
    }
    store.files.write_json(run_folder.path("summary.json"), plain)
    numbers = run_folder.path("report", "shadows_findings.json")
    store.files.write_json(numbers, [vars(finding) for finding in findings(summary)])


def summary_text(summary: Summary) -> str:
    """A summary as a table."""

    def spread(values: np.ndarray) -> str:
        kept = values[np.isfinite(values)]
        if not len(kept):
            return "none finite"
        return f"{kept.mean():.4f} ± {kept.std(ddof=min(1, len(kept) - 1)):.4f}, min {kept.min():.4f}"

    spent = summary.spent
    rate = (
        f"{progress.rate(spent.model_steps / spent.seconds)} model-steps/s"
        if spent.model_steps
        else "nothing left to train"
    )
    flagged = ", ".join(f"member {member} at step {step}" for member, step in list(summary.diverged.items())[:8])
    rows = [
        ("members", f"{summary.members}" + (f" ({len(summary.diverged)} diverged)" if summary.diverged else "")),
        ("steps per member", f"{summary.steps_per_member:,}"),
        ("train accuracy", spread(summary.train_accuracy)),
        ("held-out accuracy", spread(summary.held_out_accuracy)),
        ("generalisation gap", spread(summary.train_accuracy - summary.held_out_accuracy)),
        ("AUC of confidence", spread(summary.auc) + "  (members ↑ against other shadow rows; 0.5 = no leak)"),
        ("training", f"{rate}, {progress.duration(spent.seconds)}"),
        ("compiling", progress.duration(spent.compile_seconds)),
        ("in all", progress.duration(summary.seconds)),
        *([("diverged, frozen", flagged)] if flagged else []),
    ]
    return tables.pairs(rows)


def files_text(run_folder: store.Run, settings: Settings) -> str:
    """Where the results are."""
    views = [recording.file_name(ROLE, view) for view in recorded_views(settings)]
    rows = [
        ("  logits/shadow.npy", "[members, rows, classes]; logits/rows.npy numbers rows as the data's own file does"),
        *[(f"  logits/{name}", "the same through the training augmentation") for name in views],
        ("  populations/shadow/", "weights (orbax chunks), membership.npz"),
        ("  split.npz", "shadow, target, population, test rows; forget sets"),
        ("  summary.json", "accuracies per member"),
        ("  report/shadows_findings.json", "means with 95 % intervals"),
        ("  report/shadows.svg", "confidence of members against non-members"),
    ]
    return f"files in {run_folder.root}:\n{tables.pairs(rows)}"
