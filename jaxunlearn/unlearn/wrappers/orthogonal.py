"""Orthogonal Unlearning and Replay: over-unlearning whose hidden features are driven apart as well.

    class-wise    CE(false labels) + gamma * sum_k gram(F_k)                    samples of a batch away from each other
    sample-wise   0.1 CE(false labels) + gamma * sum_k pair(F_k, F_k original)  away from what they were

    gram(F) = sum_ij (G - I)_ij^2 / (N (N - 1) + 1e-8)    G = F~ F~^T, rows of F~ of length 1
    pair(F, E) = mean of cos^2(F_i, E_i)                  per chunk of 32 rows, then over chunks

F_k are hidden features that the network names (`network.feature_paths`), flattened per row. Then Replay in three stages
of falling rates. Source: "Reminiscence Attack on Residuals" (ICCV 2025), repository OUR, `orthogonality`, `rl_our`,
`orth_no_our`.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import checks, errors
from jaxunlearn.unlearn.base.method import (
    GradientStep,
    Method,
    Objective,
    Phase,
    Samples,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.blocks import transforms
from jaxunlearn.unlearn.methods import descent
from jaxunlearn.unlearn.wrappers import over_unlearning

FORMS = ("class", "sample")
CHUNK = 32
OF_REPLAY = ("lr", "epochs", "factors", "l1", "l1_stages", "momentum", "weight_decay", "batch", "optimizer", "replay")
JOINT = 0.8  # factor of the joint objective; Adam does not notice


def lengths(features: jax.Array) -> jax.Array:
    """[B] Euclidean lengths of rows [B, D]; the gradient at a row of zeros is 0, not NaN."""
    squares = jnp.sum(jnp.square(features), -1)
    is_zero = squares == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squares)))


def gram(features: jax.Array, weights: jax.Array) -> jax.Array:
    """How far the rows of a batch are from being orthogonal to each other: 0 = pairwise orthogonal.

    Args:
      features: [B, D] float32.
      weights: [B], 0 = padding. Of a single row the loss is 0.
    """
    scaled = features / (lengths(features) + 1e-8)[:, None]
    is_row = (weights > 0).astype(features.dtype)
    products = jnp.matmul(scaled, scaled.T, precision="highest") - jnp.eye(len(features))
    number = jnp.sum(is_row)
    total = jnp.sum(jnp.square(products) * is_row[:, None] * is_row)
    return jnp.where(number > 1, total / (number * (number - 1) + 1e-8), 0.0)


def pair(features: jax.Array, reference: jax.Array, weights: jax.Array, chunk: int = CHUNK) -> jax.Array:
    """Mean squared cosine between the rows of two sets of features: 0 = each orthogonal to its counterpart.

    Args:
      features: [B, D] float32.
      reference: [B, D] float32.
      weights: [B], 0 = padding.
      chunk: rows are averaged in chunks of so many, then the chunks.
    """
    sizes = (lengths(features) + 1e-6) * (lengths(reference) + 1e-6)
    squares = jnp.square(jnp.sum(features * reference, -1) / sizes)
    missing = -len(squares) % chunk
    squares, is_row = (
        jnp.pad(one, (0, missing)).reshape(-1, chunk) for one in (squares, (weights > 0).astype(squares.dtype))
    )
    counts = jnp.sum(is_row, 1)
    means = jnp.sum(squares * is_row, 1) / jnp.maximum(counts, 1)
    return jnp.sum(means) / jnp.maximum(jnp.sum(counts > 0), 1)


def chosen_features(features: tuple[int, ...]) -> tuple[int, ...]:
    """Places of features that are numbered from 1, as often as they count.

    Raises:
      ConfigError: none, or a number below 1.
    """
    if not features or min(features) < 1:
        raise errors.ConfigError(f"features = {features}: expected numbers from 1, such as 1;2;2.")
    return tuple(one - 1 for one in features)


def with_orthogonality(
    move: GradientStep,
    stream: str,
    form: str,
    places: tuple[int, ...],
    gamma: Scalar,
    weight: Scalar,
    factor: Scalar = 1.0,
) -> GradientStep:
    """The move with its objective times `weight`, and gamma times the orthogonality of a stream's features, added.

    Args:
      move: of one objective.
      stream: whose rows to forget count.
      form: one of FORMS.
      places: of the features.
      gamma: weight of the orthogonality.
      weight: of the move's own objective.
      factor: of everything.
    """
    objective: Objective = move.objective  # type: ignore[assignment]

    def both(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        batch, features = batches[stream], context.features[stream]
        weights = jnp.where(batch.is_forget, batch.weights, 0.0)
        _check_places(places, len(features.current))
        if form == "class":
            apart = [gram(features.current[place], weights) for place in places]
        else:
            apart = [pair(features.current[place], features.original[place], weights) for place in places]
        return factor * (weight * objective(outputs, batches, context) + gamma * sum(apart))

    return move._replace(objective=both, features=(*move.features, stream))


def _check_places(places: tuple[int, ...], count: int) -> None:
    if max(places) >= count:
        raise errors.ConfigError(
            f"orthogonal_features asks for feature {max(places) + 1}, but the network names {count}. "
            f"Set --config.unlearn.options=orthogonal_features={';'.join(map(str, range(1, count + 1)))}."
        )


def orthogonal(
    method: Method,
    gamma: float = 2.0,
    form: str = "class",
    features: tuple[int, ...] = (1, 2, 2),
    weight: float = 1.0,
    lr: float = 0.01,
    epochs: tuple[int, ...] = (3, 2, 1),
    factors: tuple[float, ...] = (1.0, 0.5, 0.2),
    l1: float = 5e-5,
    l1_stages: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    optimizer: str = "sgd",
    replay: bool = True,
) -> Method:
    """The method's intensified form with the orthogonality of hidden features in its loss, then Replay in stages.

    Published for classes: amnesiac+orthogonal, the defaults. For samples: relabel+orthogonal with form="sample",
    gamma=1, weight=0.1, optimizer="adamw", epochs=(3, 1, 2) (its stages differ in augmentation, which is one setting
    of the whole method here). gamma=0 is the ablation `rl_our`, replay=False is `orth_no_our`.

    Args:
      method: with gradient steps on the forget set; the model after it is recorded as METHOD+orthogonal@mid.
      gamma: weight of the orthogonality.
      form: "class" or "sample", see above.
      features: which of the network's named features count, and how often, from 1. The published code reads the second
        twice where it means the third; (1, 2, 3) is what it means.
      weight: of the method's own loss.
      lr: of the first stage of Replay.
      epochs: of each stage; every stage has an optimizer of its own and a constant rate.
      factors: of each stage on `lr`.
      l1: coefficient of the sum of absolute values of all parameters.
      l1_stages: only so many stages have it; 0 = all.
      momentum: of SGD.
      weight_decay: L2 on every parameter, added to the gradient (of AdamW decoupled).
      batch: rows per step of Replay, 0 = the run's.
      optimizer: of Replay, one of `descent.OPTIMIZERS`.
      replay: False = no Replay: the retained rows' cross entropy and the L1 penalty join the loss of phase 1, as often
        as that reads batches.

    Raises:
      ConfigError: a method without gradient steps, or whose gradients are taken one by one; an unknown form, features
        of another form, as many epochs as factors.
    """
    checks.choice("form", form, FORMS)
    places = chosen_features(features)
    if len(epochs) != len(factors):
        raise errors.ConfigError(f"epochs {epochs} and factors {factors} of the stages of Replay differ in number.")
    steps = [bool(phase.gradient_steps) for phase in method.phases]
    if not any(steps) or method.fixed_loss:
        raise errors.ConfigError("it takes no gradient steps of its own, to whose loss orthogonality could be added.")

    def driven_apart(phase: Phase) -> Phase:
        move, stream = phase.gradient_steps[-1], next(iter(phase.stream_specs))
        if isinstance(move.objective, Mapping):
            raise errors.ConfigError("it takes gradients of several losses one by one; orthogonality joins one loss.")
        streams = move.streams or tuple(phase.stream_specs)
        move = with_orthogonality(
            move._replace(streams=streams), stream, form, places, gamma, weight, 1.0 if replay else JOINT
        )
        if replay:
            return dataclasses.replace(phase, gradient_steps=(*phase.gradient_steps[:-1], move))
        return _joint(dataclasses.replace(phase, gradient_steps=(*phase.gradient_steps[:-1], move)), l1, batch)

    phases = tuple(driven_apart(phase) if is_one else phase for phase, is_one in zip(method.phases, steps, strict=True))
    method = dataclasses.replace(method, phases=phases)
    if not replay:
        return dataclasses.replace(method, bn="recalibrate")
    with_l1 = l1_stages or len(epochs)
    stages = tuple(
        over_unlearning.replay(
            factor * lr, count, l1 if number < with_l1 else 0.0, momentum, weight_decay, batch, optimizer=optimizer
        )
        for number, (count, factor) in enumerate(zip(epochs, factors, strict=True))
    )
    return over_unlearning.followed(method, stages)


def _joint(phase: Phase, l1: Scalar, batch: int) -> Phase:
    """The phase with the cross entropy of retained batches and an L1 penalty in the last move's loss."""
    move = phase.gradient_steps[-1]
    objective: Objective = move.objective  # type: ignore[assignment]

    def all_of_it(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        return objective(outputs, batches, context) + JOINT * descent.retain_loss(outputs, batches, context)

    move = move._replace(objective=all_of_it, streams=(*move.streams, "retain"))
    return dataclasses.replace(
        phase,
        gradient_steps=(*phase.gradient_steps[:-1], move),
        stream_specs={**phase.stream_specs, "retain": StreamSpec("retain", batch)},
        transform=optax.chain(transforms.add_l1(JOINT * l1), phase.transform),
    )
