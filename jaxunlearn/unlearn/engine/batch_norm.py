"""BatchNorm statistics after a method, for policies under which they change once more.

"recalibrate": estimated anew on the retained rows. "faithful", for methods that published code returns in training
mode: moved once more by the passes in which that code measures accuracies.
"""

from typing import Any

import jax
import numpy as np

from jaxunlearn import keys, population
from jaxunlearn.population import DeviceDataset, State, executor
from jaxunlearn.unlearn.base.method import StreamSpec
from jaxunlearn.unlearn.blocks import passes
from jaxunlearn.unlearn.engine import jobs, tasks
from jaxunlearn.unlearn.engine.jobs import UnlearningJob

Tree = Any


def finalise_batch_norm(job: UnlearningJob, state: State) -> Tree:
    """Returns the final BatchNorm statistics [M, ...] of members after a method."""
    if not state.model_state:
        return state.model_state
    policy = jobs.batch_norm_mode(job)
    if policy == "recalibrate":
        return _statistics_after(job, state, "recalibrate", (_rows_to_recalibrate(job),))
    if policy == "faithful" and jobs.template(job).left_training:
        # As in the IAM seed (spec of its methods, quirk Q1): this alone can make a whole class look forgotten.
        return _statistics_after(
            job, state, "left_training", (StreamSpec("retain", job.batch), StreamSpec("forget", job.batch))
        )
    return state.model_state


def _rows_to_recalibrate(job: UnlearningJob) -> StreamSpec:
    """Returns the rows for new statistics: the retained ones; in an ensemble, those of the model's last training."""
    method = jobs.template(job)
    if method.ensemble == 1:
        return StreamSpec("retain", job.batch)
    return next(iter(method.phases[-1].stream_specs.values()))._replace(batch=job.batch, labels=None)


def _statistics_after(job: UnlearningJob, state: State, name: str, stream_specs: tuple[StreamSpec, ...]) -> Tree:
    """Computes statistics: "recalibrate" = means over the batches of a pass, "left_training" = moved by all passes."""
    named_specs = {f"{name}_{index}": spec for index, spec in enumerate(stream_specs)}
    last = len(jobs.phases(job)) - 1
    members = range(len(job.member_ids))
    streams = {
        stream: population.from_rows(
            [jobs.rows_of(spec, jobs.member_rows(job, member, last, stream)) for member in members], spec.batch
        )
        for stream, spec in named_specs.items()
    }
    traced_phase = jobs.traced_phase(job, last)._replace(network=job.network, mode="train")

    def fn(carry: None, inputs: Tree, shared: DeviceDataset) -> Tree:
        state, streams, constants = inputs
        key = keys.member(keys.stream(traced_phase.key, name), constants["number"])
        member = tasks.member_of(traced_phase, state, shared, streams, named_specs, constants, {}, key)
        if name == "recalibrate":
            return passes.recalibrated(member, next(iter(named_specs)))
        for stream in named_specs:
            member = member._replace(model_state=passes.moved(member, stream))
        return member.model_state

    flags = np.zeros((len(job.member_ids), len(np.asarray(job.data.labels))), bool)
    constants = {"number": np.asarray(job.member_ids, np.int32), "reference": job.originals, "saved_states": {},
                 "forget": flags}  # fmt: skip
    inputs = jax.tree.map(np.asarray, (state._replace(optimizer=()), streams, constants))
    inputs = executor.place(executor.pad(inputs, job.mapping), job.mapping)
    data = executor.place(job.data, job.mapping, shared=True)
    program = executor.compile_mapped(fn, job.mapping, None, inputs, data)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(job.member_ids)], program.call(None, inputs, data))
