"""Boundary unlearning: gives the decision space of the forget set to other classes.

    boundary_shrink     every forget sample moves to the class behind its nearest boundary, found by one gradient step
    boundary_expand     all forget samples move to an additional class, which is then dropped

Source: Chen et al., "Boundary unlearning: rapid forgetting of deep networks via shifting the decision boundary", 2023;
as in the code of SalUn, Orthogonal Unlearning and the IAM seed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn import errors, trees
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
    """Returns [B, ...] inputs moved by the sign of their loss gradient, of the original model in evaluation mode.

    Args:
      member: the member whose `reference` is attacked.
      samples: inputs [B, ..., channels] and their true labels.
      bound: length of the step in every coordinate: in the network's own input units, or of pixels in [0, 1] if `mean`
        and `std` are given.
      mean, std: of normalisation, per channel or one for all: inputs are taken back to pixels, moved, clipped to [0,
        1], rounded to 1/255 and normalised again. Empty = inputs move in their own units.
    """
    params, model_state = trees.split_variables(member.reference)
    # Of the sum of losses: it has the sign of the published mean, and no row's sign is lost by dividing.
    gradient = network.input_gradient(member.network, params, model_state, samples.inputs, samples.labels)
    perturbation = bound * jnp.sign(gradient)
    if not std:
        return samples.inputs + perturbation
    shift, scale = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    pixels = jnp.clip(samples.inputs * scale + shift + perturbation, 0.0, 1.0)
    return (jnp.round(255.0 * pixels) / 255.0 - shift) / scale


def nearest(
    bound: Scalar, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), only_wrong: bool = True, batch: int = 0
) -> Estimate:
    """Estimates [N_all] int32: the original model's class for the adversarial input of each forget row; 0 elsewhere.

    Args:
      bound, mean, std: see `adversarial`.
      only_wrong: the true class does not count: its runner-up is taken where the step was too short.
      batch: rows per step, 0 = the run's.
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        params, model_state = trees.split_variables(member.reference)

        def update(table: jax.Array, samples: Samples, key: jax.Array) -> jax.Array:
            del key
            adversarial_inputs = adversarial(member, samples, bound, mean, std)
            logits, _ = network.forward(member.network, params, model_state, adversarial_inputs)
            if only_wrong:
                logits = jnp.where(jax.nn.one_hot(samples.labels, logits.shape[-1]) > 0, -jnp.inf, logits)
            classes = jnp.argmax(logits, -1).astype(jnp.int32)
            return table.at[samples.rows].add(jnp.where(samples.weights > 0, classes, 0))

        return passes.fold(member, "forget", jnp.zeros(member.forget.shape, jnp.int32), update), member.model_state

    return Estimate(compute, {"forget": StreamSpec("forget", batch, shuffle=False)}, cost=4 / 3)


def boundary_shrink(
    lr: float = 0.002, epochs: int = 5, bound: float = 0.4, momentum: float = 0.9, weight_decay: float = 0.0,
    mean: tuple[float, ...] = (), std: tuple[float, ...] = (), batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """Trains the forget samples towards the nearest wrong class; retained data are not read.

    Args:
      lr, momentum, weight_decay: of SGD; the rate is constant.
      epochs: passes over the forget set.
      bound: step to the boundary. A method does not know how its inputs were normalised: without `mean` and `std` it is
        in the network's own input units (0.4 is about 0.1 of a pixel's range at a deviation of 0.25), unclipped.
      mean, std: of normalisation, per channel; with them `bound` is a fraction of the pixel range.
      batch: rows per step.
      compat: "faithful" takes the true class for the nearest one where the step does not cross a boundary.

    Raises:
      ConfigError: only one of `mean` and `std`.

    Example:
      >>> from jaxunlearn import unlearn
      >>> list(unlearn.boundary.boundary_shrink(bound=0.1).phases[0].estimates)
      ['nearest']
    """
    if bool(mean) != bool(std):
        raise errors.ConfigError("boundary_shrink: give both mean and std (pixel units), or neither (input units).")

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        batch = batches["forget"]
        return losses.cross_entropy(outputs["forget"], batch._replace(labels=context.estimates["nearest"][batch.rows]))

    estimates = {"nearest": nearest(bound, mean, std, compat != "faithful", batch)}
    stream_specs = {"forget": StreamSpec("forget", batch)}
    transform = transforms.sgd(lr, momentum, weight_decay)
    return Method((Phase(transform, (GradientStep(objective),), stream_specs, epochs, estimates=estimates),))


def in_head(member: EstimateContext) -> tuple[Tree, Tree]:
    """Returns a tree of bools shaped like the parameters, True in the last dense layer.

    Raises:
      ConfigError: the network does not end in a dense layer with one output per class.
    """
    flags = network.mask_of_paths((network.head(member.network).path,), member.params)
    return jax.tree.map(lambda flag, leaf: jnp.full(leaf.shape, flag), flags, member.params), member.model_state


def boundary_expand(lr: float = 0.001, epochs: int = 5, momentum: float = 0.9, weight_decay: float = 5e-4,
                    keep_backbone: bool = True, batch: int = 0, compat: str = "corrected") -> Method:  # fmt: skip
    """Trains the forget samples towards an additional class, which is then dropped; retained data are not read.

    Args:
      lr, momentum, weight_decay: of SGD; the rate is constant.
      epochs: passes over the forget set.
      keep_backbone: keep the whole trained network; False = keep the head only, on the original's lower layers, as in
        the IAM seed.
      batch: rows per step.
      compat: "faithful" sets `keep_backbone` to False.

    Raises:
      ConfigError: a network that cannot be widened.
    """
    keep_backbone = keep_backbone and compat != "faithful"
    stream_spec = StreamSpec("forget", batch, labels=labels.extra)
    descent = transforms.sgd(lr, momentum, weight_decay)
    training = relabelling.training(descent, stream_spec, epochs, "forget")
    expansion = dataclasses.replace(training, widen=True, save_as="" if keep_backbone else "expanded")
    if keep_backbone:
        return Method((expansion,), left_training=True)

    def take_head(
        params: Tree, *, estimates: Mapping[str, Tree], saved_states: Mapping[str, SavedState], **extras: Any
    ) -> Tree:
        del extras

        def merge(is_head: jax.Array, current: jax.Array, wide: jax.Array) -> jax.Array:
            return jnp.where(is_head, wide[..., : current.shape[-1]], current)

        return jax.tree.map(merge, estimates["head"], params, saved_states["expanded"].params)

    # From the original, so that the lower layers stay bit-identical.
    estimates = {"head": Estimate(in_head, cost=0.0)}
    head_replacement = Phase(transforms.one_shot(take_head), estimates=estimates, start="original")
    return Method((expansion, head_replacement), left_training=True)
