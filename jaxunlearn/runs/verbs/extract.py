"""Copies of a run's models, trained on their posteriors alone: extracted, recorded, and compared with their models.

    models of a role -> queries -> extracted:ROLE, one clone per model -> extract.json

A clone is judged by how often it predicts its model's class, and by its accuracy on the rows to be forgotten.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import progress, records, store
from jaxunlearn.attacks import extraction
from jaxunlearn.metrics import headers
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import variance
from jaxunlearn.report import cells, sentences, tables
from jaxunlearn.runs import execution, experiments, roles
from jaxunlearn.runs.execution import members, recording
from jaxunlearn.runs.roles import audited_models, clone_models
from jaxunlearn.runs.verbs import role_utility, unlearn

COMPARED = ("UA", "TA")
AGREEMENT = ("agreement", "agreement_forgotten")


class Clones(NamedTuple):
    """The clones of one role.

    Attributes:
      metrics: agreement and agreement_forgotten -> [R], one per forget set; NaN for diverged clones.
      victim, clone: UA and TA of the models and of their clones -> [R].
      seconds: to train all clones, including compilation.
      diverged: clone -> step at which it was frozen.
    """

    metrics: dict[str, np.ndarray]
    victim: dict[str, np.ndarray]
    clone: dict[str, np.ndarray]
    seconds: float
    diverged: dict[int, int]


class ExtractionSummary(NamedTuple):
    """Clones of all roles by the name of their models; also extract.json.

    Attributes:
      roles: name of the queried role -> its clones.
      queries: per model.
      design: of the forget sets.
      seconds: of this call.
    """

    roles: dict[str, Clones]
    queries: int
    design: records.Design
    seconds: float


def budget_text(experiment: experiments.Experiment, victims: Sequence[roles.RoleSpec]) -> str:
    """Returns the number of queries, in one sentence."""
    queries = extraction.queries(extraction.of_settings(experiment.settings.extract))
    count = sum(len(spec.membership) for spec in victims)
    names = ", ".join(unlearn.display_name(spec.name) for spec in victims)
    return f"{queries:,} queries to each of {count} models ({names}), {queries * count:,} in total"


def run(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    victims: Sequence[roles.RoleSpec],
) -> ExtractionSummary:  # fmt: skip
    """Trains and records the missing clones, and compares all clones with their models.

    Args:
      run_folder: where the models are trained and recorded.
      reporter: for progress.
      experiment: of the run.
      split: of the run.
      victims: the roles whose models are queried; no ensembles.

    Raises:
      StoreError: the folder holds clones made with other settings, or not enough disk space.
    """
    start_time = time.monotonic()
    specs = [roles.claim(run_folder, clone_models.describe(experiment, split, victim)) for victim in victims]
    store.files.require_space(run_folder.root, sum(roles.missing_bytes(run_folder, spec) for spec in specs))
    clones_by_role = {}
    for spec, victim in zip(specs, victims, strict=True):
        clone_logits = execution.extract(run_folder, reporter, spec, victim).logits[spec.name]
        clones_by_role[victim.name] = _compare(run_folder, reporter, spec, victim, split, clone_logits)
    summary = ExtractionSummary(
        clones_by_role, extraction.queries(extraction.of_settings(experiment.settings.extract)),
        audited_models.design(experiment.settings, len(np.asarray(split.forget))), time.monotonic() - start_time,
    )  # fmt: skip
    store.files.write_json(run_folder.path("extract.json"), plain(summary))
    return summary


def _compare(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, victim: roles.RoleSpec,
    split: records.Split, clone_logits: np.ndarray,
) -> Clones:  # fmt: skip
    """Compares recorded clones with their models, forget set by forget set."""
    experiment, num_sets = spec.experiment, len(np.asarray(split.forget))
    diverged = members.divergence_steps(run_folder, spec)
    if diverged:
        messages = (f"clone {clone_id} diverged and was frozen at step {step}" for clone_id, step in diverged.items())
        reporter.note(f"{spec.name}: {'; '.join(messages)}")
    victim_logits = recording.read(run_folder, victim)
    model_ids = audited_models.members_of_sets(audited_models.design(experiment.settings, num_sets), victim.name)
    victim_logits, clone_logits = victim_logits[model_ids], clone_logits[model_ids]
    diverged_sets = {
        set_id: diverged[model_id] for set_id, model_id in enumerate(model_ids.tolist()) if model_id in diverged
    }
    test, forget = np.isin(spec.rows, split.test), np.asarray(split.forget)[:, spec.rows]
    agreements = np.array([
        [extraction.fidelity(clone, model, subset) for subset in (test, forget[r])]
        for r, (clone, model) in enumerate(zip(clone_logits, victim_logits, strict=True))
    ])  # fmt: skip
    agreements[list(diverged_sets)] = np.nan
    finished_chunks, _ = store.chunks.finished(members.folder_of(run_folder, spec), spec.fingerprint)
    return Clones(
        dict(zip(AGREEMENT, agreements.T, strict=True)),
        _compared_metrics(role_utility.utility(experiment, split, victim_logits, spec.rows, diverged_sets)),
        _compared_metrics(role_utility.utility(experiment, split, clone_logits, spec.rows, diverged_sets)),
        float(sum(chunk.manifest["seconds"] for chunk in finished_chunks)),
        diverged,
    )


def _compared_metrics(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: metrics[name] for name in COMPARED}


def plain(summary: ExtractionSummary) -> dict[str, Any]:
    """Returns the content of extract.json."""
    clones_by_role = {}
    for name, clones in summary.roles.items():
        values = clones._asdict()
        clones_by_role[name] = {"numbers": values.pop("metrics"), **values}
    return {"queries": summary.queries, "roles": clones_by_role, "seconds": summary.seconds}


def table(summary: ExtractionSummary) -> cells.Table:
    """Returns one row per role: how similar the clones are to its models."""
    rows: list[tuple[cells.Cell, ...]] = []
    for name, clones in summary.roles.items():
        values_by_metric = [*clones.metrics.items(), *(pair for metric in COMPARED for pair in _pair(clones, metric))]
        findings = [
            variance.mean(values, summary.design, metric=metric, of=name) for metric, values in values_by_metric
        ]
        rows.append((unlearn.display_name(name), *map(intervals.with_half_width, findings), f"{clones.seconds:.1f}"))
    caption = (
        f"{summary.queries:,} queries to each model. agreement = share of test samples (D_f: of the samples to be "
        "forgotten) on which a clone gives its model's class. UA = 1 - accuracy on the samples to be forgotten, TA = "
        f"accuracy on test samples of retained classes. {sentences.plus_minus(summary.design)} seconds = all clones "
        "together, including compilation."
    )
    compared = [title for metric in COMPARED for title in (f"{metric} model", f"{metric} clone")]
    return cells.Table("", caption, ("role", *headers(AGREEMENT), *compared, "seconds"), tuple(rows))


def _pair(clones: Clones, metric: str) -> tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]:
    return (metric, clones.victim[metric]), (metric, clones.clone[metric])


def text(summary: ExtractionSummary) -> str:
    """Returns the table for the terminal."""
    diverged = [
        f"{name}: {len(clones.diverged)} clone(s) diverged and were frozen"
        for name, clones in summary.roles.items()
        if clones.diverged
    ]
    duration_text = f"total {progress.duration(summary.seconds)}"
    return "\n".join([tables.text(table(summary), percent=True), *diverged, duration_text])


def files_text(run_folder: store.Run, summary: ExtractionSummary) -> str:
    """Returns a list of the result files."""
    names = [clone_models.PREFIX + name for name in summary.roles]
    return role_utility.files_of_roles(run_folder, names, "extract.json  per role: agreement, UA, TA, queries")
