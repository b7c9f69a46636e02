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
from jaxunlearn.analyses.audit.outcome import AuditReport, AuditResult, ScoreResult
from jaxunlearn.analyses.audit.verdicts.request_verdicts import RequestVerdict, Verdict
from jaxunlearn.analyses.audit.verdicts.verdict_sections import RowVerdict
from jaxunlearn.analyses.base import Analysis, array_input
from jaxunlearn.analyses.epsilon.analysis import EPSILON
from jaxunlearn.analyses.evaluation.analysis import EVALUATION
from jaxunlearn.analyses.leaks.analysis import LEAKS
from jaxunlearn.analyses.reminiscence.analysis import REMINISCENCE
from jaxunlearn.records import Evidence
from jaxunlearn.report.section import Report
from jaxunlearn.scores.evidence import as_arrays

__all__ = [
    "ANALYSES", "Analysis", "AuditReport", "AuditResult", "RequestVerdict", "RowVerdict", "ScoreResult", "Verdict",
    "audit", "audit_texts", "evaluate", "in_memory", "measure_epsilon", "measure_leaks", "owned_outputs", "reminisce",
]  # fmt: skip

ANALYSES: dict[str, Analysis] = {
    "audit": AUDIT,
    "evaluation": EVALUATION,
    "epsilon": EPSILON,
    "leaks": LEAKS,
    "reminiscence": REMINISCENCE,
}


def audit(
    evidence: Evidence | Mapping[str, Any], forgotten: Sequence[int] | np.ndarray | None = None, **choices: Any
) -> AuditReport:
    """Audits arrays in memory: a verdict on every row that was requested to be forgotten, and every membership score.

    Args:
      evidence: an `Evidence`, or arrays by the names that `launch.audit --evidence` reads: `unlearned` [n, c] and
        `labels` [n], and as many of `original` [n, c], `shadows` [s, n, c], `forgotten` [n], `population_labels` [p],
        `population_unlearned` [p, c], `population_original`, `population_shadows` [s, p, c], `ids` [n], `person` [n],
        `shadow_saw` [s, n], `retrained` [n, c] as are available.
      forgotten: [n] bool, which rows were asked to be forgotten, or their positions in the evidence, from 0, where
        `evidence` does not hold them. Positions are not rows of the data: where the evidence is of the rows `trained`
        of it, give `np.isin(trained, forget)`. Without either every row is judged as if it had been requested.
      **choices: settings of the audit by name (`fdr=0.1`, `strict=True`, `scores=("iam_on",)`), `probabilities=True`,
        `seed=0`, `compat="faithful"`.

    Returns:
      The report: `str(report)` is what a launcher prints, `report.in_short` the verdict in one line, `report.verdict`
      the same as a value ("NOT FORGOTTEN", "FORGOTTEN", "SUPPRESSED", "CANNOT TELL" or "NO VERDICT"), `report.request`
      the share that is left with its interval and the p-values, `report.rows` one record per requested row,
      `report.scores[name]` values and AUC of a score; `report.save(folder)` writes everything. `report.arrays` has
      arrays by file name: in "verdicts.npz" `verdict` [n] is 2 = NOT FORGOTTEN, 0 = FORGOTTEN, 3 = SUPPRESSED, 1 =
      CANNOT TELL, -1 = not requested; `p_high`, `p_low`, `p_in` [n] are p-values, `z` [n] the answer in standard
      deviations above models that never saw the row, and `trace` [n] how much higher it would be had the row been
      trained on; NaN outside the request (docs/reading.md).

    Raises:
      UserError: inconsistent arrays, or unknown settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses import audit
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
      >>> forgotten = np.array([True, False, False])
      >>> evidence = {"unlearned": logits, "original": logits, "labels": np.array([0, 1, 0])}
      >>> report = audit(evidence, forgotten, scores=("confidence",))
      >>> report.in_short
      'NOT FORGOTTEN. The model was not changed.'
      >>> report.verdict == "NOT FORGOTTEN", report.scores["confidence"].auc.value
      (True, 0.5)
    """
    shape = np.shape(as_arrays(evidence).get("unlearned", ()))
    if len(shape) == 3:
        raise errors.ShapeError(
            f"`unlearned` has shape {shape}, but an audit is of one model [N, C]: audit each by itself, with "
            "unlearned=logits[k] (docs/in_python.md has the loop)."
        )
    return _audit(in_memory.with_forgotten(evidence, forgotten, AUDIT.fields), **choices)


def audit_texts(
    evidence: Mapping[str, Any], forgotten: Sequence[int] | np.ndarray | None = None, **choices: Any
) -> AuditReport:
    """Audits texts under language models in memory: every score of texts, and verdicts if there is a null.

    Args:
      evidence: arrays by the names that `launch.audit --tokens` reads: `token_logp_target` and `mask` [n, t], or
        `nll_target` [n], and as many of `nll_fit` [n] (IN), `nll_ref` [n] or [s, n] (OUT), `pop_nll_target` [p],
        `pop_nll_fit`, `pop_nll_ref`, `entropy`, `model_std` [n, t], `texts`, `forgotten`, `ids`, `person` [n] ... as
        are available.
      forgotten: [n] bool, which texts were requested to be forgotten, or their positions in the evidence, from 0,
        where `evidence` does not hold them.
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
      >>> report.in_short
      'NO VERDICT on single rows: required arrays are missing.'
    """
    fields = array_input(AUDIT, "tokens").fields
    return _audit(in_memory.with_forgotten(evidence, forgotten, fields), flag="tokens", **choices)


def _audit(evidence: Evidence | Mapping[str, Any], **choices: Any) -> AuditReport:
    report = in_memory.run(AUDIT, evidence, **choices)
    if not isinstance(report, AuditReport):  # a plan
        return AuditReport(*report)._replace(result=AuditResult(Verdict.NO_VERDICT, (), (), {}))
    requests = tuple(request._replace(why=in_memory.in_python(request.why)) for request in report.requests)
    return report._replace(result=report.result._replace(requests=requests))


def evaluate(arrays: Mapping[str, Any], **choices: Any) -> Report:
    """Evaluates an unlearned model, or several, in memory: UA, RA, TA, membership attacks, distances, prediction sets.

    Args:
      arrays: logits by the names that `launch.evaluate --logits` reads: `forget`, `test` and `calibration` [n, c], or
        [m, n, c] of m models, each with its labels (`forget_labels` [n] ...); `retain` for RA and attacks;
        `retrained_forget` ... of exact retraining, the goal; `original_forget` ... (docs/evaluation.md).
      **choices: settings of the evaluation by name (`metrics=("svc",)`, `alphas=(0.1,)`), `probabilities=True`,
        `seed=0`, `compat="faithful"`.

    Returns:
      The report; `report.result.roles` has every number by role, `report.findings` the printed ones.

    Raises:
      UserError: inconsistent arrays, or unknown settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import analyses
      >>> labels = np.arange(40) % 2
      >>> right, wrong = 4 * np.eye(2, dtype=np.float32)[labels], 4 * np.eye(2, dtype=np.float32)[1 - labels]
      >>> logits = {"forget": wrong, "test": right, "calibration": right}
      >>> arrays = logits | {f"{name}_labels": labels for name in logits}
      >>> report = analyses.evaluate(arrays, metrics=("conformal",))
      >>> report.result.roles["unlearned"]["UA"].tolist()
      [1.0]
    """
    return in_memory.run(EVALUATION, arrays, **choices)


def measure_epsilon(arrays: Mapping[str, Any], **choices: Any) -> Report:
    """Computes epsilon-hat from many unlearned and retrained models of one request, in memory.

    Args:
      arrays: by the names that `launch.epsilon --data` reads: `labels` [s] of the forgotten samples, `retrained`
        [s, m, c] logits of m models, and one such array per approach, under its name (docs/epsilon.md).
      **choices: settings by name (`delta=0.1`, `bootstrap=0`), `seed=0`, `compat="faithful"`.

    Returns:
      The report; `report.arrays["epsilon.npz"]` has the values per sample, `report.result.modes` those per approach.

    Raises:
      UserError: inconsistent arrays, or unknown settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import analyses
      >>> draw = np.random.default_rng(0).normal
      >>> arrays = {"labels": np.arange(6) % 3, "retrained": draw(size=(6, 8, 3)), "ssd": draw(size=(6, 8, 3)) + 1}
      >>> report = analyses.measure_epsilon(arrays, bootstrap=0, sweep=False)
      >>> report.arrays["epsilon.npz"]["ssd__epsilon"].shape
      (6,)
    """
    return in_memory.run(EPSILON, arrays, **choices)


def measure_leaks(arrays: Mapping[str, Any], **choices: Any) -> Report:
    """Measures what both versions of a model together reveal about deleted records, in memory (Unlearning-Leaks).

    Args:
      arrays: posteriors by the names that `launch.leaks --posteriors` reads: `shadow_original`, `shadow_unlearned`
        [n, c], `shadow_deleted` [n] of models of your own, `target_original`, `target_unlearned` [t, c],
        `target_deleted` [t] of those under attack, and `target_set`, `target_ids` [t] (docs/leaks.md).
      **choices: settings by name (`attack="lr"`, `defence="top_k"`), `seed=0`, `compat="faithful"`.

    Returns:
      The report; `report.result.features` has the metrics of every feature, `report.arrays["leaks.npz"]` the scores of
      every record.

    Raises:
      UserError: inconsistent arrays, or unknown settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import analyses
      >>> draw = np.random.default_rng(0)
      >>> deleted, arrays = np.arange(60) % 2, {}
      >>> for side in ("shadow", "target"):  # a deletion moves its own record towards 1/3
      ...     original = draw.dirichlet(np.ones(3), 60)
      ...     unlearned = np.where(deleted[:, None], original / 2 + 1 / 6, original)
      ...     arrays |= {f"{side}_original": original, f"{side}_unlearned": unlearned, f"{side}_deleted": deleted}
      >>> report = analyses.measure_leaks(arrays, features=("l2_distance",), feature="l2_distance")
      >>> report.result.features["l2_distance"].metrics["auc"].value
      1.0
    """
    return in_memory.run(LEAKS, arrays, **choices)


def reminisce(arrays: Mapping[str, Any], **choices: Any) -> Report:
    """Asks whether forgotten classes are relearned too soon, from relearning trials in memory.

    Args:
      arrays: by the names that `launch.reminisce --trajectories` reads: `accuracy` [t, s] of each of t trials on its
        probes after every step, `forgotten` [t], 1 = the probes are of what was forgotten, and `set`, `rate`, `model`
        [t] (docs/reminiscence.md).
      **choices: settings by name (`threshold=0.8`), `seed=0`.

    Returns:
      The report; `report.result.roles` has the results per model, `report.arrays["reminiscence.npz"]` those per
      trial.

    Raises:
      UserError: inconsistent arrays, or unknown settings.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import analyses
      >>> trial = np.arange(24)
      >>> first_step = np.where(trial % 2, 2, 6)  # when the probes are known: sooner if they were forgotten
      >>> accuracy = (np.arange(8) >= first_step[:, None]).astype(float)
      >>> report = analyses.reminisce({"accuracy": accuracy, "forgotten": trial % 2, "set": trial // 6})
      >>> list(report.result.roles)
      ['given model']
    """
    return in_memory.run(REMINISCENCE, arrays, **choices)


def owned_outputs() -> dict[str, tuple[str, ...]]:
    """Returns the files of a folder that --overwrite=NAME deletes, as patterns by analysis.

    Example:
      >>> from jaxunlearn.analyses import owned_outputs
      >>> "epsilon.json" in owned_outputs()["epsilon"]
      True
    """
    return {name: (*analysis.outputs, f"arrays_{name}.json") for name, analysis in ANALYSES.items()}
