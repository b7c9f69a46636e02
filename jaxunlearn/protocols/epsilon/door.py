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
from jaxunlearn.metrics import epsilon
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
      groups, labels, accuracies: as `measures.measure` takes them; `asked`: what is measured.
      notes: what the user should know.
    """

    groups: dict[str, measures.Pair]
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
    path = Path(request.path).expanduser()
    opened = _published(path) if store.approaches.is_folder(path) else _archive(path)
    known = tuple(opened.groups)
    for name in request.approaches:
        if name != measures.BASELINE:
            checks.choice("approach", name, (*known, measures.BASELINE))
    asked_for = [name for name in known if not request.approaches or name in request.approaches]
    # Only the baseline was asked for: it needs some pair to take the retrained models from.
    groups = {name: opened.groups[name] for name in asked_for or known[:1]}
    notes = [*opened.notes]
    for name, pair in groups.items():
        _check(name, pair, opened.labels)
    classes = next(iter(groups.values()))[0].ndim == 3
    if not classes and "metric" in request.chosen and whole.epsilon.metric == "challenge":
        raise errors.ConfigError("--metric=challenge needs logits of a classifier; these are predictions [S, N].")
    if not classes and whole.epsilon.score != "gaussian":
        raise errors.ConfigError(f"--score={whole.epsilon.score}: a regression is judged by its squared error.")
    count = len(opened.labels)
    for sample in request.samples:
        if not 0 <= sample < count:
            raise errors.ConfigError(f"--samples: {sample} is none of the {count} samples, 0 to {count - 1}.")
    notes += _remarks(groups, opened.labels, opened.accuracies)
    return Opened(groups, opened.labels, opened.accuracies, measures.Asked(whole.epsilon, request.compat, request.seed),
                  notes)  # fmt: skip


class _Raw(NamedTuple):
    groups: dict[str, measures.Pair]
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
    groups, notes = {}, []
    for name, stored in folder.unlearned.items():
        place = path / name / store.approaches.UNLEARNED
        own, values = _split(str(place), stored)
        if len(own) != len(labels) or (own != labels).any():
            raise errors.DataError(
                f"{place} has other labels than {path / store.approaches.RETRAINED}: both must hold the same samples "
                "in the same order."
            )
        if name == measures.BASELINE:
            # Published so; halves of the retrained models are the floor that was meant.
            notes.append(f"the folder {name} is ignored: the baseline is made by splitting the retrained models")
            continue
        groups[name] = (retrained, values)
    if not groups:
        raise errors.DataError(f"{path} holds no approach beside {measures.BASELINE}. {EXPECTED}")
    accuracies = {name or measures.BASELINE: own for name, own in folder.accuracies.items()}
    for name in (one for one in groups if one not in accuracies):
        notes.append(f"{name} has no {store.approaches.METRICS}: its accuracies are not known")
    return _Raw(groups, labels, accuracies, notes)


def _split(name: str, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels [S], logits [S, N, C]) of an array whose slot 0 of axis 1 is the one-hot label."""
    named: dict[str, Any] = {name: stored}
    checks.shape("SNC", **named)
    if stored.shape[1] < 2 or stored.shape[2] < 2 or not len(stored):
        raise errors.ShapeError(f"{name} has shape {stored.shape}: expected [S, 1 + N, C] with N >= 1 models.")
    first = np.asarray(stored[:, 0], np.float32)
    if not ((first == 0) | (first == 1)).all() or (first.sum(-1) != 1).any():
        wrong = int(np.flatnonzero(((first != 0) & (first != 1)).any(-1) | (first.sum(-1) != 1))[0])
        raise errors.DataError(
            f"{name}: slot 0 of axis 1 must hold the one-hot label, but that of sample {wrong} is "
            f"{np.round(first[wrong], 3).tolist()}. Logits without labels: give an .npz with `labels` instead."
        )
    return first.argmax(-1), np.asarray(stored[:, 1:], np.float32)


def _archive(path: Path) -> _Raw:
    """An .npz, or a folder of .npy files."""
    arrays = store.arrays.read(path, EXPECTED)
    retrained = next((name for name in RETRAINED if name in arrays), None)
    if retrained is None or "labels" not in arrays:
        missing = "labels" if "labels" not in arrays else "retrained"
        raise errors.DataError(f"{path} lacks `{missing}`. {EXPECTED}")
    labels, first = np.asarray(arrays["labels"]), _floats(retrained, arrays[retrained])
    if first.ndim not in (2, 3):
        raise errors.ShapeError(
            f"{retrained} has shape {first.shape}: expected logits [S, N, C], or predictions [S, N] of a regression."
        )
    groups: dict[str, measures.Pair] = {}
    accuracies: dict[str, dict[str, np.ndarray]] = {}
    ignored = []
    for name, values in arrays.items():
        owner, mark, part = name.rpartition(MARK)
        if mark and part.removesuffix("_accuracy") in store.approaches.PARTS and part.endswith("_accuracy"):
            owner = measures.BASELINE if owner in RETRAINED else owner
            accuracies.setdefault(owner, {})[part.removesuffix("_accuracy")] = _fractions(name, values)
        elif name in ("labels", retrained):
            continue
        elif np.ndim(values) == first.ndim and np.shape(values)[0] == len(first):
            groups[name] = (first, _floats(name, values))
        else:
            ignored.append(name)
    if not groups:
        raise errors.DataError(f"{path} holds no approach: no array [S, N, C] beside `{retrained}`. {EXPECTED}")
    notes = [f"arrays that were not used: {', '.join(ignored)}"] if ignored else []
    if first.ndim == 3 and labels.dtype.kind not in "iu":
        raise errors.DataError(f"labels has dtype {labels.dtype}, expected whole numbers (class indices).")
    return _Raw(groups, labels if first.ndim == 3 else labels.astype(np.float32), accuracies, notes)


def _floats(name: str, values: np.ndarray) -> np.ndarray:
    if np.asarray(values).dtype.kind not in "fiu":
        raise errors.DataError(
            f"{name} has dtype {np.asarray(values).dtype}, expected float16, float32 or float64. NumPy files do not "
            "keep bfloat16: convert to float32 before saving."
        )
    return np.asarray(values, np.float32)


def _fractions(name: str, values: np.ndarray) -> np.ndarray:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
        raise errors.DataError(f"{name} must hold one fraction between 0 and 1 per model, [N].")
    return found


def _check(name: str, pair: measures.Pair, labels: np.ndarray) -> None:
    """Raises for shapes, NaN and labels, naming the approach."""
    axes = ("S", "SN", "SM") if pair[0].ndim == 2 else ("S", "SNC", "SMC")
    arrays: dict[str, Any] = {"labels": labels, "the retrained models": pair[0], name: pair[1]}
    checks.shape(" ".join(axes), **arrays)
    for whose, values in (("the retrained models", pair[0]), (name, pair[1])):
        if pair[0].ndim == 2:
            checks.finite(whose, values, axes[1])
        else:
            epsilon.no_nan(whose, values, axes[1])
    if pair[0].ndim == 3:
        checks.labels("labels", labels, pair[0].shape[-1])
    else:
        checks.finite("labels", labels)


def _remarks(
    groups: dict[str, measures.Pair], labels: np.ndarray, accuracies: dict[str, dict[str, np.ndarray]]
) -> list[str]:
    """What the user should know of models and modes."""
    found = []
    fewest = min(min(pair[0].shape[1], pair[1].shape[1]) for pair in groups.values())
    if fewest < epsilon.FEW_MODELS:
        found.append(
            f"{fewest} model(s) in a group: below {epsilon.FEW_MODELS} epsilon-hat hardly means anything; use dozens"
        )
    first = next(iter(groups.values()))[0]
    if first.ndim == 2:
        return found
    for name, values in {measures.BASELINE: first, **{name: pair[1] for name, pair in groups.items()}}.items():
        told = accuracies.get(name, {}).get("forget")
        if told is None:
            continue
        apart = float((values.argmax(-1) == labels[:, None]).mean() - np.mean(told))
        if abs(apart) > MODES_DIFFER:
            whose = "the retrained models" if name == measures.BASELINE else name
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
            "retrained": store.files.checksum(next(iter(opened.groups.values()))[0]),
        }
        store.claim(run, "epsilon", run.path("epsilon_data.json"), facts, 1)
        found = measures.measure(opened.groups, opened.labels, opened.asked, opened.accuracies)
        store.files.write_npz(run.path("epsilon.npz"), **presenting.arrays(found))
        store.files.write_json(run.path("epsilon.json"), presenting.plain(found))
        pieces, answer = presenting.pieces(found, request.samples), presenting.in_words(found)
        made = {
            "logits": request.path,
            **presenting.provenance(found),
            **timed(time.monotonic() - begun, store.versions()),
        }
        findings = [one for piece in pieces for one in piece.findings]
        title = "epsilon-hat of given logits"
        files = publishing.publish(
            run, title, answer, pieces, made, findings, request._asdict(), presenting.STEM
        )  # fmt: skip
        notes = "".join(f"\nnote: {one}" for one in opened.notes)
        return f"{answer}\n\n{presenting.text(pieces)}{notes}\n\n{files}\n{presenting.FILES}"


def plan_text(opened: Opened) -> str:
    """What measuring these files would do."""
    retrained = next(iter(opened.groups.values()))[0]
    rows = [
        ("samples", f"{len(opened.labels):,}, {'predictions' if retrained.ndim == 2 else 'logits'}"),
        ("retrained", f"{retrained.shape[1]} models"),
        *[(name, f"{pair[1].shape[1]} models{'' if name in opened.accuracies else ', no accuracies'}")
          for name, pair in opened.groups.items()],
        ("measured", f"{opened.asked.settings.metric}, score {opened.asked.settings.score}, delta "
                     f"{opened.asked.settings.delta:g}, {opened.asked.settings.bootstrap} resamples"),
        *[("note", one) for one in opened.notes],
    ]  # fmt: skip
    return tables.pairs(rows)
