"""Relearning of recorded models: trials of one role as one population, kept chunk by chunk.

    models of a role -> trials against each (`plan`) -> trajectories -> relearned/ROLE/...npz

Only trajectories are kept: a relearned model is of no use to anyone.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, keys, population, progress, records, store, trees
from jaxunlearn.analyses.reminiscence.inputs import Attacked, Recovery, Trials
from jaxunlearn.attacks import extraction, relearning
from jaxunlearn.attacks.relearning import plan as trial_plan
from jaxunlearn.attacks.relearning import reminiscence, running
from jaxunlearn.data import exclusion, naming
from jaxunlearn.population import capacity
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.execution import members
from jaxunlearn.runs.roles import audited, extracted
from jaxunlearn.settings import to_dict
from jaxunlearn.unlearn.base import network as networks

VERSION = 1
ROOT = "relearned"
GROUP = 60  # dense members side by side on a CPU: their weights stay in a core's cache
COPIES = 6  # of a member's parameters that a device holds: weights, momentum, gradient, and what they are made from
OF_TRIALS = ("share", "trials", "retained", "steps", "learning_rates", "carried")
OF_RECOVERY = ("recovery_epochs", "recovery_rate", "recovery_batch")
Tree = Any


class Plan(NamedTuple):
    """What is relearned, in rows of the data set followed by the excluded rows.

    Attributes:
      trials: per forget set, at all rates; empty where forget sets are single rows.
      probes: per trial.
    """

    trials: tuple[trial_plan.Trials, ...]
    probes: int


def is_class_wise(experiment: experiments.Experiment, split: records.Split) -> bool:
    """Whether every forget set is a whole (fine) class, so that unseen classes are its yardstick."""
    labels, forget = np.asarray(experiment.dataset.labels), np.asarray(split.forget)
    return split.kind in ("one_class", "subclass") and all(len(np.unique(labels[mask])) == 1 for mask in forget)


def make_plan(experiment: experiments.Experiment, split: records.Split) -> Plan:
    """Draws the trials against the model of every forget set; nothing is read or stored.

    Raises:
      ConfigError: no unseen classes, or too few rows.
    """
    if not is_class_wise(experiment, split):
        return Plan((), 0)
    chosen, dataset = experiment.settings.reminisce, experiment.dataset
    forget, target = np.asarray(split.forget), np.asarray(split.target)
    size = max(1, round(chosen.share * int(forget.sum(1).min())))
    ood = exclusion.require(dataset, 1, size, "launch.reminisce")
    known = len(dataset.labels)
    unseen = [known + np.flatnonzero(np.asarray(ood.labels) == one) for one in range(ood.num_classes)]
    drawn = []
    for number, mask in enumerate(forget):
        retain = target[~mask[target]]
        if len(retain) < size + chosen.retained:
            raise errors.ConfigError(
                f"forget set {number} leaves {len(retain)} retained rows, but relearning needs {size} that never come "
                f"along and {chosen.retained} per step. Lower reminisce.share or reminisce.retained."
            )
        trials = relearning.draw(
            np.flatnonzero(mask), unseen, retain, int(np.asarray(dataset.labels)[np.flatnonzero(mask)[0]]), size=size,
            repeats=chosen.trials, companions=chosen.retained, steps=chosen.steps,
            seed=experiment.settings.seed * 65_537 + number,
        )  # fmt: skip
        drawn.append(relearning.crossed(trials, [0], chosen.learning_rates))
    return Plan(tuple(drawn), size)


def check(experiment: experiments.Experiment, split: records.Split) -> None:
    """Refuses a run that cannot be attacked, before anything is trained.

    Raises:
      ConfigError: no unseen classes, too few rows, or forget sets that are parts of classes.
    """
    if split.kind in ("class_percentage", "classes"):
        raise errors.ConfigError(
            f"split.forget.kind = {split.kind!r}: the Reminiscence Attack asks whether a whole class is known "
            "(one_class, subclass), or of single rows (set_random, index_file, randperm)."
        )
    if experiment.settings.reminisce.target == "extracted" and not is_class_wise(experiment, split):
        raise errors.ConfigError(
            "reminisce.target = 'extracted' attacks clones by classes; forget sets of single rows are attacked on the "
            "models themselves (reminisce.target=models)."
        )
    make_plan(experiment, split)


def attacked(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    spec: roles.RoleSpec,
) -> Attacked:  # fmt: skip
    """What the attack sees of a role; what is kept already is read back.

    Args:
      run: the run folder, where the role is claimed and trained.
      reporter: for progress.
      experiment: of the run.
      split: of the run.
      spec: the role, of models or of their clones; one per forget set, or fewer originals than sets.

    Raises:
      StoreError: its models are not finished.
    """
    sets = len(np.asarray(split.forget))
    which = np.arange(sets) if len(spec.membership) == sets else audited.original_of(experiment.settings, sets)
    variables = members.load(spec.experiment, members.folder_of(run, spec), spec.fingerprint, which)
    if extracted.is_one(spec):
        variables = extraction.clones_of(variables)
    frozen = members.diverged(run, spec)
    alive = np.asarray([int(number) not in frozen for number in which])
    if not alive.all():
        reporter.note(f"{spec.name}: {int((~alive).sum())} model(s) diverged and are not attacked")
    if not alive.any():
        return Attacked()
    facts = {
        "role": spec.fingerprint, "split": splits.fingerprint(experiment), "version": VERSION,
        "data": experiment.data_fingerprint, "seed": experiment.settings.seed,
    }  # fmt: skip
    trials = _trials(run, reporter, experiment, split, spec, variables, facts)
    recovery = _recovery(run, reporter, experiment, split, spec, variables, facts)
    if trials is not None:
        trials = trees.take(trials, alive[trials.unit])
    if recovery is not None:
        recovery = recovery._replace(
            accuracy=recovery.accuracy[alive], before=recovery.before[alive], sets=recovery.sets[alive],
            models=which[alive], logits=None if recovery.logits is None else recovery.logits[alive],
        )  # fmt: skip
    return Attacked(trials, recovery)


def _chosen(experiment: experiments.Experiment, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in to_dict(experiment.settings.reminisce).items() if name in names}


def _trials(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    spec: roles.RoleSpec, variables: Tree, facts: dict[str, Any],
) -> Trials | None:  # fmt: skip
    """Trajectories of all trials, set by set."""
    plan = make_plan(experiment, split)
    if not plan.trials:
        return None
    facts = {**facts, **_chosen(experiment, OF_TRIALS)}
    pieces, missing = {}, []
    for number in range(len(plan.trials)):
        kept = store.kept(run, _path(run, spec, f"set_{number}"), facts, ("accuracy", "loss"))
        if kept is None:
            missing.append(number)
        else:
            pieces[number] = kept
    if missing:
        reporter.begin(f"relearning {spec.name}")
    made = _relearned(experiment, plan, variables, missing) if missing else ()
    for done, (number, found) in enumerate(made, 1):
        pieces[number] = store.keep(_path(run, spec, f"set_{number}"), facts, found)
        reporter.update(done, len(missing), "models", "")
    every = [pieces[number] for number in range(len(plan.trials))]
    rates = np.asarray(experiment.settings.reminisce.learning_rates, np.float64)  # as given, not as float32
    taken = np.concatenate([one.learning_rate for one in plan.trials])
    return Trials(
        np.concatenate([one["accuracy"] for one in every]), np.concatenate([one["loss"] for one in every]),
        np.concatenate([one.is_forgotten for one in plan.trials]),
        np.repeat(np.arange(len(plan.trials)), [len(one.victim) for one in plan.trials]),
        rates[np.abs(taken[:, None] - rates).argmin(1)],
    )  # fmt: skip


def _relearned(experiment: experiments.Experiment, plan: Plan, variables: Tree, missing: list[int]) -> Any:
    """Yields (forget set, its trajectories); one program for all sets, chunks as large as memory holds."""
    network, data, key = _network(experiment), _resident(experiment), keys.root(experiment.settings.seed)
    first = plan.trials[0]
    member_mapping = _trial_mapping(experiment, len(first.victim))
    if experiment.settings.reminisce.carried != "fresh":
        for number in missing:
            own = trees.take(variables, np.asarray([number]))
            found = running.relearn_carried(
                network.module, network.prepare, own, data, plan.trials[number], member_mapping, key=key,
                carried=experiment.settings.reminisce.carried,
            )  # fmt: skip
            yield number, {"accuracy": found.accuracy, "loss": found.loss}
        return
    each = len(first.victim)
    # Chunks end where sets end, so that a set is kept as soon as it is done.
    per_set = -(-each // max(1, min(each, _largest_chunk(experiment))))
    size = -(-each // per_set)
    padded = [trial_plan.take(one, np.minimum(np.arange(per_set * size), each - 1)) for one in plan.trials]
    joined = trial_plan.Trials(*(np.concatenate(columns) for columns in zip(*padded, strict=True)))
    joined = joined._replace(victim=np.repeat(np.arange(len(padded)), per_set * size))
    skip = [chunk for chunk in range(len(padded) * per_set) if chunk // per_set not in missing]
    halves: list[running.Trajectories] = []
    for chunk, found in running.relearn_by_chunk(
        network.module, network.prepare, variables, data, joined, member_mapping, key=key, chunk=size, skip=skip
    ):
        halves.append(found._replace(variables=None, momentum=None))
        if len(halves) == per_set:
            whole = {
                "accuracy": np.concatenate([one.accuracy for one in halves])[:each],
                "loss": np.concatenate([one.loss for one in halves])[:each],
            }
            halves = []
            yield chunk // per_set, whole


def _recovery(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    spec: roles.RoleSpec, variables: Tree, facts: dict[str, Any],
) -> Recovery | None:  # fmt: skip
    """Accuracy on forgotten rows while all models of the role are fine-tuned on their retained rows."""
    chosen = experiment.settings.reminisce
    if not chosen.recovery_epochs:
        return None
    path, facts = _path(run, spec, "recovery"), {**facts, **_chosen(experiment, OF_RECOVERY)}
    kept = store.kept(run, path, facts, ("accuracy", "before", "per_epoch", "rows", "logits"))
    if kept is None:
        reporter.say(f"relearning {spec.name} on retained rows alone")
        forget, target = np.asarray(split.forget), np.asarray(split.target)
        forgotten = [np.flatnonzero(mask) for mask in forget]
        retain = [target[~mask[target]] for mask in forget]
        network, data = _network(experiment), _resident(experiment)
        before = _accuracies(experiment, variables, data, forgotten)
        stages = ((chosen.recovery_rate, chosen.recovery_epochs), (chosen.recovery_rate / 2, chosen.recovery_epochs))
        found = reminiscence.reminisce(
            network.module, network.prepare, variables, data, retain, forgotten,
            experiments.member_mapping(experiment, len(forget)), key=keys.root(experiment.settings.seed), stages=stages,
            batch=chosen.recovery_batch,
        )  # fmt: skip
        made = {
            "accuracy": found.accuracy, "before": before,
            "per_epoch": np.asarray(found.accuracy.shape[1] // (2 * chosen.recovery_epochs)),
            **_answers(experiment, split, spec, found.variables),
        }  # fmt: skip
        kept = store.keep(path, facts, made)
    answers = (kept["rows"], kept["logits"]) if len(kept["rows"]) else (None, None)
    sets = np.arange(len(kept["before"]))
    return Recovery(kept["accuracy"], kept["before"], int(kept["per_epoch"]), sets, sets, *answers)


def _answers(
    experiment: experiments.Experiment, split: records.Split, spec: roles.RoleSpec, variables: Tree
) -> dict[str, np.ndarray]:  # fmt: skip
    """Rows [n], named, and logits [R, n, C] of fine-tuned models on them, where forget sets are single rows.

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
    for where, values in population.predict(spec.experiment.task, variables, data.inputs, rows, member_mapping):
        logits[:, where] = values
    names = naming.named(experiment.dataset, rows)
    named = {"file_rows": names.pop("rows"), **names, "labels": np.asarray(experiment.dataset.labels)[rows]}
    return {"rows": rows, "logits": logits, **named}


def _accuracies(
    experiment: experiments.Experiment, variables: Tree, data: population.DeviceDataset, forgotten: list[np.ndarray]
) -> np.ndarray:  # fmt: skip
    """[R] accuracy of each model on the rows of its own forget set."""
    rows = np.unique(np.concatenate(forgotten)).astype(np.int32)
    right = np.zeros((len(forgotten), len(rows)), bool)
    member_mapping = experiments.member_mapping(experiment, len(forgotten))
    for where, values in population.predict(experiment.task, variables, data.inputs, rows, member_mapping):
        right[:, where] = values.argmax(-1) == np.asarray(data.labels)[rows[where]]
    return np.asarray([
        right[number][np.searchsorted(rows, own)].mean() for number, own in enumerate(forgotten)
    ])  # fmt: skip


def _network(experiment: experiments.Experiment) -> Any:
    settings = experiment.settings
    return experiments.build_network(settings, experiment.dataset, experiment.mapping_policy.conv)


def _resident(experiment: experiments.Experiment) -> population.DeviceDataset:
    """The data set followed by the excluded rows, whose labels nobody reads."""
    data, ood = experiments.device_dataset(experiment), experiment.dataset.ood
    if ood is None:
        return data
    labels = np.zeros(len(ood.labels), np.int32)
    return population.DeviceDataset(np.concatenate([data.inputs, np.asarray(ood.inputs)]),
                               np.concatenate([data.labels, labels]))  # fmt: skip


def _trial_mapping(experiment: experiments.Experiment, count: int) -> population.MemberMapping:
    """The run's own; on a CPU dense networks side by side in small groups."""
    policy = experiment.mapping_policy
    is_dense = all(layer.kind != "conv" for layer in networks.layers(_network(experiment)))
    if policy.mapping == "map" and policy.group == 1 and is_dense:
        policy = policy._replace(group=GROUP)
    return experiments.member_mapping(experiments.with_policy(experiment, policy), count)


def _largest_chunk(experiment: experiments.Experiment) -> int:
    """Members that memory holds."""
    if experiment.settings.engine.chunk:
        return experiment.settings.engine.chunk
    member_mapping = experiments.member_mapping(experiment, 1)
    room = capacity.budget(list(member_mapping.mesh.devices.flat), experiment.settings.engine.memory)
    return max(1, int(room // (COPIES * 4 * experiment.cost.parameters)))


def _path(run: store.Run, spec: roles.RoleSpec, name: str) -> Any:
    return run.path(ROOT, spec.name, f"{name}.npz")
