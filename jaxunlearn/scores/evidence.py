"""The fields of evidence: their axes, dtypes and published names, and checks before anything is computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn import arrays, errors
from jaxunlearn.arrays import ArrayField
from jaxunlearn.records import Evidence

# Axis letters: S shadows, N samples, C classes, P population, m own rows, R reference models, K views, q pairs.
FIELDS: dict[str, ArrayField] = {
    "unlearned": ArrayField("NC", required=True, aliases={"target_unl_logits": "NC"}),
    "labels": ArrayField("N", "labels", required=True, aliases={"target_labels": "N"}),
    "original": ArrayField("NC", aliases={"target_ori_logits": "NC"}),
    "shadows": ArrayField("SNC", aliases={"target_shadow_logits": "NSC"}),
    "forgotten": ArrayField("N", "flags", aliases={"target_unlearn_flags": "N"}),
    "population_labels": ArrayField("P", "labels", aliases={"ref_labels": "P"}),
    "population_original": ArrayField("PC", needs=("population_labels",), aliases={"ref_ori_logits": "PC"}),
    "population_unlearned": ArrayField("PC", needs=("population_labels",), aliases={"ref_unl_logits": "PC"}),
    "population_in": ArrayField("PC", needs=("population_labels",), aliases={"ref_popin_logits": "PC"}),
    "population_shadows": ArrayField("SPC", needs=("population_labels",), aliases={"ref_shadow_logits": "PSC"}),
    "shadow_train_logits": ArrayField("SmC", needs=("shadow_train_labels",)),
    "shadow_train_labels": ArrayField("Sm", "labels"),
    "reference": ArrayField("RNC", needs=("reference_member",)),
    "reference_member": ArrayField("RN", "flags"),
    "posterior_pairs_original": ArrayField(
        "SqC", needs=("posterior_pairs_unlearned",), aliases={"pairs_original": "SqC"}
    ),
    "posterior_pairs_unlearned": ArrayField(
        "SqC", needs=("posterior_pairs_forgotten",), aliases={"pairs_unlearned": "SqC"}
    ),
    "posterior_pairs_forgotten": ArrayField("Sq", "flags", aliases={"pairs_forgotten": "Sq"}),
    "unlearned_views": ArrayField("KNC"),
    "original_views": ArrayField("KNC"),
    "shadows_views": ArrayField("KSNC"),
}
# What only an audit reads besides: other models, names and persons. L trainings, K snapshots of each.
AUDIT_FIELDS: dict[str, ArrayField] = {
    "retrained": ArrayField("NC"),
    "population_retrained": ArrayField("PC", needs=("population_labels", "retrained")),
    "snapshots": ArrayField("LKNC"),
    "ids": ArrayField("N", "ids"),
    "person": ArrayField("N", "ids"),
    "shadow_saw": ArrayField("SN", "flags", needs=("shadows",)),
    "levels": ArrayField("", "count", aliases={"INTERAPPROX": ""}),
}


def as_arrays(evidence: Evidence | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of an `Evidence`, or of a mapping of arrays and lists, without those that are None.

    Raises:
      DataError: something else, or lists of unequal length.

    Example:
      >>> from jaxunlearn.scores import evidence
      >>> evidence.as_arrays({"labels": [0, 1], "original": None})
      {'labels': array([0, 1])}
    """
    if not isinstance(evidence, (Evidence, Mapping)):
        raise errors.DataError(f"the evidence must be an Evidence or a dict of arrays, not {type(evidence).__name__}.")
    values = {}
    for name, value in (vars(evidence) if isinstance(evidence, Evidence) else evidence).items():
        try:
            if value is not None:
                values[name] = value if hasattr(value, "shape") else np.asarray(value)
        except ValueError as error:
            raise errors.DataError(f"`{name}` is not an array: lists of unequal length.") from error
    return values


def from_arrays(values: Mapping[str, np.ndarray]) -> Evidence:
    """Builds Evidence from arrays by the names of FIELDS, as `arrays.read` returns them; other arrays are ignored.

    Raises:
      DataError: only one kind of sample in `forgotten`, or a sample that all or none of the reference models hold.
    """
    fields: dict[str, Any] = {name: values.get(name) for name in FIELDS}
    evidence = Evidence(**fields)
    _check_content(evidence)
    return evidence


def check(evidence: Evidence) -> tuple[Evidence, dict[str, int]]:
    """Checks all arrays together; returns them as `arrays.read` does, and the sizes by axis letter.

    Raises:
      ShapeError: arrays that do not fit together. DataError: labels out of range, NaN or infinite logits (with their
      indices), probabilities instead of logits, arrays without their companion, only one kind in `forgotten`.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> evidence, sizes = scores.check(scores.Evidence(np.array([[3.0, 1.0]]), np.array([0])))
      >>> sizes["N"], sizes["C"]
      (1, 2)
    """
    supplied = {name: getattr(evidence, name) for name in FIELDS if getattr(evidence, name) is not None}
    values, sizes = arrays.check(supplied, FIELDS)
    return from_arrays(values), sizes


def _check_content(evidence: Evidence) -> None:
    if evidence.reference_member is not None:
        _check_reference(np.asarray(evidence.reference_member, bool))
    if evidence.forgotten is not None:
        forgotten = np.asarray(evidence.forgotten, bool)
        if forgotten.all() or not forgotten.any():
            word = "every" if forgotten.all() else "no"
            raise errors.DataError(
                f"`forgotten` marks {word} sample: without both forgotten and retained samples there is no truth to "
                "compare with. Leave the array out to get scores without metrics."
            )


def _check_reference(member: np.ndarray) -> None:
    one_sided = np.flatnonzero(member.all(0) | ~member.any(0))
    if len(one_sided):
        raise errors.DataError(
            f"reference_member: sample {int(one_sided[0])} is in the training set of all or of no reference model "
            f"({len(one_sided)} such sample(s)); standard LiRA needs models with and models without every sample. Give "
            "more reference models."
        )
