"""Unlearning-Leaks as an analysis: posterior pairs in, metrics of the attack out, composed into one report."""

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


def analyse(leak_inputs: LeakInputs, settings: Settings, context: Context) -> Leaks:
    """Defends, attacks and measures the posteriors."""
    options = settings.leaks
    shadow, target = (
        measures.published(side, options.defence, options.top_k, options.temperature)
        for side in (leak_inputs.shadow, leak_inputs.target)
    )
    published = leak_inputs._replace(shadow=shadow, target=target)
    names = inputs.requested_features(settings)
    context.log(f"attacking {len(target.deleted):,} records by {len(names)} features ({options.attack})")
    is_faithful = settings.compat.leaks == "faithful"
    answers, shadow_aucs = measures.attack(published, names, options.attack, settings.seed, is_faithful)
    metrics = measures.measure_features(answers, target, options.confidence_level)
    feature_metrics = {
        name: measures.FeatureMetrics(name, metrics[name], shadow_aucs[name], *feature_answers)
        for name, feature_answers in answers.items()
    }
    distance = features.compute(target.original, target.unlearned, "l2_distance")[:, 0]
    return Leaks(
        features=feature_metrics,
        distance=distance,
        posteriors=leak_inputs,
        published=published,
        attack=options.attack,
        defence=options.defence,
        confidence_level=options.confidence_level,
        report_feature=options.feature,
    )


def compose(leaks: Leaks, settings: Settings) -> Report:
    """Composes sections, the answer in words, and scores of every target record."""
    is_run = bool(leaks.published.about)
    posteriors = {"leaks/posteriors.npz": inputs.as_arrays(leaks.posteriors)} if is_run else {}
    array_files = tuple((name, "undefended posteriors, for --posteriors with other attacks") for name in posteriors)
    return Report(
        title="What deletion reveals" if is_run else "What deletion reveals, from given posteriors",
        answer=sections.answer_text(leaks),
        summary=sections.summary(leaks),
        sections=tuple(sections.sections(leaks)),
        provenance={
            **leaks.published.about,
            "attack": f"{sections.ATTACKS[leaks.attack]} on {', '.join(leaks.features)}",
            "defence": _defence(settings),
            "compat": settings.compat.leaks,
        },
        stem=sections.STEM,
        arrays={"leaks.npz": sections.arrays(leaks), **posteriors},
        listed={"leaks.csv": sections.records_table(leaks)},
        records={"leaks.json": sections.plain(leaks)},
        files=(*sections.FILES, *array_files),
        width=sections.WIDTH,
        result=leaks,
    )


def _defence(settings: Settings) -> str:
    options = settings.leaks
    details = {"top_k": f", {options.top_k} entries", "temperature": f", {options.temperature:g}"}
    return options.defence + details.get(options.defence, "")


def describe(leak_inputs: LeakInputs, settings: Settings) -> list[tuple[str, str]]:
    """Describes what an analysis of these posteriors would do, for a dry run."""
    lines = []
    for name, side in (("shadow", leak_inputs.shadow), ("target", leak_inputs.target)):
        sets = "sets not known" if side.unit is None else f"{int(side.unit.max()) + 1} record sets"
        count = f"{int(side.deleted.sum()):,} deleted and {int((~side.deleted).sum()):,} other records"
        lines.append((name, f"{count}, {side.original.shape[1]} classes, {sets}"))
    return [*lines, ("attack", f"{settings.leaks.attack} on {', '.join(inputs.requested_features(settings))}"),
            ("defence", _defence(settings))]  # fmt: skip


def check(settings: Settings) -> None:
    """Refuses settings that are invalid with any input.

    Raises:
      ConfigError: unknown features, or leaks.feature is none that a threshold attack supports.
    """
    inputs.requested_features(settings)
    options = settings.leaks
    if options.attack == "threshold" and options.feature not in features.THRESHOLDS:
        raise errors.ConfigError(
            f"leaks.feature = {options.feature!r} is not what attack = 'threshold' looks at. Give "
            "--feature=l2_distance, or another attack."
        )


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> LeakInputs:
    """Builds the inputs from checked arrays; see `inputs.from_arrays`.

    Raises:
      ConfigError: top_k above the number of classes.
    """
    leak_inputs = inputs.from_arrays(values, settings)
    if settings.leaks.defence == "top_k":
        defences.check_top_k(settings.leaks.top_k, leak_inputs.target.original.shape[1])
    return leak_inputs


def check_run(run: RecordedRun) -> None:
    """Refuses nothing: the plan of a run is checked before it."""


def gather(run: RecordedRun, context: Context) -> LeakInputs:
    """Refuses run folders: launch.leaks gathers its posteriors by its plan, other runs hold no such models.

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
