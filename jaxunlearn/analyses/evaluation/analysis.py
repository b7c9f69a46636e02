"""The evaluation as an analysis: outputs in, numbers of every role out, composed into one report."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn.analyses.base import Analysis, Context, RecordedRun
from jaxunlearn.analyses.evaluation import distributions, inputs, measures, sections
from jaxunlearn.analyses.evaluation.inputs import EvaluationInputs, Outputs
from jaxunlearn.analyses.evaluation.sections import Evaluation
from jaxunlearn.records import Design
from jaxunlearn.report.section import Report, Section
from jaxunlearn.settings import Settings

VERSION = 4


def analyse(given: EvaluationInputs, settings: Settings, context: Context) -> Evaluation:
    """Measures every role; numbers that were measured before from the same outputs are taken up."""
    choices = given.choices
    goal = given.roles["retrained"]() if "retrained" in given.roles else None
    retrained = None if goal is None else np.where(goal.alive[:, None, None], goal.values, np.nan)
    roles, embedded = {}, {}
    for title, load in given.roles.items():
        outputs = load()
        facts = {**given.facts, "logits": outputs.facts, "retrained": None if goal is None else goal.facts,
                 "version": VERSION}  # fmt: skip

        def measured(title: str = title, outputs: Outputs = outputs) -> dict[str, np.ndarray]:
            context.say(f"measuring {title}")  # what is kept from before is not measured again
            return _measured(given, outputs, retrained)

        roles[title] = context.cached(f"evaluation/{title}.npz", facts, measured)
        if "q_hat" in roles[title]:
            sets = functools.partial(_sets, given, outputs, roles[title])
            context.cached(f"evaluation/sets_{title}.npz", facts, sets)
        if distributions.GROUP in choices.groups:
            context.say(f"embedding the samples of {title}")
            points = context.cached(f"evaluation/points_{title}.npz", facts, functools.partial(_points, given, outputs))
            roles[title] = {**roles[title], **{name: points[name] for name in distributions.NUMBERS}}
            embedded[title] = (points["points"], points["is_forgotten"])
    evaluate = choices.settings
    return Evaluation(
        roles, evaluate.alphas, evaluate.report_alpha, len(given.parts.forget), given.costs, given.diverged,
        given.design or Design("given", len(given.parts.forget)), given.class_names, given.notes, given.about,
        embedded,
    )  # fmt: skip


def _measured(given: EvaluationInputs, outputs: Outputs, retrained: np.ndarray | None) -> dict[str, np.ndarray]:
    return measures.measure_models(
        outputs.values, given.labels, given.parts, given.choices, retrained, given.untrained, outputs.alive
    )


def _sets(given: EvaluationInputs, outputs: Outputs, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Prediction sets sample by sample: who is forgotten in name only."""
    found = measures.sets_of(outputs.values, given.labels, given.parts, given.choices, dict(numbers))
    alphas = np.asarray(given.choices.settings.alphas)
    return {**given.names, "labels": given.labels, "alphas": alphas, **given.parts._asdict(), **found}


def _points(given: EvaluationInputs, outputs: Outputs) -> dict[str, np.ndarray]:
    """Embedded samples, and how the forgotten ones lie among them."""
    features = outputs.values if outputs.features is None else outputs.features
    found = distributions.measure_distributions(features, given.labels, given.parts, given.choices, outputs.alive)
    names = {name: values[found["samples"]] for name, values in given.names.items()}
    return {**names, "labels": given.labels[found["samples"]], **found}


def compose(found: Evaluation, settings: Settings) -> Report:
    """Sections, the answer in words, and every number as JSON."""
    evaluate = settings.evaluate
    files = [("evaluation.json", "every number per role, forget set and alpha")]
    if any("q_hat" in numbers for numbers in found.roles.values()):
        what = "covered, size [forget sets, alphas, samples]: who is forgotten in name only"
        files.append(("evaluation/sets_ROLE.npz", what))
    if found.embedded:
        files.append(("evaluation/points_ROLE.npz", "embedded samples of the first model, and all models' numbers"))
    return Report(
        title="Evaluation" if found.about else "Evaluation of given outputs",
        answer=sections.in_words(found),
        sections=tuple(sections.sections(found)),
        provenance={
            **found.about,
            "non-conformity": f"{evaluate.score}, rank {evaluate.quantile_rule}",
            "MIACR": f"{evaluate.miacr_attack}, alpha {evaluate.miacr_alpha:g}",
            "compat": settings.compat.evaluate,
            **({"t-SNE": f"{evaluate.tsne_rows or 'all'} samples per model, seed 42"} if found.embedded else {}),
        },
        stem=sections.STEM,
        records={"evaluation.json": sections.plain(found)},
        notes=found.notes,
        files=tuple(files),
        width=sections.WIDTH,
    )


def sections_of(record: Any) -> list[Section]:
    """The sections of an evaluation that was made before, from its evaluation.json."""
    return sections.sections(sections.from_plain(record))


def describe(given: EvaluationInputs, settings: Settings) -> list[tuple[str, str]]:
    """What an evaluation of these outputs would do."""
    named = zip(measures.Subsets._fields, given.parts, strict=True)
    return [
        ("models", f"{len(given.parts.forget)} per role: {', '.join(given.roles)}"),
        *[(name, f"{int(part[0].sum()):,} samples") for name, part in named],
        ("measured", ", ".join(given.choices.groups)),
        *[("note", note) for note in given.notes],
    ]


def roles(settings: Settings) -> tuple[str, ...]:
    """The roles of a run folder that an evaluation needs: `unlearned` stands for all of unlearn.methods."""
    return ("original", "retrained", "unlearned")


def check(settings: Settings) -> None:
    """Raises a ConfigError for alphas outside (0, 1), unknown groups, scores or ranks."""
    measures.check_choices(settings.evaluate)


def check_run(run: RecordedRun) -> None:
    """Refuses evaluations that this run folder cannot have, before anything is trained.

    Raises:
      DataError: an unusable calibration set.
    """
    parts = inputs.parts_of(run.settings, run.split, run.labels, run.groups, run.rows)
    measures.check_calibration(run.labels[run.rows], parts, inputs.choices_of(run.settings))
    distributions.check(parts, inputs.choices_of(run.settings))


EVALUATION = Analysis(
    section="evaluate",
    compat="evaluate",
    flag="logits",
    fields=inputs.FIELDS,
    expected=inputs.EXPECTED,
    check=check,
    from_arrays=inputs.from_arrays,
    roles=roles,
    check_run=check_run,
    gather=inputs.gather,
    describe=describe,
    analyse=analyse,
    compose=compose,
    outputs=("evaluation", "evaluation.json", "report/evaluation*"),
    record="evaluation.json",
    sections_of=sections_of,
)
