"""DP-SGD as a task of the engine: the gradient of every row is clipped, their mean is noised, the optimizer steps.

    g_i = gradient of row i,  g_i * min(1, clip / (|g_i| + 1e-6)),  mean over the B rows of the batch
    + normal noise of deviation noise * clip / B per coordinate

Noise is drawn from the member's own key of the step, so that no two members share it. What it buys is the accountant's
business (`metrics.privacy`). Statistics over a batch (BatchNorm) would mix rows behind the clipping's back, so networks
that have some are refused.

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
    """The task of `supervised`, trained by DP-SGD.

    Args:
      module: the network for training, as in `supervised`.
      evaluator: the same for answering.
      prepare: (raw inputs, key, is_train) -> network inputs.
      train: the recipe.
      example: shape and dtype of one raw row.
      clip: largest norm of one row's gradient.
      noise: multiplier; the deviation of the noise on the sum of a batch is noise * clip.

    Raises:
      ConfigError: a network with statistics over batches.
    """
    plain = supervised(module, evaluator, prepare, train, example)
    if jax.eval_shape(plain.init, keys.root(0)).model_state:
        raise errors.ConfigError(
            "differential privacy needs a network without statistics over batches (BatchNorm): one row's gradient "
            "would depend on the others. Choose model.name = mlp, cnn or scnn."
        )

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Tree
    ) -> tuple[State, Metrics]:
        batch = batches["train"]
        inputs = prepare(batch.inputs, keys.stream(key, "augment"), True)

        def objective(params: Tree, row: jax.Array, label: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
            dropout = jax.random.fold_in(keys.stream(key, "dropout"), number)
            logits = jnp.asarray(module.apply({"params": params}, row[None], train=True, rngs={"dropout": dropout}))
            return cross_entropy(logits, label[None], train.label_smoothing)[0], logits[0]

        each = jax.vmap(jax.value_and_grad(objective, has_aux=True), in_axes=(None, 0, 0, 0))
        (losses, logits), gradients = each(state.params, inputs, batch.labels, jnp.arange(len(inputs)))
        mean = noised(gradients, batch.weights, keys.stream(key, "noise"), clip, noise)
        rate = constants["learning_rate"] * recipe.rate(train, step_info.epoch, step_info.fraction)
        transform = recipe.transform(train, rate, constants["weight_decay"])
        updates, optimizer = transform.update(mean, state.optimizer, state.params)
        correct = jnp.sum(jnp.where(jnp.argmax(logits, -1) == batch.labels, batch.weights, 0.0))
        metrics = Metrics(weighted_mean(losses, batch.weights), correct, jnp.sum(batch.weights))
        return State(optax.apply_updates(state.params, updates), state.model_state, optimizer), metrics

    return plain._replace(step=step)


def noised(gradients: Tree, weights: jax.Array, key: jax.Array, clip: float, noise: float) -> Tree:
    """The mean of clipped gradients with noise.

    Args:
      gradients: leaves [B, ...], one gradient per row.
      weights: [B] 0 marks padding.
      key: of the noise.
      clip: largest norm of one row's gradient.
      noise: multiplier.
    """
    leaves, structure = jax.tree.flatten(gradients)
    square = sum(jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1) for leaf in leaves)
    factor = jnp.minimum(1.0, clip / (jnp.sqrt(square) + 1e-6)) * (weights > 0)
    rows = jnp.maximum(jnp.sum(weights > 0), 1)
    found = [
        (
            jnp.tensordot(factor, leaf, 1)
            + noise * clip * jax.random.normal(jax.random.fold_in(key, number), leaf.shape[1:])
        )
        / rows
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, found)
