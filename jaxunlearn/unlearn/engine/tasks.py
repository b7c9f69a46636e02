"""A phase of a method as a task of the population engine: start, step and one-shot change of ONE member.

Constants of a member (a dict): `number` int32 (its id), `hyper` {name: float32}, `forget` [N_all] bool, `reference`
variables of the original, `saved_states` {name: SavedState}, `estimates` {name: tree}.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import keys, population, trees
from jaxunlearn.population import Batch, DeviceDataset, Metrics, State, StepInfo, Stream
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    Features,
    GradientStep,
    Method,
    Phase,
    Samples,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.blocks import passes

Tree = Any
Constants = Mapping[str, Any]


class TracedPhase(NamedTuple):
    """One phase, ready to be traced.

    Attributes:
      network: of this phase (widened if the phase is).
      build: {name: scalar} -> Method.
      position: index of the phase.
      mode: "train", "eval", or "first_epoch" (training mode in epoch 0 only).
      key: root key of the role.
      batch: rows per step of streams without a batch size; `augment`: whether inputs are augmented.
    """

    network: Network
    build: Callable[[Mapping[str, Any]], Method]
    position: int
    mode: str
    key: jax.Array
    batch: int
    augment: bool


def phase_of(traced_phase: TracedPhase, constants: Constants) -> Phase:
    """Returns the phase with this member's hyperparameters."""
    return traced_phase.build(constants["hyper"]).phases[traced_phase.position]


def with_batch_sizes(stream_specs: Mapping[str, StreamSpec], batch: int) -> dict[str, StreamSpec]:
    """Returns stream specs with batch sizes; `batch` is that of specs without one."""
    return {name: spec._replace(batch=spec.batch or batch) for name, spec in stream_specs.items()}


def member_of(
    traced_phase: TracedPhase,
    state: State,
    data: DeviceDataset,
    streams: Mapping[str, Stream],
    stream_specs: Mapping[str, StreamSpec],
    constants: Constants,
    estimates: Mapping[str, Tree],
    key: jax.Array,
) -> EstimateContext:
    """Returns the member as an estimate sees it.

    Args:
      traced_phase: the phase.
      state: of the member.
      data: the data set.
      streams: of the estimate, by name.
      stream_specs: likewise.
      constants: of the member.
      estimates: earlier ones of the phase, by name.
      key: of the estimate.
    """
    return EstimateContext(
        traced_phase.network, state.params, state.model_state, constants["reference"], constants["saved_states"],
        estimates, data, streams, with_batch_sizes(stream_specs, traced_phase.batch), constants["forget"],
        "eval" if traced_phase.mode == "eval" else "train", key, labels_key(traced_phase, constants),
        traced_phase.augment,
    )  # fmt: skip


def labels_key(traced_phase: TracedPhase, constants: Constants) -> jax.Array:
    """Returns the key of drawn labels that stay the same over epochs and phases."""
    return keys.member(keys.stream(traced_phase.key, "labels"), constants["number"])


def estimate_all(
    traced_phase: TracedPhase,
    estimates: Mapping[str, Estimate],
    state: State,
    data: DeviceDataset,
    streams: Mapping[str, Mapping[str, Stream]],
    constants: Constants,
    key: jax.Array,
) -> tuple[dict[str, Tree], Tree]:
    """Computes all estimates in order; returns them by name, and the BatchNorm statistics after them.

    Args:
      traced_phase: the phase.
      estimates: by name.
      state: of the member.
      data: the data set.
      streams: estimate -> its streams by name.
      constants: of the member.
      key: of the estimates.
    """
    values: dict[str, Tree] = {}
    for name, estimate in estimates.items():
        member = member_of(
            traced_phase,
            state,
            data,
            streams.get(name, {}),
            estimate.stream_specs,
            constants,
            values,
            keys.stream(key, name),
        )
        values[name], model_state = estimate.compute(member._replace(augment=member.augment and estimate.augment))
        state = state._replace(model_state=model_state)
    return values, state.model_state


def extras(constants: Constants, step_info: StepInfo, key: jax.Array) -> dict[str, Any]:
    """Returns the extras of every transform's update (see `transforms.py`)."""
    estimates = constants["estimates"]
    return {
        "step_info": step_info,
        "key": key,
        "reference_params": constants["reference"]["params"],
        "forget_grads": None,
        "retain_grads": None,
        "losses": {},
        "mask": estimates.get("mask"),
        "estimates": estimates,
        "saved_states": constants["saved_states"],
    }


def begin(
    traced_phase: TracedPhase,
    initial: State,
    data: DeviceDataset,
    streams: Mapping[str, Mapping[str, Stream]],
    constants: Constants,
) -> tuple[State, dict[str, Tree], jax.Array]:
    """Computes the start of a phase for ONE member: state and estimates before its first step, or its one-shot change.

    Args:
      traced_phase: the phase.
      initial: state after the previous phase.
      data: the data set.
      streams: estimate -> its streams by name.
      constants: of the member.

    Returns:
      (state, estimates, whether everything is finite); if it is not, parameters and statistics stay unchanged.
    """
    phase, net = phase_of(traced_phase, constants), traced_phase.network
    key = keys.at(keys.member(keys.stream(traced_phase.key, "begin"), constants["number"]), traced_phase.position)
    params, model_state = initial.params, initial.model_state
    if phase.start == "original":
        params, model_state = trees.split_variables(constants["reference"])
    elif phase.start == "fresh":
        # One draw per member id and not per phase, so that a model of an ensemble always starts from the same.
        params, model_state = network.init(net, keys.member(keys.stream(traced_phase.key, "init"), constants["number"]))
    if phase.widen:
        num_classes = net.num_classes - 1
        base = net._replace(module=net.module.clone(num_classes=num_classes), num_classes=num_classes)
        params = network.widen(base, params, keys.stream(key, "widen"))
    transform = optax.with_extra_args_support(phase.transform)
    optimizer = initial.optimizer if phase.same_optimizer else transform.init(params)
    state = State(params, model_state, optimizer)
    estimates, model_state = estimate_all(traced_phase, phase.estimates, state, data, streams, constants, key)
    estimates |= _fresh_teachers(traced_phase, phase, constants)
    state = state._replace(model_state=model_state)
    if not phase.gradient_steps:
        step_info = StepInfo(jnp.int32(0), jnp.float32(0.0), jnp.int32(0), jnp.int32(1))
        zero_gradients = jax.tree.map(jnp.zeros_like, params)
        update_extras = extras({**constants, "estimates": estimates}, step_info, keys.stream(key, "edit"))
        updates, optimizer = transform.update(zero_gradients, optimizer, params, **update_extras)
        state = State(optax.apply_updates(params, protect(traced_phase, phase, updates)), model_state, optimizer)
    is_finite = jnp.array(True)
    for leaf in jax.tree.leaves((state.params, state.model_state)):
        is_finite &= jnp.all(jnp.isfinite(leaf))
    finite_state = state._replace(
        params=trees.where(is_finite, state.params, params),
        model_state=trees.where(is_finite, state.model_state, model_state),
    )
    return finite_state, estimates, is_finite


def protect(traced_phase: TracedPhase, phase: Phase, updates: Tree) -> Tree:
    """Returns updates with 0 in the frozen layers of the phase."""
    if phase.frozen is None:
        return updates
    paths = tuple(tuple(path.split("/")) for path in phase.frozen(traced_phase.network))
    is_frozen = network.mask_of_paths(paths, updates)
    return jax.tree.map(lambda leaf, frozen: jnp.zeros_like(leaf) if frozen else leaf, updates, is_frozen)


def task(traced_phase: TracedPhase) -> population.Task:
    """Returns the task of a phase with gradient steps."""

    def init(key: jax.Array) -> State:
        params, model_state = network.init(traced_phase.network, key)
        return State(params, model_state, ())

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Constants
    ) -> tuple[State, Metrics]:
        phase = phase_of(traced_phase, constants)
        offset = phase.first_epoch
        step_info = step_info._replace(epoch=step_info.epoch + offset, step=step_info.step + offset * step_info.length)
        member = member_of(traced_phase, state, DeviceDataset(jnp.zeros(0), jnp.zeros(0)), {}, {}, constants, {}, key)
        samples = {
            name: _samples(member, phase.stream_specs[name], batch, keys.stream(key, name), step_info)
            for name, batch in batches.items()
        }
        teachers = _teachers(traced_phase, phase, samples, constants)
        transform = optax.with_extra_args_support(phase.transform)
        primary = next(iter(phase.stream_specs))
        loss, logits = jnp.float32(0.0), None
        for index, gradient_step in enumerate(phase.gradient_steps):

            def take_step(
                state: State, gradient_step: GradientStep = gradient_step, index: int = index
            ) -> tuple[State, jax.Array, jax.Array]:
                return _take_step(traced_phase, phase, gradient_step, transform, state, samples, teachers, step_info,
                                  keys.at(key, index), constants, primary)  # fmt: skip

            def skip(state: State) -> tuple[State, jax.Array, jax.Array]:
                shape = (*samples[primary].labels.shape, traced_phase.network.num_classes)
                return state, jnp.float32(0.0), jnp.zeros(shape)

            if gradient_step.interval > 1:
                is_due = step_info.step % gradient_step.interval == 0
                state, step_loss, step_logits = jax.lax.cond(is_due, take_step, skip, state)
            else:
                state, step_loss, step_logits = take_step(state)
            loss = loss + step_loss
            if logits is None or primary in forward_streams(gradient_step, phase):
                logits = step_logits
        assert logits is not None  # tasks are made for phases with gradient steps only
        batch = samples[primary]
        return state, Metrics(loss, *population.right_answers(logits, batch.labels, batch.weights))

    def predict(variables: Tree, inputs: jax.Array) -> jax.Array:
        prepared = traced_phase.network.prepare(inputs, keys.root(0), False)
        return network.forward(traced_phase.network, *trees.split_variables(variables), prepared)[0]

    def view(variables: Tree, inputs: jax.Array, row_keys: jax.Array) -> jax.Array:
        del row_keys
        return predict(variables, inputs)

    return population.Task(init, step, predict, view)


def _samples(member: EstimateContext, spec: StreamSpec, batch: Batch, key: jax.Array, step_info: StepInfo) -> Samples:
    inputs = member.network.prepare(batch.inputs, keys.stream(key, "augment"), member.augment)
    samples = Samples(inputs, batch.labels, batch.weights, batch.rows, member.forget[batch.rows])
    return passes.relabelled(member, spec, samples, step_info.epoch)


def _fresh_teachers(traced_phase: TracedPhase, phase: Phase, constants: Constants) -> dict[str, Tree]:
    """Draws the variables of the phase's random networks, once for all its steps."""
    variables = {}
    for name, source in phase.teachers.items():
        if source == "fresh":
            key = keys.member(keys.stream(traced_phase.key, "teacher"), constants["number"])
            variables[f"teacher {name}"] = trees.join_variables(*network.init(traced_phase.network, key))
    return variables


def _teachers(
    traced_phase: TracedPhase, phase: Phase, samples: Mapping[str, Samples], constants: Constants
) -> dict[str, dict[str, jax.Array]]:
    """Computes the logits of every teacher on every stream, in evaluation mode."""
    net, logits = traced_phase.network, {}
    for name, source in phase.teachers.items():
        if source == "original":
            variables = constants["reference"]
        elif source == "fresh":
            variables = constants["estimates"][f"teacher {name}"]
        else:
            saved_state = constants["saved_states"][source]
            variables = trees.join_variables(saved_state.params, saved_state.model_state)
        params, model_state = trees.split_variables(variables)
        logits[name] = {
            stream: jax.lax.stop_gradient(network.forward(net, params, model_state, batch.inputs, batch.weights)[0])
            for stream, batch in samples.items()
        }
    return logits


def _original_features(traced_phase: TracedPhase, batch: Samples, constants: Constants) -> tuple[jax.Array, ...]:
    """Computes features of a batch in the original model; the compiler drops those that no objective reads."""
    net, (params, model_state) = traced_phase.network, trees.split_variables(constants["reference"])
    return jax.lax.stop_gradient(network.with_features(net, params, model_state, batch.inputs, batch.weights)[2])


def forward_streams(gradient_step: GradientStep, phase: Phase) -> tuple[str, ...]:
    """Returns the streams on which the model is evaluated in the mode of the phase."""
    return gradient_step.streams or tuple(name for name in phase.stream_specs if name not in gradient_step.eval_streams)


def _take_step(
    traced_phase: TracedPhase,
    phase: Phase,
    gradient_step: GradientStep,
    transform: optax.GradientTransformationExtraArgs,
    state: State,
    samples: Mapping[str, Samples],
    teachers: Mapping[str, Mapping[str, jax.Array]],
    step_info: StepInfo,
    key: jax.Array,
    constants: Constants,
    primary: str,
) -> tuple[State, jax.Array, jax.Array]:
    """Takes one gradient step; returns the new state, the loss, and the logits on the primary stream."""
    net, stream_names = traced_phase.network, forward_streams(gradient_step, phase)
    objectives = gradient_step.objective

    def evaluate(params: Tree, objective_name: str, mode: str) -> tuple[jax.Array, tuple[Tree, jax.Array]]:
        objective = objectives[objective_name] if isinstance(objectives, Mapping) else objectives
        row_filter = gradient_step.row_filter.get(objective_name)
        outputs, model_state, visible = {}, state.model_state, dict(samples)
        features: dict[str, Features] = {}
        for name in stream_names:
            batch = samples[name]
            if row_filter is not None:
                batch = visible[name] = batch._replace(weights=jnp.where(row_filter(batch), batch.weights, 0.0))
            arguments = net, params, model_state, batch.inputs, batch.weights, mode, keys.stream(key, name)
            if name in gradient_step.features:
                outputs[name], model_state, current = network.with_features(*arguments)
                features[name] = Features(current, _original_features(traced_phase, batch, constants))
            else:
                outputs[name], model_state = network.forward(*arguments)
        for name in gradient_step.eval_streams:
            batch = visible[name]
            outputs[name], _ = network.forward(net, params, state.model_state, batch.inputs, batch.weights)
        context = StepContext(net, params, constants["reference"]["params"], teachers, constants["estimates"],
                              constants["saved_states"], step_info, key, features)  # fmt: skip
        logits = outputs.get(primary, next(iter(outputs.values())))
        return objective(outputs, visible, context), (model_state, logits)

    def differentiate(name: str = "") -> tuple[tuple[jax.Array, tuple[Tree, jax.Array]], Tree]:
        def in_mode(mode: str) -> tuple[tuple[jax.Array, tuple[Tree, jax.Array]], Tree]:
            return jax.value_and_grad(evaluate, has_aux=True)(state.params, name, mode)

        if traced_phase.mode != "first_epoch":
            return in_mode(traced_phase.mode)
        return jax.lax.cond(step_info.epoch == 0, lambda: in_mode("train"), lambda: in_mode("eval"))

    update_extras = extras(constants, step_info, key)
    if isinstance(objectives, Mapping):
        total_loss, gradients = jnp.float32(0.0), jax.tree.map(jnp.zeros_like, state.params)
        model_state, logits = state.model_state, None
        for name in objectives:
            (loss, (model_state, logits)), objective_gradient = differentiate(name)
            update_extras[f"{name}_grads"] = objective_gradient
            update_extras["losses"] = {**update_extras["losses"], name: loss}
            gradients, total_loss = jax.tree.map(jnp.add, gradients, objective_gradient), total_loss + loss
    else:
        (total_loss, (model_state, logits)), gradients = differentiate()
    if gradient_step.pre_transform is not None:
        pre_transform = optax.with_extra_args_support(gradient_step.pre_transform)
        gradients = pre_transform.update(gradients, pre_transform.init(state.params), state.params, **update_extras)[0]
    updates, optimizer = transform.update(gradients, state.optimizer, state.params, **update_extras)
    params = optax.apply_updates(state.params, protect(traced_phase, phase, updates))
    assert logits is not None  # every gradient step has at least one stream
    return State(params, model_state, optimizer), total_loss, jax.lax.stop_gradient(logits)
