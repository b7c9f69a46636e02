"""The door for outputs from any framework: an .npz of arrays in, the evaluation out. No model code is loaded.

calibration, forget, test [n, c] or [m, n, c]; calibration_labels, forget_labels, test_labels [n]
retain, retain_labels               RA, attacks
test_forget, calibration_forget     (and labels) where whole classes were forgotten
retrained_forget, original_test...  the same samples under exact retraining and before unlearning
untrained_forget                    outputs of an untrained network, for ZRF
"""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors, sections, settings, store
from jaxunlearn.metrics import conformal
from jaxunlearn.protocols.audit import publishing
from jaxunlearn.protocols.audit.presenting import timed
from jaxunlearn.protocols.evaluation import measures, presenting
from jaxunlearn.protocols.evaluation.measures import Choices, Parts
from jaxunlearn.report import tables

REQUIRED = ("calibration", "forget", "test")
OPTIONAL = ("retain", "test_forget", "calibration_forget")
BESIDE = ("retrained", "original")
UNTRAINED = "untrained_forget"


class Request(NamedTuple):
    """What `launch.evaluate --logits` was asked for.

    Attributes:
      path: the .npz, or a folder of .npy files.
      probabilities: the arrays are softmax probabilities.
      compat: corrected or faithful.
      chosen: values of `sections.EvaluateSettings` by name; headline 0 = 0.1 if it is among the alphas, else the first.
    """

    path: str
    probabilities: bool = False
    compat: str = "corrected"
    chosen: dict[str, Any] = {}


class Opened(NamedTuple):
    """A file that has passed every check.

    Attributes:
      roles: "unlearned" and those beside it -> [M, N, C] logits of all samples, one part after another.
      labels: [N]; `parts`; `untrained`: [N, C] or None.
      choices: what is measured; `notes`: about calibration; `ignored`: names in the file that were not used.
    """

    roles: dict[str, np.ndarray]
    labels: np.ndarray
    parts: Parts
    untrained: np.ndarray | None
    choices: Choices
    notes: list[str]
    ignored: tuple[str, ...]


def open_file(request: Request) -> Opened:
    """Reads and checks a file of outputs and the choices made with it.

    Raises:
      DataError, ShapeError, ConfigError: bad file, arrays or choices.
    """
    choices = choices_of(request)
    arrays = store.arrays.read(request.path, _what(request.path))
    missing = [name for part in REQUIRED for name in (part, f"{part}_labels") if name not in arrays]
    if missing:
        raise errors.DataError(f"{request.path} lacks {', '.join(missing)}. {_what(request.path)}")
    names = [part for part in (*REQUIRED, *OPTIONAL) if part in arrays]
    labels_of = {part: _labels(arrays, part) for part in names}
    main = {part: _outputs(request, part, arrays[part], labels_of[part]) for part in names}
    _same_models(main)
    roles = {"unlearned": _joined(main)}
    for role in BESIDE:
        there = [part for part in names if f"{role}_{part}" in arrays]
        if not there:
            continue
        if there != names:
            lacking = next(part for part in names if part not in there)
            raise errors.DataError(
                f"{request.path} holds {role}_{there[0]} but not {role}_{lacking}. Give {role}_... for every part "
                f"that the unlearned model has ({', '.join(names)}), or for none."
            )
        own = {f"{role}_{part}": _outputs(request, f"{role}_{part}", arrays[f"{role}_{part}"], labels_of[part])
               for part in names}  # fmt: skip
        _same_models(own)
        _same_models({"forget": main["forget"], f"{role}_forget": own[f"{role}_forget"]}, is_beside=True)
        values = _joined(own)
        roles[role] = np.broadcast_to(values, (len(roles["unlearned"]), *values.shape[1:]))
    labels = np.concatenate([labels_of[part] for part in names])
    _check_amounts(main, choices)
    parts = _parts(names, labels_of, len(roles["unlearned"]))
    untrained = None
    if UNTRAINED in arrays:
        outputs = _outputs(request, UNTRAINED, arrays[UNTRAINED], labels_of["forget"])
        checks.shape("MNC", {"M": 1}, **{UNTRAINED: outputs})
        untrained = np.full((len(labels), outputs.shape[-1]), np.nan, np.float32)
        untrained[parts.forget[0]] = outputs[0]
    notes = measures.check_calibration(labels, parts, choices)
    if "retain" not in names:
        notes.append("without `retain` there is no RA and no membership attack")
    known = {UNTRAINED, *(f"{prefix}{part}" for part in names for prefix in ("", *(f"{role}_" for role in BESIDE)))}
    ignored = tuple(name for name in arrays if name.removesuffix("_labels") not in known)
    if ignored:
        notes.append(f"arrays that were not used: {', '.join(ignored)}")
    if any(values.shape[-1] != roles["unlearned"].shape[-1] for values in roles.values()):
        notes.append("models with different numbers of classes: no activation distance")
    return Opened(roles, labels, parts, untrained, choices, notes, ignored)


def choices_of(request: Request) -> Choices:
    """The choices behind the flags.

    Raises:
      ConfigError: an unknown or impossible one.
    """
    chosen = dict(request.chosen)
    try:
        chosen["alphas"] = tuple(float(one) for one in chosen.get("alphas", sections.EvaluateSettings().alphas))
    except ValueError as error:
        raise errors.ConfigError(f"--alphas={chosen['alphas']}: expected numbers, e.g. 0.05,0.1.") from error
    alphas = conformal.check_alphas(chosen["alphas"])
    if not chosen.get("headline"):
        chosen["headline"] = 0.1 if 0.1 in alphas else alphas[0]
    whole = settings.resolve({"evaluate": chosen, "compat": {"evaluate": request.compat}})
    measures.check_choices(whole.evaluate)
    return Choices(whole.evaluate, measures.groups_of(whole.evaluate.metrics), request.compat)


def evaluate_file(request: Request, out: str, overwrite: tuple[str, ...], dry_run: bool) -> str:
    """Evaluates a file of outputs. Returns what the terminal shows.

    Raises:
      UserError: bad file, arrays or choices, before anything is written.
    """
    begun = time.monotonic()
    opened = open_file(request)
    if dry_run:
        return plan_text(opened)
    with store.open_run(out, overwrite) as run, store.status(run, {"logits": request._asdict()}, {}):
        arrays = [store.files.checksum(one) for values in opened.roles.values() for one in values]
        facts = {"arrays": arrays, "labels": store.files.checksum(opened.labels)}
        store.claim(run, "evaluation", run.path("evaluation_data.json"), facts, 1)
        found = evaluate(opened)
        store.files.write_json(run.path("evaluation.json"), presenting.plain(found))
        for role, numbers in found.roles.items() if "conformal" in opened.choices.groups else ():
            sets = measures.sets_of(opened.roles[role], opened.labels, opened.parts, opened.choices, numbers)
            store.files.write_npz(
                run.path("evaluation", f"sets_{role}.npz"), labels=opened.labels, alphas=np.asarray(found.alphas),
                **sets, **opened.parts._asdict(),
            )  # fmt: skip
        pieces, answer = presenting.pieces(found), presenting.in_words(found)
        chosen = dataclasses.asdict(opened.choices.settings)
        made = {
            "logits": request.path,
            "non-conformity": f"{chosen['score']}, rank {chosen['rank']}",
            "compat": request.compat,
            **timed(time.monotonic() - begun, store.versions()),
        }
        findings = [one for piece in pieces for one in piece.findings]
        files = publishing.publish(
            run, "Evaluation of given outputs", answer, pieces, made, findings, chosen, presenting.STEM
        )  # fmt: skip
        notes = "".join(f"\nnote: {one}" for one in opened.notes)
        return f"{answer}\n\n{presenting.text(pieces)}{notes}\n\n{files}\n{presenting.files(found)}"


def evaluate(opened: Opened) -> presenting.Evaluation:
    """All numbers of outputs that `open_file` has checked."""
    goal = opened.roles.get("retrained")
    order: list[str] = [role for role in ("original", "retrained", "unlearned") if role in opened.roles]
    numbers = {
        role: measures.measure(opened.roles[role], opened.labels, opened.parts, opened.choices, goal, opened.untrained)
        for role in order
    }
    chosen = opened.choices.settings
    return presenting.Evaluation(numbers, chosen.alphas, chosen.headline, len(opened.parts.forget), {}, {})


def plan_text(opened: Opened) -> str:
    """What an evaluation of this file would do."""
    models, _, classes = opened.roles["unlearned"].shape
    rows = [
        ("models", f"{models} of {classes} classes"),
        *[(name, f"{int(part[0].sum()):,} samples") for name, part in zip(Parts._fields, opened.parts, strict=True)],
        ("beside it", ", ".join(role for role in opened.roles if role != "unlearned") or "nothing"),
        ("measured", ", ".join(opened.choices.groups)),
        *[("note", one) for one in opened.notes],
    ]
    return tables.pairs(rows)


def _what(path: str) -> str:
    return (
        "--logits takes an .npz (or a folder of .npy) with `calibration`, `forget`, `test` and, for attacks, `retain` "
        "[n, c], each with `..._labels` [n]."
    )


def _labels(arrays: dict[str, np.ndarray], part: str) -> np.ndarray:
    if f"{part}_labels" not in arrays:
        raise errors.DataError(f"{part} has no labels: give {part}_labels [n] beside it.")
    labels = np.asarray(arrays[f"{part}_labels"])
    if labels.dtype.kind not in "iu":
        raise errors.DataError(f"{part}_labels has dtype {labels.dtype}, expected whole numbers (class indices).")
    return labels.astype(np.int64)


def _outputs(request: Request, name: str, given: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Checked logits [M, n, C] float32."""
    axes = "NC" if np.ndim(given) == 2 else "MNC"
    checks.float_type(name, given)
    named: dict[str, Any] = {name: given, f"labels of {name}": labels}
    sizes = checks.shape(f"{axes} N", **named)
    if not sizes["N"]:
        raise errors.DataError(f"{name} holds no sample.")
    checks.finite(name, given, axes)
    checks.labels(f"labels of {name}", labels, sizes["C"])
    values = np.asarray(given, np.float32)
    sums = values.sum(-1)
    like_probabilities = values.min() >= 0 and np.abs(sums - 1).max() < 1e-3
    if request.probabilities:
        if not like_probabilities:
            worst = np.unravel_index(np.abs(sums - 1).argmax(), sums.shape)
            range_of = f"values from {values.min():.4g} to {values.max():.4g}"
            raise errors.DataError(
                f"{name} are no probabilities: {range_of}, and row {tuple(int(i) for i in worst)} sums to "
                f"{sums[worst]:.4g} instead of 1. Give softmax outputs, or drop --probabilities if these are logits."
            )
        # What is 0 stays negligible, and finite.
        values = np.log(np.maximum(values, np.float32(1e-37)))
    elif like_probabilities:
        raise errors.DataError(
            f"every row of {name} is non-negative and sums to 1: these look like probabilities, not logits. Pass "
            "--probabilities, or give the outputs before the softmax."
        )
    return values[None] if axes == "NC" else values


def _check_amounts(parts: dict[str, np.ndarray], choices: Choices) -> None:
    """Raises a DataError for outputs of one class, or too few samples for the attacks."""
    if next(iter(parts.values())).shape[-1] < 2:
        raise errors.DataError("the arrays have 1 class; a classifier has at least 2.")
    attacks = set(choices.groups) & {"svc", "thresholds", "entropy", "miacr"}
    for name in ("retain", "test") if attacks and "retain" in parts else ():
        if parts[name].shape[1] < 2:
            raise errors.DataError(f"{name} holds 1 sample; membership attacks need at least 2 (or leave them out: "
                                   "--metrics=conformal,distances).")  # fmt: skip


def _same_models(parts: dict[str, np.ndarray], is_beside: bool = False) -> None:
    """Raises a ShapeError unless all are of the same models; one `beside` others may be 1 model of other classes."""
    first, *rest = parts
    for name in rest:
        models, classes = parts[name].shape[0], parts[name].shape[-1]
        fits = models == len(parts[first]) or (is_beside and models == 1)
        if not fits or (classes != parts[first].shape[-1] and not is_beside):
            raise errors.ShapeError(
                f"{name} is of {models} model(s) and {classes} classes, but {first} is of {len(parts[first])} and "
                f"{parts[first].shape[-1]}: all arrays must be outputs of the same models."
            )


def _joined(parts: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts.values()), axis=1)


def _parts(names: list[str], labels: dict[str, np.ndarray], models: int) -> Parts:
    owner = np.repeat(names, [len(labels[name]) for name in names])
    return Parts(*(np.repeat((owner == name)[None], models, 0) for name in Parts._fields))
