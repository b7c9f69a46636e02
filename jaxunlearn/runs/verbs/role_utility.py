"""Utility and cost of one role of models: originals, exact retrains, or the models of an unlearning method."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import records, store
from jaxunlearn.metrics import utility as utilities
from jaxunlearn.runs import answers, experiments, roles
from jaxunlearn.runs.execution import members, recording
from jaxunlearn.runs.roles import audited_models, unlearned_models


class Utility(NamedTuple):
    """Utility and cost of one role of R models.

    Attributes:
      metrics: UA, RA and TA, or losses of texts -> [R], see `metrics.utility`; NaN for diverged members.
      seconds: to compute all R models, including compilation; NaN where it was not measured.
      retain_epochs: rows read, in passes over the retained rows.
      diverged: forget set -> step at which its model was frozen.
      hyperparameters: of the method.
      moved: relative change of the parameters, mean over members: 0 = the original model.
    """

    metrics: dict[str, np.ndarray]
    seconds: float = float("nan")
    retain_epochs: float = float("nan")
    diverged: dict[int, int] = {}
    hyperparameters: dict[str, Any] = {}
    moved: float = float("nan")


def diverged_sets(run_folder: store.Run, spec: roles.RoleSpec) -> dict[int, int]:
    """Returns forget set -> step at which its model was frozen; one diverged submodel invalidates its ensemble."""
    assert spec.method is not None
    divergence_steps = members.divergence_steps(run_folder, unlearned_models.submodel_spec(spec))
    return {member // spec.method.ensemble: step for member, step in divergence_steps.items()}


def reference_utility(
    run_folder: store.Run, experiment: experiments.Experiment, split: records.Split, name: str
) -> Utility:
    """Returns utility and cost of the originals or exact retrains.

    Args:
      run_folder: the run folder.
      experiment: of the run.
      split: of the run.
      name: original or retrained.
    """
    spec = roles.claim(run_folder, audited_models.describe(experiment, split, name))
    recorded_logits = recording.read(run_folder, spec)
    num_sets = len(np.asarray(split.forget))
    diverged = members.divergence_steps(run_folder, spec)
    member_ids = audited_models.members_of_sets(audited_models.design(experiment.settings, num_sets), name)
    diverged = {set_id: diverged[member] for set_id, member in enumerate(member_ids.tolist()) if member in diverged}
    values = recorded_logits[member_ids] if name == "original" else recorded_logits  # copies a memory map
    role_utility = Utility(utility(experiment, split, values, spec.rows, diverged), diverged=diverged)
    if name == "original":
        return role_utility._replace(seconds=0.0, retain_epochs=0.0)
    epochs = spec.experiment.settings.train.epochs
    finished_chunks, _ = store.chunks.finished(members.folder_of(run_folder, spec), spec.fingerprint)
    is_exact = sum(len(chunk.member_ids) for chunk in finished_chunks) == num_sets
    seconds = float("nan")
    if is_exact:
        seconds = sum(float(chunk.manifest.get("seconds", np.nan)) for chunk in finished_chunks)
    return role_utility._replace(seconds=seconds, retain_epochs=float(epochs))


def files_of_roles(run_folder: store.Run, names: Sequence[str], summary_line: str, most: int = 3) -> str:
    """Returns a list of result files: those of the first roles, and one with the numbers of all.

    Args:
      run_folder: of the run.
      names: of the roles.
      summary_line: name and content of the file with the numbers.
      most: roles that are listed.
    """
    lines = [f"  logits/{name}.npy  populations/{name}/" for name in names[:most]]
    lines += [f"  ... and {len(names) - most} more"] if len(names) > most else []
    return "\n".join([f"files in {run_folder.root}:", *lines, f"  {summary_line}"])


def utility(
    experiment: experiments.Experiment,
    split: records.Split,
    values: np.ndarray,
    rows: np.ndarray,
    diverged: dict[int, int],
) -> dict[str, np.ndarray]:
    """Computes UA, RA and TA of R models, each on its own forget set; for language models, their losses.

    Args:
      experiment: of the run.
      split: of the run.
      values: [R, n, C] logits.
      rows: [n] sorted rows of the data set.
      diverged: forget sets of diverged models, whose values are NaN.
    """
    labels = np.asarray(experiment.dataset.labels)
    is_subclass = experiment.settings.split.forget.kind == "subclass" and experiment.dataset.groups is not None
    subsets = utilities.subsets_of(split, np.asarray(experiment.dataset.groups if is_subclass else labels), rows)
    dataset, has_texts = experiment.dataset, bool(experiment.dataset.vocabulary)
    metric_names = utilities.LOSSES if has_texts else utilities.GAP
    metric_values = {name: np.full(len(values), np.nan) for name in metric_names}
    for member, member_logits in enumerate(values):
        if member not in diverged:
            member_subsets = subsets.forget[member], subsets.retain[member], subsets.test[member]
            member_values = (
                utilities.losses(answers.losses(dataset, member_logits, rows), *member_subsets)
                if has_texts
                else utilities.utility(answers.correctness(dataset, member_logits, rows), *member_subsets)
            )
            for name, value in member_values.items():
                metric_values[name][member] = value
    return metric_values
