"""Unlearning-Leaks as an analysis: posterior pairs in, what they reveal out, composed into one report."""

from collections.abc import Mapping

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.base import Analysis, Context, RecordedRun
from jaxunlearn.analyses.leaks import inputs, measures, sections
from jaxunlearn.analyses.leaks.inputs import LeakInputs
from jaxunlearn.analyses.leaks.measures import Leaks
from jaxunlearn.attacks.leaks import defences, features
from jaxunlearn.report.section import Report
from jaxunlearn.settings import Settings


def analyse(given: LeakInputs, settings: Settings, context: Context) -> Leaks:
    """Defends, attacks and measures."""
    chosen = settings.leaks
    shadow, target = (
        measures.published(side, chosen.defence, chosen.top_k, chosen.temperature)
        for side in (given.shadow, given.target)
    )
    seen = given._replace(shadow=shadow, target=target)
    names = inputs.wanted(settings)
    context.say(f"attacking {len(target.deleted):,} records by {len(names)} features ({chosen.attack})")
    answers, fitted = measures.attack(seen, names, chosen.attack, settings.seed, settings.compat.leaks == "faithful")
    numbers = measures.measure_features(answers, target, chosen.confidence_level)
    found = {
        name: measures.FeatureMetrics(name, numbers[name], fitted[name], one.score, one.probability)
        for name, one in answers.items()
    }
    distance = features.compute(target.original, target.unlearned, "l2_distance")[:, 0]
    return Leaks(found, distance, given, seen, chosen.attack, chosen.defence, chosen.confidence_level, chosen.feature)


def compose(found: Leaks, settings: Settings) -> Report:
    """Sections, the answer in words, scores of every target record."""
    is_run = bool(found.inputs.about)
    posteriors = {"leaks/posteriors.npz": inputs.as_arrays(found.given)} if is_run else {}
    kept = tuple((name, "undefended posteriors, for --posteriors with other attacks") for name in posteriors)
    return Report(
        title="What deletion reveals" if is_run else "What deletion reveals, from given posteriors",
        answer=sections.in_words(found),
        summary=sections.summary(found),
        sections=tuple(sections.sections(found)),
        provenance={
            **found.inputs.about,
            "attack": f"{sections.ATTACKS[found.attack]} on {', '.join(found.features)}",
            "defence": _defence(settings),
            "compat": settings.compat.leaks,
        },
        stem=sections.STEM,
        arrays={"leaks.npz": sections.arrays(found), **posteriors},
        listed={"leaks.csv": sections.records_table(found)},
        records={"leaks.json": sections.plain(found)},
        files=(*sections.FILES, *kept),
        width=sections.WIDTH,
    )


def _defence(settings: Settings) -> str:
    chosen = settings.leaks
    more = {"top_k": f", {chosen.top_k} entries", "temperature": f", {chosen.temperature:g}"}
    return chosen.defence + more.get(chosen.defence, "")


def describe(given: LeakInputs, settings: Settings) -> list[tuple[str, str]]:
    """What an analysis of these posteriors would do."""
    lines = []
    for name, side in (("shadow", given.shadow), ("target", given.target)):
        sets = "sets not known" if side.unit is None else f"{int(side.unit.max()) + 1} record sets"
        count = f"{int(side.deleted.sum()):,} deleted and {int((~side.deleted).sum()):,} other records"
        lines.append((name, f"{count}, {side.original.shape[1]} classes, {sets}"))
    return [*lines, ("attack", f"{settings.leaks.attack} on {', '.join(inputs.wanted(settings))}"),
            ("defence", _defence(settings))]  # fmt: skip


def check(settings: Settings) -> None:
    """Refuses settings that no input can mend.

    Raises:
      ConfigError: unknown features, or a threshold attack chosen to be named by a feature that it does not know.
    """
    inputs.wanted(settings)
    chosen = settings.leaks
    if chosen.attack == "threshold" and chosen.feature not in features.THRESHOLDS:
        raise errors.ConfigError(
            f"leaks.feature = {chosen.feature!r} is not what attack = 'threshold' looks at. Give "
            "--feature=l2_distance, or another attack."
        )


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> LeakInputs:
    """Inputs from checked arrays; see `inputs.from_arrays`.

    Raises:
      ConfigError: top_k above the number of classes.
    """
    given = inputs.from_arrays(values, settings)
    if settings.leaks.defence == "top_k":
        defences.check_top_k(settings.leaks.top_k, given.target.original.shape[1])
    return given


def check_run(run: RecordedRun) -> None:
    """Refuses nothing: the plan of a run is checked before it."""


def gather(run: RecordedRun, context: Context) -> LeakInputs:
    """A run of launch.leaks gathers its posteriors by its plan; other run folders hold no such models.

    Raises:
      ConfigError: always.
    """
    raise errors.ConfigError("only launch.leaks trains the models that this analysis needs.")


LEAKS = Analysis(
    section="leaks",
    compat="leaks",
    flag="posteriors",
    fields=inputs.FIELDS,
    expected=inputs.EXPECTED,
    check=check,
    from_arrays=from_arrays,
    roles=lambda settings: (),
    check_run=check_run,
    gather=gather,
    describe=describe,
    analyse=analyse,
    compose=compose,
    outputs=(
        "leaks.npz",
        "leaks.json",
        "leaks.csv",
        "leaks",
        "populations/leaks",
        "logits/leaks.*",
        "report/leaks*",
        "report/tables/leaks*",
    ),
)
