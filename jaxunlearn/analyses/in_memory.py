"""Runs an analysis on arrays that are in memory, without a launcher, a folder or a file."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxunlearn import arrays, settings
from jaxunlearn.analyses.base import Analysis, Context, array_input
from jaxunlearn.records import Evidence
from jaxunlearn.report.section import Report


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
      UserError: arrays or choices that cannot be used.
    """
    if isinstance(evidence, Evidence):
        evidence = {field.name: getattr(evidence, field.name) for field in dataclasses.fields(evidence)}
    given = {name: np.asarray(value) for name, value in evidence.items() if value is not None}
    asked: dict[str, Any] = {"seed": seed, "compat": {analysis.compat: compat} if analysis.compat else {}}
    if analysis.section:
        asked[analysis.section] = choices
    chosen = settings.resolve(asked)
    analysis.check(chosen)
    kind = array_input(analysis, flag)
    values = arrays.read(given, kind.fields, kind.expected, probabilities=probabilities)
    context = Context(lambda text: None, lambda done, total, unit, what: None, _computed)
    inputs = kind.from_arrays(values, chosen)
    return analysis.compose(analysis.analyse(inputs, chosen, context), chosen)


def _computed(name: str, facts: Any, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Keeps nothing: every call computes."""
    return compute()
