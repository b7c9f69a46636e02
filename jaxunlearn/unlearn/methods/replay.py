"""DeltaGrad: replays a training run without the forget set; most gradients are corrected instead of computed.

    w      the run on everything: plain SGD from a random network, w <- w - lr (g(w) + wd w)
    theta  the same run, batch by batch, without the forget rows of each batch
    exact steps give pairs s = theta - w, y = g(theta) - g(w) + wd s; L-BFGS turns them into B with B s = y
    other steps approximate g(theta) + wd theta by B (theta - w) + g(w) + wd w

Kernels work on flat vectors [P]. Source: Wu, Dobriban and Davidson, "DeltaGrad: rapid retraining of machine learning
models", 2020, in the form of the IAM seed's file (dead code there).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from jaxunlearn import checks
from jaxunlearn.population import task
from jaxunlearn.unlearn.base.method import GradientStep, Method, Phase, Samples, Scalar, StepContext, StreamSpec
from jaxunlearn.unlearn.blocks import losses, transforms

Tree = Any
SMALLEST_SIGMA = 1e-3


def scale(s: jax.Array, y: jax.Array) -> jax.Array:
    """Returns sigma of the starting matrix sigma I: max(y.s / s.s, 1e-3) of the last pair [P]; 1e-3 where s is 0."""
    length = jnp.dot(s, s)
    return jnp.maximum(jnp.where(length > 0, jnp.dot(y, s) / jnp.where(length > 0, length, 1.0), 0.0), SMALLEST_SIGMA)


def lbfgs_product(s: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    """Computes B v [P], where B = sigma I after the BFGS updates of m pairs, oldest first.

    The compact form sigma v - [Y; sigma S]^T M^-1 [Y v; sigma S v] of the source, unrolled: no matrix is inverted, and
    nearly parallel pairs do no harm.

    Args:
      s: [m, P] differences of parameters.
      y: [m, P] differences of gradients; a pair with s.y <= 0 is left out.
      v: [P].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import replay
      >>> s, y = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0]])
      >>> replay.lbfgs_product(s, y, s[0]).tolist()
      [2.0, 0.0]
    """
    pairs = s.shape[0]
    is_usable = jnp.sum(s * y, 1) > 0
    sigma = scale(s[-1], y[-1])

    def product(vector: jax.Array, images: list[jax.Array]) -> jax.Array:
        total = sigma * vector
        for k, image in enumerate(images):
            image_curvature, pair_curvature = jnp.dot(s[k], image), jnp.dot(s[k], y[k])
            removal = image * jnp.dot(image, vector) / jnp.where(is_usable[k], image_curvature, 1.0)
            addition = y[k] * jnp.dot(y[k], vector) / jnp.where(is_usable[k], pair_curvature, 1.0)
            total = total + jnp.where(is_usable[k], addition - removal, 0.0)
        return total

    images: list[jax.Array] = []
    for k in range(pairs):
        images.append(product(s[k], images))
    return product(v, images)


def corrected_gradient(
    product: jax.Array, cached_gradient: jax.Array, w: jax.Array, theta: jax.Array, removed_gradient: jax.Array,
    num_rows: Scalar, num_removed: Scalar, weight_decay: Scalar,
) -> jax.Array:  # fmt: skip
    """Approximates [P] the gradient with weight decay of the remaining rows of a batch at theta.

    G = B v + g + wd w approximates that of the whole batch of n rows; the result for the n - m that remain is
    (n G - m (removed + wd theta)) / (n - m).

    Args:
      product: [P] B (theta - w).
      cached_gradient: [P] g, mean gradient of the whole batch at w.
      w: [P] parameters of the run on everything.
      theta: [P] parameters of the replay.
      removed_gradient: [P] mean gradient of the removed rows at theta.
      num_rows: n.
      num_removed: m; if m = n the result is finite and meaningless.
      weight_decay: wd.
    """
    batch_gradient = product + cached_gradient + weight_decay * w
    return (num_rows * batch_gradient - num_removed * (removed_gradient + weight_decay * theta)) / jnp.maximum(
        num_rows - num_removed, 1
    )


TRUST = 3.0  # a corrected gradient is not used if it is more than this many times as long as the cached one


class ReplayState(NamedTuple):
    """Both runs of one member; all vectors [P].

    Attributes:
      w, theta: parameters of the run on everything, and of the replay.
      removed_gradient, remaining_gradient: mean gradients at theta of this batch's removed and remaining rows.
      num_rows, num_removed: rows of this batch, and how many of them are removed.
      s, y: [m, P] the last pairs, oldest first; 0 = none yet.
    """

    w: jax.Array
    theta: jax.Array
    removed_gradient: jax.Array
    remaining_gradient: jax.Array
    num_rows: jax.Array
    num_removed: jax.Array
    s: jax.Array
    y: jax.Array


def replaying(lr: Scalar, weight_decay: Scalar, period: int, exact: int, pairs: int) -> transforms.Transform:
    """Advances both runs with two gradient steps per batch: the first at theta, the second at w.

    The first (objectives "forget", "retain" and "rows", see `deltagrad`) stores the gradients at theta and swaps in w.
    The second (the whole batch) has the gradient at w, advances both runs, and swaps theta back in.

    Args:
      lr, weight_decay: of both runs.
      period: one step in `period` is exact.
      exact: number of exact steps at the beginning.
      pairs: number of pairs that make up B.
    """

    def init(params: Tree) -> ReplayState:
        flat = jax.flatten_util.ravel_pytree(params)[0]
        zeros, blank = jnp.zeros_like(flat), jnp.zeros((pairs, flat.size), flat.dtype)
        return ReplayState(flat, flat, zeros, zeros, jnp.float32(0.0), jnp.float32(0.0), blank, blank)

    def take_steps(state: ReplayState, cached_gradient: jax.Array, step: jax.Array) -> ReplayState:
        w, theta, num_rows, num_removed = state.w, state.theta, state.num_rows, state.num_removed
        v = theta - w
        length, product = jnp.dot(v, v), lbfgs_product(state.s, state.y, v)
        # A network's loss is not convex: pairs of negative curvature, or of more than steps of lr can bear, are left
        # out, and so are corrections that would carry theta past w. The source falls back to exact steps likewise.
        is_rough = lr**2 * jnp.dot(product, product) > length
        is_blank = ~jnp.any(jnp.sum(state.s * state.y, 1) > 0)
        is_exact = (step < exact) | (step % period == 0) | is_rough | is_blank
        batch_gradient = (
            num_removed * state.removed_gradient + (num_rows - num_removed) * state.remaining_gradient
        ) / jnp.maximum(num_rows, 1)
        y = batch_gradient - cached_gradient + weight_decay * v
        curvature = jnp.dot(v, y)
        is_new = is_exact & (curvature > 1e-8 * length) & (lr * jnp.dot(y, y) <= curvature)
        estimate = corrected_gradient(
            product, cached_gradient, w, theta, state.removed_gradient, num_rows, num_removed, weight_decay
        )
        # Far from the cached run the product is unreliable: use the exact gradient, which is available here.
        is_wild = jnp.linalg.norm(estimate) > TRUST * jnp.linalg.norm(cached_gradient + weight_decay * w)
        gradient = jnp.where(is_exact | is_wild, state.remaining_gradient + weight_decay * theta, estimate)

        def push(pairs: jax.Array, newest: jax.Array) -> jax.Array:
            return jnp.where(is_new, jnp.concatenate([pairs[1:], newest[None]]), pairs)

        return state._replace(
            w=w - lr * (cached_gradient + weight_decay * w),
            theta=jnp.where(num_rows > num_removed, theta - lr * gradient, theta),
            s=push(state.s, v), y=push(state.y, y),
        )  # fmt: skip

    def update(updates: Tree, state: ReplayState, params: Tree = None, **extras: Any) -> tuple[Tree, ReplayState]:
        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        if extras["forget_grads"] is not None:
            removed_gradient, remaining_gradient, counts = (
                jax.flatten_util.ravel_pytree(extras[f"{name}_grads"])[0] for name in ("forget", "retain", "rows")
            )
            new_state = state._replace(
                removed_gradient=removed_gradient,
                remaining_gradient=remaining_gradient,
                num_rows=counts[0],
                num_removed=counts[1],
            )
            return unflatten(new_state.w - flat), new_state
        new_state = take_steps(state, jax.flatten_util.ravel_pytree(updates)[0], extras["step_info"].step)
        return unflatten(new_state.theta - flat), new_state

    return transforms.Transform(init, update)


def _row_counts(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
    """Returns 0 with the numbers of rows and of removed rows (texts: tokens) as its gradient at two parameters.

    A transform sees gradients and not the batch, and the correction needs these numbers.
    """
    del outputs
    batch = batches["all"]
    num_read = jnp.sum((task.answer_weights(batch.labels, batch.weights) > 0).reshape(len(batch.weights), -1), -1)
    counts = jnp.stack([jnp.sum(num_read), jnp.sum(jnp.where(batch.is_forget, num_read, 0))]).astype(jnp.float32)
    two_params = jax.flatten_util.ravel_pytree(context.params)[0][:2]
    return jnp.sum(counts * (two_params - jax.lax.stop_gradient(two_params)))


def deltagrad(
    lr: float = 0.1, epochs: int = 20, period: int = 5, exact: int = 20, pairs: int = 2, weight_decay: float = 5e-4,
    batch: int = 0,
) -> Method:  # fmt: skip
    """Replays a run without the forget set; one step in `period` and the first `exact` are exact.

    The replayed run is its OWN: plain SGD without momentum on all samples from a random network, computed at the same
    time. It does not use the original model; compare it with a network retrained by plain SGD, to see how good the
    corrections are. It costs more than retraining, because no history was recorded: both runs compute their gradients.
    A batch without remaining rows is skipped. A corrected gradient more than three times as long as the cached one is
    replaced by the exact one.

    Args:
      lr, weight_decay: of both runs.
      epochs: passes over all samples.
      period: one step in `period` is exact; 1 = retraining on the remaining rows of every batch.
      exact: number of exact steps at the beginning.
      pairs: of parameter and gradient differences that approximate the Hessian.
      batch: rows per step, 0 = the run's.

    Source: Wu et al. 2020; IAM seed.

    Raises:
      ConfigError: period or pairs below 1.
    """
    checks.in_range("period", period, 1)
    checks.in_range("pairs", pairs, 1)
    stream_specs = {"all": StreamSpec("retain+forget", batch)}
    batch_loss = losses.cross_entropy_on("all")
    row_filter = {"forget": lambda samples: samples.is_forget, "retain": lambda samples: ~samples.is_forget}
    at_theta = GradientStep(
        {"rows": _row_counts, "forget": batch_loss, "retain": batch_loss}, cost=1.0, row_filter=row_filter
    )
    transform = replaying(lr, weight_decay, period, exact, pairs)
    phase = Phase(transform, (at_theta, GradientStep(batch_loss)), stream_specs, epochs, start="fresh")
    return Method((phase,), "recalibrate", fixed_loss=True)
