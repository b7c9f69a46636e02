"""A phase of a method as the engine's task: what ONE member does before its first step, in a step, and in an edit.

Constants of a member (a dict): `number` int32, `hyper` {name: float32}, `forget` [N_all] bool, `reference` variables of
the original, `saved_states` {name: SavedState}, `estimates` {name: tree}.
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
    """One phase ready to run.

    Attributes:
      network: of this phase (widened where it asks for that).
      build: {name: scalar} -> Method.
      position: which phase.
      mode: "train", "eval", or "first_epoch" (training mode in epoch 0 alone).
      key: root key of the role; `reads` of the phase with their batch sizes filled in.
      batch: rows per step where a stream does not say; augment: whether inputs are augmented.
    """

    network: Network
    build: Callable[[Mapping[str, Any]], Method]
    position: int
    mode: str
    key: jax.Array
    batch: int
    augment: bool


def phase_of(stage: TracedPhase, constants: Constants) -> Phase:
    """The phase with this member's hyperparameters."""
    return stage.build(constants["hyper"]).phases[stage.position]


def sized(reads: Mapping[str, StreamSpec], batch: int) -> dict[str, StreamSpec]:
    """Reads with their batch sizes filled in."""
    return {name: one._replace(batch=one.batch or batch) for name, one in reads.items()}


def member_of(
    stage: TracedPhase,
    state: State,
    data: DeviceDataset,
    streams: Mapping[str, Stream],
    reads: Mapping[str, StreamSpec],
    constants: Constants,
    found: Mapping[str, Tree],
    key: jax.Array,
) -> EstimateContext:
    """The view that an estimate gets."""
    return EstimateContext(
        stage.network, state.params, state.model_state, constants["reference"], constants["saved_states"], found, data,
        streams, sized(reads, stage.batch), constants["forget"], "eval" if stage.mode == "eval" else "train", key,
        labels_key(stage, constants), stage.augment,
    )  # fmt: skip


def labels_key(stage: TracedPhase, constants: Constants) -> jax.Array:
    """The key of label draws that last over epochs and phases."""
    return keys.member(keys.stream(stage.key, "labels"), constants["number"])


def estimate_all(
    stage: TracedPhase,
    estimates: Mapping[str, Estimate],
    state: State,
    data: DeviceDataset,
    streams: Mapping[str, Mapping[str, Stream]],
    constants: Constants,
    key: jax.Array,
) -> tuple[dict[str, Tree], Tree]:
    """All estimates in order, and the statistics after them."""
    found: dict[str, Tree] = {}
    for name, estimate in estimates.items():
        member = member_of(
            stage, state, data, streams.get(name, {}), estimate.stream_specs, constants, found, keys.stream(key, name)
        )
        found[name], moved = estimate.compute(member._replace(augment=member.augment and estimate.augment))
        state = state._replace(model_state=moved)
    return found, state.model_state


def extras(stage: TracedPhase, constants: Constants, step_info: StepInfo, key: jax.Array) -> dict[str, Any]:
    """The extras of every transform's update."""
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
    stage: TracedPhase,
    given: State,
    data: DeviceDataset,
    streams: Mapping[str, Mapping[str, Stream]],
    constants: Constants,
) -> tuple[State, dict[str, Tree], jax.Array]:
    """What ONE member does before the first step of a phase; an edit is done here altogether.

    Returns:
      (state, estimates, whether everything is finite); where it is not, the parameters stay as they came.
    """
    phase = phase_of(stage, constants)
    key = keys.at(keys.member(keys.stream(stage.key, "begin"), constants["number"]), stage.position)
    params, model_state = given.params, given.model_state
    reference = constants["reference"]
    if phase.start == "original":
        params, model_state = reference["params"], {name: leaf for name, leaf in reference.items() if name != "params"}
    elif phase.start == "fresh":
        # One draw per member number and not per phase, so that a part of an ensemble always starts alike.
        params, model_state = network.init(
            stage.network, keys.member(keys.stream(stage.key, "init"), constants["number"])
        )
    if phase.widen:
        base = stage.network._replace(
            module=stage.network.module.clone(num_classes=stage.network.num_classes - 1),
            num_classes=stage.network.num_classes - 1,
        )
        params = network.widen(base, params, keys.stream(key, "widen"))
    transform = optax.with_extra_args_support(phase.transform)
    optimizer = given.optimizer if phase.same_optimizer else transform.init(params)
    state = State(params, model_state, optimizer)
    found, model_state = estimate_all(stage, phase.estimates, state, data, streams, constants, key)
    found |= _fresh_teachers(stage, phase, constants)
    state = state._replace(model_state=model_state)
    if not phase.gradient_steps:
        step_info = StepInfo(jnp.int32(0), jnp.float32(0.0), jnp.int32(0), jnp.int32(1))
        nothing = jax.tree.map(jnp.zeros_like, params)
        now = extras(stage, {**constants, "estimates": found}, step_info, keys.stream(key, "edit"))
        updates, optimizer = transform.update(nothing, optimizer, params, **now)
        state = State(optax.apply_updates(params, protect(stage, phase, updates)), model_state, optimizer)
    finite = jnp.array(True)
    for leaf in jax.tree.leaves((state.params, state.model_state)):
        finite &= jnp.all(jnp.isfinite(leaf))
    safe = state._replace(
        params=trees.where(finite, state.params, params),
        model_state=trees.where(finite, state.model_state, model_state),
    )
    return safe, found, finite


def protect(stage: TracedPhase, phase: Phase, updates: Tree) -> Tree:
    """Updates of 0 in layers that the phase must not touch."""
    if phase.frozen is None:
        return updates
    paths = tuple(tuple(path.split("/")) for path in phase.frozen(stage.network))
    kept = network.belongs(stage.network, paths, updates)
    return jax.tree.map(lambda leaf, keep: jnp.zeros_like(leaf) if keep else leaf, updates, kept)


def task(stage: TracedPhase) -> population.Task:
    """The engine's task of a phase with moves."""

    def init(key: jax.Array) -> State:
        params, model_state = network.init(stage.network, key)
        return State(params, model_state, ())

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Constants
    ) -> tuple[State, Metrics]:
        phase = phase_of(stage, constants)
        skipped = phase.first_epoch
        step_info = step_info._replace(
            epoch=step_info.epoch + skipped, step=step_info.step + skipped * step_info.length
        )
        view = member_of(stage, state, DeviceDataset(jnp.zeros(0), jnp.zeros(0)), {}, {}, constants, {}, key)
        samples = {
            name: _samples(view, phase.stream_specs[name], batch, keys.stream(key, name), step_info)
            for name, batch in batches.items()
        }
        teachers = _teachers(stage, phase, samples, constants)
        transform = optax.with_extra_args_support(phase.transform)
        driver = next(iter(phase.stream_specs))
        loss, logits = jnp.float32(0.0), None
        for number, move in enumerate(phase.gradient_steps):

            def make(
                state: State, move: GradientStep = move, number: int = number
            ) -> tuple[State, jax.Array, jax.Array]:
                return _move(stage, phase, move, transform, state, samples, teachers, step_info, keys.at(key, number),
                             constants, driver)  # fmt: skip

            def skip(state: State) -> tuple[State, jax.Array, jax.Array]:
                shape = (*samples[driver].labels.shape, stage.network.num_classes)
                return state, jnp.float32(0.0), jnp.zeros(shape)

            if move.interval > 1:
                state, own, answers = jax.lax.cond(step_info.step % move.interval == 0, make, skip, state)
            else:
                state, own, answers = make(state)
            loss = loss + own
            if logits is None or driver in answered(move, phase):
                logits = answers
        assert logits is not None  # a task is made of phases with moves only
        batch = samples[driver]
        return state, Metrics(loss, *population.right_answers(logits, batch.labels, batch.weights))

    def predict(variables: Tree, inputs: jax.Array) -> jax.Array:
        collections = dict(variables)
        params = collections.pop("params")
        prepared = stage.network.prepare(inputs, keys.root(0), False)
        return network.forward(stage.network, params, collections, prepared)[0]

    def view(variables: Tree, inputs: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return predict(variables, inputs)

    return population.Task(init, step, predict, view)


def _samples(view: EstimateContext, reads: StreamSpec, batch: Batch, key: jax.Array, step_info: StepInfo) -> Samples:
    inputs = view.network.prepare(batch.inputs, keys.stream(key, "augment"), view.augment)
    found = Samples(inputs, batch.labels, batch.weights, batch.rows, view.forget[batch.rows])
    return passes.relabelled(view, reads, found, step_info.epoch)


def _fresh_teachers(stage: TracedPhase, phase: Phase, constants: Constants) -> dict[str, Tree]:
    """Variables of the phase's random networks, drawn once for all its steps."""
    found = {}
    for name, source in phase.teachers.items():
        if source == "fresh":
            key = keys.member(keys.stream(stage.key, "teacher"), constants["number"])
            params, model_state = network.init(stage.network, key)
            found[f"teacher {name}"] = {"params": params, **model_state}
    return found


def _teachers(
    stage: TracedPhase, phase: Phase, samples: Mapping[str, Samples], constants: Constants
) -> dict[str, dict[str, jax.Array]]:
    """Logits of every teacher on every stream, in evaluation mode."""
    found = {}
    for name, source in phase.teachers.items():
        if source == "original":
            variables = constants["reference"]
        elif source == "fresh":
            variables = constants["estimates"][f"teacher {name}"]
        else:
            saved = constants["saved_states"][source]
            variables = {"params": saved.params, **saved.model_state}
        rest = {key: leaf for key, leaf in variables.items() if key != "params"}
        found[name] = {
            stream: jax.lax.stop_gradient(
                network.forward(stage.network, variables["params"], rest, one.inputs, one.weights)[0]
            )
            for stream, one in samples.items()
        }
    return found


def _original_features(stage: TracedPhase, batch: Samples, constants: Constants) -> tuple[jax.Array, ...]:
    """Features of a batch in the original model; what no objective reads the compiler leaves out."""
    params, rest = (
        constants["reference"]["params"],
        {name: leaf for name, leaf in constants["reference"].items() if name != "params"},
    )
    return jax.lax.stop_gradient(network.with_features(stage.network, params, rest, batch.inputs, batch.weights)[2])


def answered(move: GradientStep, phase: Phase) -> tuple[str, ...]:
    """The streams that the model answers for in the phase's own mode."""
    return move.streams or tuple(name for name in phase.stream_specs if name not in move.eval_streams)


def _move(
    stage: TracedPhase,
    phase: Phase,
    move: GradientStep,
    transform: optax.GradientTransformationExtraArgs,
    state: State,
    samples: Mapping[str, Samples],
    teachers: Mapping[str, Mapping[str, jax.Array]],
    step_info: StepInfo,
    key: jax.Array,
    constants: Constants,
    driver: str,
) -> tuple[State, jax.Array, jax.Array]:
    """One gradient step of one move: new state, loss, logits on the driving stream."""
    chosen = answered(move, phase)

    def evaluate(params: Tree, part: str, mode: str) -> tuple[jax.Array, tuple[Tree, jax.Array]]:
        objective = move.objective[part] if isinstance(move.objective, Mapping) else move.objective
        outputs, model_state, seen = {}, state.model_state, dict(samples)
        features: dict[str, Features] = {}
        for name in chosen:
            if part in move.row_filter:
                is_seen = move.row_filter[part](samples[name])
                seen[name] = samples[name]._replace(weights=jnp.where(is_seen, samples[name].weights, 0.0))
            batch = seen[name]
            asked = stage.network, params, model_state, batch.inputs, batch.weights, mode, keys.stream(key, name)
            if name in move.features:
                outputs[name], model_state, current = network.with_features(*asked)
                features[name] = Features(current, _original_features(stage, batch, constants))
            else:
                outputs[name], model_state = network.forward(*asked)
        for name in move.eval_streams:
            batch = seen[name]
            outputs[name], _ = network.forward(stage.network, params, state.model_state, batch.inputs, batch.weights)
        now = StepContext(stage.network, params, constants["reference"]["params"], teachers, constants["estimates"],
                  constants["saved_states"], step_info, key, features)  # fmt: skip
        shown = outputs.get(driver, next(iter(outputs.values())))
        return objective(outputs, seen, now), (model_state, shown)

    def differentiate(part: str = "") -> tuple[tuple[jax.Array, tuple[Tree, jax.Array]], Tree]:
        def run(mode: str) -> tuple[tuple[jax.Array, tuple[Tree, jax.Array]], Tree]:
            return jax.value_and_grad(evaluate, has_aux=True)(state.params, part, mode)

        if stage.mode != "first_epoch":
            return run(stage.mode)
        return jax.lax.cond(step_info.epoch == 0, lambda: run("train"), lambda: run("eval"))

    given = extras(stage, constants, step_info, key)
    if isinstance(move.objective, Mapping):
        losses, gradients = jnp.float32(0.0), jax.tree.map(jnp.zeros_like, state.params)
        model_state, shown = state.model_state, None
        for name in move.objective:
            (loss, (model_state, shown)), own = differentiate(name)
            given[f"{name}_grads"] = own
            given["losses"] = {**given["losses"], name: loss}
            gradients, losses = jax.tree.map(jnp.add, gradients, own), losses + loss
    else:
        (losses, (model_state, shown)), gradients = differentiate()
    if move.pre_transform is not None:
        before = optax.with_extra_args_support(move.pre_transform)
        gradients = before.update(gradients, before.init(state.params), state.params, **given)[0]
    updates, optimizer = transform.update(gradients, state.optimizer, state.params, **given)
    params = optax.apply_updates(state.params, protect(stage, phase, updates))
    assert shown is not None  # every move answers for at least one stream
    return State(params, model_state, optimizer), losses, jax.lax.stop_gradient(shown)
