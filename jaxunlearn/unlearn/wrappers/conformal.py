"""The conformal-guided loss: pushes the true label of samples to forget out of the model's prediction set.

    conformal(finetune(...), lam=0.085)       a method -> the same method with the loss added
    L = L_base + lam * mean max(0, q_hat - (1 - p_y) + delta)        over samples to forget, with their true labels

q_hat is the conformal threshold (`metrics/conformal`) of the current model on calibration rows, computed anew at the
start of every epoch, in evaluation mode and without gradient: a label whose non-conformity 1 - p_y exceeds q_hat by
delta is outside the set and no longer pushed.

Source: "Redefining Machine Unlearning: A Conformal Prediction-Motivated Approach", `unlearn_cpu.py`, where the base
methods are retraining, fine-tuning, random labels and SalUn; here every method that takes gradient steps. Differences,
none of which changes the loss:
- there one shuffled stream holds retained samples and samples to forget, here a separate stream accompanies every
  step; the model reads it in evaluation mode, as for the threshold, under any BatchNorm policy (published: everything
  in evaluation mode, `unlearn.bn=frozen`);
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
    """Averages max(0, q_hat - (1 - p_y) + delta) over the unpadded rows; 0 with gradient 0 where there is none.

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
        label_chances = chances[:, batch.labels]
        weights = batch.weights[:, None] * batch.weights[None, :]
    else:
        label_chances = jnp.take_along_axis(chances, batch.labels[:, None], -1)[:, 0]
        weights = batch.weights
    inside = jax.lax.stop_gradient(q_hat) - (1.0 - label_chances) + delta
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
    """Adds the conformal-guided loss to a method, in the last gradient step of every phase that has any.

    Of a step with separate gradients for samples to forget and to retain, it joins the former. Phases whose network is
    only a probe, because the next one starts from another, stay as they are.

    Args:
      method: any method with gradient steps.
      lam: weight of the loss; 0 = the method as it is. Published: 0.5, pairwise; per sample 0.085 is of about the
        same strength for 10 classes and 13 rows to forget per step.
      delta: margin beyond the threshold.
      alpha: level of the threshold.
      pairwise: see `hinge`; published: True.
      batch: rows to forget per step; published: their share of the batch, 13 of 128 for 10 % of the data. 0 = the
        run's batch size.
      calibration: number of random test rows for the threshold (published: 1,000; 200 where a class is forgotten);
        0 = the population rows.
      eval_mode: all its steps in evaluation mode instead of the method's own: published code forgets to switch back
        from the calibration, so that even retraining from scratch uses the running statistics of a new network.

    Raises:
      ConfigError: a method without gradient steps, or whose steps follow a recorded training; alpha outside (0, 1), or
        swept: it determines a rank.

    Example:
      >>> from jaxunlearn import unlearn
      >>> from jaxunlearn.unlearn.wrappers import conformal
      >>> list(conformal.conformal(unlearn.descent.finetune()).phases[0].stream_specs)
      ['retain', 'conformal']
    """
    if isinstance(alpha, jax.core.Tracer):
        raise errors.ConfigError("the alpha of the conformal loss determines a rank, so it cannot be swept.")
    (alpha,) = prediction.check_alphas(alpha)
    next_starts = [*(phase.start for phase in method.phases[1:]), "current"]
    is_guided = [
        bool(phase.gradient_steps) and start == "current"
        for phase, start in zip(method.phases, next_starts, strict=True)
    ]
    if not any(is_guided):
        raise errors.ConfigError(
            "it takes no gradient steps: there is no loss to which the conformal one could be added."
        )
    if method.fixed_loss:
        raise errors.ConfigError("its steps follow a recorded training: the conformal loss cannot be added to them.")
    calibration_spec = calibration_rows(alpha, calibration)
    estimate = Estimate(lambda member: _threshold(member, alpha), {STREAM: calibration_spec}, cost=1 / 3)

    def guide(phase: Phase) -> Phase:
        # A step that names no streams reads all of the phase, but must not read the added one.
        gradient_steps = [
            step._replace(streams=step.streams or tuple(phase.stream_specs)) for step in phase.gradient_steps
        ]
        gradient_steps[-1] = _with_hinge(gradient_steps[-1], lam, delta, pairwise)
        return dataclasses.replace(
            phase,
            gradient_steps=tuple(gradient_steps),
            mode="eval" if eval_mode else phase.mode,
            stream_specs={**phase.stream_specs, STREAM: StreamSpec("forget", batch)},
            every_epoch={**phase.every_epoch, THRESHOLD: estimate},
        )

    pairs = zip(method.phases, is_guided, strict=True)
    return dataclasses.replace(method, phases=tuple(guide(phase) if flag else phase for phase, flag in pairs))


def calibration_rows(alpha: float, count: int = 0) -> StreamSpec:
    """Specifies the calibration rows of the threshold: held-out rows of retained (sub)classes.

    `count` test rows, or for 0 all population rows. Reading them raises a ConfigError where they are too few for alpha.
    """

    def rows(member_rows: MemberRows) -> np.ndarray:
        source = member_rows.test if count else member_rows.validation
        kinds = member_rows.kinds if len(member_rows.kinds) else member_rows.labels
        held_out = source[np.isin(kinds[source], np.unique(kinds[member_rows.retain]))]
        if count > len(held_out):
            raise errors.ConfigError(
                f"unlearn.conformal.calibration_rows = {count}, but there are {len(held_out)} test rows of retained "
                "classes. Lower it, or set 0 for the population rows."
            )
        if count:
            held_out = member_rows.rng.permutation(held_out)[:count]
        if len(held_out) < prediction.smallest_calibration(alpha):
            raise errors.ConfigError(
                f"the conformal loss with alpha = {alpha} needs at least {prediction.smallest_calibration(alpha)} "
                f"calibration rows of retained classes; there are {len(held_out)}. Raise split.population or alpha."
            )
        return held_out

    return StreamSpec(rows, _ROWS, shuffle=False)


def _threshold(member: EstimateContext, alpha: float) -> tuple[jax.Array, Tree]:
    """Computes q_hat of one member, float32 scalar."""
    stream_spec, stream = member.stream_specs[STREAM], member.streams[STREAM]
    length = -(-stream.rows.shape[0] // stream_spec.batch) * stream_spec.batch

    def update(total: tuple[jax.Array, jax.Array], samples: Samples, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores, offset = total
        logits, _ = network.forward(
            member.network, member.params, member.model_state, samples.inputs, samples.weights, "eval"
        )
        row_scores = jnp.where(samples.weights > 0, prediction.true_label_scores(logits, samples.labels), jnp.inf)
        return jax.lax.dynamic_update_slice(scores, row_scores, (offset,)), offset + stream_spec.batch

    scores, _ = passes.fold(member, STREAM, (jnp.full(length, jnp.inf), jnp.int32(0)), update)
    # Ranks are integers, computed on the host for every possible number of rows.
    ranks = jnp.asarray([prediction.rank_of(n, alpha) if n else 0 for n in range(length + 1)], jnp.int32)
    count = passes.count(member, STREAM).astype(jnp.int32)
    return prediction.quantiles(scores, ranks[count]), member.model_state


def _with_hinge(step: GradientStep, lam: Scalar, delta: Scalar, pairwise: bool) -> GradientStep:
    """Adds the loss to the objective of a step, or to the objective "forget" of several."""

    def add_hinge(objective: Objective) -> Objective:
        def guided_objective(
            outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext
        ) -> jax.Array:
            hinge_loss = hinge(outputs[STREAM], batches[STREAM], context.estimates[THRESHOLD], delta, pairwise)
            return objective(outputs, batches, context) + lam * hinge_loss

        return guided_objective

    objective = step.objective
    if isinstance(objective, Mapping):
        name = "forget" if "forget" in objective else list(objective)[-1]
        return step._replace(objective={**objective, name: add_hinge(objective[name])}, eval_streams=(STREAM,))
    return step._replace(objective=add_hinge(objective), eval_streams=(STREAM,))
