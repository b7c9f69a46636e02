"""DeltaGrad: replays a training run without the forget set, most gradients corrected instead of computed.

    w      the run on everything: plain SGD from a random network, w <- w - lr (g(w) + wd w)
    theta  the same run, batch by batch, without the forget rows of each batch
    exact steps give pairs s = theta - w, y = g(theta) - g(w) + wd s; L-BFGS turns them into B with B s = y
    other steps take g(theta) + wd theta as B (theta - w) + g(w) + wd w

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
    """Sigma of the starting matrix sigma I: max(y.s / s.s, 1e-3) of the last pair [P]; 1e-3 where s is 0."""
    length = jnp.dot(s, s)
    return jnp.maximum(jnp.where(length > 0, jnp.dot(y, s) / jnp.where(length > 0, length, 1.0), 0.0), SMALLEST_SIGMA)


def lbfgs_product(s: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    """[P] B v, B = sigma I after the BFGS updates of m pairs, oldest first.

    The compact form sigma v - [Y; sigma S]^T M^-1 [Y v; sigma S v] of the source, unrolled: no matrix is inverted, and
    pairs that are nearly parallel do no harm.

    Args:
      s: [m, P] differences of parameters.
      y: [m, P] differences of gradients; a pair with s.y <= 0 is left out.
      v: [P].
    """
    pairs = s.shape[0]
    usable = jnp.sum(s * y, 1) > 0
    sigma = scale(s[-1], y[-1])

    def product(vector: jax.Array, images: list[jax.Array]) -> jax.Array:
        total = sigma * vector
        for k, image in enumerate(images):
            curved, pulled = jnp.dot(s[k], image), jnp.dot(s[k], y[k])
            down = image * jnp.dot(image, vector) / jnp.where(usable[k], curved, 1.0)
            up = y[k] * jnp.dot(y[k], vector) / jnp.where(usable[k], pulled, 1.0)
            total = total + jnp.where(usable[k], up - down, 0.0)
        return total

    images: list[jax.Array] = []
    for k in range(pairs):
        images.append(product(s[k], images))
    return product(v, images)


def corrected_gradient(
    product: jax.Array, cached: jax.Array, w: jax.Array, theta: jax.Array, removed: jax.Array, rows: Scalar,
    gone: Scalar, weight_decay: Scalar,
) -> jax.Array:  # fmt: skip
    """[P] gradient with weight decay of the remaining rows of a batch at theta, without computing it.

    G = B v + g + wd w approximates that of the whole batch; (rows G - gone (removed + wd theta)) / (rows - gone).

    Args:
      product: [P] B (theta - w).
      cached: [P] g, mean gradient of the whole batch at w.
      w: [P] parameters of the run on everything.
      theta: [P] parameters of the replay.
      removed: [P] mean gradient of the removed rows at theta.
      rows: of the batch.
      gone: how many of them are removed; where all are, the result is finite and without meaning.
      weight_decay: wd.
    """
    whole = product + cached + weight_decay * w
    return (rows * whole - gone * (removed + weight_decay * theta)) / jnp.maximum(rows - gone, 1)


TRUST = 3.0  # a corrected gradient so many times as long as the cached one is not used


class ReplayState(NamedTuple):
    """Both runs of one member; all vectors [P].

    Attributes:
      w, theta: of the run on everything, of the replay.
      removed, remaining: mean gradients at theta of the rows of this batch that go and that stay.
      rows, gone: numbers of rows of this batch, and of those that go.
      s, y: [m, P] the last pairs, oldest first; 0 = none yet.
    """

    w: jax.Array
    theta: jax.Array
    removed: jax.Array
    remaining: jax.Array
    rows: jax.Array
    gone: jax.Array
    s: jax.Array
    y: jax.Array


def replaying(lr: Scalar, weight_decay: Scalar, period: int, exact: int, pairs: int) -> transforms.Transform:
    """Both runs at once, in two moves per step: the first at theta, the second at w.

    The first move (objectives "forget", "retain" and "rows", see `deltagrad`) notes what it finds at theta and puts w
    in its place. The second one (the whole batch) has the gradient at w, takes both steps, and puts theta back.

    Args:
      lr: of both runs.
      weight_decay: of both runs.
      period: every so many steps one is exact.
      exact: the first so many steps are exact.
      pairs: kept for B.
    """

    def init(params: Tree) -> ReplayState:
        flat = jax.flatten_util.ravel_pytree(params)[0]
        zeros, blank = jnp.zeros_like(flat), jnp.zeros((pairs, flat.size), flat.dtype)
        return ReplayState(flat, flat, zeros, zeros, jnp.float32(0.0), jnp.float32(0.0), blank, blank)

    def back(state: ReplayState, cached: jax.Array, step: jax.Array) -> ReplayState:
        w, theta, rows, gone = state.w, state.theta, state.rows, state.gone
        v = theta - w
        length, product = jnp.dot(v, v), lbfgs_product(state.s, state.y, v)
        # A network's loss is not convex: no pairs of negative curvature, none of more than steps of lr can stand, and
        # no correction that would throw theta past w. The source falls back to exact steps likewise.
        is_rough = lr**2 * jnp.dot(product, product) > length
        is_blank = ~jnp.any(jnp.sum(state.s * state.y, 1) > 0)
        is_exact = (step < exact) | (step % period == 0) | is_rough | is_blank
        whole = (gone * state.removed + (rows - gone) * state.remaining) / jnp.maximum(rows, 1)
        y = whole - cached + weight_decay * v
        curvature = jnp.dot(v, y)
        is_new = is_exact & (curvature > 1e-8 * length) & (lr * jnp.dot(y, y) <= curvature)
        estimate = corrected_gradient(product, cached, w, theta, state.removed, rows, gone, weight_decay)
        # Away from the cached run the product is no longer to be believed: the exact gradient is at hand here.
        is_wild = jnp.linalg.norm(estimate) > TRUST * jnp.linalg.norm(cached + weight_decay * w)
        gradient = jnp.where(is_exact | is_wild, state.remaining + weight_decay * theta, estimate)

        def pushed(old: jax.Array, last: jax.Array) -> jax.Array:
            return jnp.where(is_new, jnp.concatenate([old[1:], last[None]]), old)

        return state._replace(
            w=w - lr * (cached + weight_decay * w),
            theta=jnp.where(rows > gone, theta - lr * gradient, theta),
            s=pushed(state.s, v), y=pushed(state.y, y),
        )  # fmt: skip

    def update(updates: Tree, state: ReplayState, params: Tree = None, **extras: Any) -> tuple[Tree, ReplayState]:
        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        if extras["forget_grads"] is not None:
            removed, remaining, counts = (
                jax.flatten_util.ravel_pytree(extras[f"{name}_grads"])[0] for name in ("forget", "retain", "rows")
            )
            new = state._replace(removed=removed, remaining=remaining, rows=counts[0], gone=counts[1])
            return unflatten(new.w - flat), new
        new = back(state, jax.flatten_util.ravel_pytree(updates)[0], extras["step_info"].step)
        return unflatten(new.theta - flat), new

    return transforms.Transform(init, update)


def _rows(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
    """0, with the numbers of rows and of removed rows (of texts: of their tokens) as gradient at two parameters.

    A transform sees gradients and not the batch, and the correction needs to know how many rows went.
    """
    del outputs
    batch = batches["all"]
    read = jnp.sum((task.answer_weights(batch.labels, batch.weights) > 0).reshape(len(batch.weights), -1), -1)
    counts = jnp.stack([jnp.sum(read), jnp.sum(jnp.where(batch.is_forget, read, 0))]).astype(jnp.float32)
    first = jax.flatten_util.ravel_pytree(context.params)[0][:2]
    return jnp.sum(counts * (first - jax.lax.stop_gradient(first)))


def deltagrad(
    lr: float = 0.1, epochs: int = 20, period: int = 5, exact: int = 20, pairs: int = 2, weight_decay: float = 5e-4,
    batch: int = 0,
) -> Method:  # fmt: skip
    """Replays a run without the forget set; one step in `period` and the first `exact` are exact.

    The run that is replayed is its OWN: plain SGD without momentum on all samples from a random network, computed at
    the same time. It knows nothing of the original model, and is to be compared with a network retrained by plain
    SGD; what it shows is how well the corrections do. It costs more than retraining, because no history was recorded:
    both runs compute their gradients. With `period=1` it is retraining on the remaining rows of every batch, exactly;
    a batch all of whose rows go is skipped. A corrected gradient more than three times as long as the cached one is
    replaced by the exact one. Source: Wu et al. 2020; IAM seed.

    Raises:
      ConfigError: period or pairs below 1.
    """
    checks.in_range("period", period, 1)
    checks.in_range("pairs", pairs, 1)
    reads = {"all": StreamSpec("retain+forget", batch)}
    whole = losses.cross_entropy_on("all")
    only = {"forget": lambda samples: samples.is_forget, "retain": lambda samples: ~samples.is_forget}
    at_theta = GradientStep({"rows": _rows, "forget": whole, "retain": whole}, cost=1.0, row_filter=only)
    transform = replaying(lr, weight_decay, period, exact, pairs)
    phase = Phase(transform, (at_theta, GradientStep(whole)), reads, epochs, start="fresh")
    return Method((phase,), "recalibrate", fixed_loss=True)
