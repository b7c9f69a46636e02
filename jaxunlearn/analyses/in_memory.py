"""Runs an analysis on arrays that are in memory, without a launcher, a folder or a file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxunlearn import arrays, checks, errors, settings
from jaxunlearn.analyses.base import Analysis, Context, array_input
from jaxunlearn.records import Evidence
from jaxunlearn.report.section import Report
from jaxunlearn.scores.evidence import as_arrays


def run(
    analysis: Analysis,
    evidence: Evidence | Mapping[str, Any],
    *,
    probabilities: bool = False,
    seed: int = 0,
    compat: str = "corrected",
    flag: str = "",
    **choices: Any,
) -> Report:
    """Analyses arrays, as the launcher does with a file of them.

    Args:
      analysis: of ANALYSES.
      evidence: arrays by the names that the launcher reads, or an `Evidence`.
      probabilities: the outputs are probabilities.
      seed: of all random draws.
      compat: corrected, or faithful to published quirks.
      flag: which kind of arrays, by the launcher's flag; empty = the analysis' own.
      **choices: settings of the analysis by name, e.g. fdr=0.1.

    Raises:
      UserError: invalid arrays or settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses import ANALYSES, in_memory
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
      >>> evidence = {"unlearned": logits, "original": logits, "labels": np.array([0, 1])}
      >>> in_memory.run(ANALYSES["audit"], evidence, scores=("confidence",)).title
      'Audit of given logits'
    """
    user_arrays = {name: np.asarray(value) for name, value in as_arrays(evidence).items()}
    requested: dict[str, Any] = {"seed": seed, "compat": {analysis.compat: compat} if analysis.compat else {}}
    if analysis.section:
        requested[analysis.section] = choices
    resolved = settings.resolve(requested)
    analysis.check(resolved)
    kind = array_input(analysis, flag)
    values = arrays.read(user_arrays, kind.fields, kind.expected, probabilities=probabilities)
    context = Context(lambda text: None, lambda done, total, unit, what: None, _computed)
    inputs = kind.from_arrays(values, resolved)
    return analysis.compose(analysis.analyse(inputs, resolved, context), resolved)


def with_forgotten(
    evidence: Evidence | Mapping[str, Any], forgotten: Sequence[int] | np.ndarray | None
) -> Evidence | Mapping[str, Any]:
    """Returns the evidence with the rows that were asked to be forgotten.

    Args:
      evidence: see `run`.
      forgotten: a mask [n] (bools, or 0 and 1), or row numbers from 0; None = as the evidence says.

    Raises:
      DataError: `forgotten` is given twice, is empty, or names rows that do not exist. ShapeError: a mask of another
        length.
    """
    if forgotten is None:
        return evidence
    values = as_arrays(evidence)
    if "labels" not in values or np.ndim(values["labels"]) != 1:
        raise errors.DataError("the evidence needs `labels` [n].")
    if "forgotten" in values:
        raise errors.DataError("`forgotten` is given twice, in the evidence and as an argument. Leave one out.")
    count = len(values["labels"])
    rows = checks.rows("`forgotten`", forgotten, count)
    if not len(rows):
        raise errors.DataError("`forgotten` is empty: name at least one row.")
    return {**values, "forgotten": np.isin(np.arange(count), rows)}


def _computed(name: str, facts: Any, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Calls `compute`; nothing is cached."""
    return compute()
