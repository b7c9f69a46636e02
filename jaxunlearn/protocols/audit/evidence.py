"""The door for logits from any framework: an .npz of arrays in, scores and findings out. No model code is loaded."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors, progress, scores, store
from jaxunlearn.protocols.audit import judging, plausibility, verdicts
from jaxunlearn.records import Evidence
from jaxunlearn.report import tables
from jaxunlearn.scores import evidence as evidences
from jaxunlearn.scores.options import PUBLISHED


class Request(NamedTuple):
    """What `launch.audit --evidence` was asked for.

    Attributes:
      path: the .npz, or a folder of .npy files (memory-mapped, for arrays larger than memory).
      scores: as given.
      dataset: whose published constants; compat: corrected or faithful; forget_type: set_random or class.
      decision: score of the verdicts; calibration: auto, shadows or population; level: false discovery rate.
      interval: level of intervals.
      levels: IAM's interpolation levels; 0 = the file's own (INTERAPPROX), else 100.
    """

    path: str
    scores: tuple[str, ...] = ("all",)
    dataset: str = ""
    compat: str = "corrected"
    forget_type: str = "set_random"
    decision: str = "auto"
    calibration: str = "auto"
    level: float = 0.05
    interval: float = 0.95
    levels: int = 0


class Audit(NamedTuple):
    """What the arrays showed.

    Attributes:
      result: scores by name, and why others were skipped.
      board: BinUI of the one audited model, or None where `forgotten` is not known.
      decided: per-sample verdicts, or None with the reason in `undecided`.
      original: the same of the original model, which forgot nothing, or None.
      undecided: why there are no verdicts.
      options: of the scores; sizes: axis letter -> size; ignored: names in the file that were not used.
      labels: [N]; forgotten: [N] bool or None; warnings: about duplicated or constant scores.
      accuracies: of the models on their labels, by array; doubts: sentences about arrays that do not belong together.
    """

    result: scores.Result
    board: judging.Scoreboard | None
    decided: verdicts.Verdicts | None
    original: verdicts.Verdicts | None
    undecided: str
    options: scores.Options
    sizes: dict[str, int]
    ignored: tuple[str, ...]
    labels: np.ndarray
    forgotten: np.ndarray | None
    warnings: tuple[str, ...]
    accuracies: dict[str, plausibility.Accuracy]
    doubts: tuple[str, ...]


class Opened(NamedTuple):
    """A file that has passed every check: the arrays, the scores wanted, their options, sizes by axis letter."""

    named: evidences.Named
    names: tuple[str, ...]
    options: scores.Options
    sizes: dict[str, int]


def open_file(request: Request) -> Opened:
    """Reads and checks an evidence file and the choices made with it.

    Raises:
      DataError, ShapeError, ConfigError: bad file, arrays or choices.
    """
    wanted = scores.names_of(request.scores)
    if request.decision not in ("auto", "none"):
        scores.names_of((request.decision,))
    checks.choice("calibration", request.calibration, ("auto", "shadows", "population"))
    checks.in_range("level", request.level, 1e-6, 0.5)
    if request.dataset:
        checks.choice("dataset", request.dataset, PUBLISHED)
    named = evidences.from_arrays(store.arrays.read(Path(request.path).expanduser()))
    options = scores.Options(
        constants=scores.published(request.dataset),
        levels=request.levels or named.levels or 100,
        compat=request.compat,
        forget_type=request.forget_type,
        dataset=request.dataset,
    )
    scores.check_options(options)
    return Opened(named, wanted, options, scores.check(named.evidence))


def fingerprint(opened: Opened) -> str:
    """Of the arrays, so that results of other arrays are never overwritten unasked."""
    arrays = {name: getattr(opened.named.evidence, name) for name in evidences.FIELDS}
    # One model at a time: published arrays are transposed views, which a hash of the whole would copy.
    facts = {
        name: [
            list(array.shape),
            *(store.files.checksum(np.asarray(line)) for line in (array if array.ndim > 2 else [array])),
        ]
        for name, array in arrays.items()
        if array is not None
    }
    return store.files.fingerprint(facts)


def plan_text(opened: Opened) -> str:
    """What an audit of this file would do."""
    given = opened.named.evidence
    skipped = scores.skipped_for(opened.names, given)
    can = [name for name in opened.names if name not in skipped]
    rows = [
        ("samples", f"{opened.sizes['N']:,} of {opened.sizes['C']} classes"),
        ("shadow models", str(opened.sizes.get("S", 0))),
        ("scores", ", ".join(can)),
        *[("skipped", f"{name}: {why}") for name, why in skipped.items()],
        *([("ignored arrays", ", ".join(opened.named.ignored))] if opened.named.ignored else []),
    ]
    return tables.pairs(rows)


def run(request: Request, opened: Opened, reporter: progress.Reporter) -> Audit:
    """Audits arrays that `open_file` has checked."""
    named, wanted, options, sizes = opened
    given = named.evidence
    reporter.say(f"{sizes['N']:,} samples, {sizes.get('S', 0)} shadow model(s), {sizes['C']} classes")
    measured = scores.measure(given, options, pairs="unleak" in wanted)
    accuracies = plausibility.accuracies(given)
    doubts = [plausibility.unchanged(measured.unlearned, measured.original)] if measured.unlearned else []
    doubts += [*plausibility.doubtful_labels(accuracies), plausibility.foreign(measured)]
    if measured.shadows is not None:
        different = plausibility.distinct(measured.shadows, measured.population_shadows, measured.own)
        doubts.append(plausibility.copied(sizes["S"], len(different)))
        if len(different) < sizes["S"]:
            measured, sizes = scores.choose_shadows(measured, different), {**sizes, "S": len(different)}
    result = scores.run_checked(wanted, given, options, measured)
    forgotten = None if given.forgotten is None else np.asarray(given.forgotten, bool)
    board = None
    if forgotten is not None:
        values = {name: np.asarray(found.values)[None, None] for name, found in result.scores.items()}
        board = judging.judge(judging.Scored(values, ~forgotten[None], result.skipped), request.interval)
    decided, original, why = _decide(request, given, measured, forgotten, options)
    return Audit(
        result, board, decided, original, why, options, sizes, named.ignored, np.asarray(given.labels), forgotten,
        tuple(_warnings(result)), accuracies, tuple(filter(None, doubts)),
    )  # fmt: skip


def _decide(
    request: Request,
    given: Evidence,
    measured: scores.Measured,
    forgotten: np.ndarray | None,
    options: scores.Options,
) -> tuple[verdicts.Verdicts | None, verdicts.Verdicts | None, str]:
    """Verdicts on the unlearned and on the original model, or why there are none."""
    name, why = verdicts.choose_score(request.decision, given)
    if not name:
        return None, None, why
    requested = None if forgotten is None else forgotten[None]

    def judge(audited: scores.Measured, calibration: str) -> verdicts.Verdicts:
        case = scores.one_case(audited)
        values = scores.compute_cases(name, audited, case, options)
        null = verdicts.null_of(name, audited, case, options, calibration, request.level)
        return verdicts.decide(name, values, null, requested, request.level)

    try:
        decided = judge(measured, request.calibration)
    except errors.DataError as error:
        return None, None, str(error)
    calibration = decided.null.calibration
    reads_population = calibration == "population" or any("population" in field for field in scores.needs(name))
    if given.original is None or requested is None or (reads_population and given.population_original is None):
        return decided, None, ""
    untouched = measured._replace(
        unlearned=measured.original, population_unlearned=measured.population_original, pairs=None, views=()
    )
    return decided, judge(untouched, calibration), ""


def _warnings(result: scores.Result) -> list[str]:
    """Scores that say nothing (constant), or twice the same."""
    said = []
    seen: dict[bytes, str] = {}
    for name, found in result.scores.items():
        if len(found.values) > 1 and np.ptp(found.values) == 0:
            said.append(f"score {name} is the same for every sample ({found.values[0]:.6g}); it cannot rank anything")
            continue
        twin = seen.setdefault(found.values.tobytes(), name)
        if twin != name:
            said.append(f"scores {twin} and {name} are identical on these samples")
    return said
