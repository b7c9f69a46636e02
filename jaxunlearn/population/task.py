"""What one member of a population is: how it starts, takes one step, and answers.

A `Task` is written for ONE member, undecorated; the executor (`executor.py`, `training.py`) maps it over members.
Anything trainable fits: a task is four functions, and `supervised` builds the usual one from a flax module, a `prepare`
function (augmentation and normalisation) and a recipe. Unlearning methods build theirs from several streams and
constants.

    state, metrics = task.step(state, batches, clock, key, constants)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxunlearn import keys, settings
from jaxunlearn.population import recipe

Tree = Any


class Batch(NamedTuple):
    """Rows of the resident data set that one member reads in one step."""

    inputs: jax.Array  # [B, ...] as resident: uint8 or float32, not yet normalised
    labels: jax.Array  # [B] int32; of texts [B, T], the next tokens, -1 = none
    weights: jax.Array  # [B] float32, 0 marks padding
    rows: jax.Array  # [B] int32 rows of the data set


class State(NamedTuple):
    """Everything of one member that training changes."""

    params: Tree
    model_state: Tree  # the other flax collections, e.g. {"batch_stats": ...}; {} where there are none
    optimizer: Tree


class StepInfo(NamedTuple):
    """When a step happens, for schedules."""

    epoch: jax.Array  # int32, from 0
    fraction: jax.Array  # float32 in [0, 1): the part of the member's own epoch that is over
    step: jax.Array  # int32, from 0, over all epochs
    length: jax.Array | int = 1  # int32 steps of the member's own epoch


class Metrics(NamedTuple):
    """What a step reports; sums, so that an epoch's mean is exact with unequal batches."""

    loss: jax.Array  # float32 scalar, the batch's objective: decides over divergence
    correct: jax.Array  # float32 scalar, weighted number of right answers
    weight: jax.Array  # float32 scalar, sum of the batch's weights


class Task(NamedTuple):
    """One member as pure functions."""

    init: Callable[[jax.Array], State]  # key -> state
    step: Callable[[State, Mapping[str, Batch], StepInfo, jax.Array, Tree], tuple[State, Metrics]]
    # (variables, raw inputs [B, ...]) -> [B, K] float32: logits, or what of them is recorded
    predict: Callable[[Tree, jax.Array], jax.Array]
    view: Callable[[Tree, jax.Array, jax.Array], jax.Array]  # the same through the training augmentation, with a key
    # (variables, raw inputs [B, ...], rows [B], constants) -> [B] bool, by which the best epoch is chosen; None = the
    # answer is the label.
    is_right: Callable[[Tree, jax.Array, jax.Array, Tree], jax.Array] | None = None


def variables(state: State) -> dict[str, Tree]:
    """The flax variables of a state: parameters and statistics."""
    return {"params": state.params, **state.model_state}


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of values over places of positive weight, of the same shape; 0 for an empty batch, never 0/0."""
    total = jnp.sum(weights)
    return jnp.sum(jnp.where(weights > 0, values * weights, 0.0)) / jnp.where(total > 0, total, 1.0)


def answer_weights(labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Weights of answers: those of rows [B] for labels [B]; for next tokens [B, T] the row's, 0 where there is none."""
    return weights if labels.ndim == 1 else jnp.where(labels >= 0, weights[:, None], 0.0)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross entropies, with optional label smoothing; of any value where a next token is -1, never NaN.

    Args:
      logits: [..., C] float32.
      labels: [...] int32.
      smoothing: share of the probability that is spread over all answers.
    """
    labels = jnp.maximum(labels, 0)
    if smoothing == 0.0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def right_answers(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted number of right answers in a batch, and the sum of their weights."""
    weights = answer_weights(labels, weights)
    return jnp.sum(jnp.where(jnp.argmax(logits, -1) == labels, weights, 0.0)), jnp.sum(weights)


def supervised(
    module: nn.Module,
    evaluator: nn.Module,
    prepare: Callable[[jax.Array, jax.Array, bool], jax.Array],
    train: settings.TrainSettings,
    example: jax.ShapeDtypeStruct,
    record: Callable[[jax.Array, jax.Array], jax.Array] = lambda logits, inputs: logits,
) -> Task:
    """The usual task: cross entropy on one stream named `train`, of classes or of next tokens.

    Args:
      module: the network for training, called as `module.apply(variables, inputs, train=..., mask=...)`.
      evaluator: the same network for answering (float32, whatever training computes in).
      prepare: (raw inputs [B, ...], key, is_train) -> float32 network inputs [B, ...].
      train: the recipe. `constants` of a step must hold float32 scalars `learning_rate` and `weight_decay`.
      example: shape and dtype of ONE raw row, without the batch axis.
      record: (logits, raw inputs) -> [B, K] float32, what of the answers is kept: the logits themselves, or the signals
        of next tokens.
    """

    def init(key: jax.Array) -> State:
        blank = prepare(jnp.zeros((1, *example.shape), example.dtype), key, False)
        collections = dict(evaluator.init(key, blank, train=False))
        params = collections.pop("params")
        return State(params, collections, recipe.transform(train, 0.0, 0.0).init(params))

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Tree
    ) -> tuple[State, Metrics]:
        batch = batches["train"]
        inputs = prepare(batch.inputs, keys.stream(key, "augment"), True)

        def objective(params: Tree) -> tuple[jax.Array, tuple[Tree, jax.Array]]:
            logits, model_state = module.apply(
                {"params": params, **state.model_state},
                inputs,
                train=True,
                mask=batch.weights > 0,
                mutable=list(state.model_state),
                rngs={"dropout": keys.stream(key, "dropout")},
            )
            losses = cross_entropy(logits, batch.labels, train.label_smoothing)
            return weighted_mean(losses, answer_weights(batch.labels, batch.weights)), (dict(model_state), logits)

        (loss, (model_state, logits)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        rate = constants["learning_rate"] * recipe.rate(train, step_info.epoch, step_info.fraction)
        transform = recipe.transform(train, rate, constants["weight_decay"])
        updates, optimizer = transform.update(gradients, state.optimizer, state.params)
        metrics = Metrics(loss, *right_answers(logits, batch.labels, batch.weights))
        return State(optax.apply_updates(state.params, updates), model_state, optimizer), metrics

    def predict(collections: Tree, inputs: jax.Array) -> jax.Array:
        logits = evaluator.apply(collections, prepare(inputs, keys.root(0), False), train=False)
        return record(jnp.asarray(logits), inputs)

    def view(collections: Tree, inputs: jax.Array, key: jax.Array) -> jax.Array:
        return record(jnp.asarray(evaluator.apply(collections, prepare(inputs, key, True), train=False)), inputs)

    return Task(init, step, predict, view)


def in_training_mode(
    task: Task, evaluator: nn.Module, prepare: Callable[[jax.Array, jax.Array, bool], jax.Array]
) -> Task:
    """The same task, answering as a network that was never switched out of training mode.

    BatchNorm normalises by the rows of the call, so that an answer depends on its batch; running statistics stay as
    they are. Dropout drops, alike in every call.

    Args:
      task: from `supervised`.
      evaluator: as there.
      prepare: as there; inputs are not augmented.
    """

    def predict(collections: Tree, inputs: jax.Array) -> jax.Array:
        key = keys.root(0)
        shown = prepare(inputs, key, False)
        return jnp.asarray(
            evaluator.apply(collections, shown, train=True, rngs={"dropout": keys.stream(key, "dropout")})
        )

    return task._replace(predict=predict)
