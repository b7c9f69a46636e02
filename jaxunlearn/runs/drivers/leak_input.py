"""A run of Unlearning-Leaks: models trained and recorded, their posteriors attacked, a report out.

prepare -> the role of all models -> train and record what is missing -> posterior pairs -> analyse, compose, deliver
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxunlearn import arrays, errors, population, progress, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.leaks import inputs
from jaxunlearn.attacks.leaks import defences, host_models
from jaxunlearn.data import naming
from jaxunlearn.metrics.epsilon import privacy as accountant
from jaxunlearn.population import chunked
from jaxunlearn.runs import execution, experiments, opening, roles
from jaxunlearn.runs.drivers import delivery
from jaxunlearn.runs.drivers import plan as dry_run_plan
from jaxunlearn.runs.execution import host, members
from jaxunlearn.runs.roles import leaks
from jaxunlearn.settings import Settings

ANALYSIS = "leaks"
KEPT = "leaks/posteriors.npz"  # in a run folder
Answers = Callable[[np.ndarray, np.ndarray], np.ndarray]


def run(chosen: Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]) -> str:
    """Trains what is missing, attacks, and returns what the terminal shows.

    Args:
      chosen: settings of the run.
      workdir: its folder.
      overwrite: stages whose results are deleted first.
      dry_run: only say what would be done.
      overrides: settings of the command line.

    Raises:
      UserError: whatever the user can mend; settings and sizes before anything is trained.
    """
    analysis = ANALYSES[ANALYSIS]
    analysis.check(chosen)
    leaks.check(chosen)
    others = None if not chosen.leaks.shadow_from else shadow_side(chosen)
    experiment = experiments.prepare(leaks.narrow(chosen))
    experiments.require_classes(experiment, "launch.leaks")
    if chosen.leaks.defence == "top_k":
        defences.check_top_k(chosen.leaks.top_k, experiment.dataset.num_classes)
    role = leaks.describe(experiment)
    if dry_run:
        return described(role)
    with opening.open_experiment(experiment, chosen, workdir, overwrite, overrides) as opened:
        folder, reporter, experiment, plain, begun = opened
        role = leaks.describe(experiment)  # the mapping may be tuned
        role = role._replace(spec=roles.claim(folder, role.spec))
        logits, spent = make(folder, reporter, role.spec)
        given = gather(folder, reporter, role, logits, spent)
        if others is not None:
            given = inputs.transferred(given, others, chosen.leaks.shadow_from)
        context = delivery.context(folder, reporter)
        report = analysis.compose(analysis.analyse(given, chosen, context), chosen)
        report = report._replace(title=f"{report.title}: {chosen.data.name}")
        return delivery.deliver(folder, report, plain, begun, {})


def shadow_side(chosen: Settings) -> inputs.Side:
    """The shadow side of another run, or of a file of posteriors.

    Raises:
      DataError: it holds none.
    """
    path = store.arrays.expand(chosen.leaks.shadow_from)
    kept = path / KEPT
    analysis = ANALYSES[ANALYSIS]
    named = store.arrays.read(kept if kept.exists() else path, analysis.expected)
    return inputs.from_arrays(arrays.read(named, analysis.fields, analysis.expected), chosen).shadow


def make(
    run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec
) -> tuple[np.ndarray, chunked.TrainingCost]:  # fmt: skip
    """Trains and records what is missing; returns logits [M, n, C] and what that cost in this process."""
    settings = spec.experiment.settings
    if not leaks.is_fitted_on_host(settings):
        made = execution.make(run, reporter, spec)
        return made.logits[spec.name], made.spent
    begun = time.monotonic()
    there = len(host.finished(run, spec))
    values = host.record(run, reporter, spec, lambda member, x, y: _fit(spec, member, x, y))
    new = len(spec.membership) - there
    return values, chunked.TrainingCost(new, new, time.monotonic() - begun if new else 0.0, 0.0)


def _fit(spec: roles.RoleSpec, member: int, x: np.ndarray, y: np.ndarray) -> host.Predict:
    settings = spec.experiment.settings
    source = member if spec.coupling is None else int(spec.coupling[member])
    seed = (settings.seed + source) % 2**32
    return host_models.fit(settings.leaks.model, x, y, spec.experiment.dataset.num_classes, seed)


def gather(
    run: store.Run, reporter: progress.Reporter, role: leaks.LeakRole, logits: np.ndarray, spent: chunked.TrainingCost
) -> inputs.LeakInputs:  # fmt: skip
    """Posterior pairs of both sides, named as the user names records, with what is known of the models."""
    experiment, spec = role.spec.experiment, role.spec
    settings, dataset = experiment.settings, experiment.dataset
    answers = posteriors(logits, spec.rows)
    faithful = settings.compat.leaks == "faithful"
    shadow, target = inputs.from_models(answers, role.plans, inputs.sizes_of(settings), faithful)
    keep = delivery.context(run, reporter).cached
    facts = {"role": spec.fingerprint, "repeats": settings.leaks.repeats, "version": leaks.STAGE_VERSION}
    kept = keep("leaks/utility.npz", facts, lambda: utility(run, role))
    sides = {name: inputs.Utility(kept[f"{name}_train"], kept[f"{name}_test"]) for name in inputs.SIDES}
    frozen = {} if leaks.is_fitted_on_host(settings) else members.diverged(run, spec)
    if frozen:
        first = next(iter(frozen))
        raise errors.ConfigError(
            f"{len(frozen)} of {len(spec.membership)} models diverged (the first one, {first}, in step "
            f"{frozen[first]}): their answers say nothing of deletions. Lower train.learning_rate."
        )
    named = {
        name: naming.shown(dataset, np.asarray(side.ids)) for name, side in (("shadow", shadow), ("target", target))
    }
    return inputs.LeakInputs(
        shadow._replace(ids=named["shadow"]), target._replace(ids=named["target"]), sides, _about(role, spent)
    )


def posteriors(logits: np.ndarray, rows: np.ndarray) -> Answers:
    """Posteriors by (members [m], places [m, q]) -> [m, q, C] float64, from logits [M, n, C] on sorted rows [n]."""

    def answers(who: np.ndarray, places: np.ndarray) -> np.ndarray:
        columns = np.searchsorted(rows, places)
        values = np.stack(
            [np.asarray(logits[member], np.float64)[line] for member, line in zip(who, columns, strict=True)]
        )
        return _softmax(values)

    return answers


def _softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def utility(run: store.Run, role: leaks.LeakRole) -> dict[str, np.ndarray]:
    """Accuracies [I] of the original models (SISA: of the mean of their shards) on their sets and on unseen records."""
    experiment, spec = role.spec.experiment, role.spec
    settings, dataset = experiment.settings, experiment.dataset
    sizes = inputs.sizes_of(settings)
    shards = max(sizes.shards, 1)
    labels = np.asarray(dataset.labels)
    found: dict[str, list[float]] = {f"{side}_{part}": [] for side in inputs.SIDES for part in ("train", "test")}
    first = 0
    for both in role.plans:
        for name, side in zip(inputs.SIDES, both, strict=True):
            unseen = np.unique(side.negative)
            rows = np.unique(np.concatenate([side.sets.ravel(), unseen])).astype(np.int32)
            predicted = _predictions(run, spec, np.arange(first, first + sizes.sets * shards), shards, rows)
            for number in range(sizes.sets):
                for part, own in (("train", side.sets[number]), ("test", unseen)):
                    right = predicted[number][np.searchsorted(rows, own)] == labels[own]
                    found[f"{name}_{part}"].append(float(right.mean()))
            first += sizes.sets * (shards + sizes.deletions)
    return {name: np.asarray(values) for name, values in found.items()}


def _predictions(
    run: store.Run, spec: roles.RoleSpec, originals: np.ndarray, shards: int, rows: np.ndarray
) -> np.ndarray:  # fmt: skip
    """[I, n] predicted classes of the sets' original models on some rows."""
    experiment = spec.experiment
    inputs_of_all = np.asarray(experiment.dataset.inputs)
    shape = (len(originals), len(rows), experiment.dataset.num_classes)
    answers = np.empty(shape, np.float32)
    if leaks.is_fitted_on_host(experiment.settings):
        for place, member in enumerate(originals.tolist()):
            own = np.flatnonzero(spec.membership[member])
            fitted = _fit(spec, member, inputs_of_all[own], np.asarray(experiment.dataset.labels)[own])
            answers[place] = fitted(inputs_of_all[rows])
    else:
        variables = members.load(experiment, members.folder_of(run, spec), spec.fingerprint, originals)
        mapping = experiments.member_mapping(experiment, len(originals))
        for where, values in population.predict(experiment.task, variables, inputs_of_all, rows, mapping):
            answers[:, where] = _softmax(values)
    return answers.reshape(-1, shards, *shape[1:]).mean(1).argmax(-1)


def _about(role: leaks.LeakRole, spent: chunked.TrainingCost) -> dict[str, str]:
    """Provenance: what was trained."""
    experiment = role.spec.experiment
    chosen, settings = experiment.settings.leaks, experiment.settings
    network = f"{settings.model.name}, {chosen.coupling} starts" if chosen.model == "network" else chosen.model
    speed = f"; {spent.members} trained in {progress.duration(spent.seconds)}" if spent.members else ""
    private = {"privacy": privacy(role)} if chosen.private else {}
    return {
        **private,
        "config": f"{settings.data.name}, {network}, seed {settings.seed}",
        "models": f"{len(role.spec.membership)}: {_plan_in_words(role)}{speed}",
        "case": f"{chosen.case}, {chosen.unlearning}, {chosen.update}",
    }


def privacy(role: leaks.LeakRole) -> str:
    """What DP-SGD guarantees for a record of the largest model, by the true rate at which records are sampled."""
    settings = role.spec.experiment.settings
    chosen, rows = settings.leaks, int(role.spec.membership.sum(1).max())
    steps = leaks.steps(role)
    found = accountant.epsilon(steps, min(1.0, settings.train.batch / rows), chosen.noise, chosen.delta)
    return (
        f"epsilon {found:.3g} at delta {chosen.delta:g} for one version (DP-SGD, noise {chosen.noise:g}, clip "
        f"{chosen.clip:g}, {steps:,} steps of {settings.train.batch} of {rows:,} records; the accountant takes "
        "every batch for a random sample of the records, while these are shuffled)"
    )


def _plan_in_words(role: leaks.LeakRole) -> str:
    chosen = role.spec.experiment.settings.leaks
    shards = f" in {chosen.shards} shards" if chosen.unlearning == "sisa" else ""
    repeats = f"{chosen.repeats} x " if chosen.repeats > 1 else ""
    return (
        f"{repeats}{chosen.sets} + {chosen.sets} sets of {chosen.set_size:,}{shards}, {chosen.deletions} deletions of "
        f"{chosen.group} each"
    )


def described(role: leaks.LeakRole) -> str:
    """What would be trained and attacked; a network's time is measured, other models are quick."""
    spec = role.spec
    settings = spec.experiment.settings
    attacked = sum(side.positive.size + side.negative.size for _, side in role.plans)
    lines = [
        ("models", f"{len(spec.membership)}: {_plan_in_words(role)}"),
        ("attacked", f"{attacked:,} records of the target side, half of them deleted ones ({settings.leaks.case})"),
        ("attack", f"{settings.leaks.attack}, defence {settings.leaks.defence}"),
        *([("privacy", privacy(role))] if settings.leaks.private else []),
    ]
    if settings.leaks.model != "network":
        disk = spec.membership.shape[0] * len(spec.rows) * spec.experiment.dataset.num_classes * 4
        return delivery.described([*lines, ("disk", f"about {progress.size(disk)} of logits")])
    return "\n\n".join([delivery.described(lines), dry_run_plan.text(dry_run_plan.of_roles([spec]))])
