"""Analyses: arrays in, an answer with its evidence out. Nothing here trains a model or knows a run folder.

A new analysis is a folder with a record (`base.Analysis`) and a line of ANALYSES; launchers, array input, run input,
dry run, report and --overwrite follow from it.
"""

from jaxunlearn.analyses.audit.analysis import AUDIT
from jaxunlearn.analyses.base import Analysis
from jaxunlearn.analyses.epsilon.analysis import EPSILON
from jaxunlearn.analyses.evaluation.analysis import EVALUATION

ANALYSES: dict[str, Analysis] = {"audit": AUDIT, "evaluation": EVALUATION, "epsilon": EPSILON}


def owned_outputs() -> dict[str, tuple[str, ...]]:
    """What --overwrite=NAME deletes in a folder, by analysis."""
    return {name: (*analysis.outputs, f"arrays_{name}.json") for name, analysis in ANALYSES.items()}
