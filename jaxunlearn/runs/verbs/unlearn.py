"""Approximate unlearning of a run: every method on all forget sets at once, recorded as roles `unlearned:METHOD`.

    shadows, originals, exact retrains (reused) -> one population per method -> logits/unlearned:METHOD.npy

Accuracies stand beside those of the originals (nothing unlearned) and of exact retraining (the goal).
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
from jaxunlearn.runs import answers, execution, experiments, roles, splits
from jaxunlearn.runs.execution import members, recording, unlearning
from jaxunlearn.runs.roles import audited, unlearned, variants
from jaxunlearn.runs.verbs import account, targets
from jaxunlearn.unlearn.base import entries
from jaxunlearn.unlearn.wrappers import wrappers

NEEDED = ("original", "retrained")
COLUMNS = ("gap", "retain_epochs", "seconds")


class Utility(NamedTuple):
    """What a role of R models is good for, and what it cost.

    Attributes:
      numbers: UA, RA and TA, or losses of texts -> [R], see `metrics.utility`; NaN for diverged members.
      seconds: of making all R models, compiling included; NaN where it was not measured.
      retain_epochs: rows read, in passes over the retained rows.
      diverged: forget set -> step at which its model was frozen.
      chosen: hyperparameters.
      moved: relative change of the parameters, mean over members: 0 = the original model.
    """

    metrics: dict[str, np.ndarray]
    seconds: float = float("nan")
    retain_epochs: float = float("nan")
    diverged: dict[int, int] = {}
    chosen: dict[str, Any] = {}
    moved: float = float("nan")


class Summary(NamedTuple):
    """All roles: the originals and exact retrains first; also unlearned.json. `design`: whose originals they are of."""

    roles: dict[str, Utility]
    seconds: float
    design: records.Design


def check(
    experiment: experiments.Experiment, reporter: progress.Reporter | None = None
) -> tuple[experiments.Experiment, tuple[variants.MethodConfig, ...]]:
    """Refuses impossible settings before a run folder is touched; notes which methods of `all` are left out.

    Returns:
      The experiment with `all` in unlearn.methods spelled out as the methods for this kind of data that this network
      can run (those left out are named), and the variants asked for.

    Raises:
      ConfigError: unknown methods, hyperparameters or sweeps; a method named one by one that this network cannot run,
        or that is for data of another kind.
    """
    audited.check(experiment)
    chosen, split = experiment.settings.unlearn, splits.draw(experiment)
    by_name = {wrappers.split(name)[0] for name in chosen.methods}
    kept: list[variants.MethodConfig] = []
    left_out: dict[str, str] = {}
    for method, group in itertools.groupby(variants.wanted(experiment.settings), key=lambda one: one.method):
        same = list(group)
        is_named = wrappers.split(method)[0] in by_name
        if not is_named and not entries.fits(same[0].entry, experiment.dataset.vocabulary):
            continue
        try:
            unlearned.check_kind(experiment, same[0])
            for variant in same:
                unlearned.built(variant)
            unlearning.trace(experiment, split, same[0])
        except errors.ConfigError as error:
            if is_named:
                raise
            left_out[method] = str(error)
            continue
        kept += same
    for method, reason in left_out.items():
        (reporter or progress.Reporter()).note(f"{method} is left out: {reason}")
    methods = tuple(dict.fromkeys(one.method for one in kept))
    settings = dataclasses.replace(experiment.settings, unlearn=dataclasses.replace(chosen, methods=methods))
    return experiment._replace(settings=settings), tuple(kept)


def trace(experiment: experiments.Experiment, asked: tuple[variants.MethodConfig, ...]) -> None:
    """Raises a ConfigError for a method that this network cannot run."""
    split = splits.draw(experiment)
    for variant in {one.method: one for one in asked}.values():
        unlearning.trace(experiment, split, variant)


def run(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    asked: tuple[variants.MethodConfig, ...],
) -> Summary:
    """Trains what is missing of shadows, originals and retrains, then makes every variant (`make`)."""
    begun = time.monotonic()
    claim(run_folder, experiment, asked)
    targets.run(run_folder, reporter, experiment, NEEDED)
    return make(run_folder, reporter, experiment, asked, begun)


def claim(
    run_folder: store.Run, experiment: experiments.Experiment, asked: tuple[variants.MethodConfig, ...]
) -> list[roles.RoleSpec]:
    """Claims the stages of all variants, before anything is trained that they would not fit to.

    Raises:
      StoreError: the folder holds one of them made with other settings (from other originals, say).
    """
    split = splits.obtain(run_folder, experiment)
    specs = [unlearned.describe(experiment, split, variant) for variant in asked]
    for spec in specs:
        roles.claim(run_folder, unlearned.parts(spec))
    return specs


def make(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    asked: tuple[variants.MethodConfig, ...],
    begun: float | None = None,
) -> Summary:
    """Unlearns and records every variant that is missing, in a folder whose originals and retrains are trained.

    The summary's seconds count from `begun` (a `time.monotonic()`; None = now).

    Raises:
      StoreError: not enough disk space, or the folder holds results of other settings.
    """
    begun = time.monotonic() if begun is None else begun
    split = splits.obtain(run_folder, experiment)
    world = unlearning.load_originals(run_folder, reporter, experiment, split)
    specs = claim(run_folder, experiment, asked)
    trained = [unlearned.parts(spec) for spec in specs]
    store.files.require_space(run_folder.root, sum(roles.missing_bytes(run_folder, spec) for spec in trained))
    found = {name: exact(run_folder, experiment, split, name) for name in NEEDED}
    for _, group in itertools.groupby(zip(asked, specs, strict=True), key=lambda pair: pair[0].method):
        same = list(group)
        made = execution.unlearn(world, [spec for _, spec in same])
        for variant, spec in same:
            found[variant.role] = _summarise(run_folder, reporter, spec, split, made.logits[spec.name])
    design = audited.design(experiment.settings, len(np.asarray(split.forget)))
    summary = Summary(found, time.monotonic() - begun, design)
    store.files.write_json(run_folder.path("unlearned.json"), _with_others(run_folder, plain(summary)))
    return summary


def _summarise(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, split: records.Split, values: np.ndarray
) -> Utility:  # fmt: skip
    """What a made role is good for, and what it cost."""
    assert spec.method is not None and spec.variant is not None
    trained = unlearned.parts(spec)
    diverged = diverged_sets(run_folder, spec)
    if diverged:
        frozen = (f"forget set {number} diverged and was frozen at step {step}" for number, step in diverged.items())
        reporter.note(f"{spec.name}: {'; '.join(frozen)}")
    whole, _ = store.chunks.finished(members.folder_of(run_folder, trained), spec.fingerprint)
    return Utility(
        metrics=utility(spec.experiment, split, values, spec.rows, diverged),
        diverged=diverged,
        seconds=float(sum(chunk.manifest["seconds"] for chunk in whole)),
        retain_epochs=account.retain_epochs(spec.experiment, split, spec.method),
        chosen=spec.variant.hyperparameters,
        moved=float(np.mean([escapes.number(value) for chunk in whole for value in chunk.manifest["moved"]])),
    )


def diverged_sets(run_folder: store.Run, spec: roles.RoleSpec) -> dict[int, int]:
    """Forget set -> step at which its model was frozen; one diverged part leaves an ensemble without an answer."""
    assert spec.method is not None
    frozen = members.diverged(run_folder, unlearned.parts(spec))
    return {member // spec.method.ensemble: step for member, step in frozen.items()}


def exact(run_folder: store.Run, experiment: experiments.Experiment, split: records.Split, name: str) -> Utility:
    """The originals or exact retrains, as every method is seen; what the retrains cost is theirs alone."""
    spec = roles.claim(run_folder, audited.describe(experiment, split, name))
    recorded = recording.read(run_folder, spec)
    sets = len(np.asarray(split.forget))
    diverged = members.diverged(run_folder, spec)
    values = recorded
    if name == "original":
        own = audited.original_of(experiment.settings, sets)
        values = recorded[own]
        diverged = {number: diverged[one] for number, one in enumerate(own.tolist()) if one in diverged}
    found = Utility(utility(experiment, split, values, spec.rows, diverged), diverged=diverged)
    if name == "original":
        return found._replace(seconds=0.0, retain_epochs=0.0)
    epochs = spec.experiment.settings.train.epochs
    whole, _ = store.chunks.finished(members.folder_of(run_folder, spec), spec.fingerprint)
    is_exact = sum(len(chunk.member_ids) for chunk in whole) == sets
    seconds = sum(float(chunk.manifest.get("seconds", np.nan)) for chunk in whole) if is_exact else float("nan")
    return found._replace(seconds=seconds, retain_epochs=float(epochs))


def utility(
    experiment: experiments.Experiment,
    split: records.Split,
    values: np.ndarray,
    rows: np.ndarray,
    diverged: dict[int, int],
) -> dict[str, np.ndarray]:
    """UA, RA and TA of R models, each on its own forget set, from their logits [R, n, C] on the sorted `rows`.

    Of language models their losses there, see `metrics.utility.losses`.
    """
    labels = np.asarray(experiment.dataset.labels)
    is_subclass = experiment.settings.split.forget.kind == "subclass" and experiment.dataset.groups is not None
    parts = utilities.parts_of(split, np.asarray(experiment.dataset.groups if is_subclass else labels), rows)
    dataset, of_texts = experiment.dataset, bool(experiment.dataset.vocabulary)
    numbers = {name: np.full(len(values), np.nan) for name in (utilities.LOSSES if of_texts else utilities.GAP)}
    for member, line in enumerate(values):
        if member not in diverged:
            own_parts = parts.forget[member], parts.retain[member], parts.test[member]
            own = (
                utilities.losses(answers.losses(dataset, line, rows), *own_parts)
                if of_texts
                else utilities.utility(answers.right(dataset, line, rows), *own_parts)
            )
            for name, value in own.items():
                numbers[name][member] = value
    return numbers


def _with_others(run_folder: store.Run, told: dict[str, Any]) -> dict[str, Any]:
    """What unlearned.json will hold: this call's roles, and those of earlier calls whose logits are still there."""
    try:
        before = store.files.read_json(run_folder.path("unlearned.json")).get("roles", {})
    except (FileNotFoundError, errors.StoreError):
        before = {}
    kept = {name: one for name, one in before.items() if run_folder.path("logits", f"{name}.npy").exists()}
    return {**told, "roles": {**kept, **told["roles"]}}


def plain(summary: Summary) -> dict[str, Any]:
    """What unlearned.json tells of this call."""
    return {"roles": {name: one._asdict() for name, one in summary.roles.items()}, "seconds": summary.seconds}


def gap(one: Utility, exact: Utility) -> float:
    """Mean absolute difference to exact retraining over UA, RA and TA, as a fraction; of texts over losses, in nats."""
    return utilities.gap(one.metrics, exact.metrics, tuple(exact.metrics))


def closest(summary: Summary) -> closeness.Closeness:
    """Compares every method, and doing nothing, with exact retraining, in UA, RA and TA, or in losses of texts."""
    methods = {shown(name): one.metrics for name, one in summary.roles.items() if name not in NEEDED}
    goal = summary.roles["retrained"].metrics
    return closeness.compare(methods, goal, summary.roles["original"].metrics, summary.design, tuple(goal))


def table(summary: Summary) -> cells.Table:
    """One row per role; exact retraining, the goal, second."""
    goal = summary.roles["retrained"]
    rows: list[tuple[cells.Cell, ...]] = []
    for name, one in summary.roles.items():
        found = [intervals.half(finding) for finding in findings(name, one, summary.design)]
        apart = "" if name in NEEDED else gap(one, goal)
        rows.append(
            (shown(name), *found, apart, number_format.cost(one.retain_epochs), number_format.cost(one.seconds))
        )
    meaning = (
        "Losses in nats per token, on texts to be forgotten, retained and held out."
        if of_texts(summary)
        else "UA = 1 - accuracy on the forget set, RA = accuracy on retained, TA = on test samples."
    )
    caption = (
        f"{meaning} {sentences.plus_minus(summary.design)} The goal is to equal the retrained models; gap = mean "
        "absolute "
        "difference to them. epochs = rows read, in passes over the retained samples; seconds = all forget sets "
        "together, with compiling."
    )
    columns = (*goal.metrics, *COLUMNS)
    return cells.Table("", caption, ("role", *headers(columns)), tuple(rows), (*NEEDED, *closeness.YARDSTICKS))


def of_texts(summary: Summary) -> bool:
    """Whether the models are language models."""
    return utilities.LOSSES[0] in summary.roles["retrained"].metrics


def sources(summary: Summary) -> cells.Table | None:
    """The standard deviation by each source that the design tells apart; None where it tells none."""
    named = list(variance.told_apart(summary.design).values())
    if not named:
        return None
    rows = tuple(
        (shown(name), *(sentences.split(variance.deviations(variance.fit(values, summary.design), summary.design))
                        for values in one.metrics.values()))
        for name, one in summary.roles.items()
    )  # fmt: skip
    caption = (
        f"Standard deviations [{' | '.join(f'sd {name}' for name in named)}] of {sentences.units(summary.design)}."
    )
    columns = tuple(summary.roles["retrained"].metrics)
    return cells.Table("Where the ± comes from", caption, ("role", *headers(columns)), rows)


def findings(name: str, one: Utility, design: records.Design) -> tuple[records.Finding, ...]:
    """UA, RA and TA of a role with the interval of their design."""
    return tuple(
        variance.mean(values, design, metric=metric, of=name, against="forget sets")
        for metric, values in one.metrics.items()
    )


def shown(role: str) -> str:
    """A role's name for tables: the method's."""
    return role.removeprefix(variants.PREFIX)


def text(summary: Summary) -> str:
    """The tables for the terminal."""
    diverged = [f"{name}: {len(one.diverged)} member(s) diverged and were frozen" for name, one in summary.roles.items()
                if one.diverged]  # fmt: skip
    made = [tables.text(table(summary), percent=not of_texts(summary))]
    split = sources(summary)
    made += [tables.text(split)] if split is not None else []
    return "\n".join([*made, *diverged, f"in all {progress.duration(summary.seconds)}"])


def files_text(run_folder: store.Run, asked: tuple[variants.MethodConfig, ...]) -> str:
    """Where the results are."""
    listed = "\n".join(f"  logits/{one.role}.npy  populations/{one.role}/" for one in asked[:3])
    more = f"\n  ... and {len(asked) - 3} more" if len(asked) > 3 else ""
    return f"files in {run_folder.root}:\n{listed}{more}\n  unlearned.json  per role: utility, cost, hyperparameters"
