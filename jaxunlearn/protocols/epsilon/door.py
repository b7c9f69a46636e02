"""The door for logits from anywhere: a published folder or an .npz in, the table of all approaches out. No model code.

DATA/logits_retain.npy, DATA/APPROACH/logits_unlearn.npy, metrics.csv      see store/approaches.py
my.npz    labels [S]; retrained [S, N, C]; any other [S, N, C] array is an approach; NAME__retain_accuracy [N],
          NAME__forget_accuracy, NAME__test_accuracy (NAME an approach or `retrained`) where you have them
a regression (ages, say): labels [S] float, retrained [S, N] and approaches [S, N] predictions
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors, settings, store
from jaxunlearn.protocols.audit import publishing
from jaxunlearn.protocols.audit.presenting import timed
from jaxunlearn.protocols.epsilon import measures, presenting
from jaxunlearn.report import tables

RETRAINED = ("retrained", "retain")  # ours, and the published name
MARK = "__"  # between an approach's name and its accuracies in an .npz
EXPECTED = (
    "--data takes a folder with logits_retain.npy and APPROACH/logits_unlearn.npy [S, 1 + N, C] (slot 0 the one-hot "
    "label), or an .npz with `labels` [S], `retrained` [S, N, C] and one such array per approach."
)
THE_RETRAINED = "the retrained models"  # in messages
IGNORED = f"`{measures.BASELINE}` is ignored: the baseline is made by splitting the retrained models"
# Accuracies that differ by more than this, in a metrics.csv and in the logits, were not taken in the same mode.
MODES_DIFFER = 0.003


class Request(NamedTuple):
    """What `launch.epsilon --data` was asked for.

    Attributes:
      path: folder or .npz.
      approaches: names; empty = all.
      samples: whose margins are drawn; empty = chosen by how easy they are to tell apart.
      compat: corrected or faithful.
      seed: of the bootstrap.
      chosen: values of `sections.EpsilonSettings` by name.
    """

    path: str
    approaches: tuple[str, ...] = ()
    samples: tuple[int, ...] = ()
    compat: str = "corrected"
    seed: int = 0
    chosen: dict[str, Any] = {}


class Opened(NamedTuple):
    """Files that have passed every check.

    Attributes:
      retrained, approaches, labels, accuracies: as `measures.measure` takes them; `asked`: what is measured.
      notes: what the user should know.
    """

    retrained: np.ndarray
    approaches: dict[str, np.ndarray]
    labels: np.ndarray
    accuracies: dict[str, dict[str, np.ndarray]]
    asked: measures.Asked
    notes: list[str]


def open_data(request: Request) -> Opened:
    """Reads and checks the files and the choices made with them.

    Raises:
      DataError, ShapeError, ConfigError: bad files, arrays or choices.
    """
    whole = settings.resolve({"epsilon": request.chosen, "compat": {"evaluate": request.compat}})
    checks.in_range("--seed", request.seed, 0)
    path = store.arrays.expand(request.path)
    raw = _published(path) if store.approaches.is_folder(path) else _archive(path)
    for name in request.approaches:
        checks.choice("approach", name, (*raw.approaches, measures.BASELINE))
    asked_for = request.approaches or tuple(raw.approaches)
    approaches = {name: values for name, values in raw.approaches.items() if name in asked_for}
    for name, values in {THE_RETRAINED: raw.retrained, **approaches}.items():
        _check(name, raw.retrained, values, raw.labels)
    is_regression = raw.retrained.ndim == 2
    if not approaches and raw.retrained.shape[1] < 2:
        raise errors.DataError("the baseline splits the retrained models in two, but there is only one.")
    if is_regression and whole.epsilon.metric == "challenge":
        raise errors.ConfigError("--metric=challenge needs logits of a classifier; these are predictions [S, N].")
    if is_regression and whole.epsilon.score != "gaussian":
        raise errors.ConfigError(f"--score={whole.epsilon.score}: a regression is judged by its squared error.")
    count = len(raw.labels)
    for sample in request.samples:
        if not 0 <= sample < count:
            raise errors.ConfigError(f"--samples: {sample} is none of the {count} samples, 0 to {count - 1}.")
    models = {measures.BASELINE: raw.retrained.shape[1], **{name: one.shape[1] for name, one in approaches.items()}}
    accuracies = {name: own for name, own in raw.accuracies.items() if name in models}
    for name, own in accuracies.items():
        _check_accuracies(name, own, models[name])
    notes = [*raw.notes, *_modes(raw.retrained, approaches, raw.labels, accuracies)]
    asked = measures.Asked(whole.epsilon, request.compat, request.seed)
    return Opened(raw.retrained, approaches, raw.labels, accuracies, asked, notes)


class _Raw(NamedTuple):
    retrained: np.ndarray
    approaches: dict[str, np.ndarray]
    labels: np.ndarray
    accuracies: dict[str, dict[str, np.ndarray]]
    notes: list[str]


def _published(path: Path) -> _Raw:
    """A folder of the published layout."""
    folder = store.approaches.read(path)
    if not folder.unlearned:
        raise errors.DataError(f"{path} has {store.approaches.RETRAINED}, but no subfolder with "
                               f"{store.approaches.UNLEARNED}. {EXPECTED}")  # fmt: skip
    labels, retrained = _split(str(path / store.approaches.RETRAINED), folder.retrained)
    approaches, notes = {}, []
    for name, stored in folder.unlearned.items():
        if name == measures.BASELINE:
            notes.append(IGNORED)
            continue
        place = path / name / store.approaches.UNLEARNED
        own, values = _split(str(place), stored)
        if len(own) != len(labels) or (own != labels).any():
            raise errors.DataError(
                f"{place} has other labels than {path / store.approaches.RETRAINED}: both must hold the same samples "
                "in the same order."
            )
        approaches[name] = values
    if not approaches:
        raise errors.DataError(f"{path} holds no approach beside {measures.BASELINE}. {EXPECTED}")
    accuracies = {name or measures.BASELINE: own for name, own in folder.accuracies.items()}
    for name in (one for one in approaches if one not in accuracies):
        notes.append(f"{name} has no {store.approaches.METRICS}: its accuracies are not known")
    return _Raw(retrained, approaches, labels, accuracies, notes)


def _split(name: str, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels [S], logits [S, N, C]) of an array whose slot 0 of axis 1 is the one-hot label."""
    named: dict[str, Any] = {name: stored}
    checks.shape("SNC", **named)
    checks.float_type(name, stored)
    if stored.shape[1] < 2 or stored.shape[2] < 2 or not len(stored):
        raise errors.ShapeError(f"{name} has shape {stored.shape}: expected [S, 1 + N, C] with N >= 1 models.")
    first = np.asarray(stored[:, 0], np.float32)
    is_one_hot = ((first == 0) | (first == 1)).all(-1) & (first.sum(-1) == 1)
    if not is_one_hot.all():
        wrong = int(np.flatnonzero(~is_one_hot)[0])
        raise errors.DataError(
            f"{name}: slot 0 of axis 1 must hold the one-hot label, but that of sample {wrong} is "
            f"{np.round(first[wrong], 3).tolist()}. Logits without labels: give an .npz with `labels` instead."
        )
    return first.argmax(-1), np.asarray(stored[:, 1:], np.float32)


def _archive(path: Path) -> _Raw:
    """An .npz, or a folder of .npy files."""
    arrays = store.arrays.read(path, EXPECTED)
    name = next((one for one in RETRAINED if one in arrays), None)
    if name is None or "labels" not in arrays:
        missing = "labels" if "labels" not in arrays else "retrained"
        raise errors.DataError(f"{path} lacks `{missing}`. {EXPECTED}")
    axes = np.ndim(arrays[name])
    if axes not in (2, 3):
        raise errors.ShapeError(
            f"{name} has shape {np.shape(arrays[name])}: expected logits [S, N, C], or predictions [S, N] of a "
            "regression."
        )
    # Predictions stay float64: their errors may be small beside them.
    dtype = np.float32 if axes == 3 else np.float64
    approaches, notes, ignored = {}, [], []
    accuracies: dict[str, dict[str, np.ndarray]] = {}
    for key, values in arrays.items():
        owner, mark, column = key.rpartition(MARK)
        part = column.removesuffix("_accuracy")
        if mark and column.endswith("_accuracy") and part in store.approaches.PARTS:
            accuracies.setdefault(measures.BASELINE if owner in RETRAINED else owner, {})[part] = np.asarray(values)
        elif key == measures.BASELINE:
            notes.append(IGNORED)
        elif np.ndim(values) == axes and key != name:
            checks.float_type(key, values)
            approaches[key] = np.asarray(values, dtype)
        elif key not in ("labels", name):
            ignored.append(key)
    for owner in (one for one in accuracies if one not in (*approaches, measures.BASELINE)):
        ignored += [f"{owner}{MARK}{part}_accuracy" for part in accuracies[owner]]
    if not approaches:
        shape = "[S, N, C]" if axes == 3 else "[S, N]"
        raise errors.DataError(f"{path} holds no approach: no array {shape} beside `{name}`. {EXPECTED}")
    if ignored:
        notes.append(f"arrays that were not used: {', '.join(ignored)}")
    labels = np.asarray(arrays["labels"])
    if labels.dtype.kind not in ("iu" if axes == 3 else "fiu"):
        wanted = "whole numbers (class indices)" if axes == 3 else "numbers (true values)"
        raise errors.DataError(f"labels has dtype {labels.dtype}, expected {wanted}.")
    checks.float_type(name, arrays[name])
    return _Raw(np.asarray(arrays[name], dtype), approaches, labels, accuracies, notes)


def _check(name: str, retrained: np.ndarray, values: np.ndarray, labels: np.ndarray) -> None:
    """Raises for shapes, NaN and labels of an approach, or of the retrained models themselves, by name."""
    axes = ("S", "SN", "SM") if retrained.ndim == 2 else ("S", "SNC", "SMC")
    arrays: dict[str, Any] = {"labels": labels, THE_RETRAINED: retrained, name: values}
    sizes = checks.shape(" ".join(axes[: len(arrays)]), **arrays)
    if min(sizes.values()) < 1 or sizes.get("C", 2) < 2:
        raise errors.ShapeError(
            f"{name} has shape {values.shape} and the retrained models {retrained.shape}: expected at least one "
            "sample, one model and two classes."
        )
    (checks.finite if retrained.ndim == 2 else checks.not_nan)(name, values, axes[1])
    if retrained.ndim == 3:
        checks.labels("labels", labels, sizes["C"])
    else:
        checks.finite("labels", labels)


def _check_accuracies(name: str, own: dict[str, np.ndarray], models: int) -> None:
    """Raises a DataError unless there is one fraction per model."""
    whose = THE_RETRAINED if name == measures.BASELINE else name
    for part, values in own.items():
        if values.dtype.kind not in "fiu" or values.shape != (models,):
            raise errors.DataError(
                f"{part} accuracies of {whose} have shape {values.shape} and dtype {values.dtype}, expected one "
                f"fraction for each of the {models} models."
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise errors.DataError(f"{part} accuracies of {whose} must be fractions between 0 and 1.")
        if name == measures.BASELINE and not values.any() and part != "forget":
            raise errors.DataError(f"{part} accuracies of {whose} are all 0: there is nothing to compare with.")


def _modes(
    retrained: np.ndarray, approaches: dict[str, np.ndarray], labels: np.ndarray,
    accuracies: dict[str, dict[str, np.ndarray]],
) -> list[str]:  # fmt: skip
    """Whether logits and accuracies were taken in the same mode of BatchNorm."""
    found = []
    for name, values in {measures.BASELINE: retrained, **approaches}.items():
        told = accuracies.get(name, {}).get("forget")
        if told is None or retrained.ndim == 2:
            continue
        apart = float((values.argmax(-1) == labels[:, None]).mean() - np.mean(told))
        if abs(apart) > MODES_DIFFER:
            whose = THE_RETRAINED if name == measures.BASELINE else name
            found.append(
                f"{whose}: the logits are right on {100 * apart:+.2f} points of the forget set compared with the "
                "accuracies given; were they recorded with BatchNorm in training mode?"
            )
    return found


def measure_data(request: Request, out: str, overwrite: tuple[str, ...], dry_run: bool) -> str:
    """Measures files. Returns what the terminal shows.

    Raises:
      UserError: bad files, arrays or choices, before anything is written.
    """
    begun = time.monotonic()
    opened = open_data(request)
    if dry_run:
        return plan_text(opened)
    with store.open_run(out, overwrite) as run, store.status(run, {"epsilon": request._asdict()}, {}):
        facts = {
            "labels": store.files.checksum(opened.labels),
            "retrained": store.files.checksum(opened.retrained),
        }
        store.claim(run, "epsilon", run.path("epsilon_data.json"), facts, 1)
        given = opened.retrained, opened.approaches, opened.labels, opened.asked, opened.accuracies
        found = measures.measure(*given)
        made = {
            "logits": request.path,
            **presenting.provenance(found),
            **timed(time.monotonic() - begun, store.versions()),
        }
        store.files.write_json(run.path("epsilon.json"), presenting.plain(found))
        shown, files = publish(run, "epsilon-hat of given logits", found, made, request._asdict(), request.samples)
        notes = "".join(f"\nnote: {one}" for one in (*opened.notes, *measures.notes(found)))
        return f"{shown}{notes}\n\n{files}"


def publish(
    run: store.Run, title: str, found: measures.Found, facts: dict[str, str], chosen: dict[str, Any],
    samples: tuple[int, ...] = (), more: tuple[presenting.Piece, ...] = (),
) -> tuple[str, str]:  # fmt: skip
    """Writes all results of a run folder; what an earlier call with other choices left goes first.

    Args:
      run: the run folder.
      title: of the page.
      found: what was measured.
      facts: for the foot of the page.
      chosen: all settings.
      samples: whose margins are drawn.
      more: further sections.

    Returns:
      (answer and tables for the terminal, where the files are).
    """
    run.delete("report/epsilon*", "report/tables/epsilon*")
    store.files.write_npz(run.path("epsilon.npz"), **presenting.arrays(found))
    pieces, answer = [*presenting.pieces(found, samples), *more], presenting.in_words(found)
    findings = [one for piece in pieces for one in piece.findings]
    files = publishing.publish(run, title, answer, pieces, facts, findings, chosen, presenting.STEM)
    return f"{answer}\n\n{presenting.text(pieces)}", f"{files}\n{presenting.FILES}"


def plan_text(opened: Opened) -> str:
    """What measuring these files would do."""
    chosen = opened.asked.settings
    rows = [
        ("samples", f"{len(opened.labels):,}, {'predictions' if opened.retrained.ndim == 2 else 'logits'}"),
        ("retrained", f"{opened.retrained.shape[1]} models"),
        *[(name, f"{values.shape[1]} models{'' if name in opened.accuracies else ', no accuracies'}")
          for name, values in opened.approaches.items()],
        ("measured", f"{chosen.metric}, score {chosen.score}, delta {chosen.delta:g}, {chosen.bootstrap} resamples"),
        *[("note", one) for one in opened.notes],
    ]  # fmt: skip
    return tables.pairs(rows)
