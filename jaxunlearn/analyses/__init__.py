"""Analyses: arrays in, a report with its evidence out. Nothing here trains a model or opens a run folder.

A new analysis is a folder with a record (`base.Analysis`) and a line of ANALYSES; launchers, array input, run input,
dry run, report and --overwrite follow from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses import in_memory
from jaxunlearn.analyses.audit.analysis import AUDIT
from jaxunlearn.analyses.base import Analysis
from jaxunlearn.analyses.epsilon.analysis import EPSILON
from jaxunlearn.analyses.evaluation.analysis import EVALUATION
from jaxunlearn.analyses.leaks.analysis import LEAKS
from jaxunlearn.analyses.reminiscence.analysis import REMINISCENCE
from jaxunlearn.records import Evidence
from jaxunlearn.report.section import Report
from jaxunlearn.scores.evidence import as_arrays

__all__ = ["ANALYSES", "Analysis", "audit", "audit_texts", "in_memory", "owned_outputs"]

ANALYSES: dict[str, Analysis] = {
    "audit": AUDIT,
    "evaluation": EVALUATION,
    "epsilon": EPSILON,
    "leaks": LEAKS,
    "reminiscence": REMINISCENCE,
}


def audit(
    evidence: Evidence | Mapping[str, Any], forgotten: Sequence[int] | np.ndarray | None = None, **choices: Any
) -> Report:
    """Audits arrays in memory: a verdict on every row that was requested to be forgotten, and every membership score.

    Args:
      evidence: an `Evidence`, or arrays by the names that `launch.audit --evidence` reads: `unlearned` [n, c] and
        `labels` [n], and as many of `original` [n, c], `shadows` [s, n, c], `forgotten` [n], `population_labels` [p],
        `population_unlearned` [p, c], `population_original`, `population_shadows` [s, p, c], `ids` [n], `person` [n],
        `shadow_saw` [s, n], `retrained` [n, c] as are available.
      forgotten: [n] bool, which rows were asked to be forgotten, or their numbers from 0, where `evidence` does not
        hold them; without either no verdict is given.
      **choices: settings of the audit by name (`fdr=0.1`, `strict=True`, `scores=("iam_on",)`), `probabilities=True`,
        `seed=0`, `compat="faithful"`.

    Returns:
      The report: `str(report)` is what a launcher prints, `report.summary` and `report.answer` the verdict in words,
      `report.listed["verdicts.csv"]` one line per requested row, `report.arrays` verdicts and scores by file name;
      `report.save(folder)` writes everything.

    Raises:
      UserError: inconsistent arrays, or unknown settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses import audit
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
      >>> forgotten = np.array([True, False, False])
      >>> evidence = {"unlearned": logits, "original": logits, "labels": np.array([0, 1, 0])}
      >>> dict(audit(evidence, forgotten, scores=("confidence",)).summary)["In short"]
      'NOT FORGOTTEN. The model was not changed.'
    """
    return in_memory.run(AUDIT, in_memory.with_forgotten(evidence, forgotten), **choices)


def audit_texts(
    evidence: Mapping[str, Any], forgotten: Sequence[int] | np.ndarray | None = None, **choices: Any
) -> Report:
    """Audits texts under language models in memory: every score of texts, and verdicts if there is a null.

    Args:
      evidence: arrays by the names that `launch.audit --tokens` reads: `token_logp_target` and `mask` [n, t], or
        `nll_target` [n], and as many of `nll_fit` [n] (IN), `nll_ref` [n] or [s, n] (OUT), `pop_nll_target` [p],
        `pop_nll_fit`, `pop_nll_ref`, `entropy`, `model_std` [n, t], `texts`, `forgotten`, `ids`, `person` [n] ... as
        are available.
      forgotten: [n] bool, which texts were requested to be forgotten, where `evidence` does not hold it.
      **choices: settings of the audit by name, `seed=0`, `compat="faithful"`.

    Returns:
      The report, as `audit` does.

    Raises:
      UserError: inconsistent arrays, or unknown settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses import audit_texts
      >>> losses = np.array([0.5, 2.0, 0.4, 1.9, 0.6])
      >>> forgotten = np.array([False, True, False, True, False])
      >>> report = audit_texts({"nll_target": losses, "forgotten": forgotten}, scores=("lm_loss",))
      >>> dict(report.summary)["In short"]
      'NO VERDICT on single rows: required arrays are missing.'
    """
    if forgotten is not None:
        if not isinstance(forgotten, np.ndarray) or forgotten.dtype != bool:
            raise errors.DataError("`forgotten` of texts must be a mask [n] of bools.")
        evidence = {**as_arrays(evidence), "forgotten": forgotten}
    return in_memory.run(AUDIT, evidence, flag="tokens", **choices)


def owned_outputs() -> dict[str, tuple[str, ...]]:
    """Returns the files of a folder that --overwrite=NAME deletes, as patterns by analysis.

    Example:
      >>> from jaxunlearn.analyses import owned_outputs
      >>> "epsilon.json" in owned_outputs()["epsilon"]
      True
    """
    return {name: (*analysis.outputs, f"arrays_{name}.json") for name, analysis in ANALYSES.items()}
