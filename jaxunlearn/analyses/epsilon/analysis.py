"""epsilon-hat as an analysis: logits of many models in, metrics per approach out, composed into one report."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.base import Analysis, Context, RecordedRun
from jaxunlearn.analyses.epsilon import inputs, measures, sections, wording
from jaxunlearn.analyses.epsilon.inputs import BATCH, GOAL, RUNNING, EpsilonInputs
from jaxunlearn.report import number_format
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.section import Report, Section
from jaxunlearn.settings import Settings


class Epsilon(NamedTuple):
    """Results: mode of BatchNorm -> metrics of all approaches; and the inputs that they rest on."""

    modes: dict[str, measures.EpsilonReport]
    inputs: EpsilonInputs


def analyse(epsilon_inputs: EpsilonInputs, settings: Settings, context: Context) -> Epsilon:
    """Measures every approach in every mode."""
    reports = {
        mode: measures.measure_approaches(
            group.retrained, group.approaches, group.labels, epsilon_inputs.options, group.accuracies
        )
        for mode, group in epsilon_inputs.modes.items()
    }
    return Epsilon(reports, epsilon_inputs)


def compose(epsilon: Epsilon, settings: Settings) -> Report:
    """Composes sections, the answer in words, per-sample arrays, and the logits of a run in the published layout."""
    epsilon_inputs, main = epsilon.inputs, epsilon.modes[RUNNING]
    names = epsilon_inputs.modes[RUNNING].names
    kind, values = next(iter(names.items()), ("", np.zeros(0)))
    sample_names = [errors.printable(f"{kind.removesuffix('s')} {value}") for value in values.tolist()]
    report_sections = sections.sections(main, epsilon_inputs.samples, sample_names)
    if BATCH in epsilon.modes:
        report_sections.append(sections.modes(main, epsilon.modes[BATCH]))
    if epsilon_inputs.costs:
        report_sections.append(costs(epsilon_inputs, main))
    is_run = bool(epsilon_inputs.about)
    records = {mode: sections.plain(report) for mode, report in epsilon.modes.items()}
    published = {}
    for mode, group in epsilon_inputs.modes.items() if is_run else ():
        accuracies = {"" if name == measures.BASELINE else name: by_set for name, by_set in group.accuracies.items()}
        published[f"epsilon/{mode}"] = (group.labels, group.retrained, group.approaches, accuracies, group.names)
    folders = tuple((f"{folder}/", f"logits in the published layout, for --data=.../{folder}") for folder in published)
    return Report(
        title="epsilon-hat of unlearning methods" if is_run else "epsilon-hat of given logits",
        answer=wording.answer_text(main),
        sections=tuple(report_sections),
        provenance={**epsilon_inputs.about, **sections.provenance(main)},
        stem=sections.STEM,
        arrays={"epsilon.npz": sections.arrays(main, names or {"ids": np.arange(len(main.labels))})},
        records={"epsilon.json": records if is_run else records[RUNNING]},
        published=published,
        notes=(*epsilon_inputs.notes, *measures.notes(main)),
        files=(*sections.FILES, *folders),
        width=sections.WIDTH,
        result=epsilon,
    )


def costs(epsilon_inputs: EpsilonInputs, report: measures.EpsilonReport) -> Section:
    """Compares the cost of every approach with exact retraining; the paper allows 5 % of it."""
    seconds, epochs = epsilon_inputs.costs[GOAL]
    rows: list[tuple[Cell, ...]] = [("retraining", number_format.cost(epochs), "", number_format.cost(seconds))]
    for name in (name for name in measures.ranked(report) if name in epsilon_inputs.costs):
        approach_seconds, approach_epochs = epsilon_inputs.costs[name]
        share = "" if math.isnan(approach_epochs / epochs) else f"{100 * approach_epochs / epochs:.1f}"
        rows.append((name, number_format.cost(approach_epochs), share, number_format.cost(approach_seconds)))
    caption = (
        "retain-epochs = rows read per model, in passes over the retained rows (those for batch statistics included); "
        "share = of exact retraining; seconds of all models together, with compiling."
    )
    table = Table("", caption, ("approach", "retain-epochs", "share (%)", "seconds"), tuple(rows))
    return Section("epsilon_costs", "What does it cost?", "The paper allows about 5 % of retraining.", table)


def describe(epsilon_inputs: EpsilonInputs, settings: Settings) -> list[tuple[str, str]]:
    """Describes the inputs, for a dry run."""
    group = epsilon_inputs.modes[RUNNING]
    shape = group.retrained.shape
    kind = f"{shape[2]} classes" if len(shape) == 3 else "a regression"
    return [
        ("samples", f"{shape[0]:,} of {kind}"),
        ("retrained", f"{shape[1]} models"),
        *[(name, f"{values.shape[1]} models") for name, values in group.approaches.items()],
        ("accuracies", ", ".join(group.accuracies) or "not known"),
        *[("note", note) for note in epsilon_inputs.notes],
    ]


def roles(settings: Settings) -> tuple[str, ...]:
    """Returns the roles of a run folder that it needs: `unlearned` stands for all of unlearn.methods."""
    return ("original", "retrained", "unlearned")


def check(settings: Settings) -> None:
    """Refuses nothing: the ranges and choices of the settings suffice."""


# The approaches of the paper: `all` selects these.
PUBLISHED = (
    "finetune", "poison", "poison_full", "hybrid", "prune", "prune_last_layer", "prune_complex", "activation_reset",
)  # fmt: skip


def narrow(settings: Settings) -> Settings:
    """Returns the settings with only the models that are needed; `all` selects the paper's approaches."""
    targets = dataclasses.replace(settings.targets, population_in=False, shadow_origin=False, reference=0, snapshots=0)
    methods = PUBLISHED if "all" in settings.unlearn.methods else settings.unlearn.methods
    unlearn = dataclasses.replace(settings.unlearn, methods=methods)
    return dataclasses.replace(settings, targets=targets, unlearn=unlearn)


def check_run(run: RecordedRun) -> None:
    """Refuses runs without several models of one forget set.

    Raises:
      ConfigError: more than one forget set, or fewer than two models of it.
    """
    repeats, forget = run.settings.split.forget.repeats, np.asarray(run.split.forget)
    if repeats < 2:
        raise errors.ConfigError(
            f"epsilon-hat compares many models of one request, but split.forget.repeats = {repeats}. Set "
            "--config.split.forget.count=1 --config.split.forget.repeats=64 (configs/forget_precision.py does)."
        )
    if (forget != forget[0]).any():
        raise errors.ConfigError(
            f"epsilon-hat needs one forget set, but there are {len(forget) // repeats}. Set "
            "--config.split.forget.count=1 (classes: one class only)."
        )


EPSILON = Analysis(
    section="epsilon",
    compat="evaluate",
    flag="data",
    fields=inputs.FIELDS,
    expected=inputs.EXPECTED,
    check=check,
    from_arrays=inputs.from_arrays,
    roles=roles,
    check_run=check_run,
    narrow=narrow,
    gather=inputs.gather,
    describe=describe,
    analyse=analyse,
    compose=compose,
    outputs=("epsilon", "epsilon.npz", "epsilon.json", "report/epsilon*", "report/tables/epsilon*"),
)
