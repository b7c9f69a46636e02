"""Approximate unlearning of a run: every method on all forget sets at once, recorded as roles `unlearned:METHOD`.

    shadows, originals, exact retrains (reused) -> one population per method -> logits/unlearned:METHOD.npy

Accuracies are reported next to those of the originals (nothing unlearned) and of exact retraining (the goal).
"""

import dataclasses
import itertools
import time
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, escapes, progress, records, store
from jaxunlearn.metrics import headers
from jaxunlearn.metrics import utility as utilities
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import closeness, variance
from jaxunlearn.report import cells, number_format, sentences, tables
from jaxunlearn.runs import execution, experiments, roles, splits
from jaxunlearn.runs.execution import members, unlearning
from jaxunlearn.runs.roles import audited_models, unlearned_models, variants
from jaxunlearn.runs.verbs import account, targets
from jaxunlearn.runs.verbs.role_utility import (
    Utility,
    diverged_sets,
    files_of_roles,
    reference_utility,
    utility,
)
from jaxunlearn.unlearn.base import entries
from jaxunlearn.unlearn.wrappers import wrappers

REFERENCE_ROLES = ("original", "retrained")
COLUMNS = ("gap", "retain_epochs", "seconds")


class UnlearningSummary(NamedTuple):
    """Utilities of all roles; also unlearned.json.

    Attributes:
      roles: name -> utility, the originals and exact retrains first.
      seconds: of this call.
      design: which originals the models of forget sets come from.
    """

    roles: dict[str, Utility]
    seconds: float
    design: records.Design


def check(
    experiment: experiments.Experiment, reporter: progress.Reporter | None = None
) -> tuple[experiments.Experiment, tuple[variants.MethodConfig, ...]]:
    """Checks settings before a run folder is touched; notes which methods of `all` are left out.

    Returns:
      The experiment with `all` in unlearn.methods expanded to the methods for this kind of data that this network can
      run, and the requested variants.

    Raises:
      ConfigError: unknown methods, hyperparameters or sweeps; an explicitly named method that this network cannot run,
        or that is for data of another kind.
    """
    audited_models.check(experiment)
    options, split = experiment.settings.unlearn, splits.draw(experiment)
    explicit_names = {wrappers.split(name)[0] for name in options.methods}
    configs: list[variants.MethodConfig] = []
    skipped_reasons: dict[str, str] = {}
    for method, group in itertools.groupby(
        variants.requested_configs(experiment.settings), key=lambda config: config.method
    ):
        method_configs = list(group)
        is_named = wrappers.split(method)[0] in explicit_names
        if not is_named and not entries.fits(method_configs[0].entry, experiment.dataset.vocabulary):
            continue
        try:
            unlearned_models.check_kind(experiment, method_configs[0])
            for variant in method_configs:
                unlearned_models.build_method(variant)
            unlearning.trace(experiment, split, method_configs[0])
        except errors.ConfigError as error:
            if is_named:
                raise
            skipped_reasons[method] = str(error)
            continue
        configs += method_configs
    for method, reason in skipped_reasons.items():
        (reporter or progress.Reporter()).note(f"{method} is left out: {reason}")
    methods = tuple(dict.fromkeys(config.method for config in configs))
    settings = dataclasses.replace(experiment.settings, unlearn=dataclasses.replace(options, methods=methods))
    return experiment._replace(settings=settings), tuple(configs)


def trace(experiment: experiments.Experiment, configs: tuple[variants.MethodConfig, ...]) -> None:
    """Raises a ConfigError for a method that this network cannot run."""
    split = splits.draw(experiment)
    for variant in {config.method: config for config in configs}.values():
        unlearning.trace(experiment, split, variant)


def run(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    configs: tuple[variants.MethodConfig, ...],
) -> UnlearningSummary:
    """Trains missing shadows, originals and retrains, then computes every variant (`make`).

    Args:
      run_folder: the run folder.
      reporter: for progress.
      experiment: of checked settings.
      configs: the variants, from `check`.
    """
    start_time = time.monotonic()
    claim(run_folder, experiment, configs)
    targets.run(run_folder, reporter, experiment, REFERENCE_ROLES)
    return make(run_folder, reporter, experiment, configs, start_time)


def claim(
    run_folder: store.Run, experiment: experiments.Experiment, configs: tuple[variants.MethodConfig, ...]
) -> list[roles.RoleSpec]:
    """Claims the stages of all variants, before any training whose results would not fit them.

    Raises:
      StoreError: the folder holds one of them computed with other settings (from other originals, say).
    """
    split = splits.obtain(run_folder, experiment)
    specs = [unlearned_models.describe(experiment, split, variant) for variant in configs]
    for spec in specs:
        roles.claim(run_folder, unlearned_models.submodel_spec(spec))
    return specs


def make(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    configs: tuple[variants.MethodConfig, ...],
    start_time: float | None = None,
) -> UnlearningSummary:
    """Unlearns and records every missing variant, in a folder whose originals and retrains are trained.

    Args:
      run_folder: the run folder.
      reporter: for progress.
      experiment: of checked settings.
      configs: the variants, from `check`.
      start_time: a `time.monotonic()` from which the summary's seconds count; None = now.

    Raises:
      StoreError: not enough disk space, or the folder holds results of other settings.
    """
    start_time = time.monotonic() if start_time is None else start_time
    split = splits.obtain(run_folder, experiment)
    unlearning_run = unlearning.load_originals(run_folder, reporter, experiment, split)
    specs = claim(run_folder, experiment, configs)
    submodel_specs = [unlearned_models.submodel_spec(spec) for spec in specs]
    store.files.require_space(run_folder.root, sum(roles.missing_bytes(run_folder, spec) for spec in submodel_specs))
    utilities_by_role = {name: reference_utility(run_folder, experiment, split, name) for name in REFERENCE_ROLES}
    for _, group in itertools.groupby(zip(configs, specs, strict=True), key=lambda pair: pair[0].method):
        method_pairs = list(group)
        recorded_roles = execution.unlearn(unlearning_run, [spec for _, spec in method_pairs])
        for variant, spec in method_pairs:
            utilities_by_role[variant.role] = _summarise(
                run_folder, reporter, spec, split, recorded_roles.logits[spec.name]
            )
    design = audited_models.design(experiment.settings, len(np.asarray(split.forget)))
    summary = UnlearningSummary(utilities_by_role, time.monotonic() - start_time, design)
    store.files.write_json(run_folder.path("unlearned.json"), _merge_earlier(run_folder, plain(summary)))
    return summary


def _summarise(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, split: records.Split, values: np.ndarray
) -> Utility:  # fmt: skip
    """Computes utility and cost of a recorded role."""
    assert spec.method is not None and spec.variant is not None
    submodel_spec = unlearned_models.submodel_spec(spec)
    diverged = diverged_sets(run_folder, spec)
    if diverged:
        messages = (f"forget set {set_id} diverged and was frozen at step {step}" for set_id, step in diverged.items())
        reporter.note(f"{spec.name}: {'; '.join(messages)}")
    finished_chunks, _ = store.chunks.finished(members.folder_of(run_folder, submodel_spec), spec.fingerprint)
    return Utility(
        metrics=utility(spec.experiment, split, values, spec.rows, diverged),
        diverged=diverged,
        seconds=float(sum(chunk.manifest["seconds"] for chunk in finished_chunks)),
        retain_epochs=account.retain_epochs(spec.experiment, split, spec.method),
        hyperparameters=spec.variant.hyperparameters,
        moved=float(np.mean([escapes.number(value) for chunk in finished_chunks for value in chunk.manifest["moved"]])),
    )


def _merge_earlier(run_folder: store.Run, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of unlearned.json: this call's roles, and those of earlier calls whose logits still exist."""
    try:
        earlier_roles = store.files.read_json(run_folder.path("unlearned.json")).get("roles", {})
    except (FileNotFoundError, errors.StoreError):
        earlier_roles = {}
    recorded_roles = {
        name: facts for name, facts in earlier_roles.items() if run_folder.path("logits", f"{name}.npy").exists()
    }
    return {**results, "roles": {**recorded_roles, **results["roles"]}}


def plain(summary: UnlearningSummary) -> dict[str, Any]:
    """Returns the content of unlearned.json for this call."""
    roles_by_name = {}
    for name, role_utility in summary.roles.items():
        values = role_utility._asdict()
        names = {"numbers": values.pop("metrics"), "chosen": values.pop("hyperparameters")}
        roles_by_name[name] = {**names, **values}
    return {"roles": roles_by_name, "seconds": summary.seconds}


def gap(role_utility: Utility, retrained: Utility) -> float:
    """Returns the mean absolute difference to exact retraining.

    Over UA, RA and TA, as a fraction; for texts over losses, in nats.
    """
    return utilities.gap(role_utility.metrics, retrained.metrics, tuple(retrained.metrics))


def compare_closeness(summary: UnlearningSummary) -> closeness.Closeness:
    """Compares every method, and doing nothing, with exact retraining, in UA, RA and TA, or in losses of texts."""
    methods = {
        display_name(name): role_utility.metrics
        for name, role_utility in summary.roles.items()
        if name not in REFERENCE_ROLES
    }
    retrained_metrics = summary.roles["retrained"].metrics
    return closeness.compare(
        methods, retrained_metrics, summary.roles["original"].metrics, summary.design, tuple(retrained_metrics)
    )


def table(summary: UnlearningSummary) -> cells.Table:
    """Returns one row per role; exact retraining, the goal, is second."""
    retrained = summary.roles["retrained"]
    rows: list[tuple[cells.Cell, ...]] = []
    for name, role_utility in summary.roles.items():
        half_intervals = [
            intervals.with_half_width(finding) for finding in findings(name, role_utility, summary.design)
        ]
        gap_to_retrained = "" if name in REFERENCE_ROLES else gap(role_utility, retrained)
        rows.append(
            (
                display_name(name),
                *half_intervals,
                gap_to_retrained,
                number_format.cost(role_utility.retain_epochs),
                number_format.cost(role_utility.seconds),
            )
        )
    caption = (
        f"{metrics_text(summary)}. {sentences.plus_minus(summary.design)} The goal is to equal the retrained models; "
        "gap = mean absolute difference to them. epochs = rows read, in passes over the retained samples; seconds = "
        "all forget sets together, including compilation."
    )
    columns = (*retrained.metrics, *COLUMNS)
    return cells.Table("", caption, ("role", *headers(columns)), tuple(rows), (*REFERENCE_ROLES, *closeness.YARDSTICKS))


def is_language_model(summary: UnlearningSummary) -> bool:
    """Returns whether the models are language models."""
    return utilities.LOSSES[0] in summary.roles["retrained"].metrics


def metrics_text(summary: UnlearningSummary) -> str:
    """Returns what the metrics of the roles are, for captions."""
    return utilities.LOSSES_TEXT if is_language_model(summary) else utilities.ACCURACIES_TEXT


def variance_table(summary: UnlearningSummary) -> cells.Table | None:
    """Returns the standard deviation by each source that the design separates; None if it separates none."""
    source_names = list(variance.separable_sources(summary.design).values())
    if not source_names:
        return None

    def deviations(values: np.ndarray) -> str:
        return sentences.std_cell(variance.deviations(variance.fit(values, summary.design), summary.design))

    rows = tuple(
        (display_name(name), *map(deviations, role_utility.metrics.values()))
        for name, role_utility in summary.roles.items()
    )
    source_text = " | ".join(f"sd {name}" for name in source_names)
    caption = f"Standard deviations [{source_text}] of {sentences.units(summary.design)}."
    columns = tuple(summary.roles["retrained"].metrics)
    return cells.Table("Where the ± comes from", caption, ("role", *headers(columns)), rows)


def findings(name: str, role_utility: Utility, design: records.Design) -> tuple[records.Finding, ...]:
    """Returns UA, RA and TA of a role with the intervals of their design."""
    return tuple(
        variance.mean(values, design, metric=metric, of=name, against="forget sets")
        for metric, values in role_utility.metrics.items()
    )


def display_name(role: str) -> str:
    """Returns a role's name for tables: that of the method."""
    return role.removeprefix(variants.PREFIX)


def text(summary: UnlearningSummary) -> str:
    """Returns the tables for the terminal."""
    diverged = [
        f"{name}: {len(role_utility.diverged)} member(s) diverged and were frozen"
        for name, role_utility in summary.roles.items()
        if role_utility.diverged
    ]
    table_texts = [tables.text(table(summary), percent=not is_language_model(summary))]
    source_table = variance_table(summary)
    table_texts += [tables.text(source_table)] if source_table is not None else []
    return "\n".join([*table_texts, *diverged, f"total {progress.duration(summary.seconds)}"])


def files_text(run_folder: store.Run, configs: tuple[variants.MethodConfig, ...]) -> str:
    """Returns a list of the result files."""
    names = [config.role for config in configs]
    return files_of_roles(run_folder, names, "unlearned.json  per role: utility, cost, hyperparameters")
