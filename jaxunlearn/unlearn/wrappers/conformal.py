"""The conformal-guided loss: pushes the true label of samples to forget out of the model's prediction set.

    conformal(finetune(...), lam=0.085)       a method -> the same method with the loss added
    L = L_base + lam * mean max(0, q_hat - (1 - p_y) + delta)        over samples to forget, with their true labels

q_hat is the conformal threshold (`metrics/conformal`) of the current model on calibration rows, computed anew at the
start of every epoch, in evaluation mode and without gradient: a label whose non-conformity 1 - p_y exceeds q_hat by
delta is outside the set, and no longer pushed.

Source: "Redefining Machine Unlearning: A Conformal Prediction-Motivated Approach", `unlearn_cpu.py`, where the base
methods are retraining, fine-tuning, random labels and SalUn; here every method that takes gradient steps. Differences,
none of which changes the loss:
- there one shuffled stream holds retained samples and samples to forget, here a stream of its own accompanies every
  step; it is shown to the model in evaluation mode, as the threshold is, whatever the policy for BatchNorm (published:
  everything in evaluation mode, `unlearn.bn=frozen`);
- the threshold is computed on the population rows, which later evaluations calibrate on as well: no gradient comes from
  them, one number per epoch does. Published: on 1,000 of the test rows (`calibration`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors
from jaxunlearn.metrics.conformal import conformal as prediction
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    MemberRows,
    Method,
    Objective,
    Phase,
    Samples,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.blocks import passes

Tree = Any
STREAM = "conformal"  # samples to forget; also the name of the calibration pass
THRESHOLD = "conformal q_hat"
_ROWS = 256  # calibration rows per step of the pass


def hinge(logits: jax.Array, batch: Samples, q_hat: Scalar, delta: Scalar = 0.01, pairwise: bool = False) -> jax.Array:
    """Mean of max(0, q_hat - (1 - p_y) + delta) over the unpadded rows; 0 with gradient 0 where there is none.

    A term is active up to and on its boundary, as in the published code.

    Args:
      logits: [B, C] float32.
      batch: true labels and weights (0 = padding).
      q_hat: threshold; no gradient flows into it.
      delta: margin.
      pairwise: False = each row with its own label. True = as published: each row with the labels of ALL rows,
        mean over all pairs; for rows of several classes the weight of the true label shrinks to about
        1 / B + (1 - 1 / B) / C, and other labels are pushed down too. The same if all rows are of one class.
    """
    chances = jax.nn.softmax(logits)
    if pairwise:
        own = chances[:, batch.labels]
        weights = batch.weights[:, None] * batch.weights[None, :]
    else:
        own = jnp.take_along_axis(chances, batch.labels[:, None], -1)[:, 0]
        weights = batch.weights
    inside = jax.lax.stop_gradient(q_hat) - (1.0 - own) + delta
    total = jnp.sum(weights)
    return jnp.sum(jnp.where((weights > 0) & (inside >= 0), inside * weights, 0.0)) / jnp.where(total > 0, total, 1.0)


def conformal(
    method: Method,
    lam: float = 0.085,
    delta: float = 0.01,
    alpha: float = 0.05,
    pairwise: bool = False,
    batch: int = 16,
    calibration: int = 0,
    eval_mode: bool = False,
) -> Method:
    """The method with the conformal-guided loss added to the last move of every phase that takes gradient steps.

    Of a move with separate gradients for samples to forget and to retain, it joins the former. Phases whose network is
    a probe, because the next one starts from another, stay as they are.

    Args:
      method: any method with gradient steps.
      lam: weight of the loss; 0 = the method as it is. Published: 0.5, pairwise; per sample 0.085 is of about the
        same strength for 10 classes and 13 rows to forget per step.
      delta: margin beyond the threshold.
      alpha: level of the threshold.
      pairwise: see `hinge`; published: True.
      batch: rows to forget per step; published: their share of the batch, 13 of 128 for 10 % of the data. 0 = the
        run's batch size.
      calibration: the threshold is computed on so many test rows drawn at random (published: 1,000; 200 where a class
        is forgotten); 0 = on the population rows.
      eval_mode: all its steps in evaluation mode, whatever the method's own: published code forgets to switch back from
        the calibration, so that even retraining from scratch uses the running statistics of a new network.

    Raises:
      ConfigError: a method without gradient steps, or whose steps follow a recorded training; alpha outside (0, 1), or
        swept: it decides about a rank.
    """
    if isinstance(alpha, jax.core.Tracer):
        raise errors.ConfigError("the alpha of the conformal loss decides about a rank; it cannot be swept.")
    (alpha,) = prediction.check_alphas(alpha)
    following = [*(phase.start for phase in method.phases[1:]), "current"]
    guided = [
        bool(phase.gradient_steps) and start == "current" for phase, start in zip(method.phases, following, strict=True)
    ]
    if not any(guided):
        raise errors.ConfigError(
            "it takes no gradient steps: there is no loss to which the conformal one could be added."
        )
    if method.fixed_loss:
        raise errors.ConfigError("its steps follow a recorded training: the conformal loss cannot be added to them.")
    reads_known = calibration_rows(alpha, calibration)
    estimate = Estimate(lambda member: _threshold(member, alpha), {STREAM: reads_known}, cost=1 / 3)

    def wrapped(phase: Phase) -> Phase:
        # A move that names no streams answers for all of the phase: not for the added one.
        moves = [move._replace(streams=move.streams or tuple(phase.stream_specs)) for move in phase.gradient_steps]
        moves[-1] = _joined(moves[-1], lam, delta, pairwise)
        return dataclasses.replace(
            phase,
            gradient_steps=tuple(moves),
            mode="eval" if eval_mode else phase.mode,
            stream_specs={**phase.stream_specs, STREAM: StreamSpec("forget", batch)},
            every_epoch={**phase.every_epoch, THRESHOLD: estimate},
        )

    pairs = zip(method.phases, guided, strict=True)
    return dataclasses.replace(method, phases=tuple(wrapped(phase) if is_one else phase for phase, is_one in pairs))


def calibration_rows(alpha: float, count: int = 0) -> StreamSpec:
    """The held-out rows that the threshold is computed on: those of (sub)classes that are still trained on.

    `count` test rows, or for 0 all population rows. Reading them raises a ConfigError where they are too few for alpha.
    """

    def rows(member_rows: MemberRows) -> np.ndarray:
        source = member_rows.test if count else member_rows.validation
        kinds = member_rows.kinds if len(member_rows.kinds) else member_rows.labels
        found = source[np.isin(kinds[source], np.unique(kinds[member_rows.retain]))]
        if count > len(found):
            raise errors.ConfigError(
                f"unlearn.conformal.calibration_rows = {count}, but there are {len(found)} test rows of retained "
                "classes. "
                "Lower it, or set 0 for the population rows."
            )
        if count:
            found = member_rows.rng.permutation(found)[:count]
        if len(found) < prediction.smallest_calibration(alpha):
            raise errors.ConfigError(
                f"the conformal loss with alpha = {alpha} needs at least {prediction.smallest_calibration(alpha)} "
                f"calibration rows of retained classes; there are {len(found)}. Raise split.population or alpha."
            )
        return found

    return StreamSpec(rows, _ROWS, shuffle=False)


def _threshold(member: EstimateContext, alpha: float) -> tuple[jax.Array, Tree]:
    """q_hat of one member, float32 scalar."""
    reads, stream = member.stream_specs[STREAM], member.streams[STREAM]
    length = -(-stream.rows.shape[0] // reads.batch) * reads.batch

    def update(total: tuple[jax.Array, jax.Array], samples: Samples, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores, place = total
        logits, _ = network.forward(
            member.network, member.params, member.model_state, samples.inputs, samples.weights, "eval"
        )
        own = jnp.where(samples.weights > 0, prediction.own_scores(logits, samples.labels), jnp.inf)
        return jax.lax.dynamic_update_slice(scores, own, (place,)), place + reads.batch

    scores, _ = passes.fold(member, STREAM, (jnp.full(length, jnp.inf), jnp.int32(0)), update)
    # Ranks are whole numbers worked out on the host for every possible number of rows.
    places = jnp.asarray([prediction.rank_of(n, alpha) if n else 0 for n in range(length + 1)], jnp.int32)
    read = passes.count(member, STREAM).astype(jnp.int32)
    return prediction.quantiles(scores, places[read]), member.model_state


def _joined(move: GradientStep, lam: Scalar, delta: Scalar, pairwise: bool) -> GradientStep:
    """The move with the loss added to its objective, or to the part of it that forgets."""

    def added(objective: Objective) -> Objective:
        def both(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
            own = hinge(outputs[STREAM], batches[STREAM], context.estimates[THRESHOLD], delta, pairwise)
            return objective(outputs, batches, context) + lam * own

        return both

    objective = move.objective
    if isinstance(objective, Mapping):
        part = "forget" if "forget" in objective else list(objective)[-1]
        return move._replace(objective={**objective, part: added(objective[part])}, eval_streams=(STREAM,))
    return move._replace(objective=added(objective), eval_streams=(STREAM,))
