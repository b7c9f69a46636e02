"""The tuner: times the candidate mappings on this machine and caches the fastest.

    engine.tune=True -> cached for (device, jax, network, shapes, batch)? else ~20 steps of each candidate

Candidates that fail (memory, compiler) are skipped with a message. Mappings change speed and rounding only; without
`engine.tune` the platform's default is used, so that results never depend on a cache.
"""

import time
from collections.abc import Callable

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, store
from jaxunlearn.population import training
from jaxunlearn.runs import experiments
from jaxunlearn.store import tuning

STEPS = 20
MEMBERS = 16


def candidates(platform: str, has_convolutions: bool) -> list[experiments.MappingPolicy]:
    """Returns the policies worth timing on a platform; the first is its default for mid-sized networks."""
    if platform == "cpu":
        forms = [("map", 1, "cpu"), ("map", 1, "im2col"), ("map", 4, "im2col"), ("vmap", 1, "im2col")]
    else:
        forms = [
            ("map", 8, "unrolled"),
            ("map", 4, "unrolled"),
            ("map", 1, "native"),
            ("map", 8, "grouped"),
            ("vmap", 1, "im2col"),
        ]
    if not has_convolutions:
        forms = [("map", 1, "native"), ("map", 8, "native"), ("vmap", 1, "native")]
    return [experiments.MappingPolicy(mapping, group, conv, 0) for mapping, group, conv in forms]


def tune_policy(experiment: experiments.Experiment, log: Callable[[str], None]) -> experiments.Experiment:
    """Returns the experiment with the fastest policy for its task: from the cache, or timed now."""
    key = _key(experiment)
    remembered = tuning.recall(key)
    if remembered is not None:
        best = experiments.MappingPolicy(
            remembered["mapping"], remembered["group"], remembered["conv"], experiment.mapping_policy.devices
        )
        log(f"tuning remembered: {describe(best)}, {progress.rate(remembered['rate'])} model-steps/s")
        return experiments.with_policy(experiment, best)
    platform = jax.local_devices()[0].platform
    rates: dict[experiments.MappingPolicy, float] = {}
    for candidate in candidates(platform, experiment.cost.largest_conv_flops > 0):
        policy = candidate._replace(devices=experiment.mapping_policy.devices)
        try:
            rates[policy] = measure_mappings(experiments.with_policy(experiment, policy))
        except (jax.errors.JaxRuntimeError, errors.UserError) as error:
            log(f"tuning: {describe(policy)} fails here ({str(error).splitlines()[0][:100]})")
            continue
        log(f"tuning: {describe(policy)}: {progress.rate(rates[policy])} model-steps/s")
    if not rates:
        return experiment
    best = max(rates, key=lambda policy: rates[policy])
    tuning.remember(key, {**best._asdict(), "rate": round(rates[best], 1)})
    return experiments.with_policy(experiment, best)


def measure_mappings(experiment: experiments.Experiment) -> float:
    """Measures model-steps per second of up to 16 members over 20 steps, after one warm-up call."""
    settings = experiment.settings
    members = min(MEMBERS, settings.shadows.count)
    rows = min(STEPS * settings.train.batch, experiment.dataset.num_train)
    membership = np.zeros((members, len(experiment.dataset.labels)), bool)
    membership[:, :rows] = True
    stream = population.from_membership(membership)
    ones = np.ones(members, np.float32)
    job = population.TrainingJob(
        task=experiment.task,
        streams={"train": stream},
        batches={"train": settings.train.batch},
        member_ids=np.arange(members, dtype=np.int32),
        key=keys.root(settings.seed),
        constants={"learning_rate": 1e-3 * ones, "weight_decay": 0.0 * ones},
        steps=population.steps_per_epoch(stream, settings.train.batch),
    )
    member_mapping = experiments.member_mapping(experiment, members)
    data = experiments.device_dataset(experiment)
    program = training.compile_epoch(job, data, member_mapping)
    seconds, previous_time = [], time.monotonic()
    for _ in population.train(job, data, 4, member_mapping, program=program):
        current_time = time.monotonic()
        seconds.append(current_time - previous_time)
        previous_time = current_time
    return members * job.steps / float(np.median(seconds[1:]))


def describe(policy: experiments.MappingPolicy) -> str:
    """Describes a policy: `map in groups of 8, conv unrolled`."""
    group = f" in groups of {policy.group}" if policy.group > 1 else ""
    return f"{policy.mapping}{group}, conv {policy.conv}"


def _key(experiment: experiments.Experiment) -> str:
    device = jax.local_devices()[0]
    facts = {
        "devices": experiment.mapping_policy.devices,
        "model": vars(experiment.settings.model),
        "shape": experiment.dataset.inputs.shape[1:],
        "classes": experiment.dataset.num_answers,
        "batch": experiment.settings.train.batch,
        "augment": experiment.settings.data.augment,
    }
    return f"{device.device_kind} jax {jax.__version__} {store.files.fingerprint(facts)}"


def obtain(experiment: experiments.Experiment, reporter: progress.Reporter) -> experiments.Experiment:
    """Returns the experiment with the requested policy: tuned, unless mapping and form are set explicitly."""
    engine = experiment.settings.engine
    is_fixed = engine.mapping != "auto" or engine.conv != "auto" or engine.group
    return tune_policy(experiment, reporter.log) if engine.tune and not is_fixed else experiment
