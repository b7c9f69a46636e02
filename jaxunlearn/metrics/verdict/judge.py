"""Decides about one request: what was changed, the request as a whole, each person, each row."""

from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import power, request, rows
from jaxunlearn.metrics.verdict.out_model import CLIP, OutModel, place, soft
from jaxunlearn.metrics.verdict.request import GroupTests, Played
from jaxunlearn.metrics.verdict.rows import FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED, Likeness, RowTests, Signal

FEWEST_POPULATION = FEWEST_RETAINED = 40
LEAST_CORRELATION = 0.2
CHOSEN = 0.85
IDENTICAL_TO = 1e-6
FEWEST_OTHERS = 100
OTHERS_MOVED, REQUESTED_MOVED = 0.02, 0.5
HALF = 0.5  # of the trace, which a strict FORGOTTEN must be below


class Answers(NamedTuple):
    """Log-odds of the true class (`out_model.log_odds`), float64, of everything that a verdict rests on.

    Attributes:
      unlearned: [N] of the audited model; requested: [N] bool, asked to be forgotten; the others are retained.
      shadows: [S, N] of models of which none, or not all, saw the requested rows.
      population: [P] of the audited model on rows that no model saw; population_shadows: [S, P].
      original, population_original: [N], [P] of the model before unlearning; None where unknown.
      shadow_saw: [S, N] bool, which shadow was trained on which row; None: no shadow saw any.
      person: [|F|] numbers that group the requested rows; None.
      moved, population_moved: [N], [P] largest change of a logit from the original over all classes; None: of log-odds.
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


class Checks(NamedTuple):
    """What the procedure found out about its own assumptions.

    Attributes:
      refused: why there is no verdict at all; empty.
      refused_in: why nothing can be called FORGOTTEN; empty.
      retained_place: mean place of retained rows among the population by the shadows' means; 0.5 = alike; NaN.
      is_contaminated: whether shadows answer retained rows otherwise than the population.
      chosen_place: mean place of the requested rows, by the original's answers, among retained rows of like difficulty;
        above 0.85 = they look chosen by these answers; NaN without original.
      sizes: shadows, population rows, retained rows.
    """

    refused: str
    refused_in: str
    retained_place: float
    is_contaminated: bool
    chosen_place: float
    sizes: tuple[int, int, int]

    @property
    def is_chosen(self) -> bool:
        """Whether the request looks chosen by the original's own answers."""
        return bool(self.chosen_place > CHOSEN)


class Judgement(NamedTuple):
    """The verdict on one request.

    Attributes:
      codes: [|F|] int8 of the requested rows in their order: 2 NOT FORGOTTEN, 1 CANNOT TELL, 0 FORGOTTEN, 3 SUPPRESSED.
      tests: the p-values behind them.
      group: the request as a whole.
      persons: numbers of persons -> their rows as a whole, and whether they are still in the model (FDR over persons).
      is_identical, is_edited: whether nothing was changed; whether only the requested answers were.
      changes: median change of log-odds on requested and on other rows; NaN without original.
      checks: of the assumptions.
      model: the OUT model of the soft signal.
      power_not: requested rows that would have been caught if nothing had been forgotten; None without original.
      power_forgotten: about how many would have been confirmed if all had been forgotten; None where not computed.
      level, is_strict: settings.
      agreement: [|F|] share of disjoint groups of shadows that give the row the same verdict (`agreement`); None where
        there are too few shadows for two groups.
      disputed: [|F|] bool, rows that are CANNOT TELL only because too few groups agree; None likewise.
      groups: number of these groups.
      replaced: [|F|] bool, rows that are SUPPRESSED as their answer is not a model's own; None where not looked at.
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


def judge(answers: Answers, fdr: float = 0.05, is_strict: bool = False) -> Judgement:
    """Judges one request; no randomness, and nothing depends on other audited models or requests.

    Args:
      answers: see `Answers`.
      fdr: of each kind of false verdict among the rows so called.
      is_strict: FORGOTTEN only where less than half of what training left is still there.

    Raises:
      ShapeError, DataError: arrays that do not fit together, no requested row, no shadow.
    """
    answers = check(answers)
    keep = HALF if is_strict else 1.0
    raw, smooth, likeness, found, tests = _tested(answers, keep)
    asked = answers.requested
    codes = rows.decide(tests, fdr)
    group = GroupTests()
    persons: dict[int, tuple[GroupTests, bool]] = {}
    if not found.refused:
        group, persons = _groups(answers, raw, smooth, tests, found, fdr)
    identical, edited, changes = _changed(answers)
    if group.is_suppressed:
        codes = np.where(codes == FORGOTTEN, SUPPRESSED, codes)
    if identical:
        codes = np.full(len(codes), NOT_FORGOTTEN)
        persons = {number: (one, True) for number, (one, _) in persons.items()}
    elif edited:
        codes = np.where(_moved(answers)[0][asked] > IDENTICAL_TO, SUPPRESSED, NOT_FORGOTTEN)
    caught, confirmed = None, None
    if not found.refused:
        flagged = caught_untouched(answers, fdr)
        caught = None if flagged is None else int(flagged.sum())
        if not found.refused_in and answers.shadow_saw is None and len(answers.shadows) > 1:
            confirmed = power.forgotten(smooth, answers.shadows, answers.population_shadows, likeness, fdr, keep)
    return Judgement(codes.astype(np.int8), tests, group, persons, identical, edited, changes, found, smooth.model,
                     caught, confirmed, fdr, is_strict)  # fmt: skip


def row_codes(answers: Answers, fdr: float, is_strict: bool = False) -> np.ndarray | None:
    """Returns the [|F|] verdicts that the row tests give by themselves; None where these shadows are refused.

    Args:
      answers: as `check` returns them.
      fdr: see `judge`.
      is_strict: see `judge`.
    """
    *_, found, tests = _tested(answers, HALF if is_strict else 1.0)
    return None if found.refused else rows.decide(tests, fdr)


def _tested(answers: Answers, keep: float) -> tuple[Signal, Signal, Likeness, Checks, RowTests]:
    """Returns the raw and the soft signal, which rows are alike, the checks, and the tests of rows."""
    asked = answers.requested
    unseen = None if answers.shadow_saw is None else ~answers.shadow_saw
    raw, smooth = (
        rows.signal(change(answers.unlearned), change(answers.shadows), change(answers.population),
                    change(answers.population_shadows), unseen)
        for change in (np.asarray, soft)
    )  # fmt: skip
    original = None if answers.original is None else soft(answers.original)
    found = _checks(answers, smooth, original)
    likeness = Likeness(asked, smooth.moments.mean, original, found.is_contaminated)
    tests = rows.tests(raw, smooth, likeness, keep)
    ones = np.ones_like(tests.p_in)
    if found.refused_in:
        tests = tests._replace(p_in=ones)
    if found.sizes[2] < FEWEST_RETAINED:
        tests = tests._replace(trace=np.full_like(tests.trace, np.nan))
    if found.refused:
        tests = tests._replace(p_high=ones, p_low=ones, p_in=ones)
    return raw, smooth, likeness, found, tests


def check(answers: Answers) -> Answers:
    """Returns the answers as float64 within +-50; raises ShapeError or DataError."""
    given = {name: value for name, value in answers._asdict().items() if value is not None}
    sizes = checks.shape("N N", unlearned=given["unlearned"], requested=given["requested"])
    letters = {
        "shadows": "SN", "population": "P", "population_shadows": "SP", "original": "N", "population_original": "P",
        "shadow_saw": "SN", "moved": "N", "population_moved": "P",
    }  # fmt: skip
    for name, axes in letters.items():
        if name in given:
            sizes = checks.shape(axes, sizes, **{name: given[name]})
    asked = np.asarray(given["requested"], bool)
    if not asked.any():
        raise errors.DataError("requested names no row: mark the rows that were asked to be forgotten.")
    if not sizes["S"]:
        raise errors.DataError("shadows holds no model; a verdict needs at least one that saw none of the rows.")
    changed: dict[str, np.ndarray] = {"requested": asked}
    for name in ("unlearned", "shadows", "population", "population_shadows", "original", "population_original"):
        if name in given:
            checks.not_nan(name, given[name])
            changed[name] = np.clip(np.asarray(given[name], np.float64), -CLIP, CLIP)
    if "shadow_saw" in given:
        changed["shadow_saw"] = np.asarray(given["shadow_saw"], bool)
    if "person" in given:
        checks.shape("F", {"F": int(asked.sum())}, person=given["person"])
        changed["person"] = np.asarray(given["person"])
    return answers._replace(**changed)


def _checks(answers: Answers, smooth: Signal, original: np.ndarray | None) -> Checks:
    """Looks at the assumptions, with the remedies."""
    asked, means = answers.requested, smooth.population_moments.mean
    retained, population = int((~asked).sum()), len(answers.population)
    refused = ""
    if population < FEWEST_POPULATION:
        refused = (
            f"Give at least {FEWEST_POPULATION} rows that no model saw ({population} are there); without them nothing "
            "shows that these shadows fit this model."
        )
    elif smooth.model.correlation < LEAST_CORRELATION:
        refused = (
            "The shadow models do not predict this model at all (correlation "
            f"{smooth.model.correlation:.2f}). Are the labels and the order of rows the same? Reversed labels look "
            "like this."
        )
    elif answers.shadow_saw is not None and (blind := int((answers.shadow_saw.all(0) & asked).sum())):
        refused = f"{blind} requested row(s) were seen by every shadow model: train shadows without them."
    is_enough = retained >= FEWEST_RETAINED
    retained_place = float(np.mean(place(smooth.moments.mean[~asked], means))) if is_enough else np.nan
    limit = 0.05 + 3 * np.sqrt((1 / max(retained, 1) + 1 / population) / 12)
    is_contaminated = bool(abs(retained_place - 0.5) > limit)
    refused_in = ""
    if not is_enough:
        refused_in = f"Only {retained} retained rows are there; {FEWEST_RETAINED} show how trained rows are answered."
    elif is_contaminated and original is None and answers.shadow_saw is None:
        refused_in = (
            "The shadows saw retained rows, or the population is of another kind: without the original model, or "
            "`shadow_saw`, nothing shows which retained rows are like the requested ones."
        )
    chosen = np.nan
    if original is not None and is_enough:
        chosen = rows.chosen_place(asked, smooth.moments.mean, original)
    sizes = len(answers.shadows), population, retained
    return Checks(refused, refused_in, retained_place, is_contaminated, chosen, sizes)


def _groups(
    answers: Answers, raw: Signal, smooth: Signal, tests: RowTests, found: Checks, fdr: float
) -> tuple[GroupTests, dict[int, tuple[GroupTests, bool]]]:
    """Tests all requested rows together, and those of each person."""
    asked = answers.requested
    alike = request.like_rows(smooth, asked)

    def of(chosen: np.ndarray) -> GroupTests:
        """Tests the requested rows with `chosen` [F] True."""
        places = np.flatnonzero(asked)[chosen]
        saw = answers.shadow_saw
        able = np.ones(len(answers.shadows), bool) if saw is None else ~saw[:, places].any(1)
        shadows = []
        if able.sum() > 1:
            shadows = request.shadows_played(answers.shadows[able][:, places], answers.population_shadows[able])
        audited = Played(smooth.z[places], raw.z[places], smooth.population_z, raw.population_z)
        result = request.group_tests(audited, shadows, alike[chosen], tests.trace[chosen], tests.deviation[chosen])
        return result._replace(p_high=1.0) if found.is_chosen else result

    whole = of(np.ones(int(asked.sum()), bool))
    if answers.person is None:
        return whole, {}
    numbers = np.unique(answers.person)
    each = [of(answers.person == number) for number in numbers]
    still_in = decision.benjamini_hochberg(np.array([one.p_high for one in each]), fdr).rejected
    return whole, {int(n): (one, bool(flag)) for n, one, flag in zip(numbers, each, still_in, strict=True)}


def _moved(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Returns the [N] and [P] changes from the original."""
    assert answers.original is not None and answers.population_original is not None
    rows_moved, others = answers.moved, answers.population_moved
    if rows_moved is None or others is None:
        return np.abs(answers.unlearned - answers.original), np.abs(answers.population - answers.population_original)
    return rows_moved, others


def _changed(answers: Answers) -> tuple[bool, bool, tuple[float, float]]:
    """Returns whether nothing was changed, whether only the requested answers were, and the median changes."""
    if answers.original is None or answers.population_original is None:
        return False, False, (np.nan, np.nan)
    asked = answers.requested
    moved, population_moved = _moved(answers)
    if max(moved.max(initial=0), population_moved.max(initial=0)) <= IDENTICAL_TO:
        return True, False, (0.0, 0.0)
    change = np.abs(answers.unlearned - answers.original)
    population_change = np.abs(answers.population - answers.population_original)
    others = np.concatenate([change[~asked], population_change])
    medians = float(np.median(change[asked])), float(np.median(others)) if len(others) else np.nan
    if len(others) < FEWEST_OTHERS:
        return False, False, medians
    if len(answers.shadows) > 1:
        typical = np.sqrt(np.median(answers.population_shadows.var(0, ddof=1)))
    else:
        typical = np.std(answers.population)
    is_edited = np.quantile(others, 0.99) < OTHERS_MOVED * typical and medians[0] > REQUESTED_MOVED * typical
    return False, bool(is_edited), medians


def caught_untouched(answers: Answers, fdr: float) -> np.ndarray | None:
    """Returns [|F|] bool: rows that are caught when the original plays the unlearned model; None without original.

    Args:
      answers: as `check` returns them.
      fdr: false discovery rate.
    """
    if answers.original is None or answers.population_original is None:
        return None
    unseen = None if answers.shadow_saw is None else ~answers.shadow_saw
    played = rows.signal(soft(answers.original), soft(answers.shadows), soft(answers.population_original),
                         soft(answers.population_shadows), unseen)  # fmt: skip
    return power.not_forgotten(played, answers.requested, fdr)
