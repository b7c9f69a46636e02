"""What evidence must look like, checked before anything is computed, and the published names of its arrays."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.records import Evidence

# Axis letters of every array: S shadows, N samples, C classes, P population, m own rows, K views or models, q pairs.
FIELDS: dict[str, str] = {
    "unlearned": "NC",
    "labels": "N",
    "original": "NC",
    "shadows": "SNC",
    "forgotten": "N",
    "population_labels": "P",
    "population_original": "PC",
    "population_unlearned": "PC",
    "population_in": "PC",
    "population_shadows": "SPC",
    "shadow_train_logits": "SmC",
    "shadow_train_labels": "Sm",
    "reference": "RNC",
    "reference_member": "RN",
    "pairs_original": "SqC",
    "pairs_unlearned": "SqC",
    "pairs_forgotten": "Sq",
    "unlearned_views": "KNC",
    "original_views": "KNC",
    "shadows_views": "KSNC",
}
LABELS = ("labels", "population_labels", "shadow_train_labels")
FLAGS = ("forgotten", "reference_member", "pairs_forgotten")
# Arrays that are meaningless alone.
TOGETHER = {
    "population_original": "population_labels",
    "population_unlearned": "population_labels",
    "population_in": "population_labels",
    "population_shadows": "population_labels",
    "shadow_train_logits": "shadow_train_labels",
    "reference": "reference_member",
    "pairs_original": "pairs_unlearned",
    "pairs_unlearned": "pairs_forgotten",
}
# Published record name -> (our name, whether [n, s, c] must become [s, n, c]).
PUBLISHED: dict[str, tuple[str, bool]] = {
    "target_ori_logits": ("original", False),
    "target_unl_logits": ("unlearned", False),
    "target_labels": ("labels", False),
    "target_unlearn_flags": ("forgotten", False),
    "target_shadow_logits": ("shadows", True),
    "ref_ori_logits": ("population_original", False),
    "ref_unl_logits": ("population_unlearned", False),
    "ref_popin_logits": ("population_in", False),
    "ref_shadow_logits": ("population_shadows", True),
    "ref_labels": ("population_labels", False),
}


class Named(NamedTuple):
    """Arrays of a file by our names.

    Attributes:
      evidence: the record.
      ignored: names in the file that mean nothing here.
      levels: the file's own number of interpolation levels (INTERAPPROX), or None.
    """

    evidence: Evidence
    ignored: tuple[str, ...]
    levels: int | None


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Named:
    """Evidence from named arrays: our names, or the published record names.

    Raises:
      DataError: `unlearned` or `labels` is missing (with the nearest name in the file), or one array comes twice.
    """
    found: dict[str, Any] = {}
    ignored = []
    for name, array in arrays.items():
        ours, swap = PUBLISHED.get(name, (name, False))
        if ours not in FIELDS:
            ignored.append(name)
            continue
        if ours in found:
            raise errors.DataError(f"the evidence holds {ours!r} twice, also under its published name; remove one.")
        found[ours] = np.swapaxes(array, 0, 1) if swap and array.ndim == 3 else array
    for needed in ("unlearned", "labels"):
        if needed not in found:
            raise errors.DataError(
                f"the evidence holds no array {needed!r}.{errors.nearest(needed, ignored)} It needs `unlearned` [n, c] "
                "logits and `labels` [n]; most scores also need `original` [n, c] and `shadows` [s, n, c]."
            )
    for flag in FLAGS:
        if flag in found:
            found[flag] = _flags(flag, found[flag])
    for name in LABELS:
        if name in found:
            found[name] = _whole(name, found[name])
    levels = int(arrays["INTERAPPROX"]) if "INTERAPPROX" in arrays and np.ndim(arrays["INTERAPPROX"]) == 0 else None
    evidence = Evidence(**found)
    return Named(evidence, tuple(name for name in ignored if name != "INTERAPPROX"), levels)


def check(evidence: Evidence) -> dict[str, int]:
    """Checks all arrays together and returns the sizes by axis letter.

    Raises:
      ShapeError: arrays that do not fit together. DataError: labels out of range, NaN or infinite logits (with their
      indices), probabilities instead of logits, arrays without their companion, one class only in `forgotten`.
    """
    arrays = {name: getattr(evidence, name) for name in FIELDS if getattr(evidence, name) is not None}
    sizes = checks.shape(" ".join(FIELDS[name] for name in arrays), **arrays)
    for name, size in sizes.items():
        if size == 0:
            raise errors.ShapeError(f"the evidence is empty along axis {name} (shape letters {FIELDS}).")
    if sizes["C"] < 2:
        raise errors.ShapeError(
            f"logits have {sizes['C']} class; at least 2 are needed (give a binary model's as [0, z])."
        )
    for name, companion in TOGETHER.items():
        if name in arrays and companion not in arrays:
            raise errors.DataError(f"the evidence holds {name!r} without {companion!r}; both are needed together.")
    for name in LABELS:
        if name in arrays:
            _check_labels(name, np.asarray(arrays[name]), sizes["C"])
    for name, array in arrays.items():
        if FIELDS[name].endswith("C"):
            _check_logits(name, array, FIELDS[name])
    if "reference_member" in arrays:
        _check_reference(np.asarray(arrays["reference_member"], bool))
    if "forgotten" in arrays:
        forgotten = np.asarray(arrays["forgotten"], bool)
        if forgotten.all() or not forgotten.any():
            word = "every" if forgotten.all() else "no"
            raise errors.DataError(
                f"`forgotten` marks {word} sample: without both forgotten and retained samples there is no truth to "
                "compare with. Leave the array out to get scores without metrics."
            )
    return sizes


def _check_labels(name: str, array: np.ndarray, num_classes: int) -> None:
    for model, values in enumerate(np.atleast_2d(array)):
        checks.labels(f"{name}[{model}]" if array.ndim > 1 else name, values, num_classes)


def _check_logits(name: str, array: Any, axes: str) -> None:
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
        raise errors.DataError(f"{name} has dtype {array.dtype}; logits are floating-point numbers.")
    models = array if array.ndim > 2 else array[None]
    for model, values in enumerate(models):
        try:
            checks.finite(name, values, axes[-values.ndim :])
        except errors.DataError as error:
            where = f"{name}[{model}]" if array.ndim > 2 else name
            raise errors.DataError(str(error).replace(name, where, 1)) from error
    if _are_probabilities(models[0]):
        raise errors.DataError(
            f"{name} looks like probabilities (all values in [0, 1], rows sum to 1), but raw logits are needed: a "
            "softmax in float32 has lost what tells members apart. Save the network's outputs before the softmax."
        )


def _are_probabilities(values: Any) -> bool:
    rows = np.asarray(values).reshape(-1, values.shape[-1])[:1000].astype(np.float32)
    return bool(rows.min() >= 0 and rows.max() <= 1 and np.abs(rows.sum(-1) - 1).max() < 1e-2)


def _check_reference(member: np.ndarray) -> None:
    alone = np.flatnonzero(member.all(0) | ~member.any(0))
    if len(alone):
        raise errors.DataError(
            f"reference_member: sample {int(alone[0])} is in the training set of all or of no reference model "
            f"({len(alone)} such sample(s)); standard LiRA needs models with and models without every sample. Give "
            "more reference models."
        )


def _flags(name: str, array: np.ndarray) -> np.ndarray:
    values = np.asarray(array)
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise errors.DataError(f"{name} must hold only 0 and 1 (or booleans), e.g. 1 = forgotten.")
    return values.astype(bool)


def _whole(name: str, array: np.ndarray) -> np.ndarray:
    values = np.asarray(array)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        return values.astype(np.int32)
    if values.dtype.kind not in "iu":
        raise errors.DataError(f"{name} has dtype {values.dtype}; it must hold class numbers from 0.")
    return values.astype(np.int32)
