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
        labels, places = (np.load(f"{root}/logits/{name}.npy") for name in ("labels", "rows"))
        split = dict(np.load(f"{root}/split.npz"))
        shown = np.searchsorted(places, np.concatenate([split["target"], split["population"]]))
        made = {
            role: out_model.log_odds(np.load(f"{root}/logits/{role}.npy")[:, shown], labels[shown])
            for role in ("shadow", "original", "retrained")
        }
    return made | {"requested": split["forget"][:, split["target"]]}


def audited(made: dict[str, np.ndarray], role: str, chosen: str = "all", shadows: int = USED) -> Facts:
    """Audits one model for each of the ten sets.

    Args:
      made: from `trained`.
      role: "retrained", "untouched", "another" (the retrain of the next set), or one of `models.EDITS`.
      chosen: "all" rows of each set, or its 30 "hard" or "easy" ones, by other models.
      shadows: how many.
    """
    audits = []
    for number, whole in enumerate(made["requested"]):
        asked, rows = whole.copy(), len(whole)
        keep = np.ones(rows, bool)
        if chosen != "all":
            places = np.flatnonzero(whole)
            order = places[np.argsort(made["shadow"][OTHERS][:, places].mean(0), kind="stable")]
            left = order[:HARDEST] if chosen == "hard" else order[-HARDEST:]
            asked[:] = False
            asked[left] = True
            keep = asked | ~whole
        answers, contained = _model(made, role, number, asked, shadows)
        original = made["original"][0]
        given = Answers(
            answers[:rows][keep], asked[keep], made["shadow"][:shadows, :rows][:, keep], answers[rows:],
            made["shadow"][:shadows, rows:], original[:rows][keep], original[rows:],
        )  # fmt: skip
        audits.append(study.facts_of(agreement.judged(given, study.LEVEL), contained))
    return Facts(*map(np.asarray, zip(*audits, strict=True)))


def _model(
    made: dict[str, np.ndarray], role: str, number: int, asked: np.ndarray, shadows: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Returns the answers [A] of one model, and [F] bool which requested rows it is trained on."""
    original, count = made["original"][0], int(asked.sum())
    if role == "retrained":
        return made["retrained"][number], np.zeros(count, bool)
    if role == "untouched":
        return models.untouched(original, "location", number), np.ones(count, bool)
    if role == "another":
        following = (number + 1) % SETS
        return made["retrained"][following], ~made["requested"][following][asked]
    changed = models.edited(original, np.flatnonzero(asked), made["shadow"][:shadows], role, False, 0.0)
    return changed, np.ones(count, bool)
