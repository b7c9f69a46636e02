"""The evaluation as an analysis: outputs in, metrics of every role out, composed into one report."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn.analyses.base import Analysis, Context, RecordedRun
from jaxunlearn.analyses.evaluation import distributions, inputs, measures, sections, wording
from jaxunlearn.analyses.evaluation.inputs import EvaluationInputs, Outputs
from jaxunlearn.analyses.evaluation.sections import Evaluation
from jaxunlearn.records import Design
from jaxunlearn.report.section import Report, Section
from jaxunlearn.settings import Settings

VERSION = 4


def analyse(evaluation_inputs: EvaluationInputs, settings: Settings, context: Context) -> Evaluation:
    """Measures every role; cached results of the same outputs are reused."""
    options = evaluation_inputs.options
    retrained_outputs = evaluation_inputs.roles["retrained"]() if "retrained" in evaluation_inputs.roles else None
    retrained, retrained_facts = None, None
    if retrained_outputs is not None:
        retrained = np.where(retrained_outputs.alive[:, None, None], retrained_outputs.values, np.nan)
        retrained_facts = retrained_outputs.facts
    roles, embedded = {}, {}
    for title, load in evaluation_inputs.roles.items():
        outputs = load()
        facts = {
            **evaluation_inputs.facts,
            "logits": outputs.facts,
            "retrained": retrained_facts,
            "version": VERSION,
        }

        def measure(title: str = title, outputs: Outputs = outputs) -> dict[str, np.ndarray]:
            context.log(f"measuring {title}")  # cached results are not measured again
            return _measure(evaluation_inputs, outputs, retrained)

        roles[title] = context.cached(f"evaluation/{title}.npz", facts, measure)
        if "q_hat" in roles[title]:
            sets = functools.partial(_sets, evaluation_inputs, outputs, roles[title])
            context.cached(f"evaluation/sets_{title}.npz", facts, sets)
        if distributions.GROUP in options.groups:
            context.log(f"embedding the samples of {title}")
            compute = functools.partial(_points, evaluation_inputs, outputs)
            points = context.cached(f"evaluation/points_{title}.npz", facts, compute)
            roles[title] = {**roles[title], **{name: points[name] for name in distributions.NUMBERS}}
            embedded[title] = (points["points"], points["is_forgotten"])
    evaluate, count = options.settings, len(evaluation_inputs.subsets.forget)
    return Evaluation(
        roles=roles,
        alphas=evaluate.alphas,
        report_alpha=evaluate.report_alpha,
        sets=count,
        costs=evaluation_inputs.costs,
        diverged=evaluation_inputs.diverged,
        design=evaluation_inputs.design or Design("given", count),
        classes=evaluation_inputs.class_names,
        notes=evaluation_inputs.notes,
        about=evaluation_inputs.about,
        embedded=embedded,
    )


def _measure(
    evaluation_inputs: EvaluationInputs, outputs: Outputs, retrained: np.ndarray | None
) -> dict[str, np.ndarray]:
    return measures.measure_models(
        outputs.values,
        evaluation_inputs.labels,
        evaluation_inputs.subsets,
        evaluation_inputs.options,
        retrained,
        evaluation_inputs.untrained,
        outputs.alive,
    )


def _sets(evaluation_inputs: EvaluationInputs, outputs: Outputs, metrics: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Computes prediction sets per sample, which show samples that are forgotten in name only."""
    labels, subsets, options = evaluation_inputs.labels, evaluation_inputs.subsets, evaluation_inputs.options
    sets = measures.sets_of(outputs.values, labels, subsets, options, dict(metrics))
    alphas = np.asarray(options.settings.alphas)
    return {**evaluation_inputs.names, "labels": labels, "alphas": alphas, **subsets._asdict(), **sets}


def _points(evaluation_inputs: EvaluationInputs, outputs: Outputs) -> dict[str, np.ndarray]:
    """Embeds the samples, and measures how the forgotten ones lie among them."""
    features = outputs.values if outputs.features is None else outputs.features
    points = distributions.measure_distributions(
        features, evaluation_inputs.labels, evaluation_inputs.subsets, evaluation_inputs.options, outputs.alive
    )
    names = {name: values[points["samples"]] for name, values in evaluation_inputs.names.items()}
    return {**names, "labels": evaluation_inputs.labels[points["samples"]], **points}


def compose(evaluation: Evaluation, settings: Settings) -> Report:
    """Composes sections, the answer in words, and every metric as JSON."""
    evaluate = settings.evaluate
    files = [("evaluation.json", "every number per role, forget set and alpha")]
    if any("q_hat" in metrics for metrics in evaluation.roles.values()):
        description = "covered, size [forget sets, alphas, samples]: who is forgotten in name only"
        files.append(("evaluation/sets_ROLE.npz", description))
    if evaluation.embedded:
        files.append(("evaluation/points_ROLE.npz", "embedded samples of the first model, and all models' numbers"))
    return Report(
        title="Evaluation" if evaluation.about else "Evaluation of given outputs",
        answer=wording.answer_text(evaluation),
        sections=tuple(sections.sections(evaluation)),
        provenance={
            **evaluation.about,
            "non-conformity": f"{evaluate.score}, rank {evaluate.quantile_rule}",
            "MIACR": f"{evaluate.miacr_attack}, alpha {evaluate.miacr_alpha:g}",
            "compat": settings.compat.evaluate,
            **({"t-SNE": f"{evaluate.tsne_rows or 'all'} samples per model, seed 42"} if evaluation.embedded else {}),
        },
        stem=sections.STEM,
        records={"evaluation.json": sections.plain(evaluation)},
        notes=evaluation.notes,
        files=tuple(files),
        width=sections.WIDTH,
        result=evaluation,
    )


def sections_of(record: Any) -> list[Section]:
    """Returns the sections of an earlier evaluation, from its evaluation.json."""
    return sections.sections(sections.from_plain(record))


def describe(evaluation_inputs: EvaluationInputs, settings: Settings) -> list[tuple[str, str]]:
    """Describes what an evaluation of these outputs would do, for a dry run."""
    masks = zip(measures.Subsets._fields, evaluation_inputs.subsets, strict=True)
    return [
        ("models", f"{len(evaluation_inputs.subsets.forget)} per role: {', '.join(evaluation_inputs.roles)}"),
        *[(name, f"{int(mask[0].sum()):,} samples") for name, mask in masks],
        ("measured", ", ".join(evaluation_inputs.options.groups)),
        *[("note", note) for note in evaluation_inputs.notes],
    ]


def roles(settings: Settings) -> tuple[str, ...]:
    """Returns the roles of a run folder that an evaluation needs: `unlearned` stands for all of unlearn.methods."""
    return ("original", "retrained", "unlearned")


def check(settings: Settings) -> None:
    """Raises a ConfigError for alphas outside (0, 1), unknown groups, scores or ranks."""
    measures.check_choices(settings.evaluate)


def check_run(run: RecordedRun) -> None:
    """Refuses evaluations that this run folder does not allow, before anything is trained.

    Raises:
      DataError: an unusable calibration set.
    """
    subsets = inputs.subsets_of(run.settings, run.split, run.labels, run.groups, run.rows)
    measures.check_calibration(run.labels[run.rows], subsets, inputs.options_of(run.settings))
    distributions.check(subsets, inputs.options_of(run.settings))


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
