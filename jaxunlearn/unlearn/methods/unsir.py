"""UNSIR: noise that the model finds least like the forget classes is learned as those classes, then repaired.

    noise images (Adam on the inputs) -> impair: noise as forget classes + some retained rows -> repair: retained rows

Source: Tarun et al., "Fast yet effective machine unlearning", 2023, as in the code of selective synaptic dampening and
Over-Unlearning.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn import keys
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    MemberRows,
    Method,
    Phase,
    Samples,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.blocks import losses, transforms
from jaxunlearn.unlearn.methods import descent

Tree = Any


def noise_loss(
    net: Network, params: Tree, model_state: Tree, noise: jax.Array, classes: jax.Array, penalty: Scalar = 0.1
) -> jax.Array:
    """-CE(noise [n, ...], classes [n]) + penalty * mean over n of the sum of squares; evaluation mode."""
    logits, _ = network.forward(net, params, model_state, noise)
    error = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, classes))
    return penalty * jnp.mean(jnp.sum(jnp.square(noise).reshape(len(noise), -1), 1)) - error


def learned_noise(
    net: Network, params: Tree, model_state: Tree, start: jax.Array, classes: jax.Array, steps: int = 25,
    rate: Scalar = 0.1, penalty: Scalar = 0.1,
) -> jax.Array:  # fmt: skip
    """[n, ...] images after so many steps of Adam on `noise_loss` from `start`, with the model fixed."""
    optimizer = optax.adam(rate)

    def move(carry: tuple[jax.Array, Tree], _: None) -> tuple[tuple[jax.Array, Tree], None]:
        noise, state = carry
        gradient = jax.grad(lambda noise: noise_loss(net, params, model_state, noise, classes, penalty))(noise)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(noise, change), state), None

    return jax.lax.scan(move, (start, optimizer.init(start)), None, length=steps)[0][0]


def classes_in_turn(present: jax.Array, images: int) -> jax.Array:
    """[images] int32: the classes that occur (`present` [C] bool), in turn, in ascending order; 0 if there is none."""
    order = jnp.argsort(~present, stable=True).astype(jnp.int32)
    return order[jnp.arange(images) % jnp.maximum(jnp.sum(present), 1)]


def noise(images: int = 32, steps: int = 25, rate: Scalar = 0.1, penalty: Scalar = 0.1) -> Estimate:
    """{"inputs": [images, ...], "labels": [images], "statistics"}: noise for the classes of the forget rows.

    The classes take turns over the images, so that each has at least one if there are enough images; a forgotten class
    gets them all, as published. `model_state` are the model's own: with them the noise is read in evaluation mode.
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        stream, net = member.streams["forget"], member.network
        labels = member.data.labels[jnp.asarray(stream.rows)]
        own = jnp.asarray(stream.weights) > 0
        present = jnp.zeros(net.num_classes, bool).at[labels].max(own)
        classes = classes_in_turn(present, images)
        blank = jnp.zeros((images, *net.example.shape), net.example.dtype)
        shape = jax.eval_shape(lambda: net.prepare(blank, member.key, False)).shape
        start = jax.random.normal(keys.stream(member.key, "noise"), shape)
        found = learned_noise(net, member.params, member.model_state, start, classes, steps, rate, penalty)
        return {"inputs": found, "labels": classes, "statistics": member.model_state}, member.model_state

    # The forget rows are read for their labels alone; gradients are those of the noise.
    return Estimate(compute, {"forget": StreamSpec("forget", shuffle=False)}, cost=lambda rows, classes: steps * images)


def impair_loss(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
    """Mean cross entropy over the rows of "retain" and all noise images together.

    The noise is read in evaluation mode with the statistics it was made with: a batch of noise has none that matter.
    """
    made, batch = context.estimates["noise"], batches["retain"]
    logits, _ = network.forward(context.network, context.params, made["statistics"], made["inputs"])
    on_noise = jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, made["labels"]))
    images, rows = len(made["labels"]), jnp.sum(batch.weights)
    return (rows * losses.cross_entropy(outputs["retain"], batch) + on_noise) / (rows + images)


def first_of_each_class(count: int) -> Any:
    """Rows for `StreamSpec`: at most `count` retained rows of every class, the first ones."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        labels = member_rows.labels[member_rows.retain]
        chosen = [np.flatnonzero(labels == one)[:count] for one in np.unique(labels)]
        return member_rows.retain[np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))]

    return rows


def unsir(lr: float = 3e-3, lr_repair: float = 3e-3, epochs: int = 1, steps: int = 25, rate: float = 0.1,
          penalty: float = 0.1, images: int = 32, per_class: int = 500, batch: int = 0,
          batch_repair: int = 0) -> Method:  # fmt: skip
    """Impairs the forget classes by learned noise, then repairs on retained rows; forget rows are not trained on.

    Made for whole classes. With other forget sets their classes get the noise in turn, which harms the retained rows of
    these classes just as much until the repair.

    Args:
      lr: of Adam, impairing; 1e-4 as published.
      lr_repair: of Adam, repairing; 1e-4 as published.
      epochs: of each of the two.
      steps: of Adam on the noise.
      rate: of Adam on the noise.
      penalty: factor of the squared size of the noise.
      images: noise images; all of them accompany every batch, so that their share of a step is
        images / (images + rows of the batch). Published: every image 80 times, mixed with the retained rows at
        random; the share then falls with the number of retained rows (.81 of 600 rows, .05 of 50,000).
      per_class: retained rows of every class that are read.
      batch: rows per step, impairing.
      batch_repair: rows per step, repairing; 0 = the run's.

    Without retained rows nothing is done.
    """
    rows = first_of_each_class(per_class)
    reads, later = {"retain": StreamSpec(rows, batch)}, {"retain": StreamSpec(rows, batch_repair)}
    found = {"noise": noise(images, steps, rate, penalty)}
    impair = Phase(transforms.adam(lr), (GradientStep(impair_loss),), reads, epochs, estimates=found)
    repair = Phase(transforms.adam(lr_repair), (GradientStep(descent.retain_loss),), later, epochs)
    return Method((impair, repair), "recalibrate")
