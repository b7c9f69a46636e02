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
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, progress, settings, store
from jaxunlearn.protocols import recording, shadows, splits, target_roles, targets, tuning, workbench
from jaxunlearn.protocols.audit import publishing
from jaxunlearn.protocols.audit.presenting import Piece, timed
from jaxunlearn.protocols.epsilon import measures, presenting
from jaxunlearn.protocols.unlearned import account, listing, members, runs, variants
from jaxunlearn.records import Split

# The approaches of the paper, which stand for `all`.
PUBLISHED = (
    "finetune", "poison", "poison_full", "hybrid", "prune", "prune_last_layer", "prune_complex", "activation_reset",
)  # fmt: skip
RUNNING, BATCH = "running", "batch"
GOAL = "retrained"


class Recorded(NamedTuple):
    """Logits of one role on the rows to forget.

    Attributes:
      values: mode -> [M, S, C] of models that did not diverge.
      kept: [M] their numbers.
    """

    values: dict[str, np.ndarray]
    kept: np.ndarray


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
    plain = settings.to_dict(chosen)
    with store.open_run(workdir, overwrite) as run, store.status(run, plain, overrides):
        begun = time.monotonic()
        reporter = progress.Reporter(run.log)
        bench = tuning.obtain(bench, reporter)
        summary = runs.run(run, reporter, bench, asked)
        found = {mode: one for mode, one in measure(run, reporter, bench, asked, summary).items() if one is not None}
        main = found[RUNNING]
        store.files.write_npz(run.path("epsilon.npz"), **presenting.arrays(main))
        store.files.write_json(run.path("epsilon.json"), {mode: presenting.plain(one) for mode, one in found.items()})
        pieces = presenting.pieces(main)
        if BATCH in found:
            pieces.append(in_both_modes(found))
        answer = presenting.in_words(main)
        facts = {
            "config": f"{chosen.data.name}, {chosen.model.name}, seed {chosen.seed}",
            "models": f"{chosen.split.forget.repeats} retrained, as many unlearned per approach",
            **presenting.provenance(main),
            **timed(time.monotonic() - begun, store.versions()),
        }
        findings = [one for piece in pieces for one in piece.findings]
        title = f"epsilon-hat of unlearning methods on {chosen.data.name}"
        files = publishing.publish(run, title, answer, pieces, facts, findings, plain, presenting.STEM)
        kept = "\n".join(f"  epsilon/{mode}/  logits in the published layout: launch.epsilon --data={run.root}/epsilon/"
                         f"{mode}" for mode in found)  # fmt: skip
        return f"{answer}\n\n{presenting.text(pieces)}\n\n{files}\n{presenting.FILES}\n{kept}"


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
) -> dict[str, measures.Found | None]:  # fmt: skip
    """Records what is missing, exports both modes in the published layout, and measures them; mode -> numbers.

    Without BatchNorm there is one mode: `batch` is None.
    """
    split, fingerprint = splits.obtain(run, bench)
    rows = np.flatnonzero(np.asarray(split.forget)[0]).astype(np.int32)
    labels = np.asarray(bench.dataset.labels)[rows]
    has_modes = account.has_statistics(bench)
    roles = {GOAL: GOAL, **{runs.shown(one.role): one.role for one in asked}}
    recorded = {
        name: record(run, reporter, bench, split, fingerprint, role, rows, has_modes) for name, role in roles.items()
    }
    found: dict[str, measures.Found | None] = {RUNNING: None, BATCH: None}
    for mode in (RUNNING, BATCH) if has_modes else (RUNNING,):
        logits = {name: one.values[mode].swapaxes(0, 1) for name, one in recorded.items() if mode in one.values}
        accuracies = {name: _accuracies(summary.roles[roles[name]], recorded[name].kept) for name in logits}
        retrained = logits.pop(GOAL)
        named = {f"{part}_accuracy": values for part, values in accuracies[GOAL].items()}
        others = {name: {f"{part}_accuracy": values for part, values in accuracies[name].items()} for name in logits}
        store.approaches.write(run.path("epsilon", mode), labels, retrained, logits, {"": named, **others})
        accuracies[measures.BASELINE] = accuracies.pop(GOAL)
        chosen = measures.Asked(bench.settings.epsilon, bench.settings.compat.evaluate, bench.settings.seed)
        groups = {name: (retrained, values) for name, values in logits.items()}
        found[mode] = measures.measure(groups, labels, chosen, accuracies)
    return found


def _accuracies(one: runs.Utility, kept: np.ndarray) -> dict[str, np.ndarray]:
    parts = {"retain": one.retain_accuracy, "forget": 1 - one.forget_error, "test": one.test_accuracy}
    return {part: np.asarray(values)[kept] for part, values in parts.items()}


def record(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, split: Split, fingerprint: str, role: str,
    rows: np.ndarray, has_modes: bool,
) -> Recorded:  # fmt: skip
    """Logits of one role on the rows to forget, in each mode; recorded in training mode where they are not yet.

    Raises:
      StoreError: a damaged population (run the command again), or all but one of its models diverged.
    """
    clean = targets.role_logits(run, bench, role)
    kept = np.asarray([number for number in range(len(clean.values)) if number not in clean.diverged])
    if len(kept) < 2:
        raise errors.StoreError(f"{len(clean.values) - len(kept)} of {len(clean.values)} models of {role} diverged.")
    columns = np.searchsorted(clean.rows, rows)
    values = {RUNNING: np.asarray(clean.values[:, columns], np.float32)[kept]}
    if has_modes:
        view = recording.training_mode(bench.settings.epsilon.bn_batch)
        own_bench, own = _role(run, bench, split, fingerprint, role)
        if own is not None:
            found, whole = recording.record(run, reporter, own_bench, own, rows, view)
            if not whole:
                raise errors.StoreError(
                    f"models of {role} were damaged and are made again: run the same command again."
                )
            values[BATCH] = np.asarray(found, np.float32)[kept]
        else:
            reporter.say(f"{role} is an ensemble: not recorded in training mode")
    return Recorded(values, kept)


def _role(run: store.Run, bench: workbench.Workbench, split: Split, fingerprint: str, name: str) -> tuple[Any, Any]:
    """(workbench, role) as the recorder wants it; the role is None for ensembles, which have joint answers only."""
    if name == GOAL:
        shadow = shadows.shadow_role(bench, split, fingerprint, run)
        target = target_roles.describe(bench, split, name)
        return target.bench, target_roles.stage(run, target, fingerprint, shadow)
    target, role = members.recorded(run, bench, name)
    is_ensemble = members.built(variants.of_role(bench.settings, name)).ensemble > 1
    return target.bench, None if is_ensemble else role


def in_both_modes(found: Mapping[str, measures.Found | None]) -> Piece:
    """epsilon-hat in both modes of BatchNorm, side by side."""
    running, batch = found[RUNNING], found[BATCH]
    assert running is not None and batch is not None
    return presenting.modes(running, batch)
