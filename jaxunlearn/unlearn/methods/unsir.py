"""UNSIR: the model learns noise that is least like the forget classes as those classes, then is repaired.

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
    """Computes -CE(noise, classes) + penalty * mean over n of the sum of squares; evaluation mode.

    Args:
      net, params, model_state: the model.
      noise: [n, ...] prepared inputs.
      classes: [n] int32.
      penalty: coefficient of the squares.
    """
    logits, _ = network.forward(net, params, model_state, noise)
    error = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, classes))
    return penalty * jnp.mean(jnp.sum(jnp.square(noise).reshape(len(noise), -1), 1)) - error


def learned_noise(
    net: Network, params: Tree, model_state: Tree, start: jax.Array, classes: jax.Array, steps: int = 25,
    rate: Scalar = 0.1, penalty: Scalar = 0.1,
) -> jax.Array:  # fmt: skip
    """Minimises `noise_loss` over the images by Adam, with the model fixed.

    Args:
      net, params, model_state: the model.
      start: [n, ...] initial images.
      classes: [n] int32.
      steps, rate: of Adam.
      penalty: see `noise_loss`.

    Returns:
      [n, ...] images.
    """
    optimizer = optax.adam(rate)

    def adam_step(carry: tuple[jax.Array, Tree], _: None) -> tuple[tuple[jax.Array, Tree], None]:
        noise, state = carry
        gradient = jax.grad(lambda noise: noise_loss(net, params, model_state, noise, classes, penalty))(noise)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(noise, change), state), None

    return jax.lax.scan(adam_step, (start, optimizer.init(start)), None, length=steps)[0][0]


def classes_in_turn(present: jax.Array, images: int) -> jax.Array:
    """Returns [images] int32: the classes with `present` [C] bool in turn, in ascending order; 0 if there is none.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import unsir
      >>> unsir.classes_in_turn(jnp.array([True, False, True]), 4).tolist()
      [0, 2, 0, 2]
    """
    order = jnp.argsort(~present, stable=True).astype(jnp.int32)
    return order[jnp.arange(images) % jnp.maximum(jnp.sum(present), 1)]


def noise(images: int = 32, steps: int = 25, rate: Scalar = 0.1, penalty: Scalar = 0.1) -> Estimate:
    """Estimates {"inputs": [images, ...], "labels": [images], "statistics"}: noise for the classes of the forget rows.

    The classes take turns over the images, so that each has at least one if there are enough images; a single class
    gets them all, as published. "statistics" is the model's state, with which the noise is read in evaluation mode.

    Args:
      images: number of images.
      steps, rate: of Adam.
      penalty: see `noise_loss`.
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        stream, net = member.streams["forget"], member.network
        labels = member.data.labels[jnp.asarray(stream.rows)]
        is_row = jnp.asarray(stream.weights) > 0
        present = jnp.zeros(net.num_classes, bool).at[labels].max(is_row)
        classes = classes_in_turn(present, images)
        blank = jnp.zeros((images, *net.example.shape), net.example.dtype)
        shape = jax.eval_shape(lambda: net.prepare(blank, member.key, False)).shape
        start = jax.random.normal(keys.stream(member.key, "noise"), shape)
        inputs = learned_noise(net, member.params, member.model_state, start, classes, steps, rate, penalty)
        return {"inputs": inputs, "labels": classes, "statistics": member.model_state}, member.model_state

    # The forget rows are read for their labels alone; gradients are those of the noise.
    return Estimate(compute, {"forget": StreamSpec("forget", shuffle=False)}, cost=lambda rows, classes: steps * images)


def impair_loss(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
    """Averages the cross entropy over the rows of "retain" and all noise images together.

    The noise is read in evaluation mode with the model state it was computed with: statistics of noise are meaningless.
    """
    noise_images, batch = context.estimates["noise"], batches["retain"]
    logits, _ = network.forward(context.network, context.params, noise_images["statistics"], noise_images["inputs"])
    on_noise = jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, noise_images["labels"]))
    images, rows = len(noise_images["labels"]), jnp.sum(batch.weights)
    return (rows * losses.cross_entropy(outputs["retain"], batch) + on_noise) / (rows + images)


def first_of_each_class(count: int) -> Any:
    """Returns a function for `StreamSpec.rows`: the first `count` retained rows of every class."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        labels = member_rows.labels[member_rows.retain]
        indices = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
        return member_rows.retain[np.sort(np.concatenate([np.zeros(0, np.int64), *indices]))]

    return rows


def unsir(lr: float = 3e-3, lr_repair: float = 3e-3, epochs: int = 1, steps: int = 25, rate: float = 0.1,
          penalty: float = 0.1, images: int = 32, per_class: int = 500, batch: int = 0,
          batch_repair: int = 0) -> Method:  # fmt: skip
    """Impairs the forget classes by learned noise, then repairs on retained rows; forget rows are not trained on.

    Meant for whole classes. With other forget sets their classes get the noise in turn, which harms the retained rows
    of these classes just as much until the repair.

    Args:
      lr, lr_repair: of Adam, impairing and repairing; both 1e-4 as published.
      epochs: of each of the two.
      steps, rate: of Adam on the noise.
      penalty: factor of the squared size of the noise.
      images: noise images; all of them accompany every batch, so that their share of a step is
        images / (images + rows of the batch). Published: every image 80 times, mixed with the retained rows at
        random; the share then falls with the number of retained rows (.81 of 600 rows, .05 of 50,000).
      per_class: retained rows of every class that are read.
      batch, batch_repair: rows per step, impairing and repairing; 0 = the run's.

    Without retained rows nothing changes.
    """
    rows = first_of_each_class(per_class)
    impair_specs, repair_specs = {"retain": StreamSpec(rows, batch)}, {"retain": StreamSpec(rows, batch_repair)}
    estimates = {"noise": noise(images, steps, rate, penalty)}
    impair = Phase(transforms.adam(lr), (GradientStep(impair_loss),), impair_specs, epochs, estimates=estimates)
    repair = Phase(transforms.adam(lr_repair), (GradientStep(descent.retain_loss),), repair_specs, epochs)
    return Method((impair, repair), "recalibrate")
