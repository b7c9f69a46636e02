"""Judges one request: what was changed, the request as a whole, each person, each row."""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import power, request, rows
from jaxunlearn.metrics.verdict.out_model import CLIP, OutModel, mid_rank, soft
from jaxunlearn.metrics.verdict.request import GroupTests, StandardisedSignals
from jaxunlearn.metrics.verdict.rows import (
    CANNOT_TELL,
    FORGOTTEN,
    NOT_FORGOTTEN,
    SUPPRESSED,
    Likeness,
    RowTests,
    Signal,
)

FEWEST_POPULATION = FEWEST_RETAINED = 40
LEAST_CORRELATION = 0.2
CHOSEN = 0.85
IDENTICAL_TO = 1e-6
FEWEST_OTHERS = 100
OTHERS_MOVED, REQUESTED_MOVED = 0.02, 0.5
MOST_BLIND = 0.9  # share of the requested rows that every shadow may have seen
HALF = 0.5  # of the trace, which a strict FORGOTTEN must be below


class Answers(NamedTuple):
    """Input of a verdict: log-odds of the true class (`out_model.log_odds`), float64.

    Attributes:
      unlearned: [N] of the audited model.
      requested: [N] bool, rows to be forgotten; the others are retained.
      shadows: [S, N] of models of which none, or not all, saw the requested rows.
      population: [P] of the audited model on rows that no model saw.
      population_shadows: [S, P] of the shadows on these rows.
      original, population_original: [N], [P] of the model before unlearning; None if unknown.
      shadow_saw: [S, N] bool, which shadow was trained on which row; None: no shadow saw any requested row.
      person: [|F|] ids that group the requested rows by person; None.
      moved, population_moved: [N], [P] largest change of a logit from the original over all classes; None: of log-odds.
      obstacle: why these arrays allow no verdict, if that is known beforehand.
    """

    unlearned: np.ndarray
    requested: np.ndarray
    shadows: np.ndarray
    population: np.ndarray
    population_shadows: np.ndarray
    original: np.ndarray | None = None
    population_original: np.ndarray | None = None
    shadow_saw: np.ndarray | None = None
    person: np.ndarray | None = None
    moved: np.ndarray | None = None
    population_moved: np.ndarray | None = None
    obstacle: str = ""


class Checks(NamedTuple):
    """Result of checking the assumptions.

    Attributes:
      refusal: why there is no verdict at all; "" if there is one.
      forgotten_refusal: why nothing can be called FORGOTTEN; "" if it can.
      retained_rank: mean rank in [0, 1] of retained rows among the population by the shadows' means; 0.5 = alike; NaN.
      is_contaminated: whether shadows answer retained rows differently from the population.
      selection_rank: mean rank in [0, 1] of the requested rows, by the original's answers, among retained rows of
        similar difficulty; above 0.85 = they look selected by these answers; NaN without original.
      sizes: number of shadows, of population rows, of retained rows.
    """

    refusal: str
    forgotten_refusal: str
    retained_rank: float
    is_contaminated: bool
    selection_rank: float
    sizes: tuple[int, int, int]

    @property
    def is_selected(self) -> bool:
        """Whether the requested rows look selected by the original's own answers."""
        return bool(self.selection_rank > CHOSEN)


class Judgement(NamedTuple):
    """The verdict on one request.

    Attributes:
      codes: [|F|] int8 of the requested rows in their order: 2 NOT FORGOTTEN, 1 CANNOT TELL, 0 FORGOTTEN, 3 SUPPRESSED.
      tests: the p-values behind them.
      group: the request as a whole.
      persons: id of a person -> their rows as a whole, and whether they are still in the model (FDR over persons).
      is_identical, is_edited: whether no answer was changed; whether only answers to requested rows were.
      changes: median change of log-odds on requested and on other rows; NaN without original.
      checks: of the assumptions.
      model: the OUT model of the soft signal.
      power_not: requested rows that would have been caught if nothing had been forgotten; None without original.
      power_forgotten: about how many would have been confirmed if all had been forgotten; None if not computed.
      fdr, is_strict: settings.
      agreement: [|F|] share of disjoint groups of shadows that give the row the same verdict (`agreement`); None with
        too few shadows for two groups.
      disputed: [|F|] bool, rows that are CANNOT TELL only because too few groups agree; None likewise.
      groups: number of these groups.
      blind: [|F|] bool, rows that every shadow saw, which are CANNOT TELL; None if no shadow saw any.
      replaced: [|F|] bool, rows that are SUPPRESSED because their answer is not a model's own; None if not examined.
    """

    codes: np.ndarray
    tests: RowTests
    group: GroupTests
    persons: dict[int, tuple[GroupTests, bool]]
    is_identical: bool
    is_edited: bool
    changes: tuple[float, float]
    checks: Checks
    model: OutModel
    power_not: int | None
    power_forgotten: float | None
    fdr: float
    is_strict: bool
    agreement: np.ndarray | None = None
    disputed: np.ndarray | None = None
    groups: int = 0
    replaced: np.ndarray | None = None
    blind: np.ndarray | None = None


def judge(answers: Answers, fdr: float = 0.05, is_strict: bool = False) -> Judgement:
    """Judges one request; deterministic, and independent of other audited models or requests.

    Args:
      answers: see `Answers`.
      fdr: bound on the false discovery rate of each verdict.
      is_strict: FORGOTTEN only if less than half of the trace of training is left.

    Raises:
      ShapeError, DataError: arrays that do not fit together, no requested row, no shadow.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.verdict import judge
      >>> normal = np.random.default_rng(0).normal
      >>> difficulty, models = 2 * normal(size=300), normal(size=(9, 300)) / 2  # 1 audited model, 8 shadows
      >>> log_odds = difficulty + models
      >>> log_odds[0, :100] += 5  # trained on the first 100 rows, and nothing forgotten
      >>> rows, population = log_odds[:, :100], log_odds[:, 100:]
      >>> answers = judge.Answers(rows[0], np.arange(100) < 20, rows[1:], population[0], population[1:])
      >>> float((judge.judge(answers).codes == 2).mean()) > 0.9  # NOT FORGOTTEN
      True
    """
    answers = check(answers)
    max_trace_left = HALF if is_strict else 1.0
    raw, smooth, likeness, assumptions, tests = _test_rows(answers, max_trace_left)
    requested = answers.requested
    codes = rows.decide(tests, fdr)
    group = GroupTests()
    persons: dict[int, tuple[GroupTests, bool]] = {}
    if not assumptions.refusal:
        group, persons = _groups(answers, raw, smooth, tests, assumptions, fdr)
    is_identical, is_edited, changes = _changed(answers)
    if group.is_suppressed:
        codes = np.where(codes == FORGOTTEN, SUPPRESSED, codes)
    elif group.is_too_low:
        codes = np.where(codes == FORGOTTEN, CANNOT_TELL, codes)
    if is_identical:
        codes = np.full(len(codes), NOT_FORGOTTEN)
        persons = {person: (group_tests, True) for person, (group_tests, _) in persons.items()}
    elif is_edited and not assumptions.refusal:
        codes = np.where(_moved(answers)[0][requested] > IDENTICAL_TO, SUPPRESSED, NOT_FORGOTTEN)
    caught_count, confirmed_count = None, None
    if not assumptions.refusal:
        flags = caught_untouched(answers, fdr)
        caught_count = None if flags is None else int(flags.sum())
        if not assumptions.forgotten_refusal and answers.shadow_saw is None and len(answers.shadows) > 1:
            confirmed_count = power.forgotten(
                smooth, answers.shadows, answers.population_shadows, likeness, fdr, max_trace_left
            )
    return Judgement(
        codes.astype(np.int8), tests, group, persons, is_identical, is_edited, changes, assumptions, smooth.model,
        caught_count, confirmed_count, fdr, is_strict, blind=None if answers.shadow_saw is None else blind(answers),
    )  # fmt: skip


def row_codes(answers: Answers, fdr: float, is_strict: bool = False) -> np.ndarray | None:
    """Returns the [|F|] verdicts of the row tests alone; None if these shadows are refused.

    Args:
      answers: as `check` returns them.
      fdr: see `judge`.
      is_strict: see `judge`.
    """
    *_, assumptions, tests = _test_rows(answers, HALF if is_strict else 1.0)
    return None if assumptions.refusal else rows.decide(tests, fdr)


def _test_rows(answers: Answers, max_trace_left: float) -> tuple[Signal, Signal, Likeness, Checks, RowTests]:
    """Returns the raw and the soft signal, the likeness of rows, the checks, and the tests of rows."""
    requested = answers.requested
    unseen = _unseen(answers)
    raw, smooth = (
        rows.signal(change(answers.unlearned), change(answers.shadows), change(answers.population),
                    change(answers.population_shadows), unseen)
        for change in (np.asarray, soft)
    )  # fmt: skip
    original = None if answers.original is None else soft(answers.original)
    assumptions = _checks(answers, smooth, original)
    likeness = Likeness(requested, smooth.moments.mean, original, assumptions.is_contaminated)
    tests = rows.tests(raw, smooth, likeness, max_trace_left)
    ones, is_blind = np.ones_like(tests.p_in), blind(answers)
    if is_blind.any():
        names = ("p_high", "p_low", "p_in", "z", "trace")
        values = (1.0, 1.0, 1.0, np.nan, np.nan)
        tests = tests._replace(**{
            name: np.where(is_blind, value, getattr(tests, name)) for name, value in zip(names, values, strict=True)
        })  # fmt: skip
    if assumptions.forgotten_refusal:
        tests = tests._replace(p_in=ones)
    if assumptions.sizes[2] < FEWEST_RETAINED:
        tests = tests._replace(trace=np.full_like(tests.trace, np.nan))
    if assumptions.refusal:
        tests = tests._replace(p_high=ones, p_low=ones, p_in=ones)
    return raw, smooth, likeness, assumptions, tests


def blind(answers: Answers) -> np.ndarray:
    """Returns [|F|] bool: requested rows that every shadow saw, so that nothing shows how unseen they are answered."""
    requested = answers.requested
    if answers.shadow_saw is None:
        return np.zeros(int(requested.sum()), bool)
    return np.asarray(answers.shadow_saw[:, requested].all(0))


def _unseen(answers: Answers) -> np.ndarray | None:
    """Returns [S, N] bool: whose answers measure how hard a row is; all, where every shadow saw it."""
    saw = answers.shadow_saw
    return None if saw is None else np.logical_or(~saw, saw.all(0))


def check(answers: Answers) -> Answers:
    """Returns the answers as float64, clipped to +-50; raises ShapeError or DataError."""
    arrays = {name: value for name, value in answers._asdict().items() if value is not None}
    sizes = checks.shape("N N", unlearned=arrays["unlearned"], requested=arrays["requested"])
    letters = {
        "shadows": "SN", "population": "P", "population_shadows": "SP", "original": "N", "population_original": "P",
        "shadow_saw": "SN", "moved": "N", "population_moved": "P",
    }  # fmt: skip
    for name, axes in letters.items():
        if name in arrays:
            sizes = checks.shape(axes, sizes, **{name: arrays[name]})
    requested = np.asarray(arrays["requested"], bool)
    if not requested.any():
        raise errors.DataError("requested names no row: mark the rows that are to be forgotten.")
    if not sizes["S"]:
        raise errors.DataError("shadows contains no model; a verdict needs at least one that saw none of the rows.")
    converted: dict[str, Any] = {"requested": requested}
    for name in ("unlearned", "shadows", "population", "population_shadows", "original", "population_original"):
        if name in arrays:
            checks.not_nan(name, arrays[name])
            converted[name] = np.clip(np.asarray(arrays[name], np.float64), -CLIP, CLIP)
    if "shadow_saw" in arrays:
        converted["shadow_saw"] = np.asarray(arrays["shadow_saw"], bool)
    if "person" in arrays:
        checks.shape("F", {"F": int(requested.sum())}, person=arrays["person"])
        converted["person"] = np.asarray(arrays["person"])
    return answers._replace(**converted)


def _checks(answers: Answers, smooth: Signal, original: np.ndarray | None) -> Checks:
    """Checks the assumptions; reasons for a refusal come with their remedies."""
    requested, means = answers.requested, smooth.population_moments.mean
    retained, population = int((~requested).sum()), len(answers.population)
    refused = answers.obstacle
    if refused:
        pass
    elif population < FEWEST_POPULATION:
        refused = (
            f"Give at least {FEWEST_POPULATION} rows that no model saw ({population} are there); without them nothing "
            "can verify that these shadows fit this model."
        )
    elif smooth.model.correlation < LEAST_CORRELATION:
        refused = (
            "The shadow models do not predict this model at all (correlation "
            f"{smooth.model.correlation:.2f}). Are the labels and the order of rows the same? Reversed labels look "
            "like this."
        )
    elif (is_blind := blind(answers)).mean() > MOST_BLIND:
        refused = (
            f"{is_blind.sum():,} of {len(is_blind):,} requested rows were seen by every shadow model: train shadows "
            "without them."
        )
    is_enough = retained >= FEWEST_RETAINED
    retained_rank = float(np.mean(mid_rank(smooth.moments.mean[~requested], means))) if is_enough else np.nan
    limit = 0.05 + 3 * np.sqrt((1 / max(retained, 1) + 1 / population) / 12)
    is_contaminated = bool(abs(retained_rank - 0.5) > limit)
    refused_in = ""
    if not is_enough:
        refused_in = f"Only {retained} retained rows are there; {FEWEST_RETAINED} show how trained rows are answered."
    elif is_contaminated and original is None and (answers.shadow_saw is None or _is_mostly_seen(answers)):
        refused_in = (
            "The shadows saw retained rows, or the population differs from them in kind: without the original model "
            "or `shadow_saw`, it is unknown which retained rows are similar to the requested ones."
        )
    selection_rank = np.nan
    if original is not None and is_enough:
        selection_rank = rows.selection_rank(requested, smooth.moments.mean, original)
    sizes = len(answers.shadows), population, retained
    return Checks(refused, refused_in, retained_rank, is_contaminated, selection_rank, sizes)


def _is_mostly_seen(answers: Answers) -> bool:
    """Returns whether every shadow saw most retained rows, so that nothing shows how hard they are."""
    saw = answers.shadow_saw
    return saw is not None and bool(saw[:, ~answers.requested].all(0).mean() > 0.5)


def _groups(
    answers: Answers, raw: Signal, smooth: Signal, tests: RowTests, assumptions: Checks, fdr: float
) -> tuple[GroupTests, dict[int, tuple[GroupTests, bool]]]:
    """Tests all requested rows together, and those of each person."""
    requested, is_blind = answers.requested, blind(answers)
    alike = request.like_rows(smooth, requested)

    def tests_of(mask: np.ndarray) -> GroupTests:
        """Tests the requested rows in `mask` [F] that not every shadow saw."""
        mask = mask & ~is_blind
        if not mask.any():
            return GroupTests()
        index = np.flatnonzero(requested)[mask]
        shadow_saw = answers.shadow_saw
        is_out = np.ones(len(answers.shadows), bool) if shadow_saw is None else ~shadow_saw[:, index].any(1)
        shadows = []
        if is_out.sum() > 1:
            shadows = request.standardised_shadows(
                answers.shadows[is_out][:, index], answers.population_shadows[is_out]
            )
        audited = StandardisedSignals(smooth.z[index], raw.z[index], smooth.population_z, raw.population_z)
        result = request.group_tests(audited, shadows, alike[mask], tests.trace[mask], tests.deviation[mask])
        return result._replace(p_high=1.0) if assumptions.is_selected else result

    group = tests_of(np.ones(int(requested.sum()), bool))
    if answers.person is None:
        return group, {}
    persons = np.unique(answers.person)
    person_tests = [tests_of(answers.person == person) for person in persons]
    still_in = decision.benjamini_hochberg(np.array([group_tests.p_high for group_tests in person_tests]), fdr).rejected
    entries = zip(persons, person_tests, still_in, strict=True)
    return group, {int(person): (group_tests, bool(flag)) for person, group_tests, flag in entries}


def _moved(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Returns the [N] and [P] changes from the original."""
    assert answers.original is not None and answers.population_original is not None
    rows_moved, population_moved = answers.moved, answers.population_moved
    if rows_moved is None or population_moved is None:
        return np.abs(answers.unlearned - answers.original), np.abs(answers.population - answers.population_original)
    return rows_moved, population_moved


def _changed(answers: Answers) -> tuple[bool, bool, tuple[float, float]]:
    """Returns whether no answer was changed, whether only requested rows were, and the median changes."""
    if answers.original is None or answers.population_original is None:
        return False, False, (np.nan, np.nan)
    requested = answers.requested
    moved, population_moved = _moved(answers)
    if max(moved.max(initial=0), population_moved.max(initial=0)) <= IDENTICAL_TO:
        return True, False, (0.0, 0.0)
    change = np.abs(answers.unlearned - answers.original)
    population_change = np.abs(answers.population - answers.population_original)
    other_changes = np.concatenate([change[~requested], population_change])
    medians = float(np.median(change[requested])), float(np.median(other_changes)) if len(other_changes) else np.nan
    if len(other_changes) < FEWEST_OTHERS:
        return False, False, medians
    if len(answers.shadows) > 1:
        typical = np.sqrt(np.median(answers.population_shadows.var(0, ddof=1)))
    else:
        typical = np.std(answers.population)
    is_edited = np.quantile(other_changes, 0.99) < OTHERS_MOVED * typical and medians[0] > REQUESTED_MOVED * typical
    return False, bool(is_edited), medians


def caught_untouched(answers: Answers, fdr: float) -> np.ndarray | None:
    """Returns [|F|] bool: rows that are caught if the original takes the audited model's place; None without original.

    Args:
      answers: as `check` returns them.
      fdr: false discovery rate.
    """
    if answers.original is None or answers.population_original is None:
        return None
    signal = rows.signal(soft(answers.original), soft(answers.shadows), soft(answers.population_original),
                         soft(answers.population_shadows), _unseen(answers))  # fmt: skip
    is_judged = answers.requested.copy()
    is_judged[answers.requested] = ~blind(answers)
    is_caught = np.zeros(len(is_judged), bool)
    is_caught[is_judged] = power.not_forgotten(signal, is_judged, fdr)
    return is_caught[answers.requested]
