"""Analyses: arrays in, an answer with its evidence out. Nothing here trains a model or knows a run folder.

A new analysis is a folder with a record (`base.Analysis`) and a line of ANALYSES; launchers, array input, run input,
dry run, report and --overwrite follow from it.
"""

from collections.abc import Mapping
from typing import Any

from jaxunlearn.analyses import in_memory
from jaxunlearn.analyses.audit.analysis import AUDIT
from jaxunlearn.analyses.base import Analysis
from jaxunlearn.analyses.epsilon.analysis import EPSILON
from jaxunlearn.analyses.evaluation.analysis import EVALUATION
from jaxunlearn.analyses.leaks.analysis import LEAKS
from jaxunlearn.analyses.reminiscence.analysis import REMINISCENCE
from jaxunlearn.records import Evidence
from jaxunlearn.report.section import Report

ANALYSES: dict[str, Analysis] = {
    "audit": AUDIT,
    "evaluation": EVALUATION,
    "epsilon": EPSILON,
    "leaks": LEAKS,
    "reminiscence": REMINISCENCE,
}


def audit(evidence: Evidence | Mapping[str, Any], **choices: Any) -> Report:
    """Audits arrays in memory: a verdict on every row that was asked to be forgotten, and every membership score.

    Args:
      evidence: an `Evidence`, or arrays by the names that `launch.audit --evidence` reads: `unlearned` [n, c] and
        `labels` [n], and as many of `original` [n, c], `shadows` [s, n, c], `forgotten` [n], `population_labels` [p],
        `population_unlearned` [p, c], `population_original`, `population_shadows` [s, p, c], `ids` [n], `person` [n],
        `shadow_saw` [s, n], `retrained` [n, c] as there are.
      **choices: settings of the audit by name (`fdr=0.1`, `strict=True`, `scores=("iam_on",)`), `probabilities=True`,
        `seed=0`, `compat="faithful"`.

    Returns:
      The report: `str(report)` is what a launcher prints, `report.summary` and `report.answer` the verdict in words,
      `report.listed["verdicts.csv"]` one line per requested row, `report.arrays` verdicts and scores by file name;
      `report.save(folder)` writes everything.

    Raises:
      UserError: arrays that do not fit together, or choices that do not exist.

    Example:
      >>> import numpy as np
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
      >>> forgotten = np.array([True, False, False])
      >>> evidence = {"unlearned": logits, "original": logits, "labels": np.array([0, 1, 0]), "forgotten": forgotten}
      >>> dict(audit(evidence, scores=("confidence",)).summary)["In short"]
      'NOT FORGOTTEN. The model was not changed.'
    """
    return in_memory.run(AUDIT, evidence, **choices)


def audit_texts(evidence: Mapping[str, Any], **choices: Any) -> Report:
    """Audits texts under language models in memory: every score of texts, and verdicts where there is a null.

    Args:
      evidence: arrays by the names that `launch.audit --tokens` reads: `token_logp_target` and `mask` [n, t], or
        `nll_target` [n], and as many of `nll_fit` [n] (IN), `nll_ref` [n] or [s, n] (OUT), `pop_nll_target` [p],
        `pop_nll_fit`, `pop_nll_ref`, `entropy`, `model_std` [n, t], `texts`, `forgotten`, `ids`, `person` [n] ... as
        there are.
      **choices: settings of the audit by name, `seed=0`, `compat="faithful"`.

    Returns:
      The report, as `audit` does.

    Raises:
      UserError: arrays that do not fit together, or choices that do not exist.

    Example:
      >>> import numpy as np
      >>> losses = np.array([0.5, 2.0, 0.4, 1.9, 0.6])
      >>> asked = np.array([False, True, False, True, False])
      >>> report = audit_texts({"nll_target": losses, "forgotten": asked}, scores=("lm_loss",))
      >>> dict(report.summary)["In short"]
      'NO VERDICT on single rows, for want of arrays.'
    """
    return in_memory.run(AUDIT, evidence, flag="tokens", **choices)


def owned_outputs() -> dict[str, tuple[str, ...]]:
    """What --overwrite=NAME deletes in a folder, by analysis."""
    return {name: (*analysis.outputs, f"arrays_{name}.json") for name, analysis in ANALYSES.items()}
