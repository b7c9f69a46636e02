"""Trains and reads Location-30, real data that a network overfits: 10 sets of 100 rows, each with its exact retrain."""

import tempfile

import numpy as np

from jaxunlearn import progress, settings, store
from jaxunlearn.metrics.verdict import agreement, out_model
from jaxunlearn.metrics.verdict.judge import Answers
from jaxunlearn.runs import experiments
from jaxunlearn.runs.verbs import targets
from tests.scenarios import models, study
from tests.scenarios.study import Facts

DATA = "JAXUNLEARN_LOCATION30"  # environment variable: path of location30.npz
SETS, SIZE, HARDEST, USED, OTHERS = 10, 100, 30, 20, slice(20, 60)


def trained(data: str, folder: str = "") -> dict[str, np.ndarray]:
    """Returns log-odds by role [M, A], `requested` [10, N] bool; the first N answers are target rows, then population.

    Args:
      data: path of location30.npz.
      folder: run folder, reused where it is finished; empty = a temporary one.
    """
    config = settings.defaults()
    config.update_from_flattened_dict({
        "data.name": "location30", "data.path": data, "split.shadow": 1000, "split.forget.count": SETS,
        "split.forget.size": SIZE, "model.name": "location", "train.learning_rate": 0.05, "train.epochs": 40,
        "train.batch": 64, "shadows.count": 64, "targets.snapshots": 0, "targets.shadow_origin": False,
        "targets.population_in": False, "targets.originals": "shared",
    })  # fmt: skip
    experiment = experiments.prepare(settings.resolve(config))
    with tempfile.TemporaryDirectory() as temporary, store.open_run(folder or temporary) as run:
        targets.run(run, progress.Reporter(run.log), experiment)
        root = f"{folder or temporary}"
        labels, recorded_rows = (np.load(f"{root}/logits/{name}.npy") for name in ("labels", "rows"))
        split = dict(np.load(f"{root}/split.npz"))
        positions = np.searchsorted(recorded_rows, np.concatenate([split["target"], split["population"]]))
        log_odds = {
            role: out_model.log_odds(np.load(f"{root}/logits/{role}.npy")[:, positions], labels[positions])
            for role in ("shadow", "original", "retrained")
        }
    return log_odds | {"requested": split["forget"][:, split["target"]]}


def audited(log_odds: dict[str, np.ndarray], role: str, subset: str = "all", shadows: int = USED) -> Facts:
    """Audits one model for each of the ten sets.

    Args:
      log_odds: from `trained`.
      role: "retrained", "untouched", "another" (the retrain of the next set), or one of `models.EDITS`.
      subset: "all" rows of each set, or its 30 "hard" or "easy" ones, by other models.
      shadows: how many.
    """
    audits = []
    for set_index, is_in_set in enumerate(log_odds["requested"]):
        is_requested, rows = is_in_set.copy(), len(is_in_set)
        is_used = np.ones(rows, bool)
        if subset != "all":
            rows_of_set = np.flatnonzero(is_in_set)
            order = rows_of_set[np.argsort(log_odds["shadow"][OTHERS][:, rows_of_set].mean(0), kind="stable")]
            selected = order[:HARDEST] if subset == "hard" else order[-HARDEST:]
            is_requested[:] = False
            is_requested[selected] = True
            is_used = is_requested | ~is_in_set
        answers, contained = _model(log_odds, role, set_index, is_requested, shadows)
        original = log_odds["original"][0]
        request_answers = Answers(
            answers[:rows][is_used], is_requested[is_used], log_odds["shadow"][:shadows, :rows][:, is_used],
            answers[rows:], log_odds["shadow"][:shadows, rows:], original[:rows][is_used], original[rows:],
        )  # fmt: skip
        audits.append(study.facts_of(agreement.judge_with_agreement(request_answers, study.LEVEL), contained))
    return Facts(*map(np.asarray, zip(*audits, strict=True)))


def _model(
    log_odds: dict[str, np.ndarray], role: str, set_index: int, is_requested: np.ndarray, shadows: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Returns the answers [A] of one model, and [F] bool which requested rows it is trained on."""
    original, count = log_odds["original"][0], int(is_requested.sum())
    if role == "retrained":
        return log_odds["retrained"][set_index], np.zeros(count, bool)
    if role == "untouched":
        return models.untouched(original, "location", set_index), np.ones(count, bool)
    if role == "another":
        next_set = (set_index + 1) % SETS
        return log_odds["retrained"][next_set], ~log_odds["requested"][next_set][is_requested]
    edited_answers = models.edited(
        original, np.flatnonzero(is_requested), log_odds["shadow"][:shadows], role, False, 0.0
    )
    return edited_answers, np.ones(count, bool)
