"""epsilon-hat as an analysis: logits of many models in, numbers per approach out, composed into one report."""

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
    """What was found: mode of BatchNorm -> numbers of all approaches; the inputs they rest on."""

    modes: dict[str, measures.EpsilonReport]
    inputs: EpsilonInputs


def analyse(given: EpsilonInputs, settings: Settings, context: Context) -> Epsilon:
    """Measures every approach in every mode."""
    found = {
        mode: measures.measure_approaches(
            group.retrained, group.approaches, group.labels, given.options, group.accuracies
        )
        for mode, group in given.modes.items()
    }
    return Epsilon(found, given)


def compose(epsilon: Epsilon, settings: Settings) -> Report:
    """Sections, the answer in words, per-sample arrays, and the logits of a run in the published layout."""
    given, main = epsilon.inputs, epsilon.modes[RUNNING]
    names = given.modes[RUNNING].names
    kind, values = next(iter(names.items()), ("", np.zeros(0)))
    shown = [errors.printable(f"{kind.removesuffix('s')} {value}") for value in values.tolist()]
    made = sections.sections(main, given.samples, shown)
    if BATCH in epsilon.modes:
        made.append(sections.modes(main, epsilon.modes[BATCH]))
    if given.costs:
        made.append(costs(given, main))
    is_run = bool(given.about)
    numbers = {mode: sections.plain(found) for mode, found in epsilon.modes.items()}
    published = {}
    for mode, group in given.modes.items() if is_run else ():
        known = {"" if name == measures.BASELINE else name: own for name, own in group.accuracies.items()}
        published[f"epsilon/{mode}"] = (group.labels, group.retrained, group.approaches, known, group.names)
    kept = tuple((f"{folder}/", f"logits in the published layout, for --data=.../{folder}") for folder in published)
    return Report(
        title="epsilon-hat of unlearning methods" if is_run else "epsilon-hat of given logits",
        answer=wording.in_words(main),
        sections=tuple(made),
        provenance={**given.about, **sections.provenance(main)},
        stem=sections.STEM,
        arrays={"epsilon.npz": sections.arrays(main, names or {"ids": np.arange(len(main.labels))})},
        records={"epsilon.json": numbers if is_run else numbers[RUNNING]},
        published=published,
        notes=(*given.notes, *measures.notes(main)),
        files=(*sections.FILES, *kept),
        width=sections.WIDTH,
    )


def costs(given: EpsilonInputs, found: measures.EpsilonReport) -> Section:
    """What every approach costs next to exact retraining; the paper allows 5 % of it."""
    seconds, epochs = given.costs[GOAL]
    rows: list[tuple[Cell, ...]] = [("retraining", number_format.cost(epochs), "", number_format.cost(seconds))]
    for name in (name for name in measures.ranked(found) if name in given.costs):
        own_seconds, own_epochs = given.costs[name]
        share = "" if math.isnan(own_epochs / epochs) else f"{100 * own_epochs / epochs:.1f}"
        rows.append((name, number_format.cost(own_epochs), share, number_format.cost(own_seconds)))
    caption = (
        "retain-epochs = rows read per model, in passes over the retained rows (those for batch statistics included); "
        "share = of exact retraining; seconds of all models together, with compiling."
    )
    table = Table("", caption, ("approach", "retain-epochs", "share (%)", "seconds"), tuple(rows))
    return Section("epsilon_costs", "What does it cost?", "The paper allows about 5 % of retraining.", table)


def describe(given: EpsilonInputs, settings: Settings) -> list[tuple[str, str]]:
    """What measuring these models would do."""
    group = given.modes[RUNNING]
    shape = group.retrained.shape
    of = f"{shape[2]} classes" if len(shape) == 3 else "a regression"
    return [
        ("samples", f"{shape[0]:,} of {of}"),
        ("retrained", f"{shape[1]} models"),
        *[(name, f"{values.shape[1]} models") for name, values in group.approaches.items()],
        ("accuracies", ", ".join(group.accuracies) or "not known"),
        *[("note", note) for note in given.notes],
    ]


def roles(settings: Settings) -> tuple[str, ...]:
    """The roles of a run folder that it needs: `unlearned` stands for all of unlearn.methods."""
    return ("original", "retrained", "unlearned")


def check(settings: Settings) -> None:
    """Refuses nothing: ranges and choices say it all."""


# The approaches of the paper, which stand for `all`.
PUBLISHED = (
    "finetune", "poison", "poison_full", "hybrid", "prune", "prune_last_layer", "prune_complex", "activation_reset",
)  # fmt: skip


def narrow(settings: Settings) -> Settings:
    """The settings with only the models that are needed; `all` stands for the paper's approaches."""
    targets = dataclasses.replace(settings.targets, population_in=False, shadow_origin=False, reference=0, snapshots=0)
    methods = PUBLISHED if "all" in settings.unlearn.methods else settings.unlearn.methods
    unlearn = dataclasses.replace(settings.unlearn, methods=methods)
    return dataclasses.replace(settings, targets=targets, unlearn=unlearn)


def check_run(run: RecordedRun) -> None:
    """Refuses runs without many models of one request.

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
