"""Relearning of recorded models: the trials of a role are one population, stored chunk by chunk.

    models of a role -> trials against each (`plan`) -> trajectories -> relearned/ROLE/...npz

Only trajectories are stored: the relearned models themselves are not needed again.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, keys, population, progress, records, store, trees
from jaxunlearn.analyses.reminiscence.inputs import Recovery, RoleTrials, TrialResults
from jaxunlearn.attacks import extraction, relearning
from jaxunlearn.attacks.relearning import plan as trial_plan
from jaxunlearn.attacks.relearning import reminiscence, running
from jaxunlearn.data import exclusion, naming
from jaxunlearn.population import capacity
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.execution import members
from jaxunlearn.runs.roles import audited_models, clone_models
from jaxunlearn.settings import to_dict
from jaxunlearn.unlearn.base import network as networks

VERSION = 1
ROOT = "relearned"
GROUP = 60  # dense members side by side on a CPU: their weights stay in a core's cache
COPIES = 6  # of a member's parameters in device memory: weights, momentum, gradient, and their inputs
OF_TRIALS = ("probe_fraction", "trials", "retained", "steps", "learning_rates", "inherited_state")
OF_RECOVERY = ("recovery_epochs", "recovery_rate", "recovery_batch")
Tree = Any


class RelearningPlan(NamedTuple):
    """The trials of a run, in rows of the data set followed by the excluded rows.

    Attributes:
      trials: of each forget set, at all learning rates; empty where forget sets are single rows.
      probes: number of probes per trial.
    """

    trials: tuple[trial_plan.TrialPlan, ...]
    probes: int


def is_class_wise(experiment: experiments.Experiment, split: records.Split) -> bool:
    """Returns whether every forget set is a whole (fine) class, so that trials compare it with unseen classes."""
    labels, forget = np.asarray(experiment.dataset.labels), np.asarray(split.forget)
    return split.kind in ("one_class", "subclass") and all(len(np.unique(labels[mask])) == 1 for mask in forget)


def make_plan(experiment: experiments.Experiment, split: records.Split) -> RelearningPlan:
    """Draws the trials against the model of every forget set; reads and stores nothing.

    Raises:
      ConfigError: no unseen classes, or too few rows.
    """
    if not is_class_wise(experiment, split):
        return RelearningPlan((), 0)
    options, dataset = experiment.settings.reminisce, experiment.dataset
    forget, target = np.asarray(split.forget), np.asarray(split.target)
    size = max(1, round(options.probe_fraction * int(forget.sum(1).min())))
    ood = exclusion.require(dataset, 1, size, "launch.reminisce")
    num_rows = len(dataset.labels)
    unseen = [num_rows + np.flatnonzero(np.asarray(ood.labels) == label) for label in range(ood.num_classes)]
    set_trials = []
    for set_id, mask in enumerate(forget):
        retain = target[~mask[target]]
        if len(retain) < size + options.retained:
            raise errors.ConfigError(
                f"forget set {set_id} leaves {len(retain)} retained rows, but relearning needs {size} held-out rows "
                f"and {options.retained} rows per step. Lower reminisce.probe_fraction or reminisce.retained."
            )
        trials = relearning.draw(
            np.flatnonzero(mask), unseen, retain, int(np.asarray(dataset.labels)[np.flatnonzero(mask)[0]]), size=size,
            repeats=options.trials, companions=options.retained, steps=options.steps,
            seed=experiment.settings.seed * 65_537 + set_id,
        )  # fmt: skip
        set_trials.append(relearning.crossed(trials, [0], options.learning_rates))
    return RelearningPlan(tuple(set_trials), size)


def check(experiment: experiments.Experiment, split: records.Split) -> None:
    """Raises a ConfigError, before anything is trained, for a run that cannot be attacked.

    Raises:
      ConfigError: no unseen classes, too few rows, or forget sets that are parts of classes.
    """
    if split.kind in ("class_percentage", "classes"):
        raise errors.ConfigError(
            f"split.forget.kind = {split.kind!r}: the Reminiscence Attack works on forget sets of whole "
            "classes (one_class, subclass) or single rows (set_random, index_file, randperm)."
        )
    if experiment.settings.reminisce.target == "extracted" and not is_class_wise(experiment, split):
        raise errors.ConfigError(
            "reminisce.target = 'extracted' attacks clones by classes; forget sets of single rows are attacked on the "
            "models themselves (reminisce.target=models)."
        )
    make_plan(experiment, split)


def attack_role(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    spec: roles.RoleSpec,
) -> RoleTrials:  # fmt: skip
    """Runs the attack on a role; results that are stored already are read back.

    Args:
      run_folder: the run folder, where the role is claimed and trained.
      reporter: for progress.
      experiment: of the run.
      split: of the run.
      spec: the role, of models or of their clones; one per forget set, or fewer originals than sets.

    Raises:
      StoreError: its models are not finished.
    """
    num_sets = len(np.asarray(split.forget))
    design = audited_models.design(experiment.settings, num_sets)
    model_ids = audited_models.members_of_sets(design, spec.name.removeprefix(clone_models.PREFIX))
    variables = members.load(spec.experiment, members.folder_of(run_folder, spec), spec.fingerprint, model_ids)
    if clone_models.is_clone_role(spec):
        variables = extraction.clones_of(variables)
    frozen = members.divergence_steps(run_folder, spec)
    is_finite = np.asarray([int(model_id) not in frozen for model_id in model_ids])
    if not is_finite.all():
        reporter.note(f"{spec.name}: {int((~is_finite).sum())} model(s) diverged and are not attacked")
    if not is_finite.any():
        return RoleTrials()
    facts = {
        "role": spec.fingerprint, "split": splits.fingerprint(experiment), "version": VERSION,
        "data": experiment.data_fingerprint, "seed": experiment.settings.seed,
    }  # fmt: skip
    trials = _trials(run_folder, reporter, experiment, split, spec, variables, facts)
    recovery = _recovery(run_folder, reporter, experiment, split, spec, variables, facts)
    if trials is not None:
        trials = trees.take(trials, is_finite[trials.unit])
    if recovery is not None:
        recovery = recovery._replace(
            accuracy=recovery.accuracy[is_finite], before=recovery.before[is_finite], sets=recovery.sets[is_finite],
            models=model_ids[is_finite], logits=None if recovery.logits is None else recovery.logits[is_finite],
        )  # fmt: skip
    return RoleTrials(trials, recovery)


def _option_values(experiment: experiments.Experiment, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in to_dict(experiment.settings.reminisce).items() if name in names}


def _trials(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    spec: roles.RoleSpec, variables: Tree, facts: dict[str, Any],
) -> TrialResults | None:  # fmt: skip
    """Returns the trajectories of all trials, set by set."""
    plan = make_plan(experiment, split)
    if not plan.trials:
        return None
    facts = {**facts, **_option_values(experiment, OF_TRIALS)}
    by_set, missing = {}, []
    for set_id in range(len(plan.trials)):
        stored_arrays = store.load_cached(
            run_folder, _path(run_folder, spec, f"set_{set_id}"), facts, ("accuracy", "loss")
        )
        if stored_arrays is None:
            missing.append(set_id)
        else:
            by_set[set_id] = stored_arrays
    if missing:
        reporter.begin(f"relearning {spec.name}")
    results = _relearn(experiment, plan, variables, missing) if missing else ()
    for count, (set_id, trajectories) in enumerate(results, 1):
        by_set[set_id] = store.save_cached(_path(run_folder, spec, f"set_{set_id}"), facts, trajectories)
        reporter.update(count, len(missing), "models", "")
    set_arrays = [by_set[set_id] for set_id in range(len(plan.trials))]
    rates = np.asarray(experiment.settings.reminisce.learning_rates, np.float64)  # as given, not as float32
    learning_rates = np.concatenate([trials.learning_rate for trials in plan.trials])
    return TrialResults(
        np.concatenate([arrays["accuracy"] for arrays in set_arrays]),
        np.concatenate([arrays["loss"] for arrays in set_arrays]),
        np.concatenate([trials.is_forgotten for trials in plan.trials]),
        np.repeat(np.arange(len(plan.trials)), [len(trials.victim) for trials in plan.trials]),
        rates[np.abs(learning_rates[:, None] - rates).argmin(1)],
    )  # fmt: skip


def _relearn(experiment: experiments.Experiment, plan: RelearningPlan, variables: Tree, missing: list[int]) -> Any:
    """Yields (forget set, its trajectories); one program for all sets, chunks as large as memory permits."""
    network, data, key = _network(experiment), _device_dataset(experiment), keys.root(experiment.settings.seed)
    first = plan.trials[0]
    member_mapping = _trial_mapping(experiment, len(first.victim))
    if experiment.settings.reminisce.inherited_state != "fresh":
        for set_id in missing:
            model = trees.take(variables, np.asarray([set_id]))
            trajectories = running.relearn_carried(
                network.module, network.prepare, model, data, plan.trials[set_id], member_mapping, key=key,
                carried=experiment.settings.reminisce.inherited_state,
            )  # fmt: skip
            yield set_id, {"accuracy": trajectories.accuracy, "loss": trajectories.loss}
        return
    num_trials = len(first.victim)
    # Chunks end where sets end, so that a set is stored as soon as it is done.
    per_set = -(-num_trials // max(1, min(num_trials, _largest_chunk(experiment))))
    size = -(-num_trials // per_set)
    trial_ids = np.minimum(np.arange(per_set * size), num_trials - 1)
    padded_trials = [trial_plan.take(trials, trial_ids) for trials in plan.trials]
    all_trials = trial_plan.TrialPlan(*(np.concatenate(columns) for columns in zip(*padded_trials, strict=True)))
    all_trials = all_trials._replace(victim=np.repeat(np.arange(len(padded_trials)), per_set * size))
    skip = [chunk for chunk in range(len(padded_trials) * per_set) if chunk // per_set not in missing]
    set_chunks: list[running.Trajectories] = []
    for chunk, chunk_trajectories in running.relearn_by_chunk(
        network.module, network.prepare, variables, data, all_trials, member_mapping, key=key, chunk=size, skip=skip
    ):
        set_chunks.append(chunk_trajectories._replace(variables=None, momentum=None))
        if len(set_chunks) == per_set:
            set_arrays = {
                "accuracy": np.concatenate([trajectories.accuracy for trajectories in set_chunks])[:num_trials],
                "loss": np.concatenate([trajectories.loss for trajectories in set_chunks])[:num_trials],
            }
            set_chunks = []
            yield chunk // per_set, set_arrays


def _recovery(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    spec: roles.RoleSpec, variables: Tree, facts: dict[str, Any],
) -> Recovery | None:  # fmt: skip
    """Returns the accuracy on forgotten rows while all models of the role are fine-tuned on their retained rows."""
    options = experiment.settings.reminisce
    if not options.recovery_epochs:
        return None
    path, facts = _path(run_folder, spec, "recovery"), {**facts, **_option_values(experiment, OF_RECOVERY)}
    arrays = store.load_cached(run_folder, path, facts, ("accuracy", "before", "per_epoch", "rows", "logits"))
    if arrays is None:
        reporter.log(f"relearning {spec.name} on retained rows alone")
        forget, target = np.asarray(split.forget), np.asarray(split.target)
        forgotten = [np.flatnonzero(mask) for mask in forget]
        retain = [target[~mask[target]] for mask in forget]
        network, data = _network(experiment), _device_dataset(experiment)
        before = _accuracies(experiment, variables, data, forgotten)
        stages = (
            (options.recovery_rate, options.recovery_epochs),
            (options.recovery_rate / 2, options.recovery_epochs),
        )
        recovery = reminiscence.reminisce(
            network.module, network.prepare, variables, data, retain, forgotten,
            experiments.member_mapping(experiment, len(forget)), key=keys.root(experiment.settings.seed), stages=stages,
            batch=options.recovery_batch,
        )  # fmt: skip
        results = {
            "accuracy": recovery.accuracy, "before": before,
            "per_epoch": np.asarray(recovery.accuracy.shape[1] // (2 * options.recovery_epochs)),
            **_answers(experiment, split, spec, recovery.variables),
        }  # fmt: skip
        arrays = store.save_cached(path, facts, results)
    answers = (arrays["rows"], arrays["logits"]) if len(arrays["rows"]) else (None, None)
    sets = np.arange(len(arrays["before"]))
    return Recovery(arrays["accuracy"], arrays["before"], int(arrays["per_epoch"]), sets, sets, *answers)


def _answers(
    experiment: experiments.Experiment, split: records.Split, spec: roles.RoleSpec, variables: Tree
) -> dict[str, np.ndarray]:  # fmt: skip
    """Returns rows [n], their names, and logits [R, n, C] of fine-tuned models, where forget sets are single rows.

    The rows are those that were forgotten and those held out.
    """
    forget = np.asarray(split.forget)
    if is_class_wise(experiment, split):
        return {"rows": np.zeros(0, np.int32), "logits": np.zeros((len(forget), 0, 0), np.float32)}
    rows = np.union1d(np.flatnonzero(forget.any(0)), np.asarray(split.test)).astype(np.int32)
    logits = np.empty((len(forget), len(rows), experiment.dataset.num_classes), np.float32)
    data, member_mapping = (
        experiments.device_dataset(experiment),
        experiments.member_mapping(spec.experiment, len(forget)),
    )
    for block, values in population.predict(spec.experiment.task, variables, data.inputs, rows, member_mapping):
        logits[:, block] = values
    names = naming.result_names(experiment.dataset, rows)
    row_names = {"file_rows": names.pop("rows"), **names, "labels": np.asarray(experiment.dataset.labels)[rows]}
    return {"rows": rows, "logits": logits, **row_names}


def _accuracies(
    experiment: experiments.Experiment, variables: Tree, data: population.DeviceDataset, forgotten: list[np.ndarray]
) -> np.ndarray:  # fmt: skip
    """Returns the [R] accuracy of each model on the rows of its own forget set."""
    rows = np.unique(np.concatenate(forgotten)).astype(np.int32)
    is_correct = np.zeros((len(forgotten), len(rows)), bool)
    member_mapping = experiments.member_mapping(experiment, len(forgotten))
    for block, values in population.predict(experiment.task, variables, data.inputs, rows, member_mapping):
        is_correct[:, block] = values.argmax(-1) == np.asarray(data.labels)[rows[block]]
    return np.asarray([
        is_correct[set_id][records.positions(rows, set_rows)].mean() for set_id, set_rows in enumerate(forgotten)
    ])  # fmt: skip


def _network(experiment: experiments.Experiment) -> Any:
    settings = experiment.settings
    return experiments.build_network(settings, experiment.dataset, experiment.mapping_policy.conv)


def _device_dataset(experiment: experiments.Experiment) -> population.DeviceDataset:
    """Returns the data set followed by the excluded rows, whose labels are never read."""
    data, ood = experiments.device_dataset(experiment), experiment.dataset.ood
    if ood is None:
        return data
    labels = np.zeros(len(ood.labels), np.int32)
    return population.DeviceDataset(np.concatenate([data.inputs, np.asarray(ood.inputs)]),
                               np.concatenate([data.labels, labels]))  # fmt: skip


def _trial_mapping(experiment: experiments.Experiment, count: int) -> population.MemberMapping:
    """Returns the run's own mapping; on a CPU, dense networks are mapped in small groups."""
    policy = experiment.mapping_policy
    is_dense = all(layer.kind != "conv" for layer in networks.layers(_network(experiment)))
    if policy.mapping == "map" and policy.group == 1 and is_dense:
        policy = policy._replace(group=GROUP)
    return experiments.member_mapping(experiments.with_policy(experiment, policy), count)


def _largest_chunk(experiment: experiments.Experiment) -> int:
    """Returns the number of members that fit in memory."""
    if experiment.settings.engine.chunk:
        return experiment.settings.engine.chunk
    member_mapping = experiments.member_mapping(experiment, 1)
    memory = capacity.budget(list(member_mapping.mesh.devices.flat), experiment.settings.engine.memory)
    return max(1, int(memory // (COPIES * 4 * experiment.cost.parameters)))


def _path(run_folder: store.Run, spec: roles.RoleSpec, name: str) -> Any:
    return run_folder.path(ROOT, spec.name, f"{name}.npz")
