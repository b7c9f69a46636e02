"""Boundary unlearning: the decision space of the forget set is given away to other classes.

    boundary_shrink     every forget sample moves to the class behind its nearest boundary, found by one gradient step
    boundary_expand     all forget samples move to a class of their own, which is then dropped

Source: Chen et al., "Boundary unlearning: rapid forgetting of deep networks via shifting the decision boundary", 2023;
as in the code of SalUn, Orthogonal Unlearning and the IAM seed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import errors
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    Method,
    Phase,
    Samples,
    SavedState,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.blocks import labels, losses, passes, transforms
from jaxunlearn.unlearn.methods import relabelling

Tree = Any


def adversarial(
    member: EstimateContext, samples: Samples, bound: Scalar, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> jax.Array:
    """[B, ...] inputs moved by the sign of the gradient of their own loss, at the original model in evaluation mode.

    Args:
      member: whose `reference` is attacked.
      samples: inputs [B, ..., channels] and their true labels.
      bound: length of the step in every coordinate: in the network's own input units, or of pixels in [0, 1] if `mean`
        and `std` are given.
      mean: of normalisation, per channel or one for all: inputs are taken back to pixels, moved, clipped to [0, 1],
        rounded to 1/255 and normalised again.
      std: as many as `mean`.
    """
    model_state = {name: leaf for name, leaf in member.reference.items() if name != "params"}

    def total(inputs: jax.Array) -> jax.Array:
        logits, _ = network.forward(member.network, member.reference["params"], model_state, inputs)
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, samples.labels))

    # The sum has the sign of the published mean, and no row's sign is lost by dividing.
    move = bound * jnp.sign(jax.grad(total)(samples.inputs))
    if not std:
        return samples.inputs + move
    shift, scale = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    pixels = jnp.clip(samples.inputs * scale + shift + move, 0.0, 1.0)
    return (jnp.round(255.0 * pixels) / 255.0 - shift) / scale


def nearest(
    bound: Scalar, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), only_wrong: bool = True, batch: int = 0
) -> Estimate:
    """[N_all] int32: what the original model answers for the adversarial input of every forget row; 0 elsewhere.

    With `only_wrong` the true class is not an answer: its runner-up is taken where the step was too short.
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        model_state = {name: leaf for name, leaf in member.reference.items() if name != "params"}

        def update(table: jax.Array, samples: Samples, key: jax.Array) -> jax.Array:
            del key
            moved = adversarial(member, samples, bound, mean, std)
            logits, _ = network.forward(member.network, member.reference["params"], model_state, moved)
            if only_wrong:
                logits = jnp.where(jax.nn.one_hot(samples.labels, logits.shape[-1]) > 0, -jnp.inf, logits)
            found = jnp.argmax(logits, -1).astype(jnp.int32)
            return table.at[samples.rows].add(jnp.where(samples.weights > 0, found, 0))

        return passes.fold(member, "forget", jnp.zeros(member.forget.shape, jnp.int32), update), member.model_state

    return Estimate(compute, {"forget": StreamSpec("forget", batch, shuffle=False)}, cost=4 / 3)


def boundary_shrink(
    lr: float = 0.002, epochs: int = 5, bound: float = 0.4, momentum: float = 0.9, weight_decay: float = 0.0,
    mean: tuple[float, ...] = (), std: tuple[float, ...] = (), batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """Trains the forget samples towards the nearest wrong class; retained data are not read.

    Args:
      lr: of SGD, constant.
      epochs: passes over the forget set.
      momentum: of SGD.
      weight_decay: of SGD.
      bound: step to the boundary. A method does not know how its inputs were normalised: without `mean` and `std` it is
        in the network's own input units (0.4 is about 0.1 of a pixel's range at a deviation of 0.25), unclipped.
      mean: of normalisation, per channel; with it and `std`, `bound` is a part of the pixel range.
      std: as many as `mean`.
      batch: rows per step.
      compat: "faithful" takes the true class for the nearest one where the step does not cross a boundary.

    Raises:
      ConfigError: only one of `mean` and `std`.
    """
    if bool(mean) != bool(std):
        raise errors.ConfigError("boundary_shrink: give both mean and std (pixel units), or neither (input units).")

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        batch = batches["forget"]
        return losses.cross_entropy(outputs["forget"], batch._replace(labels=context.estimates["nearest"][batch.rows]))

    found = {"nearest": nearest(bound, mean, std, compat != "faithful", batch)}
    reads = {"forget": StreamSpec("forget", batch)}
    transform = transforms.sgd(lr, momentum, weight_decay)
    return Method((Phase(transform, (GradientStep(objective),), reads, epochs, estimates=found),))


def in_head(member: EstimateContext) -> tuple[Tree, Tree]:
    """Tree of bools shaped like the parameters: does it belong to the last dense layer?

    Raises:
      ConfigError: the network does not end in a dense layer with one output per class.
    """
    flags = network.belongs(member.network, (network.head(member.network).path,), member.params)
    return jax.tree.map(lambda flag, leaf: jnp.full(leaf.shape, flag), flags, member.params), member.model_state


def boundary_expand(lr: float = 0.001, epochs: int = 5, momentum: float = 0.9, weight_decay: float = 5e-4,
                    keep_backbone: bool = True, batch: int = 0, compat: str = "corrected") -> Method:  # fmt: skip
    """Trains the forget samples towards an additional class, which is then dropped; retained data are not read.

    Args:
      lr: of SGD, constant.
      epochs: passes over the forget set.
      momentum: of SGD.
      weight_decay: of SGD.
      keep_backbone: the whole trained network is kept; False = only the head's own outputs are, on the original's lower
        layers, as in the IAM seed.
      batch: rows per step.
      compat: "faithful" sets `keep_backbone` to False.

    Raises:
      ConfigError: a network that cannot be widened.
    """
    keep_backbone = keep_backbone and compat != "faithful"
    reads = StreamSpec("forget", batch, labels=labels.extra)
    descent = transforms.sgd(lr, momentum, weight_decay)
    trained = relabelling.training(descent, reads, epochs, "forget")
    expand = dataclasses.replace(trained, widen=True, save_as="" if keep_backbone else "expanded")
    if keep_backbone:
        return Method((expand,), left_training=True)

    def take_head(
        params: Tree, *, estimates: Mapping[str, Tree], saved_states: Mapping[str, SavedState], **extras: Any
    ) -> Tree:
        del extras

        def one(is_head: jax.Array, own: jax.Array, wide: jax.Array) -> jax.Array:
            return jnp.where(is_head, wide[..., : own.shape[-1]], own)

        return jax.tree.map(one, estimates["head"], params, saved_states["expanded"].params)

    # From the original, so that the lower layers stay bit-identical.
    found = {"head": Estimate(in_head, cost=0.0)}
    edit = Phase(transforms.one_shot(take_head), estimates=found, start="original")
    return Method((expand, edit), left_training=True)
