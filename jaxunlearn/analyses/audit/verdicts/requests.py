"""Verdicts on the requests of an audit: signals of one role -> one judgement per forget set."""

from typing import NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.analyses.audit.evidence import plausibility
from jaxunlearn.analyses.audit.evidence.signals import AuditSignals
from jaxunlearn.metrics.verdict import agreement
from jaxunlearn.metrics.verdict.judge import Answers, Judgement
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, FORGOTTEN, SUPPRESSED

NEEDED = {
    "shadows": "`shadows` [s, n, c], models that never saw the requested rows",
    "population_unlearned": "`population_unlearned` [p, c], the audited model on rows that no model saw",
    "population_shadows": "`population_shadows` [s, p, c], the shadows on these rows",
}  # fmt: skip
NEEDED_OF_TEXTS = {
    "shadows": "`nll_ref` [s, n], several OUT models trained as the audited one that never saw the requested texts",
    "population_unlearned": "`pop_nll_target` [p], the audited model on texts that no model saw",
    "population_shadows": "`pop_nll_ref` [s, p], the OUT models on these texts",
}  # fmt: skip
FEWEST_LIKE, MOST_ALONE = 10, 0.2  # kept texts that are harder, and easier; share of the request that may lack them
ALONE = (
    "Too many requested texts are harder, or easier, than all kept texts but a few: nothing shows how texts like them "
    "are answered after training."
)
FEWEST_OUT = 2  # one OUT model of any kind cannot say how far models differ


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
        return self._spread([one.codes for one in self.judgements], -1).astype(np.int8)

    def tested(self, name: str) -> np.ndarray:
        """[R, N] float64 of one field of the row tests; NaN outside the requests."""
        return self._spread([getattr(one.tests, name) for one in self.judgements], np.nan)

    def _spread(self, values: list[np.ndarray], outside: float) -> np.ndarray:
        spread = np.full(self.requested.shape, outside, np.float64)
        for line, asked, own in zip(spread, self.requested, values, strict=True):
            line[asked] = own
        return spread


def obstacle(signals: AuditSignals, role: str) -> str:
    """Returns which arrays a verdict on a role lacks, and what to do; empty where it can be given."""
    shared, cases = signals.shared, signals.roles[role]
    is_texts = signals.kind == scores.TOKENS
    least, needed = (FEWEST_OUT, NEEDED_OF_TEXTS) if is_texts else (1, NEEDED)
    there = {
        "shadows": shared.shadows is not None and len(shared.shadows.log_odds) >= least,
        "population_unlearned": cases.population_unlearned is not None,
        "population_shadows": shared.population_shadows is not None,
    }
    lacking = [needed[name] for name, is_there in there.items() if not is_there]
    if not lacking:
        return ""
    return (
        f"A verdict on single rows needs {'; '.join(lacking)}. `--plan_shadows` prints which models to train, on which "
        "rows, and what they would show."
    )


def judged(signals: AuditSignals, role: str, fdr: float, is_strict: bool) -> RoleVerdicts:
    """Judges every forget set of a role.

    Raises:
      DataError: arrays that cannot be judged.
    """
    count = len(signals.roles[role].unlearned.log_odds)
    requested = np.ones((count, len(signals.labels)), bool) if signals.forgotten is None else signals.forgotten
    made = []
    for number in range(count):
        given = answers(signals, role, number, requested[number])
        found = agreement.judged(given, fdr, is_strict)
        made.append(_of_texts(found, given) if signals.kind == scores.TOKENS else found)
    return RoleVerdicts(tuple(made), requested)


def _of_texts(found: Judgement, given: Answers) -> Judgement:
    """The judgement as far as texts allow it: FORGOTTEN only beside kept texts as hard; SUPPRESSED where replaced."""
    if found.is_identical or found.is_edited:
        return found
    asked, ease = given.requested, given.shadows.mean(0)
    kept = np.sort(ease[~asked])
    easier = np.searchsorted(kept, ease[asked])  # how many kept texts are harder
    alone = np.minimum(easier, len(kept) - easier) < FEWEST_LIKE
    codes = np.where(alone & (found.codes == FORGOTTEN), CANNOT_TELL, found.codes)
    replaced = plausibility.replaced(given.unlearned[asked], given.shadows[:, asked])
    codes = np.where(replaced, SUPPRESSED, codes).astype(np.int8)
    if alone.mean() > MOST_ALONE and not found.checks.refused:
        checks = found.checks._replace(refused_in=ALONE) if not found.checks.refused_in else found.checks
        group = found.group._replace(p_in=1.0, kept=(np.nan, np.nan, np.nan))
        codes = np.where(codes == FORGOTTEN, CANNOT_TELL, codes)
        found = found._replace(checks=checks, group=group, power_forgotten=None)
    if replaced.mean() > 0.5:
        found = found._replace(group=found.group._replace(p_narrow=0.0, p_in=1.0))
    return found._replace(codes=codes, replaced=replaced)


def answers(signals: AuditSignals, role: str, number: int, requested: np.ndarray) -> Answers:
    """Returns what a verdict on the model of one forget set rests on; see `obstacle`."""
    shared, cases = signals.shared, signals.roles[role]
    assert shared.shadows is not None and shared.population_shadows is not None

    def odds(part: scores.Signals | None) -> np.ndarray | None:
        return None if part is None else np.asarray(part.log_odds[number], np.float64)

    unlearned, population = odds(cases.unlearned), odds(cases.population_unlearned)
    assert unlearned is not None and population is not None
    original, population_original = odds(cases.original), odds(cases.population_original)
    if original is None or population_original is None:
        original = population_original = None
    changes = signals.changes.get(role)
    if changes is None or changes.population is None:
        moved = population_moved = None
    else:
        moved, population_moved = changes.target[number], changes.population[number]
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
        moved=moved,
        population_moved=population_moved,
    )
