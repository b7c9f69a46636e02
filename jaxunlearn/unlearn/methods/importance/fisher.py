"""Fisher forgetting: adds noise to parameters that the retained data do not determine, wipes removed classes' outputs.

    F = diagonal Fisher information on the retained rows
    theta' = mean + sqrt(variance) * N(0, 1),   variance = alpha * min(1 / (F + 1e-8), cap)

Source: Golatkar, Achille and Soatto, "Eternal sunshine of the spotless net", 2020, and the copies of it in the IAM
seed, the conformal unlearning code, Over-Unlearning and Replay, and Unlearn-Saliency (OPTML).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import checks, errors
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import Estimate, EstimateContext, Method, Phase, Samples, Scalar, StreamSpec
from jaxunlearn.unlearn.blocks import passes, transforms

Tree = Any
KINDS = ("expected", "empirical", "batch")
VARIANTS = ("golatkar", "conformal", "optml")

CAP, HEAD_CAP = 1e3, 1e2  # of 1 / F
OPTML_CAP = 1e-6  # of the variance
WIPED = 1e-4  # variance of the outputs of a removed class, before the factor 10 of the head


def weighted_squares(fn: Callable[[Tree], tuple[jax.Array, jax.Array]], params: Tree) -> Tree:
    """Sums weight_k * (gradient of value_k)^2 over k, element by element.

    Args:
      fn: params -> (values [K], weights [K]); weights are taken as constants.
      params: point of evaluation; the result has this shape.

    One backward pass per value, one at a time: memory does not grow with K.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import fisher
      >>> fn = lambda w: (jnp.stack([2.0 * w, 3.0 * w]), jnp.array([1.0, 0.5]))
      >>> float(fisher.weighted_squares(fn, jnp.float32(1.0)))
      8.5
    """
    values, pull, weights = jax.vjp(fn, params, has_aux=True)

    def add(total: Tree, context: tuple[jax.Array, jax.Array]) -> tuple[Tree, None]:
        cotangent, weight = context
        (gradient,) = pull(cotangent)
        return jax.tree.map(lambda old, leaf: old + weight * jnp.square(leaf), total, gradient), None

    blank = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, blank, (jnp.eye(len(values)), weights))[0]


def rows_at_once(params: Tree, batch: int) -> int:
    """Returns how many per-sample gradients to hold together: about 4 MB (cache), or 8 rows within 512 MB."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return min(batch, max(2**20 // size, min(8, 2**27 // size), 1))


def sum_over_rows(row_fn: Callable[[jax.Array, jax.Array], Tree], samples: Samples, start: Tree, size: int) -> Tree:
    """Adds row_fn(inputs of ONE row, its label) over the unpadded rows to `start`.

    Args:
      row_fn: (inputs [...], label []) -> tree.
      samples: the rows.
      start: tree of the same shapes.
      size: rows at a time.
    """
    padding = -len(samples.weights) % size

    def chunks_of(leaf: jax.Array) -> jax.Array:
        return jnp.pad(leaf, ((0, padding),) + ((0, 0),) * (leaf.ndim - 1)).reshape(-1, size, *leaf.shape[1:])

    def add(total: Tree, chunk: tuple[jax.Array, ...]) -> tuple[Tree, None]:
        inputs, labels, weights = chunk
        row_values = jax.vmap(row_fn)(inputs, labels)

        def plus(old: jax.Array, leaf: jax.Array) -> jax.Array:
            is_row = (weights > 0).reshape((-1,) + (1,) * (leaf.ndim - 1))
            return old + jnp.sum(jnp.where(is_row, leaf, 0.0), 0)

        return jax.tree.map(plus, total, row_values), None

    return jax.lax.scan(add, start, (chunks_of(samples.inputs), chunks_of(samples.labels), chunks_of(samples.weights)))[
        0
    ]


def information(member: EstimateContext, name: str, kind: str = "expected") -> Tree:
    """Estimates the diagonal Fisher information on a stream, shaped like the parameters; evaluation mode.

    "expected": mean over rows of sum_c p(c|x) (gradient of log p(c|x))^2, C backward passes per row.
    "empirical": mean over rows of (gradient of log p(y|x))^2.
    "batch": mean over batches of sum_c mean p(c|x) (gradient of mean log p(c|x))^2: cheap and rough, C backward passes
    per batch; depends on the batch size.

    Of texts, p(y|x) is the probability of all tokens together, and only "empirical" is feasible.

    Raises:
      ConfigError: another kind, of texts.
    """
    if member.data.labels.ndim > 1 and kind != "empirical":
        raise errors.ConfigError(
            f"kind={kind} takes a gradient for every answer that could be given, which are too many texts. "
            "Set kind=empirical."
        )

    def log_probabilities(params: Tree, inputs: jax.Array, weights: jax.Array | None = None) -> jax.Array:
        logits, _ = network.forward(member.network, params, member.model_state, inputs, weights)
        return jax.nn.log_softmax(logits)

    def of_row(inputs: jax.Array, label: jax.Array) -> Tree:
        def fn(params: Tree) -> tuple[jax.Array, jax.Array]:
            values = log_probabilities(params, inputs[None])[0]
            if label.ndim:
                label_values = jnp.take_along_axis(values, jnp.maximum(label, 0)[:, None], -1)[:, 0]
                return jnp.sum(jnp.where(label >= 0, label_values, 0.0))[None], jnp.ones(1)
            return (values[label][None], jnp.ones(1)) if kind == "empirical" else (values, jnp.exp(values))

        return weighted_squares(fn, member.params)

    def of_batch(samples: Samples) -> Tree:
        share = samples.weights / jnp.maximum(jnp.sum(samples.weights), 1.0)

        def fn(params: Tree) -> tuple[jax.Array, jax.Array]:
            values = log_probabilities(params, samples.inputs, samples.weights)
            return share @ values, share @ jnp.exp(values)

        return weighted_squares(fn, member.params)

    size = rows_at_once(member.params, member.stream_specs[name].batch)

    def update(total: Tree, samples: Samples, key: jax.Array) -> Tree:
        del key
        if kind == "batch":
            return jax.tree.map(jnp.add, total, of_batch(samples))
        return sum_over_rows(of_row, samples, total, size)

    summed = passes.fold(member, name, passes.zeros(member), update)
    count = passes.batches(member, name) if kind == "batch" else passes.count(member, name)
    return jax.tree.map(lambda leaf: leaf / count, summed)


def removed_classes(member: EstimateContext) -> jax.Array:
    """Returns [C] bool, True for classes of stream "forget" without any row in stream "retain"; of texts, none."""
    if member.data.labels.ndim > 1:
        return jnp.zeros(member.network.num_classes, bool)

    def counts(name: str) -> jax.Array:
        stream = member.streams[name]
        blank = jnp.zeros(member.network.num_classes)
        return blank.at[member.data.labels[stream.rows]].add((stream.weights > 0).astype(jnp.float32))

    return (counts("forget") > 0) & (counts("retain") == 0)


def noise_of(
    theta: jax.Array, fisher: jax.Array, is_head: bool, removed: jax.Array, alpha: Scalar, variant: str = "golatkar"
) -> tuple[jax.Array, jax.Array]:
    """Computes mean and variance of one tensor after Fisher forgetting.

    v = alpha * min(1 / |F + 1e-8|, 1e3), in the head at most 1e2 times alpha; tensors of two and more axes take the
    mean over their input channels (axis -2 of a flax kernel: positions of a convolution stay apart); outputs of a
    removed class get mean 0 and v = 1e-4; then v is multiplied by 10 in tensors of one axis and in the head. Variant
    "conformal" has this factor on the kernel of the head only if a class is removed; "optml" is
    v = min(alpha / F, 1e-6), 100 times that in the head, and wipes nothing.

    Args:
      theta: [..., outputs] float32, the parameters.
      fisher: F, of the same shape.
      is_head: whether its outputs are the logits.
      removed: [C] bool.
      alpha: scale of the variance.
      variant: one of VARIANTS.
    """
    if variant == "optml":
        variance = jnp.minimum(alpha / jnp.maximum(fisher, 1e-16), OPTML_CAP)
        return theta, variance * (100.0 if is_head else 1.0)
    variance = alpha * jnp.minimum(1.0 / jnp.abs(fisher + 1e-8), HEAD_CAP if is_head else CAP)
    if theta.ndim > 1:
        variance = jnp.broadcast_to(jnp.mean(variance, -2, keepdims=True), theta.shape)
    mean = theta
    if is_head:
        mean, variance = jnp.where(removed, 0.0, mean), jnp.where(removed, WIPED, variance)
    if theta.ndim == 1:
        variance = 10.0 * variance
    elif is_head:
        variance = variance * (10.0 if variant == "golatkar" else jnp.where(jnp.any(removed), 10.0, 1.0))
    return mean, variance


def heads(member: EstimateContext, variant: str, compat: str) -> Tree:
    """Returns a tree of bools, one per tensor of the parameters: does it belong to the head?

    Corrected: it belongs to the last dense layer. Faithful: its number of outputs equals the number of classes; in
    variant "optml" the last axis in PyTorch's order has length 10 (for a kernel of two axes that is the input's).
    """
    if compat == "corrected":
        return network.mask_of_paths((network.head(member.network).path,), member.params)

    def is_head(leaf: jax.Array) -> bool:
        if variant == "optml":
            return leaf.shape[1 if leaf.ndim == 4 else 0] == 10
        return leaf.shape[-1] == member.network.num_classes

    return jax.tree.map(is_head, member.params)


def noise(
    member: EstimateContext, fisher: Tree, alpha: Scalar, variant: str = "golatkar", wipe_removed_class: bool = True,
    compat: str = "corrected",
) -> tuple[Tree, Tree]:  # fmt: skip
    """Computes mean and variance of all parameters after Fisher forgetting, by `noise_of`.

    Args:
      member: its streams "forget" and "retain" are read for their labels alone.
      fisher: F, shaped like the parameters.
      alpha: scale of the variance.
      variant: one of VARIANTS.
      wipe_removed_class: wipe the outputs of `removed_classes`.
      compat: see `heads`.
    """
    removed = removed_classes(member) if wipe_removed_class else jnp.zeros(member.network.num_classes, bool)

    def moments(theta: jax.Array, leaf_fisher: jax.Array, is_head: bool) -> tuple[jax.Array, jax.Array]:
        return noise_of(theta, leaf_fisher, is_head, removed, alpha, variant)

    pairs = jax.tree.map(moments, member.params, fisher, heads(member, variant, compat))
    mean, variance = jax.tree.transpose(jax.tree.structure(member.params), jax.tree.structure((0, 0)), pairs)
    return mean, variance


def add_noise(mean: Tree, variance: Tree, draws: Tree) -> Tree:
    """Returns mean + sqrt(variance) * draws."""
    return jax.tree.map(lambda m, v, z: m + jnp.sqrt(v) * z, mean, variance, draws)


def fisher(alpha: float = 1e-6, kind: str = "expected", variant: str = "golatkar", wipe_removed_class: bool = True,
           batch: int = 0, compat: str = "corrected") -> Method:  # fmt: skip
    """Adds more noise where the retained data determine a parameter less, and wipes the outputs of removed classes.

    A class is removed if forget rows have it and no retained row does. Without one, only the noise remains, which is
    too small to forget single samples, as is known of this method. Measured per row in evaluation mode (the IAM seed:
    in training mode, where BatchNorm couples the rows of a batch).

    Args:
      alpha: scale of the variance.
      kind: of the Fisher information, see `information`.
      variant: one of VARIANTS, see `noise_of`.
      wipe_removed_class: wipe the outputs of removed classes.
      batch: rows per step, 0 = the run's.
      compat: "faithful" takes every tensor with as many outputs as classes for the head, and augments the rows.

    As published: IAM `kind="empirical", alpha=1e-9`; conformal `variant="conformal", alpha=1e-6`; Over-Unlearning and
    Replay `variant="conformal", alpha=1e-8`; OPTML `fisher`: `kind="empirical", variant="optml", alpha=1e-9`,
    `fisher_new`: `kind="batch", variant="conformal"`.

    Raises:
      ConfigError: an unknown kind or variant; a network that does not end in a dense layer.
    """
    checks.choice("kind", kind, KINDS)
    checks.choice("variant", variant, VARIANTS)

    def measure(member: EstimateContext) -> tuple[Tree, Tree]:
        return information(member, "retain", kind), member.model_state

    def noise_moments(member: EstimateContext) -> tuple[Tree, Tree]:
        moments = noise(member, member.estimates["information"], alpha, variant, wipe_removed_class, compat)
        return moments, member.model_state

    def change(params: Tree, *, estimates: Any, key: jax.Array, **extras: Any) -> Tree:
        del extras
        mean, variance = estimates["noise"]
        return add_noise(mean, variance, optax.tree.random_like(key, params))

    retain, forget = StreamSpec("retain", batch, shuffle=False), StreamSpec("forget", batch, shuffle=False)
    estimates = {
        "information": Estimate(
            measure,
            {"retain": retain},
            1.0 if kind == "empirical" else (lambda rows, classes: rows * classes),
            augment=compat == "faithful",
        ),  # fmt: skip
        "noise": Estimate(noise_moments, {"forget": forget, "retain": retain}, 0.0),
    }
    # The IAM seed returns the model in training mode, the other sources do not.
    left = variant == "golatkar"
    return Method((Phase(transforms.one_shot(change), estimates=estimates, mode="eval"),), left_training=left)
