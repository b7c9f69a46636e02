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
from jaxunlearn.protocols.audit.presenting import timed
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
      values: mode -> [M, S, C] of models that did not diverge: never frozen, and with finite answers.
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
        found = measure(run, reporter, bench, asked, summary)
        main = found[RUNNING]
        store.files.write_npz(run.path("epsilon.npz"), **presenting.arrays(main))
        store.files.write_json(run.path("epsilon.json"), {mode: presenting.plain(one) for mode, one in found.items()})
        pieces = presenting.pieces(main)
        if BATCH in found:
            pieces.append(presenting.modes(main, found[BATCH]))
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
) -> dict[str, measures.Found]:  # fmt: skip
    """Records what is missing, exports it in the published layout, and measures it.

    Returns:
      mode of BatchNorm -> numbers; `batch` only where the network has BatchNorm.

    Raises:
      StoreError: fewer than two retrained models, or not one approach with two models, did not diverge; damage.
    """
    split, fingerprint = splits.obtain(run, bench)
    rows = np.flatnonzero(np.asarray(split.forget)[0]).astype(np.int32)
    has_modes = account.has_statistics(bench)
    roles = {GOAL: GOAL, **{runs.shown(one.role): one.role for one in asked}}
    recorded = {
        name: record(run, reporter, bench, split, fingerprint, role, rows, has_modes) for name, role in roles.items()
    }
    for name in [name for name, one in recorded.items() if len(one.kept) < 2]:
        reporter.say(f"{name} is left out: {len(recorded.pop(name).kept)} of its models did not diverge")
    if GOAL not in recorded or len(recorded) < 2:
        raise errors.StoreError(
            "too many models diverged: two retrained ones and an approach with two are the least. Lower the learning "
            "rates (train.learning_rate, unlearn.options) in another --workdir."
        )
    labels = np.asarray(bench.dataset.labels)[rows]
    accuracies = {name: _accuracies(summary.roles[roles[name]], one.kept) for name, one in recorded.items()}
    accuracies[measures.BASELINE] = accuracies.pop(GOAL)
    chosen = measures.Asked(bench.settings.epsilon, bench.settings.compat.evaluate, bench.settings.seed)
    store.files.remove(run.path("epsilon"))  # approaches of an earlier run are not of this one
    found = {}
    for mode in (RUNNING, BATCH) if has_modes else (RUNNING,):
        logits = {name: one.values[mode].swapaxes(0, 1) for name, one in recorded.items() if mode in one.values}
        retrained = logits.pop(GOAL)
        known = {"" if name == measures.BASELINE else name: values for name, values in accuracies.items()}
        store.approaches.write(run.path("epsilon", mode), labels, retrained, logits, known)
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
      StoreError: a damaged population; run the command again.
    """
    clean = targets.role_logits(run, bench, role)
    answers = np.asarray(clean.values[:, np.searchsorted(clean.rows, rows)], np.float32)
    # The last step of all can break a model whose losses were finite to the end.
    is_sound = np.isfinite(answers).all((1, 2)) & ~np.isin(np.arange(len(answers)), list(clean.diverged))
    kept = np.flatnonzero(is_sound)
    values = {RUNNING: answers[kept]}
    if not has_modes:
        return Recorded(values, kept)
    own_bench, own = _role(run, bench, split, fingerprint, role)
    if own is None:
        reporter.say(f"{role} is an ensemble: not recorded in training mode")
        return Recorded(values, kept)
    view = recording.training_mode(bench.settings.epsilon.bn_batch)
    found, whole = recording.record(run, reporter, own_bench, own, rows, view)
    if not whole:
        raise errors.StoreError(f"models of {role} were damaged and are made again: run the same command again.")
    return Recorded({**values, BATCH: np.asarray(found, np.float32)[kept]}, kept)


def _role(run: store.Run, bench: workbench.Workbench, split: Split, fingerprint: str, name: str) -> tuple[Any, Any]:
    """(workbench, role) as the recorder wants it; the role is None for ensembles, which have joint answers only."""
    if name == GOAL:
        shadow = shadows.shadow_role(bench, split, fingerprint, run)
        target = target_roles.describe(bench, split, name)
        return target.bench, target_roles.stage(run, target, fingerprint, shadow)
    target, role = members.recorded(run, bench, name)
    is_ensemble = members.built(variants.of_role(bench.settings, name)).ensemble > 1
    return target.bench, None if is_ensemble else role
