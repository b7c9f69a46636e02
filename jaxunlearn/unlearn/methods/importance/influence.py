"""One Newton-like step away from the forget set: influence unlearning (WoodFisher), and the tangent-kernel scrub.

Both linearise the model around its parameters and never hold a gradient per row: a backward pass through a backward
pass gives the inner products of all rows' gradients with one direction.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn import checks
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    MemberRows,
    Method,
    Phase,
    Rows,
    Samples,
    Scalar,
    StreamSpec,
)
from jaxunlearn.unlearn.blocks import losses, passes, transforms

Tree = Any
RECURSIONS = ("exact", "rank_one")
ROWS = 1000.0  # the N of the published recursion, for any number of rows
KERNEL = 8192  # largest side of a neural tangent kernel: 256 MB
BLOCK = 2**25  # floats of the Jacobians held together, 128 MB


def difference(member: EstimateContext) -> Tree:
    """Computes n_f / (n_f + n_r) * (mean gradient on "forget" - mean gradient on "retain") of row cross entropies."""

    def summed(name: str) -> Tree:
        def update(total: Tree, samples: Samples, key: jax.Array) -> Tree:
            rows = jnp.sum(samples.weights)
            gradients, _ = passes.loss_gradient(member, samples, member.model_state, key, _row_mean)
            return jax.tree.map(lambda old, leaf: old + rows * leaf, total, gradients)

        return passes.fold(member, name, passes.zeros(member), update)

    forget, retain = passes.count(member, "forget"), passes.count(member, "retain")
    share = forget / (forget + retain)
    return jax.tree.map(lambda f, r: share * (f / forget - r / retain), summed("forget"), summed("retain"))


def _row_mean(logits: jax.Array, samples: Samples) -> jax.Array:
    """Averages the cross entropies of rows; of texts, their means over tokens."""
    return losses.mean(losses.row_cross_entropy(logits, samples.labels), samples)


def row_products(member: EstimateContext, samples: Samples, direction: Tree) -> tuple[jax.Array, Any]:
    """Computes [B] inner products of each row's gradient of the cross entropy with a direction, 0 in padding.

    Also returns the function [B] -> (sum of the rows' gradients, weighted by these,).

    The gradients' weighted sum is linear in the weights; its derivative along the direction holds the products. (A
    forward derivative would be shorter, but layers with a backward pass of their own have none.)
    """

    def rows(params: Tree) -> jax.Array:
        logits, _ = network.forward(
            member.network, params, member.model_state, samples.inputs, samples.weights, member.mode
        )
        row_losses = losses.row_cross_entropy(logits, samples.labels)
        return jnp.where(samples.weights > 0, row_losses, 0.0)

    values, pull = jax.vjp(rows, member.params)
    return jax.grad(lambda weights: optax.tree.vdot(pull(weights)[0], direction))(jnp.zeros_like(values)), pull


def newton(member: EstimateContext, name: str, target: Tree, iterations: int = 20) -> Tree:
    """Solves (I + F) x = target, F = mean over a stream of gradient gradient^T: the WoodFisher recursion's limit.

    Needs memory for a few parameter trees, independent of the number of rows.

    Args:
      member: the model.
      name: of the stream.
      target: shaped like the parameters.
      iterations: of conjugate gradients at most, one pass each.
    """
    count = passes.count(member, name)

    def product(direction: Tree) -> Tree:
        def update(total: Tree, samples: Samples, key: jax.Array) -> Tree:
            del key
            weights, pull = row_products(member, samples, direction)
            return jax.tree.map(jnp.add, total, pull(weights)[0])

        summed = passes.fold(member, name, passes.zeros(member), update)
        return jax.tree.map(lambda identity, leaf: identity + leaf / count, direction, summed)

    # Products in TF32 would be wrong by more than the tolerance.
    with jax.default_matmul_precision("highest"):
        return jax.scipy.sparse.linalg.cg(product, target, tol=1e-4, maxiter=iterations)[0]


class Rank(NamedTuple):
    """State of the published recursion after `rows` rows: o = scale * first gradient, k = target - taken * the same."""

    scale: jax.Array
    taken: jax.Array
    rows: jax.Array


def rank_one(member: EstimateContext, name: str, target: Tree) -> Tree:
    """Runs the published recursion over the rows of a stream, in its order.

    o = g_0, k = target; then for each row's gradient g: s = o.g, k -= (k.g) / (N + s) * o, o -= s / (N + s) * o, with
    N = 1000. WoodFisher would update the inverse; here o stays a multiple of g_0, so that two numbers hold the whole
    state and two inner products per row suffice.
    """
    stream, stream_spec = member.streams[name], member.stream_specs[name]
    first_row = passes.samples_of(
        member, stream_spec, jnp.asarray(stream.rows)[:1], jnp.asarray(stream.weights)[:1], member.key
    )
    first, _ = passes.loss_gradient(member, first_row, member.model_state)

    def row(state: Rank, context: tuple[jax.Array, ...]) -> tuple[Rank, None]:
        along, on_target, weight = context
        s = state.scale * along
        taken = state.taken + (on_target - state.taken * along) / (ROWS + s) * state.scale
        next_state = Rank(state.scale * ROWS / (ROWS + s), taken, state.rows + 1)
        first_state = state._replace(rows=state.rows + 1)
        new_state = jax.tree.map(lambda a, b: jnp.where(state.rows > 0, a, b), next_state, first_state)
        return jax.tree.map(lambda a, b: jnp.where(weight > 0, a, b), new_state, state), None

    def update(state: Rank, samples: Samples, key: jax.Array) -> Rank:
        del key
        along, on_target = (row_products(member, samples, tree)[0] for tree in (first, target))
        return jax.lax.scan(row, state, (along, on_target, samples.weights))[0]

    end = passes.fold(member, name, Rank(jnp.float32(1.0), jnp.float32(0.0), jnp.int32(0)), update)
    return jax.tree.map(lambda k, g: k - end.taken * g, target, first)


def pool_rows(name: str, most: int, is_first: bool = False) -> Rows:
    """Returns a function for `StreamSpec.rows`: at most `most` (0 = all) rows `name`, random or the first ones."""

    def choose(member_rows: MemberRows) -> np.ndarray:
        rows = np.asarray(getattr(member_rows, name))
        rows = rows if is_first else member_rows.rng.permutation(rows)
        return rows[:most] if most else rows

    return choose


def influence(alpha: float = 10.0, recursion: str = "exact", samples: int = 1002, iterations: int = 20, batch: int = 0,
              compat: str = "corrected") -> Method:  # fmt: skip
    """Adds alpha * (I + Fisher)^-1 (forget gradient - retain gradient) to the parameters (influence unlearning).

    Args:
      alpha: length of the step; useful values differ by orders of magnitude between models.
      recursion: "rank_one" is the published one (see `rank_one`), "exact" solves the system.
      samples: retained rows of the empirical Fisher information at most, 0 = all.
      iterations: of conjugate gradients, if exact.
      batch: rows per step, 0 = the run's.
      compat: "faithful" = rank one, over the first rows in the order of the data set, which may all be of one class.

    Source: Unlearn-Saliency (OPTML) "wfisher", Over-Unlearning and Replay "Wfisher"; Izzo et al. 2021, Koh and Liang
    2017; Singh and Alistarh 2020 for the recursion.

    Raises:
      ConfigError: an unknown recursion.

    Example:
      >>> from jaxunlearn import unlearn
      >>> list(unlearn.influence.influence(alpha=5.0).phases[0].estimates)
      ['target', 'step']
    """
    checks.choice("recursion", recursion, RECURSIONS)
    is_faithful = compat == "faithful"
    is_exact = recursion == "exact" and not is_faithful

    def target(member: EstimateContext) -> tuple[Tree, Tree]:
        return difference(member), member.model_state

    def solve(member: EstimateContext) -> tuple[Tree, Tree]:
        gradient = member.estimates["target"]
        step = newton(member, "chosen", gradient, iterations) if is_exact else rank_one(member, "chosen", gradient)
        return step, member.model_state

    def change(params: Tree, *, estimates: Any, **extras: Any) -> Tree:
        del extras
        return jax.tree.map(lambda theta, k: theta + alpha * k, params, estimates["step"])

    gradient_specs = {name: StreamSpec(name, batch, shuffle=False) for name in ("forget", "retain")}
    fisher_specs = {"chosen": StreamSpec(pool_rows("retain", samples, is_faithful), batch, shuffle=False)}
    estimates = {
        "target": Estimate(target, gradient_specs),
        "step": Estimate(solve, fisher_specs, 3.0 * iterations if is_exact else 4.0),
    }
    return Method((Phase(transforms.one_shot(change), estimates=estimates, mode="eval"),))


def tangent_kernel(member: EstimateContext, samples: Samples) -> jax.Array:
    """Computes [B C, B C] inner products of all logits' gradients (row-major), 0 for padding; evaluation mode.

    Works in blocks of rows whose Jacobians take at most 128 MB (at least one row); those of earlier blocks are
    recomputed.
    """
    batch, classes = len(samples.weights), member.network.num_classes
    size = sum(leaf.size for leaf in jax.tree.leaves(member.params)) * classes
    block = min(batch, max(1, BLOCK // size))
    count = -(-batch // block)
    padding = count * block - batch
    inputs = jnp.pad(samples.inputs, ((0, padding),) + ((0, 0),) * (samples.inputs.ndim - 1))
    weights = jnp.pad(samples.weights, (0, padding))

    def jacobians(index: jax.Array) -> list[jax.Array]:
        def of_row(row: jax.Array, weight: jax.Array) -> Tree:
            def logits(params: Tree) -> jax.Array:
                return network.forward(member.network, params, member.model_state, row[None])[0][0]

            gradients = jax.jacrev(logits)(member.params)
            return jax.tree.map(lambda leaf: jnp.where(weight > 0, leaf, 0.0), gradients)

        arrays = (jax.lax.dynamic_slice_in_dim(array, index * block, block) for array in (inputs, weights))
        return [leaf.reshape(block * classes, -1) for leaf in jax.tree.leaves(jax.vmap(of_row)(*arrays))]

    width = block * classes
    kernel = jnp.zeros((count * width, count * width))

    def fill(kernel: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        row_jacobians = jacobians(i)

        def against(j: jax.Array, kernel: jax.Array, column_jacobians: list[jax.Array] | None = None) -> jax.Array:
            pairs = zip(row_jacobians, jacobians(j) if column_jacobians is None else column_jacobians, strict=True)
            products = functools.reduce(jnp.add, (jnp.matmul(a, b.T, precision="highest") for a, b in pairs))
            kernel = jax.lax.dynamic_update_slice(kernel, products, (i * width, j * width))
            return jax.lax.dynamic_update_slice(kernel, products.T, (j * width, i * width))

        return against(i, jax.lax.fori_loop(0, i, against, kernel), row_jacobians), None

    full, _ = jax.lax.scan(fill, kernel, jnp.arange(count))
    return full[: batch * classes, : batch * classes]


def scrub_step(member: EstimateContext, samples: Samples, weight_decay: Scalar) -> Tree:
    """Computes the parameter change from training on all rows of the batch to training on its retained rows.

    With J the gradients of all logits as columns, r = softmax - one-hot and n rows, linearised training ends at
    w = -J (J'J + n * weight_decay * I)^-1 r. d = w(retained) - w(all); the step is d lengthened to
    |d| + 2 |cos| |w(retained)|, cos between d and w(retained), because the model itself is not at the end of that path.
    """

    def logits(params: Tree) -> jax.Array:
        outputs, _ = network.forward(member.network, params, member.model_state, samples.inputs, samples.weights)
        return jnp.where(samples.weights[:, None] > 0, outputs, 0.0)

    values, pull = jax.vjp(logits, member.params)
    residuals = jax.nn.softmax(values) - jax.nn.one_hot(samples.labels, values.shape[1])
    kernel = tangent_kernel(member, samples)

    def trained_weights(is_trained_on: jax.Array) -> Tree:
        """Returns w of training on rows where `is_trained_on` [B] is 1; the others are masked out."""
        is_kept = jnp.repeat(is_trained_on, values.shape[1])
        ridge = jnp.maximum(jnp.sum(is_trained_on), 1.0) * weight_decay
        system = kernel * is_kept[:, None] * is_kept + ridge * jnp.eye(len(is_kept))
        solved = jax.scipy.linalg.solve(system, is_kept * residuals.ravel(), assume_a="pos")
        return jax.tree.map(jnp.negative, pull(solved.reshape(values.shape))[0])

    is_row = (samples.weights > 0).astype(jnp.float32)
    retained_weights = trained_weights(jnp.where(samples.is_forget, 0.0, is_row))
    change = optax.tree.sub(retained_weights, trained_weights(is_row))
    length = optax.tree.vdot(change, change)
    stretch = 1.0 + 2.0 * jnp.abs(optax.tree.vdot(change, retained_weights)) / jnp.where(length > 0, length, 1.0)
    return jax.tree.map(lambda leaf: stretch * leaf, change)


def ntk(alpha: float = 50.0, weight_decay: float = 0.1, samples: int = 128) -> Method:
    """Adds alpha * `scrub_step` to the parameters: scrubbing by the neural tangent kernel; evaluation mode.

    Reads at most `samples` rows of the forget set and as many retained ones, drawn at random (0 = all, as published):
    the kernel has (rows * classes)^2 entries, and is at most 8192 wide (40 and 40 rows of 100 classes). A model that
    fits its data perfectly has residuals of 0 and hardly moves.

    Source: Golatkar, Achille and Soatto, "Forgetting outside the box", 2020, as in Over-Unlearning and Replay (alpha 1,
    weight decay 0.1).
    """

    def rows(member_rows: MemberRows) -> np.ndarray:
        most = min(samples, max(1, KERNEL // (2 * int(member_rows.labels.max() + 1)))) if samples else 0
        return np.concatenate([pool_rows(name, most)(member_rows) for name in ("retain", "forget")])  # type: ignore[operator]

    def step(member: EstimateContext) -> tuple[Tree, Tree]:
        stream, stream_spec = member.streams["chosen"], member.stream_specs["chosen"]
        rows, weights = jnp.asarray(stream.rows), jnp.asarray(stream.weights)
        batch = passes.samples_of(member, stream_spec, rows, weights, member.key)
        with jax.default_matmul_precision("highest"):  # the step is a small difference of two solutions
            return scrub_step(member, batch, weight_decay), member.model_state

    def change(params: Tree, *, estimates: Any, **extras: Any) -> Tree:
        del extras
        return jax.tree.map(lambda theta, move: theta + alpha * move, params, estimates["step"])

    estimates = {
        "step": Estimate(step, {"chosen": StreamSpec(rows, shuffle=False)}, lambda rows, classes: 3.0 * rows * classes)
    }
    return Method((Phase(transforms.one_shot(change), estimates=estimates, mode="eval"),))
