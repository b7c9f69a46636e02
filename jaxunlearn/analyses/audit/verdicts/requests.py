"""Verdicts on the requests of an audit: signals of one role -> one judgement per forget set."""

from typing import NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.analyses.audit.evidence import plausibility
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.metrics.verdict import agreement
from jaxunlearn.metrics.verdict.judge import Answers, Judgement
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, FORGOTTEN, SUPPRESSED

REQUIRED = {
    "shadows": "`shadows` [s, n, c], models that never saw the requested rows",
    "population_unlearned": "`population_unlearned` [p, c], the audited model on rows that no model saw",
    "population_shadows": "`population_shadows` [s, p, c], the shadows on these rows",
}  # fmt: skip
REQUIRED_OF_TEXTS = {
    "shadows": "`nll_ref` [s, n], several OUT models trained as the audited one that never saw the requested texts",
    "population_unlearned": "`pop_nll_target` [p], the audited model on texts that no model saw",
    "population_shadows": "`pop_nll_ref` [s, p], the OUT models on these texts",
}  # fmt: skip
MIN_COMPARABLE = 10  # kept texts that must be harder than a requested text, and as many that must be easier
MAX_ISOLATED = 0.2  # share of the requested texts that may lack them
ISOLATED = (
    "Too many requested texts are harder, or easier, than all kept texts but a few: nothing shows how texts like them "
    "are answered after training."
)
MIN_OUT_MODELS = 2  # a single OUT model does not show how far models differ


class RoleVerdicts(NamedTuple):
    """Verdicts on the R models of one role.

    Attributes:
      judgements: one per forget set.
      requested: [R, N] bool.
    """

    judgements: tuple[Judgement, ...]
    requested: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """[R, N] int8 verdicts; -1 outside the requests."""
        return self._scatter([judgement.codes for judgement in self.judgements], -1).astype(np.int8)

    def tested(self, name: str) -> np.ndarray:
        """Returns one field of the row tests as [R, N] float64; NaN outside the requests."""
        return self._scatter([getattr(judgement.tests, name) for judgement in self.judgements], np.nan)

    def _scatter(self, values: list[np.ndarray], outside: float) -> np.ndarray:
        table = np.full(self.requested.shape, outside, np.float64)
        for row, mask, request_values in zip(table, self.requested, values, strict=True):
            row[mask] = request_values
        return table


def obstacle(signals: AuditInputs, role: str) -> str:
    """Names the arrays that a verdict on a role lacks, and what to do; empty if a verdict can be given."""
    shared, models = signals.shared, signals.roles[role]
    is_texts = signals.kind == scores.TOKENS
    minimum, needed = (MIN_OUT_MODELS, REQUIRED_OF_TEXTS) if is_texts else (1, REQUIRED)
    is_available_by_name = {
        "shadows": shared.shadows is not None and len(shared.shadows.log_odds) >= minimum,
        "population_unlearned": models.population_unlearned is not None,
        "population_shadows": shared.population_shadows is not None,
    }
    missing = [needed[name] for name, is_available in is_available_by_name.items() if not is_available]
    if not missing:
        return ""
    return (
        f"A verdict on single rows needs {'; '.join(missing)}. `--plan_shadows` prints which models to train, on which "
        "rows, and what they would show."
    )


def judged(signals: AuditInputs, role: str, fdr: float, is_strict: bool) -> RoleVerdicts:
    """Judges every forget set of a role.

    Args:
      signals: of all models.
      role: the audited one.
      fdr: bound on the share of false verdicts, for each kind of verdict.
      is_strict: see `agreement.judged`.

    Raises:
      DataError: arrays that cannot be judged.
    """
    num_sets = len(signals.roles[role].unlearned.log_odds)
    requested = np.ones((num_sets, len(signals.labels)), bool) if signals.forgotten is None else signals.forgotten
    judgements = []
    for index in range(num_sets):
        request_answers = without_twins(answers(signals, role, index, requested[index]), signals.twins)
        judgement = agreement.judge_with_agreement(request_answers, fdr, is_strict)
        judgements.append(_of_texts(judgement, request_answers) if signals.kind == scores.TOKENS else judgement)
    return RoleVerdicts(tuple(judgements), requested)


def _of_texts(judgement: Judgement, request_answers: Answers) -> Judgement:
    """Restricts a judgement of texts: FORGOTTEN needs comparable kept texts; replaced ones are SUPPRESSED."""
    if judgement.is_identical or judgement.is_edited:
        return judgement
    requested, ease = request_answers.requested, request_answers.shadows.mean(0)
    retained_ease = np.sort(ease[~requested])
    num_harder = np.searchsorted(retained_ease, ease[requested])  # number of kept texts that are harder
    is_isolated = np.minimum(num_harder, len(retained_ease) - num_harder) < MIN_COMPARABLE
    codes = np.where(is_isolated & (judgement.codes == FORGOTTEN), CANNOT_TELL, judgement.codes)
    is_replaced = plausibility.find_replaced(
        request_answers.unlearned[requested], request_answers.shadows[:, requested]
    )
    codes = np.where(is_replaced, SUPPRESSED, codes).astype(np.int8)
    if is_isolated.mean() > MAX_ISOLATED and not judgement.checks.refusal:
        checks = judgement.checks
        checks = checks if checks.forgotten_refusal else checks._replace(forgotten_refusal=ISOLATED)
        group = judgement.group._replace(p_in=1.0, trace_left=(np.nan, np.nan, np.nan))
        codes = np.where(codes == FORGOTTEN, CANNOT_TELL, codes)
        judgement = judgement._replace(checks=checks, group=group, power_forgotten=None)
    if is_replaced.mean() > 0.5:
        judgement = judgement._replace(group=judgement.group._replace(p_narrow=0.0, p_in=1.0))
    return judgement._replace(codes=codes, replaced=is_replaced)


def answers(signals: AuditInputs, role: str, set_index: int, requested: np.ndarray) -> Answers:
    """Collects the arrays for a verdict on the model of one forget set; `obstacle` must be empty.

    Args:
      signals: of all models.
      role: the audited one.
      set_index: of the forget set in the role.
      requested: [N] bool, its rows.
    """
    shared, models = signals.shared, signals.roles[role]
    assert shared.shadows is not None and shared.population_shadows is not None

    def odds(role_signals: scores.Signals | None) -> np.ndarray | None:
        return None if role_signals is None else np.asarray(role_signals.log_odds[set_index], np.float64)

    unlearned, population = odds(models.unlearned), odds(models.population_unlearned)
    assert unlearned is not None and population is not None
    original, population_original = odds(models.original), odds(models.population_original)
    if original is None or population_original is None:
        original = population_original = None
    changes = signals.changes.get(role)
    if changes is None or changes.population is None:
        change = population_change = None
    else:
        change, population_change = changes.target[set_index], changes.population[set_index]
    return Answers(
        unlearned=unlearned,
        requested=requested,
        shadows=np.asarray(shared.shadows.log_odds, np.float64),
        population=population,
        population_shadows=np.asarray(shared.population_shadows.log_odds, np.float64),
        original=original,
        population_original=population_original,
        shadow_saw=signals.shadow_saw,
        person=None if signals.person is None else signals.person[requested],
        moved=change,
        population_moved=population_change,
        obstacle=signals.refusal,
    )


def without_twins(request_answers: Answers, twins: np.ndarray | None) -> Answers:
    """Leaves out retained rows that are copies of requested ones: they do not show how trained rows are answered.

    Args:
      request_answers: of one request.
      twins: [N] bool, such rows; None.
    """
    if twins is None:
        return request_answers
    by_row = ("unlearned", "requested", "shadows", "original", "shadow_saw", "moved")
    arrays = {name: getattr(request_answers, name) for name in by_row}
    return request_answers._replace(**{
        name: values[..., ~twins] for name, values in arrays.items() if values is not None
    })  # fmt: skip
