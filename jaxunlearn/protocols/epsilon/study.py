"""The study `epsilon`: many retrained and many unlearned models of ONE request, epsilon-hat of every approach.

    split.forget.repeats models each -> logits of forgotten rows in both modes of BatchNorm
      -> epsilon/running/, epsilon/batch/ (published layout) -> table, curves, report/epsilon.html

All unlearned models start from the one original model and differ by their draws, as published; retrained models differ
by everything. Models that diverged are left out.

Source: Forget with Precision. Its logits were recorded in training mode by accident (BatchNorm by batches of 100
forgotten samples); `running` is what a model in use answers, `batch` is for comparison with published numbers.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn import errors, progress, settings, store
from jaxunlearn.protocols import opening, recording, shadows, splits, target_roles, targets, workbench
from jaxunlearn.protocols.audit.presenting import Piece, timed
from jaxunlearn.protocols.epsilon import door, measures, presenting
from jaxunlearn.protocols.unlearned import account, listing, members, runs, variants
from jaxunlearn.records import Split
from jaxunlearn.report.cells import Cell, Table

# The approaches of the paper, which stand for `all`.
PUBLISHED = (
    "finetune", "poison", "poison_full", "hybrid", "prune", "prune_last_layer", "prune_complex", "activation_reset",
)  # fmt: skip
RUNNING, BATCH = "running", "batch"
GOAL = "retrained"


def from_config(
    chosen: settings.Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:
    """Runs the study; trains and unlearns first what is missing. Returns what the terminal shows.

    Raises:
      UserError: anything the user can mend, before any training.
    """
    bench, asked = check(narrowed(chosen))
    if dry_run:
        return listing.plan(bench, asked)
    with opening.opened(bench, chosen, workdir, overwrite, overrides) as (run, reporter, bench, plain, begun):
        summary = runs.run(run, reporter, bench, asked)
        found, said = measure(run, reporter, bench, asked, summary)
        main = found[RUNNING]
        store.files.write_json(run.path("epsilon.json"), {mode: presenting.plain(one) for mode, one in found.items()})
        facts = {
            "config": f"{chosen.data.name}, {chosen.model.name}, seed {chosen.seed}",
            "models": f"{chosen.split.forget.repeats} retrained, as many unlearned per approach, from one original",
            **({"left out": "; ".join(said)} if said else {}),
            **presenting.provenance(main),
            **timed(time.monotonic() - begun, store.versions()),
        }
        title = f"epsilon-hat of unlearning methods on {chosen.data.name}"
        more = [presenting.modes(main, found[BATCH])] if BATCH in found else []
        more.append(costs(summary, main))
        shown, files = door.publish(run, title, main, facts, plain, more=tuple(more))
        notes = "".join(f"\nnote: {one}" for one in (*said, *measures.notes(main)))
        kept = "\n".join(f"  epsilon/{mode}/  logits in the published layout: launch.epsilon --data={run.root}/epsilon/"
                         f"{mode}" for mode in found)  # fmt: skip
        return f"{shown}{notes}\n\n{files}\n{kept}"


def narrowed(chosen: settings.Settings) -> settings.Settings:
    """The settings with only the models that are needed; `all` stands for the paper's approaches."""
    targets_only = dataclasses.replace(
        chosen.targets, population_in=False, shadow_origin=False, reference=0, snapshots=0
    )
    methods = PUBLISHED if "all" in chosen.unlearn.methods else chosen.unlearn.methods
    unlearn = dataclasses.replace(chosen.unlearn, methods=methods)
    return dataclasses.replace(chosen, targets=targets_only, unlearn=unlearn)


def check(chosen: settings.Settings) -> tuple[workbench.Workbench, tuple[variants.Variant, ...]]:
    """Refuses impossible studies before a run folder is touched.

    Raises:
      ConfigError: more than one forget set, fewer than two models, settings or methods that do not do.
    """
    repeats = chosen.split.forget.repeats
    if repeats < 2:
        raise errors.ConfigError(
            f"the study epsilon compares many models of one request, but split.forget.repeats = {repeats}. Set "
            "--config.split.forget.count=1 --config.split.forget.repeats=64 (configs/forget_precision.py does)."
        )
    bench = workbench.prepare(chosen)
    forget = np.asarray(splits.draw(bench).forget)
    if (forget != forget[0]).any():
        raise errors.ConfigError(
            f"the study epsilon needs one forget set, but there are {len(forget) // repeats}. Set "
            "--config.split.forget.count=1 (classes: one class only)."
        )
    return runs.check(bench)


def measure(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, asked: tuple[variants.Variant, ...],
    summary: runs.Summary,
) -> tuple[dict[str, measures.Found], list[str]]:  # fmt: skip
    """Records what is missing, exports it in the published layout, and measures it.

    Returns:
      (mode of BatchNorm -> numbers, `batch` only where the network has BatchNorm; what was left out).

    Raises:
      StoreError: fewer than two retrained models, or not one approach with two models, did not diverge; damage.
    """
    split, fingerprint = splits.obtain(run, bench)
    rows = np.flatnonzero(np.asarray(split.forget)[0]).astype(np.int32)
    has_modes = account.has_statistics(bench)
    roles = {GOAL: GOAL, **{runs.shown(one.role): one.role for one in asked}}
    accuracies, recorded, said = {}, {}, []
    for name, role in roles.items():
        found_here = record(run, reporter, bench, split, fingerprint, role, rows, has_modes)
        own = _accuracies(summary.roles[role])
        # The last step of all can break a model whose losses were finite to the end.
        is_sound = np.isfinite(found_here[RUNNING]).all((1, 2)) & np.isfinite(np.stack([*own.values()])).all(0)
        if not is_sound.all():
            said.append(f"{name}: {int((~is_sound).sum())} of {len(is_sound)} models diverged and are left out")
        if is_sound.sum() >= 2:
            recorded[name] = {mode: values[is_sound] for mode, values in found_here.items()}
            accuracies[name] = {part: values[is_sound] for part, values in own.items()}
    if GOAL not in recorded or len(recorded) < 2:
        raise errors.StoreError(
            "too many models diverged: two retrained ones and an approach with two are the least. Lower the learning "
            "rates (train.learning_rate, unlearn.options) in another --workdir."
        )
    labels = np.asarray(bench.dataset.labels)[rows]
    chosen = measures.Asked(bench.settings.epsilon, bench.settings.compat.evaluate, bench.settings.seed)
    run.delete("epsilon/*")  # approaches of an earlier run are not of this one
    found = {}
    for mode in (RUNNING, BATCH):
        logits = {name: one[mode].swapaxes(0, 1) for name, one in recorded.items() if mode in one}
        if len(logits) < 2:  # no BatchNorm, or nothing but ensembles
            continue
        retrained = logits.pop(GOAL)
        known = {"" if name == GOAL else name: values for name, values in accuracies.items()}
        store.approaches.write(run.path("epsilon", mode), labels, retrained, logits, known)
        known[measures.BASELINE] = known.pop("")
        found[mode] = measures.measure(retrained, logits, labels, chosen, known)
    return found, said


def _accuracies(one: runs.Utility) -> dict[str, np.ndarray]:
    parts = {"retain": one.retain_accuracy, "forget": 1 - one.forget_error, "test": one.test_accuracy}
    return {part: np.asarray(values) for part, values in parts.items()}


def costs(summary: runs.Summary, found: measures.Found) -> Piece:
    """What every approach costs beside exact retraining; the paper allows 5 % of it."""
    exact = summary.roles[GOAL]
    rows: list[tuple[Cell, ...]] = [("retraining", runs.number(exact.retain_epochs), "", runs.number(exact.seconds))]
    by_name = {runs.shown(role): one for role, one in summary.roles.items()}
    for name in found.order:
        one = by_name[name]
        share = f"{100 * one.retain_epochs / exact.retain_epochs:.1f}"
        rows.append((name, runs.number(one.retain_epochs), share, runs.number(one.seconds)))
    caption = (
        "retain-epochs = rows read per model, in passes over the retained rows (those for batch statistics included); "
        "share = of exact retraining; seconds of all models together, with compiling."
    )
    table = Table("", caption, ("approach", "retain-epochs", "share (%)", "seconds"), tuple(rows))
    return Piece("epsilon_costs", "What does it cost?", "The paper allows about 5 % of retraining.", table)


def record(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, split: Split, fingerprint: str, role: str,
    rows: np.ndarray, has_modes: bool,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Logits [M, S, C] of one role on the rows to forget, by mode; recorded in training mode where they are not yet.

    Raises:
      StoreError: a damaged population; run the command again.
    """
    clean = targets.role_logits(run, bench, role)
    found = {RUNNING: np.asarray(clean.values[:, np.searchsorted(clean.rows, rows)], np.float32)}
    if not has_modes:
        return found
    own_bench, own = _role(run, bench, split, fingerprint, role)
    if own is None:
        reporter.say(f"{role} is an ensemble: not recorded in training mode")
        return found
    view = recording.training_mode(bench.settings.epsilon.bn_batch)
    values, whole = recording.record(run, reporter, own_bench, own, rows, view)
    if not whole:
        raise errors.StoreError(f"models of {role} were damaged and are made again: run the same command again.")
    return {**found, BATCH: np.asarray(values, np.float32)}


def _role(run: store.Run, bench: workbench.Workbench, split: Split, fingerprint: str, name: str) -> tuple[Any, Any]:
    """(workbench, role) as the recorder wants it; the role is None for ensembles, which have joint answers only."""
    if name == GOAL:
        shadow = shadows.shadow_role(bench, split, fingerprint, run)
        target = target_roles.describe(bench, split, name)
        return target.bench, target_roles.stage(run, target, fingerprint, shadow)
    target, role = members.recorded(run, bench, name)
    is_ensemble = members.built(variants.of_role(bench.settings, name)).ensemble > 1
    return target.bench, None if is_ensemble else role
