"""One member of a population: how it is initialised, takes one step, and predicts.

A `Task` is written for ONE member, without any mapping; the executor (`executor.py`, `training.py`) maps it over
members. Anything trainable fits: a task is four functions, and `supervised` builds the usual one from a flax module, a
`prepare` function (augmentation and normalisation) and a recipe. Unlearning methods build theirs from several streams
and constants.

    state, metrics = task.step(state, batches, step_info, key, constants)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxunlearn import keys, settings, trees
from jaxunlearn.population import recipe

Tree = Any


class Batch(NamedTuple):
    """Rows of the data set that one member reads in one step."""

    inputs: jax.Array  # [B, ...] as stored on the device: uint8 or float32, not yet normalised
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
    fraction: jax.Array  # float32 in [0, 1): elapsed fraction of the member's own epoch
    step: jax.Array  # int32, from 0, over all epochs
    length: jax.Array | int = 1  # int32 steps of the member's own epoch


class Metrics(NamedTuple):
    """Results of a step; sums, so that an epoch's mean is exact with unequal batches."""

    loss: jax.Array  # float32 scalar, the batch's objective; a member diverges when it is not finite
    correct: jax.Array  # float32 scalar, weighted number of correct predictions
    weight: jax.Array  # float32 scalar, sum of the batch's weights


class Task(NamedTuple):
    """One member as pure functions."""

    init: Callable[[jax.Array], State]  # key -> state
    step: Callable[[State, Mapping[str, Batch], StepInfo, jax.Array, Tree], tuple[State, Metrics]]
    # (variables, raw inputs [B, ...]) -> [B, K] float32: logits, or the signals recorded instead
    predict: Callable[[Tree, jax.Array], jax.Array]
    view: Callable[[Tree, jax.Array, jax.Array], jax.Array]  # the same through the training augmentation, keys [B]
    # (variables, raw inputs [B, ...], rows [B], constants) -> [B] bool, by which the best epoch is selected; None =
    # whether the prediction is the label.
    is_correct: Callable[[Tree, jax.Array, jax.Array, Tree], jax.Array] | None = None


class Network(NamedTuple):
    """One architecture with the preparation of its inputs.

    Attributes:
      module: called as module.apply(variables, inputs, train=..., mask=...) -> logits [B, C] float32; a language model
        takes tokens [B, T] int32 (-1 = padding) and returns [B, T, V].
      prepare: (raw inputs [B, ...], key, is_train) -> float32 network inputs.
      example: shape and dtype of ONE raw row.
      num_classes: C, or V.
    """

    module: nn.Module
    prepare: Any
    example: jax.ShapeDtypeStruct
    num_classes: int


def variables(state: State) -> dict[str, Tree]:
    """Returns the flax variables of a state: parameters and the other collections.

    Example:
      >>> from jaxunlearn.population import State, variables
      >>> variables(State({"kernel": 1.0}, {"batch_stats": {"mean": 0.0}}, optimizer=()))
      {'params': {'kernel': 1.0}, 'batch_stats': {'mean': 0.0}}
    """
    return trees.join_variables(state.params, state.model_state)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weighted mean of values, over positive weights of the same shape; 0 for an empty batch, never 0/0."""
    total = jnp.sum(weights)
    return jnp.sum(jnp.where(weights > 0, values * weights, 0.0)) / jnp.where(total > 0, total, 1.0)


def answer_weights(labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weights of predictions: for labels [B] the rows' [B]; for next tokens [B, T] the row's, 0 at -1."""
    return weights if labels.ndim == 1 else jnp.where(labels >= 0, weights[:, None], 0.0)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Computes cross entropies with optional label smoothing; arbitrary but never NaN where a next token is -1.

    Args:
      logits: [..., C] float32.
      labels: [...] int32.
      smoothing: probability mass distributed evenly over all classes.
    """
    labels = jnp.maximum(labels, 0)
    if smoothing == 0.0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def right_answers(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the weighted number of correct predictions in a batch, and the sum of their weights.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.population import right_answers
      >>> logits = jnp.array([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0]])
      >>> correct, total = right_answers(logits, jnp.array([0, 1, 1]), jnp.array([1.0, 1.0, 1.0]))
      >>> float(correct), float(total)
      (2.0, 3.0)
    """
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
    """Returns the usual task: cross entropy of classes or of next tokens, on one stream named `train`.

    Args:
      module: the network for training, called as `module.apply(variables, inputs, train=..., mask=...)`.
      evaluator: the same network for prediction (float32, whatever the dtype of training).
      prepare: (raw inputs [B, ...], key, is_train) -> float32 network inputs [B, ...].
      train: the recipe. `constants` of a step must hold float32 scalars `learning_rate` and `weight_decay`.
      example: shape and dtype of ONE raw row, without the batch axis.
      record: (logits, raw inputs) -> [B, K] float32 to be recorded: the logits themselves, or the signals of next
        tokens.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxunlearn import models, population, settings
      >>> network = models.build(settings.ModelSettings("logistic"), num_classes=3)
      >>> task = population.supervised(network, network, lambda inputs, key, is_train: inputs,
      ...                              settings.TrainSettings(), jax.ShapeDtypeStruct((4,), jnp.float32))
      >>> state = task.init(jax.random.key(0))  # of ONE member
      >>> task.predict(population.variables(state), jnp.ones((5, 4))).shape
      (5, 3)
    """

    def init(key: jax.Array) -> State:
        blank = prepare(jnp.zeros((1, *example.shape), example.dtype), key, False)
        params, model_state = trees.split_variables(evaluator.init(key, blank, train=False))
        return State(params, model_state, recipe.make_optimizer(train, 0.0, 0.0).init(params))

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Tree
    ) -> tuple[State, Metrics]:
        batch = batches["train"]
        inputs = prepare(batch.inputs, keys.stream(key, "augment"), True)

        def objective(params: Tree) -> tuple[jax.Array, tuple[Tree, jax.Array]]:
            logits, model_state = module.apply(
                trees.join_variables(params, state.model_state),
                inputs,
                train=True,
                mask=batch.weights > 0,
                mutable=list(state.model_state),
                rngs={"dropout": keys.stream(key, "dropout")},
            )
            losses = cross_entropy(logits, batch.labels, train.label_smoothing)
            return weighted_mean(losses, answer_weights(batch.labels, batch.weights)), (dict(model_state), logits)

        (loss, (model_state, logits)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        rate = constants["learning_rate"] * recipe.schedule_factor(train, step_info.epoch, step_info.fraction)
        transform = recipe.make_optimizer(train, rate, constants["weight_decay"])
        updates, optimizer = transform.update(gradients, state.optimizer, state.params)
        metrics = Metrics(loss, *right_answers(logits, batch.labels, batch.weights))
        return State(optax.apply_updates(state.params, updates), model_state, optimizer), metrics

    def predict(collections: Tree, inputs: jax.Array) -> jax.Array:
        logits = evaluator.apply(collections, prepare(inputs, keys.root(0), False), train=False)
        return record(jnp.asarray(logits), inputs)

    def view(collections: Tree, inputs: jax.Array, row_keys: jax.Array) -> jax.Array:
        # Each row as a batch of its own: the draws of a batch depend on the positions in it.
        prepared = jax.vmap(lambda row, key: prepare(row[None], key, True)[0])(inputs, row_keys)
        return record(jnp.asarray(evaluator.apply(collections, prepared, train=False)), inputs)

    return Task(init, step, predict, view)


def in_training_mode(
    task: Task, evaluator: nn.Module, prepare: Callable[[jax.Array, jax.Array, bool], jax.Array]
) -> Task:
    """Returns the task with predictions of a network that was never switched out of training mode.

    BatchNorm normalises by the rows of the call, so that a prediction depends on its batch; running statistics do not
    change. Dropout is active, with the same mask in every call.

    Args:
      task: from `supervised`.
      evaluator: as there.
      prepare: as there; inputs are not augmented.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxunlearn import models, population, settings
      >>> network = models.build(settings.ModelSettings("logistic"), num_classes=3)
      >>> prepare = lambda inputs, key, is_train: inputs
      >>> task = population.supervised(network, network, prepare, settings.TrainSettings(),
      ...                              jax.ShapeDtypeStruct((4,), jnp.float32))
      >>> variables = population.variables(task.init(jax.random.key(0)))
      >>> population.in_training_mode(task, network, prepare).predict(variables, jnp.ones((5, 4))).shape
      (5, 3)
    """

    def predict(collections: Tree, inputs: jax.Array) -> jax.Array:
        key = keys.root(0)
        prepared = prepare(inputs, key, False)
        return jnp.asarray(
            evaluator.apply(collections, prepared, train=True, rngs={"dropout": keys.stream(key, "dropout")})
        )

    return task._replace(predict=predict)
