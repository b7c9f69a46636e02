"""Copies of a run's models, made from their answers alone: extracted, recorded, and compared with their models.

    models of a role -> queries -> extracted:ROLE, one clone per model -> extract.json

A clone is judged by how often it gives its model's class, and by what it knows of the rows to be forgotten.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import progress, records, store
from jaxunlearn.attacks import extraction
from jaxunlearn.metrics import headers
from jaxunlearn.metrics import utility as utilities
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import variance
from jaxunlearn.report import cells, sentences, tables
from jaxunlearn.runs import execution, experiments, roles
from jaxunlearn.runs.execution import members, recording
from jaxunlearn.runs.roles import audited, extracted
from jaxunlearn.runs.verbs import unlearn

COMPARED = ("UA", "TA")
AGREEMENT = ("agreement", "agreement_forgotten")


class Clones(NamedTuple):
    """The clones of one role.

    Attributes:
      numbers: agreement and agreement_forgotten -> [R], one per forget set; NaN for diverged clones.
      victim, clone: UA and TA of the models and of their clones -> [R].
      seconds: of making all clones, compiling included.
      diverged: clone -> step at which it was frozen.
    """

    metrics: dict[str, np.ndarray]
    victim: dict[str, np.ndarray]
    clone: dict[str, np.ndarray]
    seconds: float
    diverged: dict[int, int]


class Summary(NamedTuple):
    """All roles by the name of their models; also extract.json. `queries`: to each model; `seconds`: of this call."""

    roles: dict[str, Clones]
    queries: int
    design: records.Design
    seconds: float


def budget_text(experiment: experiments.Experiment, victims: Sequence[roles.RoleSpec]) -> str:
    """What is going to be asked, in one sentence."""
    queries = extraction.queries(extraction.of_settings(experiment.settings.extract))
    count = sum(len(spec.membership) for spec in victims)
    names = ", ".join(unlearn.shown(spec.name) for spec in victims)
    return f"{queries:,} queries to each of {count} models ({names}), {queries * count:,} in all"


def run(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    victims: Sequence[roles.RoleSpec],
) -> Summary:  # fmt: skip
    """Makes and records the clones that are missing, and compares all with their models.

    Args:
      run_folder: where the models are trained and recorded.
      reporter: for progress.
      experiment: of the run.
      split: of the run.
      victims: the roles that are asked; no ensembles.

    Raises:
      StoreError: the folder holds clones made with other settings, or not enough disk space.
    """
    begun = time.monotonic()
    specs = [roles.claim(run_folder, extracted.describe(experiment, split, victim)) for victim in victims]
    store.files.require_space(run_folder.root, sum(roles.missing_bytes(run_folder, spec) for spec in specs))
    found = {}
    for spec, victim in zip(specs, victims, strict=True):
        answers = execution.extract(run_folder, reporter, spec, victim).logits[spec.name]
        found[victim.name] = _compare(run_folder, reporter, spec, victim, split, answers)
    summary = Summary(
        found, extraction.queries(extraction.of_settings(experiment.settings.extract)),
        audited.design(experiment.settings, len(np.asarray(split.forget))), time.monotonic() - begun,
    )  # fmt: skip
    store.files.write_json(run_folder.path("extract.json"), plain(summary))
    return summary


def _compare(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, victim: roles.RoleSpec,
    split: records.Split, answers: np.ndarray,
) -> Clones:  # fmt: skip
    """Compares recorded clones with their models, forget set by forget set."""
    experiment, count = spec.experiment, len(np.asarray(split.forget))
    diverged = members.diverged(run_folder, spec)
    if diverged:
        frozen = (f"clone {number} diverged and was frozen at step {step}" for number, step in diverged.items())
        reporter.note(f"{spec.name}: {'; '.join(frozen)}")
    asked = recording.read(run_folder, victim)
    own = audited.original_of(experiment.settings, count) if victim.name == "original" else np.arange(count)
    asked, answers = asked[own], answers[own]
    lost = {number: diverged[one] for number, one in enumerate(own.tolist()) if one in diverged}
    test, forget = np.isin(spec.rows, split.test), np.asarray(split.forget)[:, spec.rows]
    agrees = np.stack([one.argmax(-1) == other.argmax(-1) for one, other in zip(asked, answers, strict=True)])
    shares = [[utilities.accuracy(line, part) for part in (test, forget[r])] for r, line in enumerate(agrees)]
    numbers = np.asarray(shares, np.float64)
    numbers[list(lost)] = np.nan
    whole, _ = store.chunks.finished(members.folder_of(run_folder, spec), spec.fingerprint)
    return Clones(
        dict(zip(AGREEMENT, numbers.T, strict=True)),
        _kept(unlearn.utility(experiment, split, asked, spec.rows, lost)),
        _kept(unlearn.utility(experiment, split, answers, spec.rows, lost)),
        float(sum(chunk.manifest["seconds"] for chunk in whole)),
        diverged,
    )


def _kept(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: numbers[name] for name in COMPARED}


def plain(summary: Summary) -> dict[str, Any]:
    """What extract.json holds."""
    found = {name: one._asdict() for name, one in summary.roles.items()}
    return {"queries": summary.queries, "roles": found, "seconds": summary.seconds}


def table(summary: Summary) -> cells.Table:
    """One row per role: how like its models the clones are."""
    rows: list[tuple[cells.Cell, ...]] = []
    for name, one in summary.roles.items():
        named = [*one.metrics.items(), *(pair for metric in COMPARED for pair in _pair(one, metric))]
        findings = [variance.mean(values, summary.design, metric=metric, of=name) for metric, values in named]
        rows.append((unlearn.shown(name), *map(intervals.half, findings), f"{one.seconds:.1f}"))
    caption = (
        f"{summary.queries:,} queries to each model. agreement = share of test samples (D_f: of the samples to be "
        "forgotten) on which a clone gives its model's class. UA = 1 - accuracy on the samples to be forgotten, TA = "
        f"accuracy on test samples of classes that are kept. {sentences.plus_minus(summary.design)} seconds = all "
        "clones "
        "together, with compiling."
    )
    compared = [title for metric in COMPARED for title in (f"{metric} model", f"{metric} clone")]
    return cells.Table("", caption, ("role", *headers(AGREEMENT), *compared, "seconds"), tuple(rows))


def _pair(one: Clones, metric: str) -> tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]:
    return (metric, one.victim[metric]), (metric, one.clone[metric])


def text(summary: Summary) -> str:
    """The table for the terminal."""
    diverged = [f"{name}: {len(one.diverged)} clone(s) diverged and were frozen" for name, one in summary.roles.items()
                if one.diverged]  # fmt: skip
    took = f"in all {progress.duration(summary.seconds)}"
    return "\n".join([tables.text(table(summary), percent=True), *diverged, took])


def files_text(run_folder: store.Run, summary: Summary) -> str:
    """Where the results are."""
    names = [extracted.PREFIX + name for name in summary.roles]
    listed = "\n".join(f"  logits/{name}.npy  populations/{name}/" for name in names[:3])
    more = f"\n  ... and {len(names) - 3} more" if len(names) > 3 else ""
    return f"files in {run_folder.root}:\n{listed}{more}\n  extract.json  per role: agreement, UA, TA, queries"
