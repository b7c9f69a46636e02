"""The door of a run folder: original, exact retraining and every unlearning method, on all forget sets at once.

    logits/ROLE.npy -> measures.measure -> evaluation/ROLE.npz, evaluation.json -> report/evaluation.html, tables

Shadows, originals, retrains and methods that are missing are made first. Thresholds and attacks calibrate on the
population rows; TA and all numbers called test are of the test rows alone.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, keys, population, progress, records, store, trees
from jaxunlearn.protocols import opening, recording, splits, targets, workbench
from jaxunlearn.protocols.audit import publishing
from jaxunlearn.protocols.audit.presenting import timed
from jaxunlearn.protocols.evaluation import measures, presenting
from jaxunlearn.protocols.evaluation.measures import Choices, Numbers, Parts
from jaxunlearn.protocols.unlearned import listing, runs, variants
from jaxunlearn.settings import Settings, to_dict

STAGE_VERSION = 3


class World(NamedTuple):
    """What every role is measured against.

    Attributes:
      run, reporter, bench: as everywhere; `choices`: what is measured.
      columns: [n] places in the recorded rows that have a part; `rows`: [n] of the data set; `labels`: [n]; `parts`:
        [R, n] each.
      untrained: [n, C] logits of an untrained network on rows to be forgotten, NaN elsewhere; or None.
      facts: what decides about all numbers beside a role's logits.
    """

    run: store.Run
    reporter: progress.Reporter
    bench: workbench.Workbench
    choices: Choices
    columns: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    parts: Parts
    untrained: np.ndarray | None
    facts: dict[str, Any]


def from_config(
    chosen: Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:
    """Evaluates a run folder. Returns what the terminal shows.

    Raises:
      UserError: anything the user can mend, before any training.
    """
    bench, asked = check(workbench.prepare(chosen))
    if dry_run:
        return f"{listing.plan(bench, asked)}\n\nthen evaluated: {', '.join(choices_of(bench.settings).groups)}"
    with opening.opened(bench, chosen, workdir, overwrite, overrides) as (run, reporter, bench, plain, begun):
        found, said = evaluate(run, reporter, bench, asked)
        store.files.write_json(run.path("evaluation.json"), presenting.plain(found))
        pieces = presenting.pieces(found)
        answer = presenting.in_words(found)
        facts = {
            "config": f"{chosen.data.name}, {chosen.model.name}, seed {chosen.seed}",
            "forget sets": f"{found.sets} ({chosen.split.forget.kind})",
            "non-conformity": f"{chosen.evaluate.score}, rank {chosen.evaluate.rank}",
            "MIACR": f"{chosen.evaluate.miacr_attack}, alpha {chosen.evaluate.miacr_alpha:g}",
            "compat": chosen.compat.evaluate,
            **timed(time.monotonic() - begun, store.versions()),
        }
        findings = [one for piece in pieces for one in piece.findings]
        title = f"Evaluation of {chosen.data.name}"
        files = publishing.publish(run, title, answer, pieces, facts, findings, plain, presenting.STEM)
        notes = "".join(f"\nnote: {one}" for one in said)
        return f"{answer}\n\n{presenting.text(pieces)}{notes}\n\n{files}\n{presenting.files(found)}{presenting.JOINS}"


def choices_of(settings: Settings) -> Choices:
    """What is measured, and how."""
    groups = measures.groups_of(settings.evaluate.metrics)
    return Choices(settings.evaluate, groups, settings.compat.evaluate, settings.seed)


def check(bench: workbench.Workbench) -> tuple[workbench.Workbench, tuple[variants.Variant, ...]]:
    """Refuses impossible evaluations before a run folder is touched.

    Returns:
      The workbench with all methods named, and their variants.

    Raises:
      ConfigError, DataError: settings, methods, or calibration rows that do not do.
    """
    measures.check_choices(bench.settings.evaluate)
    splits.require_units(bench)
    split = splits.draw(bench)
    rows = splits.recorded_rows(split)
    labels = np.asarray(bench.dataset.labels)[rows]
    measures.check_calibration(labels, parts_of(bench, split, rows), choices_of(bench.settings))
    return runs.check(bench)


def evaluate(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, asked: tuple[variants.Variant, ...]
) -> tuple[presenting.Evaluation, list[str]]:
    """Makes what is missing, then measures every role. Also notes about calibration."""
    summary = runs.run(run, reporter, bench, asked)
    world = open_world(run, reporter, bench)
    said = measures.check_calibration(world.labels, world.parts, world.choices)
    goal = logits_of(world, "retrained")
    numbers: dict[str, Numbers] = {}
    for name in summary.roles:
        numbers[name] = measure_role(world, name, goal)
    costs = {name: (one.seconds, one.retain_epochs) for name, one in summary.roles.items()}
    diverged = {name: sorted(one.diverged) for name, one in summary.roles.items() if one.diverged}
    settings = bench.settings.evaluate
    found = presenting.Evaluation(
        {runs.shown(name): one for name, one in numbers.items()}, settings.alphas, settings.headline,
        len(world.parts.forget), {runs.shown(name): cost for name, cost in costs.items()},
        {runs.shown(name): sets for name, sets in diverged.items()}, tuple(bench.dataset.class_names),
    )  # fmt: skip
    return found, said


def open_world(run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench) -> World:
    """What every role of a trained run folder is measured against."""
    split, fingerprint = splits.obtain(run, bench)
    rows = splits.recorded_rows(split)
    parts = parts_of(bench, split, rows)
    columns = np.flatnonzero(np.any([part.any(0) for part in parts], axis=0))
    parts = Parts(*(part[:, columns] for part in parts))
    choices = choices_of(bench.settings)
    untrained = (
        _untrained(bench, rows[columns], np.any(parts.forget, axis=0)) if "distances" in choices.groups else None
    )
    settings = bench.settings
    facts = {"records": settings.compat.records, "split": fingerprint, "compat": settings.compat.evaluate,
             "evaluate": to_dict(settings.evaluate),
             "seed": settings.seed, "version": STAGE_VERSION}  # fmt: skip
    labels = np.asarray(bench.dataset.labels, np.int64)[rows[columns]]
    return World(run, reporter, bench, choices, columns, rows[columns], labels, parts, untrained, facts)


def parts_of(bench: workbench.Workbench, split: records.Split, rows: np.ndarray) -> Parts:
    """Who plays which part for each forget set, [R, n] on the sorted `rows`.

    Held-out rows of a class (or subclass) of which no row is retained are judged apart.
    """
    forget = np.asarray(split.forget)[:, rows]
    target, test, known = (np.isin(rows, np.asarray(part)) for part in (split.target, split.test, split.population))
    kinds = np.asarray(bench.dataset.labels)[rows]
    if bench.settings.split.forget.kind == "subclass" and bench.dataset.groups is not None:
        kinds = np.asarray(bench.dataset.groups)[rows]
    retain = target & ~forget
    gone = np.stack([
        np.isin(kinds, np.setdiff1d(kinds[own], kinds[kept])) for own, kept in zip(forget, retain, strict=True)
    ])  # fmt: skip
    return Parts(forget, retain, test & ~gone, known & ~gone, test & gone, known & gone)


def logits_of(world: World, name: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """(logits [R, n, C] on the world's columns, which models did not diverge [R], what identifies them)."""
    recorded = targets.role_logits(world.run, world.bench, name)
    sets = len(world.parts.forget)
    values = recorded.values[:, world.columns].astype(np.float32)
    if world.bench.settings.compat.records == "faithful":
        # As published: rows that were trained on are seen through the training augmentation.
        (view,) = recording.view_names(1)
        trained = (world.parts.forget | world.parts.retain).any(0)
        seen = targets.role_logits(world.run, world.bench, name, view).values
        values[:, trained] = seen[:, world.columns[trained]]
    alive = np.asarray([number not in recorded.diverged for number in range(len(values))])
    if len(values) == 1 < sets:  # one original for all forget sets
        values, alive = np.repeat(values, sets, 0), np.repeat(alive, sets)
    for number in np.flatnonzero(alive):
        if not np.isfinite(values[number]).all():
            raise errors.DataError(
                f"the recorded logits of {name}, member {number}, hold NaN or infinite values although it did not "
                f"diverge. Delete {world.run.path('logits')} and run the same command again."
            )
    facts = store.files.read_json(world.run.path("logits", f"{name}.json"))["facts"]
    return values, alive, facts


def measure_role(world: World, name: str, goal: tuple[np.ndarray, np.ndarray, Any]) -> Numbers:
    """A role's numbers, from evaluation/ROLE.npz if they were measured from the same logits by the same settings."""
    values, alive, own = logits_of(world, name)
    facts = store.files.fingerprint({**world.facts, "logits": own, "retrained": goal[2]})
    path = world.run.path("evaluation", f"{name}.npz")
    stored = splits.stored(world.run, path, ("fingerprint",))
    if stored is not None and str(stored.pop("fingerprint")) == facts:
        if "q_hat" in stored and splits.stored(world.run, sets_path(world, name), ("covered", "size")) is None:
            save_sets(world, name, values, stored)
        return dict(stored)
    world.reporter.say(f"measuring {name}")
    retrained = np.where(goal[1][:, None, None], goal[0], np.nan)
    found = measures.measure(
        values, world.labels, world.parts, world.choices, retrained, world.untrained, alive
    )  # fmt: skip
    if "q_hat" in found:
        save_sets(world, name, values, found)
    store.files.write_npz(path, fingerprint=np.asarray(facts), **found)
    return found


def sets_path(world: World, name: str) -> Path:
    """Where the prediction sets of a role are kept."""
    return world.run.path("evaluation", f"sets_{name}.npz")


def save_sets(world: World, name: str, values: np.ndarray, found: Numbers) -> None:
    """Writes the prediction sets of a role: covered, size [R, alphas, n], beside rows, labels and forgotten."""
    sets = measures.sets_of(values, world.labels, world.parts, world.choices, found)
    store.files.write_npz(
        sets_path(world, name), rows=world.rows, labels=world.labels, forgotten=world.parts.forget,
        alphas=np.asarray(world.choices.settings.alphas), **sets,
    )  # fmt: skip


def _untrained(bench: workbench.Workbench, rows: np.ndarray, is_forget: np.ndarray) -> np.ndarray:
    """Logits [n, C] of one untrained network on the rows to be forgotten, NaN elsewhere."""
    state = bench.task.init(keys.stream(keys.root(bench.settings.seed), "evaluate: untrained"))
    variables = {"params": state.params, **state.statistics}
    one = trees.stack([variables])
    inputs = workbench.resident(bench).inputs
    found = np.full((len(rows), bench.dataset.num_classes), np.nan, np.float32)
    places = np.flatnonzero(is_forget)
    lifting = workbench.lifting(bench, 1)
    for where, values in population.predict(bench.task, one, inputs, rows[places], lifting):
        found[places[where]] = values[0]
    return found
