"""BatchNorm statistics after a method, where its policy asks for more than the method left.

"recalibrate": estimated anew on the rows that are kept. "faithful", of methods that published code returns in training
mode: moved once more by the passes that measure accuracies there.
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
    """The statistics [M, ...] of members that a method has touched."""
    if not state.model_state:
        return state.model_state
    chosen = jobs.batch_norm_mode(job)
    if chosen == "recalibrate":
        return _passed(job, state, "recalibrate", (_kept_rows(job),))
    if chosen == "faithful" and jobs.template(job).left_training:
        # As the IAM seed does it (spec of its methods, quirk Q1): this alone can make a whole class look forgotten.
        return _passed(job, state, "left_training", (StreamSpec("retain", job.batch), StreamSpec("forget", job.batch)))
    return state.model_state


def _kept_rows(job: UnlearningJob) -> StreamSpec:
    """The rows for new statistics: the retained ones; of a part of an ensemble those that it was trained on last."""
    method = jobs.template(job)
    if method.ensemble == 1:
        return StreamSpec("retain", job.batch)
    return next(iter(method.phases[-1].stream_specs.values()))._replace(batch=job.batch, labels=None)


def _passed(job: UnlearningJob, state: State, name: str, reads: tuple[StreamSpec, ...]) -> Tree:
    """Statistics by name: "recalibrate" = means over the batches of one pass, "left_training" = moved by all passes."""
    named = {f"{name}_{number}": one for number, one in enumerate(reads)}
    last = len(jobs.phases(job)) - 1
    members = range(len(job.member_ids))
    streams = {
        key: population.from_rows(
            [jobs.rows_of(one, jobs.member_rows(job, member, last, key)) for member in members], one.batch
        )
        for key, one in named.items()
    }
    stage = jobs.traced_phase(job, last)._replace(network=job.network, mode="train")

    def fn(given: None, fixed: Tree, shared: DeviceDataset) -> Tree:
        state, streams, constants = fixed
        key = keys.member(keys.stream(stage.key, name), constants["number"])
        member = tasks.member_of(stage, state, shared, streams, named, constants, {}, key)
        if name == "recalibrate":
            return passes.recalibrated(member, next(iter(named)))
        for one in named:
            member = member._replace(model_state=passes.moved(member, one))
        return member.model_state

    flags = np.zeros((len(job.member_ids), len(np.asarray(job.data.labels))), bool)
    constants = {"number": np.asarray(job.member_ids, np.int32), "reference": job.originals, "saved_states": {},
                 "forget": flags}  # fmt: skip
    fixed = jax.tree.map(np.asarray, (state._replace(optimizer=()), streams, constants))
    fixed = executor.place(executor.pad(fixed, job.mapping), job.mapping)
    data = executor.place(job.data, job.mapping, shared=True)
    program = executor.compile_mapped(fn, job.mapping, None, fixed, data)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(job.member_ids)], program.call(None, fixed, data))
