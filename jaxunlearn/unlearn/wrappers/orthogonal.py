"""Orthogonal Unlearning and Replay: over-unlearning that also drives hidden features apart.

    class-wise    CE(false labels) + gamma * sum_k gram(F_k)                    samples of a batch away from each other
    sample-wise   0.1 CE(false labels) + gamma * sum_k pair(F_k, F_k original)  away from what they were

    gram(F) = sum_ij (G - I)_ij^2 / (N (N - 1) + 1e-8)    G = F~ F~^T, rows of F~ of length 1
    pair(F, E) = mean of cos^2(F_i, E_i)                  per chunk of 32 rows, then over chunks

F_k are hidden features that the network names (`network.feature_paths`), flattened per row. Then Replay in three phases
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
    """Returns [B] Euclidean lengths of rows [B, D]; the gradient at a row of zeros is 0, not NaN."""
    squares = jnp.sum(jnp.square(features), -1)
    is_zero = squares == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squares)))


def gram(features: jax.Array, weights: jax.Array) -> jax.Array:
    """Measures how far the rows of a batch are from being orthogonal to each other: 0 = pairwise orthogonal.

    Args:
      features: [B, D] float32.
      weights: [B], 0 = padding. Of a single row the loss is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn.wrappers import orthogonal
      >>> float(orthogonal.gram(jnp.eye(2), jnp.ones(2))) < 1e-6
      True
    """
    unit_features = features / (lengths(features) + 1e-8)[:, None]
    is_row = (weights > 0).astype(features.dtype)
    products = jnp.matmul(unit_features, unit_features.T, precision="highest") - jnp.eye(len(features))
    count = jnp.sum(is_row)
    total = jnp.sum(jnp.square(products) * is_row[:, None] * is_row)
    return jnp.where(count > 1, total / (count * (count - 1) + 1e-8), 0.0)


def pair(features: jax.Array, reference: jax.Array, weights: jax.Array, chunk: int = CHUNK) -> jax.Array:
    """Averages the squared cosine between corresponding rows of two sets of features: 0 = orthogonal.

    Args:
      features: [B, D] float32.
      reference: [B, D] float32.
      weights: [B], 0 = padding.
      chunk: rows per chunk; rows are averaged per chunk, then the chunks.
    """
    sizes = (lengths(features) + 1e-6) * (lengths(reference) + 1e-6)
    squares = jnp.square(jnp.sum(features * reference, -1) / sizes)
    padding = -len(squares) % chunk
    squares, is_row = (
        jnp.pad(values, (0, padding)).reshape(-1, chunk) for values in (squares, (weights > 0).astype(squares.dtype))
    )
    counts = jnp.sum(is_row, 1)
    means = jnp.sum(squares * is_row, 1) / jnp.maximum(counts, 1)
    return jnp.sum(means) / jnp.maximum(jnp.sum(counts > 0), 1)


def feature_indices(features: tuple[int, ...]) -> tuple[int, ...]:
    """Returns indices of features from their numbers, which start at 1; repeats stay.

    Raises:
      ConfigError: no number, or one below 1.
    """
    if not features or min(features) < 1:
        raise errors.ConfigError(f"features = {features}: expected numbers from 1, such as 1;2;2.")
    return tuple(number - 1 for number in features)


def with_orthogonality(
    step: GradientStep,
    stream: str,
    form: str,
    indices: tuple[int, ...],
    gamma: Scalar,
    weight: Scalar,
    factor: Scalar = 1.0,
) -> GradientStep:
    """Returns the step with objective factor * (weight * its own + gamma * orthogonality of a stream's features).

    Args:
      step: with a single objective.
      stream: its forget rows count.
      form: one of FORMS.
      indices: of the features.
      gamma, weight, factor: floats, may be traced.
    """
    objective: Objective = step.objective  # type: ignore[assignment]

    def orthogonal_objective(
        outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext
    ) -> jax.Array:
        batch, features = batches[stream], context.features[stream]
        weights = jnp.where(batch.is_forget, batch.weights, 0.0)
        _check_indices(indices, len(features.current))
        if form == "class":
            terms = [gram(features.current[index], weights) for index in indices]
        else:
            terms = [pair(features.current[index], features.original[index], weights) for index in indices]
        return factor * (weight * objective(outputs, batches, context) + gamma * sum(terms))

    return step._replace(objective=orthogonal_objective, features=(*step.features, stream))


def _check_indices(indices: tuple[int, ...], count: int) -> None:
    if max(indices) >= count:
        raise errors.ConfigError(
            f"orthogonal_features requests feature {max(indices) + 1}, but the network names {count}. "
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
    """Intensifies a method, adds the orthogonality of hidden features to its loss, and appends Replay.

    Published for classes: amnesiac+orthogonal, the defaults. For samples: relabel+orthogonal with form="sample",
    gamma=1, weight=0.1, optimizer="adamw", epochs=(3, 1, 2) (there the phases of Replay differ in augmentation, which
    is one setting of the whole method here). gamma=0 is the ablation `rl_our`, replay=False is `orth_no_our`.

    Args:
      method: with gradient steps on the forget set; the model after it is recorded as METHOD+orthogonal@mid.
      gamma: weight of the orthogonality.
      form: "class" or "sample", see above.
      features: which of the network's named features count, and how often, from 1. The published code reads the second
        twice where it means the third; (1, 2, 3) is what it means.
      weight: of the method's own loss.
      lr: of the first phase of Replay.
      epochs: of each phase; every phase has its own optimizer and a constant rate.
      factors: of each phase on `lr`.
      l1: coefficient of the sum of absolute values of all parameters.
      l1_stages: number of phases that have it, from the first; 0 = all.
      momentum, weight_decay, optimizer: of Replay, see `descent.make_optimizer`.
      batch: rows per step of Replay, 0 = the run's.
      replay: False = no Replay: the retained rows' cross entropy and the L1 penalty join the loss of phase 1, for each
        of its batches.

    Raises:
      ConfigError: a method without gradient steps, or with several separate gradients; an unknown form, invalid
        features, or different numbers of epochs and factors.
    """
    checks.choice("form", form, FORMS)
    indices = feature_indices(features)
    if len(epochs) != len(factors):
        raise errors.ConfigError(f"epochs {epochs} and factors {factors} of the phases of Replay differ in number.")
    has_steps = [bool(phase.gradient_steps) for phase in method.phases]
    if not any(has_steps) or method.fixed_loss:
        raise errors.ConfigError("it takes no gradient steps of its own, to whose loss orthogonality could be added.")

    def drive_apart(phase: Phase) -> Phase:
        step, stream = phase.gradient_steps[-1], next(iter(phase.stream_specs))
        if isinstance(step.objective, Mapping):
            raise errors.ConfigError("it takes gradients of several losses one by one; orthogonality joins one loss.")
        streams = step.streams or tuple(phase.stream_specs)
        step = with_orthogonality(
            step._replace(streams=streams), stream, form, indices, gamma, weight, 1.0 if replay else JOINT
        )
        if replay:
            return dataclasses.replace(phase, gradient_steps=(*phase.gradient_steps[:-1], step))
        return _with_retain_loss(
            dataclasses.replace(phase, gradient_steps=(*phase.gradient_steps[:-1], step)), l1, batch
        )

    pairs = zip(method.phases, has_steps, strict=True)
    phases = tuple(drive_apart(phase) if flag else phase for phase, flag in pairs)
    method = dataclasses.replace(method, phases=phases)
    if not replay:
        return dataclasses.replace(method, bn="recalibrate")
    num_l1_phases = l1_stages or len(epochs)
    replay_phases = tuple(
        over_unlearning.replay(
            factor * lr,
            count,
            l1 if number < num_l1_phases else 0.0,
            momentum,
            weight_decay,
            batch,
            optimizer=optimizer,
        )
        for number, (count, factor) in enumerate(zip(epochs, factors, strict=True))
    )
    return over_unlearning.append_phases(method, replay_phases)


def _with_retain_loss(phase: Phase, l1: Scalar, batch: int) -> Phase:
    """Adds the cross entropy of retained batches and an L1 penalty to the loss of the last step."""
    step = phase.gradient_steps[-1]
    objective: Objective = step.objective  # type: ignore[assignment]

    def joint_objective(
        outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext
    ) -> jax.Array:
        return objective(outputs, batches, context) + JOINT * descent.retain_loss(outputs, batches, context)

    step = step._replace(objective=joint_objective, streams=(*step.streams, "retain"))
    return dataclasses.replace(
        phase,
        gradient_steps=(*phase.gradient_steps[:-1], step),
        stream_specs={**phase.stream_specs, "retain": StreamSpec("retain", batch)},
        transform=optax.chain(transforms.add_l1(JOINT * l1), phase.transform),
    )
