"""A run of Unlearning-Leaks: models trained and recorded, their posteriors attacked, a report out.

prepare -> the role of all models -> train and record missing ones -> posterior pairs -> analyse, compose, deliver
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxunlearn import arrays, errors, population, progress, records, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.leaks import inputs
from jaxunlearn.attacks.leaks import defences, host_models
from jaxunlearn.data import naming
from jaxunlearn.metrics.distances import softmax
from jaxunlearn.metrics.epsilon import privacy as accountant
from jaxunlearn.population import chunked
from jaxunlearn.runs import execution, experiments, opening, roles
from jaxunlearn.runs.drivers import delivery
from jaxunlearn.runs.drivers import plan as dry_run_plan
from jaxunlearn.runs.execution import host, members
from jaxunlearn.runs.roles import leaks
from jaxunlearn.settings import Settings

ANALYSIS = "leaks"
POSTERIORS_FILE = "leaks/posteriors.npz"  # in a run folder
PosteriorFn = Callable[[np.ndarray, np.ndarray], np.ndarray]


def run(
    settings: Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:
    """Trains missing models, attacks them, and returns the text for the terminal.

    Args:
      settings: of the run.
      workdir: its folder.
      overwrite: stages whose results are deleted first.
      dry_run: whether to only show the plan.
      overrides: settings of the command line.

    Raises:
      UserError: settings and sizes are checked before anything is trained.
    """
    analysis = ANALYSES[ANALYSIS]
    analysis.check(settings)
    leaks.check(settings)
    external_shadow = None if not settings.leaks.shadow_from else shadow_side(settings)
    experiment = experiments.prepare(leaks.narrow(settings))
    experiments.require_classes(experiment, "launch.leaks")
    if settings.leaks.defence == "top_k":
        defences.check_top_k(settings.leaks.top_k, experiment.dataset.num_classes)
    role = leaks.describe(experiment)
    if dry_run:
        return plan_text(role)
    with opening.open_experiment(experiment, settings, workdir, overwrite, overrides) as open_run:
        run_folder, reporter, experiment, plain, start_time = open_run
        role = leaks.describe(experiment)  # the mapping may be tuned
        role = role._replace(spec=roles.claim(run_folder, role.spec))
        logits, cost = make(run_folder, reporter, role.spec)
        leak_inputs = gather(run_folder, reporter, role, logits, cost)
        if external_shadow is not None:
            leak_inputs = inputs.transferred(leak_inputs, external_shadow, settings.leaks.shadow_from)
        context = delivery.context(run_folder, reporter)
        report = analysis.compose(analysis.analyse(leak_inputs, settings, context), settings)
        report = report._replace(title=f"{report.title}: {settings.data.name}")
        return delivery.deliver(run_folder, report, plain, start_time, {})


def shadow_side(settings: Settings) -> inputs.Side:
    """Returns the shadow side of another run, or of a file of posteriors.

    Raises:
      DataError: it has none.
    """
    path = store.arrays.expand(settings.leaks.shadow_from)
    posteriors_path = path / POSTERIORS_FILE
    analysis = ANALYSES[ANALYSIS]
    named_arrays = store.arrays.read(posteriors_path if posteriors_path.exists() else path, analysis.expected)
    return inputs.from_arrays(arrays.read(named_arrays, analysis.fields, analysis.expected), settings).shadow


def make(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec
) -> tuple[np.ndarray, chunked.TrainingCost]:  # fmt: skip
    """Trains and records missing models; returns logits [M, n, C] and the cost in this process."""
    settings = spec.experiment.settings
    if not leaks.is_fitted_on_host(settings):
        recorded_roles = execution.make(run_folder, reporter, spec)
        return recorded_roles.logits[spec.name], recorded_roles.cost
    start_time = time.monotonic()
    num_finished = len(host.finished_members(run_folder, spec))
    values = host.record(run_folder, reporter, spec, lambda member, x, y: _fit(spec, member, x, y))
    num_new = len(spec.membership) - num_finished
    return values, chunked.TrainingCost(num_new, num_new, time.monotonic() - start_time if num_new else 0.0, 0.0)


def _fit(spec: roles.RoleSpec, member: int, x: np.ndarray, y: np.ndarray) -> host.Predict:
    settings = spec.experiment.settings
    source = member if spec.coupling is None else int(spec.coupling[member])
    seed = (settings.seed + source) % 2**32
    return host_models.fit(settings.leaks.model, x, y, spec.experiment.dataset.num_classes, seed)


def gather(
    run_folder: store.Run, reporter: progress.Reporter, role: leaks.LeakRole, logits: np.ndarray,
    cost: chunked.TrainingCost,
) -> inputs.LeakInputs:  # fmt: skip
    """Gathers the posterior pairs of both sides, with the user's names of the records.

    Args:
      run_folder: the run folder.
      reporter: for messages.
      role: the models.
      logits: [M, n, C] of the models on the role's rows.
      cost: of training in this process.
    """
    experiment, spec = role.spec.experiment, role.spec
    settings, dataset = experiment.settings, experiment.dataset
    posterior_fn = make_posterior_fn(logits, spec.rows)
    is_faithful = settings.compat.leaks == "faithful"
    shadow, target = inputs.from_models(posterior_fn, role.plans, inputs.sizes_of(settings), is_faithful)
    cached = delivery.context(run_folder, reporter).cached
    facts = {"role": spec.fingerprint, "repeats": settings.leaks.repeats, "version": leaks.STAGE_VERSION}
    accuracies = cached("leaks/utility.npz", facts, lambda: utility(run_folder, role))
    sides = {
        name: inputs.LeaksUtility(accuracies[f"{name}_train"], accuracies[f"{name}_test"]) for name in inputs.SIDES
    }
    divergence_steps = {} if leaks.is_fitted_on_host(settings) else members.divergence_steps(run_folder, spec)
    if divergence_steps:
        first = next(iter(divergence_steps))
        raise errors.ConfigError(
            f"{len(divergence_steps)} of {len(spec.membership)} models diverged (the first one, {first}, in step "
            f"{divergence_steps[first]}): their answers say nothing about deletions. Lower train.learning_rate."
        )
    ids_by_side = {
        name: naming.display_names(dataset, np.asarray(side.ids))
        for name, side in (("shadow", shadow), ("target", target))
    }
    return inputs.LeakInputs(
        shadow._replace(ids=ids_by_side["shadow"]),
        target._replace(ids=ids_by_side["target"]),
        sides,
        _about(role, cost),
    )


def make_posterior_fn(logits: np.ndarray, rows: np.ndarray) -> PosteriorFn:
    """Returns a function (member ids [m], rows [m, q]) -> posteriors [m, q, C] float64.

    Args:
      logits: [M, n, C].
      rows: [n] sorted rows of the data set.
    """

    def posterior_fn(member_ids: np.ndarray, queried_rows: np.ndarray) -> np.ndarray:
        columns = records.positions(rows, queried_rows)
        values = np.stack(
            [
                np.asarray(logits[member], np.float64)[member_columns]
                for member, member_columns in zip(member_ids, columns, strict=True)
            ]
        )
        return softmax(values)

    return posterior_fn


def utility(run_folder: store.Run, role: leaks.LeakRole) -> dict[str, np.ndarray]:
    """Computes accuracies [I] of the originals (SISA: the mean of their shards) on their sets and unseen records."""
    experiment, spec = role.spec.experiment, role.spec
    settings, dataset = experiment.settings, experiment.dataset
    sizes = inputs.sizes_of(settings)
    shards = max(sizes.shards, 1)
    labels = np.asarray(dataset.labels)
    accuracies: dict[str, list[float]] = {
        f"{side}_{subset}": [] for side in inputs.SIDES for subset in ("train", "test")
    }
    first = 0
    for sides in role.plans:
        for name, side in zip(inputs.SIDES, sides, strict=True):
            unseen = np.unique(side.negative)
            rows = np.unique(np.concatenate([side.sets.ravel(), unseen])).astype(np.int32)
            predicted = _predictions(run_folder, spec, np.arange(first, first + sizes.sets * shards), shards, rows)
            for set_id in range(sizes.sets):
                for subset, subset_rows in (("train", side.sets[set_id]), ("test", unseen)):
                    is_correct = predicted[set_id][records.positions(rows, subset_rows)] == labels[subset_rows]
                    accuracies[f"{name}_{subset}"].append(float(is_correct.mean()))
            first += sizes.sets * (shards + sizes.deletions)
    return {name: np.asarray(values) for name, values in accuracies.items()}


def _predictions(
    run_folder: store.Run, spec: roles.RoleSpec, originals: np.ndarray, shards: int, rows: np.ndarray
) -> np.ndarray:  # fmt: skip
    """Returns [I, n]: predicted classes of the sets' original models on some rows."""
    experiment = spec.experiment
    all_inputs = np.asarray(experiment.dataset.inputs)
    shape = (len(originals), len(rows), experiment.dataset.num_classes)
    model_posteriors = np.empty(shape, np.float32)
    if leaks.is_fitted_on_host(experiment.settings):
        for index, member in enumerate(originals.tolist()):
            member_rows = np.flatnonzero(spec.membership[member])
            predict = _fit(spec, member, all_inputs[member_rows], np.asarray(experiment.dataset.labels)[member_rows])
            model_posteriors[index] = predict(all_inputs[rows])
    else:
        variables = members.load(experiment, members.folder_of(run_folder, spec), spec.fingerprint, originals)
        mapping = experiments.member_mapping(experiment, len(originals))
        for block, values in population.predict(experiment.task, variables, all_inputs, rows, mapping):
            model_posteriors[:, block] = softmax(values, np.float32)
    return model_posteriors.reshape(-1, shards, *shape[1:]).mean(1).argmax(-1)


def _about(role: leaks.LeakRole, cost: chunked.TrainingCost) -> dict[str, str]:
    """Returns the provenance of the models."""
    experiment = role.spec.experiment
    options, settings = experiment.settings.leaks, experiment.settings
    network = f"{settings.model.name}, {options.coupling} starts" if options.model == "network" else options.model
    speed = f"; {cost.members} trained in {progress.duration(cost.seconds)}" if cost.members else ""
    privacy_fact = {"privacy": privacy_text(role)} if options.private else {}
    return {
        **privacy_fact,
        "config": f"{settings.data.name}, {network}, seed {settings.seed}",
        "models": f"{len(role.spec.membership)}: {_sets_text(role)}{speed}",
        "case": f"{options.attacked_records}, {options.unlearning}, {options.update}",
    }


def privacy_text(role: leaks.LeakRole) -> str:
    """Returns the DP-SGD guarantee for a record of the largest model, at the true sampling rate of records."""
    settings = role.spec.experiment.settings
    options, rows = settings.leaks, int(role.spec.membership.sum(1).max())
    steps = leaks.max_steps(role)
    epsilon = accountant.epsilon(steps, min(1.0, settings.train.batch / rows), options.noise, options.delta)
    return (
        f"epsilon {epsilon:.3g} at delta {options.delta:g} for one version (DP-SGD, noise {options.noise:g}, clip "
        f"{options.clip:g}, {steps:,} steps of {settings.train.batch} of {rows:,} records; the accountant takes "
        "every batch for a random sample of the records, while these are shuffled)"
    )


def _sets_text(role: leaks.LeakRole) -> str:
    options = role.spec.experiment.settings.leaks
    shards = f" in {options.shards} shards" if options.unlearning == "sisa" else ""
    repeats = f"{options.repeats} x " if options.repeats > 1 else ""
    return (
        f"{repeats}{options.sets} + {options.sets} sets of {options.set_size:,}{shards}, "
        f"{options.deletions} deletions of {options.group} each"
    )


def plan_text(role: leaks.LeakRole) -> str:
    """Returns the plan of training and attack; a network's time is measured, other models are quick."""
    spec = role.spec
    settings = spec.experiment.settings
    num_attacked = sum(side.positive.size + side.negative.size for _, side in role.plans)
    rows = [
        ("models", f"{len(spec.membership)}: {_sets_text(role)}"),
        (
            "attacked",
            f"{num_attacked:,} records of the target side, half of them deleted ones "
            f"({settings.leaks.attacked_records})",
        ),
        ("attack", f"{settings.leaks.attack}, defence {settings.leaks.defence}"),
        *([("privacy", privacy_text(role))] if settings.leaks.private else []),
    ]
    if settings.leaks.model != "network":
        disk = spec.membership.shape[0] * len(spec.rows) * spec.experiment.dataset.num_classes * 4
        return delivery.plan_table([*rows, ("disk", f"about {progress.size(disk)} of logits")])
    return "\n\n".join([delivery.plan_table(rows), dry_run_plan.text(dry_run_plan.of_roles([spec]))])
