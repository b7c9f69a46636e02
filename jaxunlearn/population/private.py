"""DP-SGD as a task of the engine: per-row gradients are clipped, noise is added to their mean, the optimizer steps.

    g_i = gradient of row i,  g_i * min(1, clip / (|g_i| + 1e-6)),  mean over the B rows of the batch
    + normal noise of deviation noise * clip / B per coordinate

Noise is drawn from the member's own key of the step, so that no two members share it. The privacy it guarantees is
computed by the accountant (`metrics.privacy`). Statistics over a batch (BatchNorm) would mix rows despite the clipping,
so networks that have some are refused.

Source: Abadi et al. 2016; Opacus 0.x as the Unlearning-Leaks reference uses it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxunlearn import errors, keys, settings
from jaxunlearn.population import recipe
from jaxunlearn.population.task import Batch, Metrics, State, StepInfo, Task, cross_entropy, supervised, weighted_mean

Tree = Any


def private(
    module: nn.Module,
    evaluator: nn.Module,
    prepare: Callable[[jax.Array, jax.Array, bool], jax.Array],
    train: settings.TrainSettings,
    example: jax.ShapeDtypeStruct,
    clip: float,
    noise: float,
) -> Task:
    """Returns the task of `supervised`, trained by DP-SGD.

    Args:
      module: the network for training, as in `supervised`.
      evaluator: the same for prediction.
      prepare: (raw inputs, key, is_train) -> network inputs.
      train: the recipe.
      example: shape and dtype of one raw row.
      clip: maximum norm of one row's gradient.
      noise: multiplier; the standard deviation of the noise on the sum of a batch is noise * clip.

    Raises:
      ConfigError: a network with statistics over batches.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxunlearn import models, population, settings
      >>> network = models.build(settings.ModelSettings("logistic"), num_classes=3)
      >>> task = population.private(network, network, lambda inputs, key, is_train: inputs,
      ...                           settings.TrainSettings(), jax.ShapeDtypeStruct((4,), jnp.float32),
      ...                           clip=1.0, noise=1.1)
      >>> jax.eval_shape(task.init, jax.random.key(0)).params["Dense_0"]["kernel"].shape
      (4, 3)
    """
    base_task = supervised(module, evaluator, prepare, train, example)
    if jax.eval_shape(base_task.init, keys.root(0)).model_state:
        raise errors.ConfigError(
            "differential privacy needs a network without statistics over batches (BatchNorm): one row's gradient "
            "would depend on the others. Choose model.name = mlp, cnn or scnn."
        )

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Tree
    ) -> tuple[State, Metrics]:
        batch = batches["train"]
        inputs = prepare(batch.inputs, keys.stream(key, "augment"), True)

        def objective(params: Tree, row: jax.Array, label: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
            dropout = jax.random.fold_in(keys.stream(key, "dropout"), index)
            logits = jnp.asarray(module.apply({"params": params}, row[None], train=True, rngs={"dropout": dropout}))
            return cross_entropy(logits, label[None], train.label_smoothing)[0], logits[0]

        row_gradients = jax.vmap(jax.value_and_grad(objective, has_aux=True), in_axes=(None, 0, 0, 0))
        (losses, logits), gradients = row_gradients(state.params, inputs, batch.labels, jnp.arange(len(inputs)))
        mean = noisy_mean(gradients, batch.weights, keys.stream(key, "noise"), clip, noise)
        rate = constants["learning_rate"] * recipe.schedule_factor(train, step_info.epoch, step_info.fraction)
        transform = recipe.make_optimizer(train, rate, constants["weight_decay"])
        updates, optimizer = transform.update(mean, state.optimizer, state.params)
        correct = jnp.sum(jnp.where(jnp.argmax(logits, -1) == batch.labels, batch.weights, 0.0))
        metrics = Metrics(weighted_mean(losses, batch.weights), correct, jnp.sum(batch.weights))
        return State(optax.apply_updates(state.params, updates), state.model_state, optimizer), metrics

    return base_task._replace(step=step)


def noisy_mean(gradients: Tree, weights: jax.Array, key: jax.Array, clip: float, noise: float) -> Tree:
    """Returns the mean of the clipped gradients plus noise.

    Args:
      gradients: leaves [B, ...], one gradient per row.
      weights: [B], 0 marks padding.
      key: of the noise.
      clip: maximum norm of one row's gradient.
      noise: multiplier.
    """
    leaves, structure = jax.tree.flatten(gradients)
    square = sum(jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1) for leaf in leaves)
    factor = jnp.minimum(1.0, clip / (jnp.sqrt(square) + 1e-6)) * (weights > 0)
    rows = jnp.maximum(jnp.sum(weights > 0), 1)
    means = [
        (
            jnp.tensordot(factor, leaf, 1)
            + noise * clip * jax.random.normal(jax.random.fold_in(key, index), leaf.shape[1:])
        )
        / rows
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, means)
