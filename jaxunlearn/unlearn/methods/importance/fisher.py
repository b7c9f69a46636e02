"""Fisher forgetting: noise on parameters that the retained data do not hold fast, and a removed class's outputs wiped.

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
    """Sum over k of weight_k * (gradient of value_k)^2, element by element.

    Args:
      fn: params -> (values [K], weights [K]); weights are taken as constants.
      params: where; the result has this shape.

    One backward pass per value, one at a time: memory does not grow with K.
    """
    values, pull, weights = jax.vjp(fn, params, has_aux=True)

    def add(total: Tree, context: tuple[jax.Array, jax.Array]) -> tuple[Tree, None]:
        cotangent, weight = context
        (gradient,) = pull(cotangent)
        return jax.tree.map(lambda old, leaf: old + weight * jnp.square(leaf), total, gradient), None

    blank = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, blank, (jnp.eye(len(values)), weights))[0]


def rows_at_once(params: Tree, batch: int) -> int:
    """How many per-sample gradients are held together: some 4 MB (cache), 8 rows if that takes less than 512 MB."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return min(batch, max(2**20 // size, min(8, 2**27 // size), 1))


def sum_over_rows(one: Callable[[jax.Array, jax.Array], Tree], samples: Samples, start: Tree, size: int) -> Tree:
    """`start` plus the sum of one(inputs of ONE row, label []) over the unpadded rows, `size` rows at a time."""
    missing = -len(samples.weights) % size

    def cut(leaf: jax.Array) -> jax.Array:
        return jnp.pad(leaf, ((0, missing),) + ((0, 0),) * (leaf.ndim - 1)).reshape(-1, size, *leaf.shape[1:])

    def add(total: Tree, chunk: tuple[jax.Array, ...]) -> tuple[Tree, None]:
        inputs, labels, weights = chunk
        found = jax.vmap(one)(inputs, labels)

        def plus(old: jax.Array, leaf: jax.Array) -> jax.Array:
            is_row = (weights > 0).reshape((-1,) + (1,) * (leaf.ndim - 1))
            return old + jnp.sum(jnp.where(is_row, leaf, 0.0), 0)

        return jax.tree.map(plus, total, found), None

    return jax.lax.scan(add, start, (cut(samples.inputs), cut(samples.labels), cut(samples.weights)))[0]


def information(member: EstimateContext, name: str, kind: str = "expected") -> Tree:
    """Diagonal Fisher information on a stream, shaped like the parameters; evaluation mode.

    "expected": mean over rows of sum_c p(c|x) (gradient of log p(c|x))^2, C backward passes per row.
    "empirical": mean over rows of (gradient of log p(y|x))^2.
    "batch": mean over batches of sum_c mean p(c|x) (gradient of mean log p(c|x))^2: cheap and rough, C backward passes
    per batch; depends on the batch size.

    Of texts, p(y|x) is the probability of all tokens together, and only "empirical" can be had.

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
                own = jnp.take_along_axis(values, jnp.maximum(label, 0)[:, None], -1)[:, 0]
                return jnp.sum(jnp.where(label >= 0, own, 0.0))[None], jnp.ones(1)
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
    number = passes.batches(member, name) if kind == "batch" else passes.count(member, name)
    return jax.tree.map(lambda leaf: leaf / number, summed)


def removed_classes(member: EstimateContext) -> jax.Array:
    """[C] bool: classes of the stream "forget" without any row in the stream "retain"; of texts, none."""
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
    """Mean and variance of one tensor after Fisher forgetting.

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
    """Tree of bools shaped like the parameters: is this tensor the head's?

    Corrected: it belongs to the last dense layer. Faithful: its number of outputs happens to be that of the classes; in
    variant "optml" the last axis in PyTorch's order has length 10 (for a kernel of two axes that is the input's).
    """
    if compat == "corrected":
        return network.belongs(member.network, (network.head(member.network).path,), member.params)

    def is_head(leaf: jax.Array) -> bool:
        if variant == "optml":
            return leaf.shape[1 if leaf.ndim == 4 else 0] == 10
        return leaf.shape[-1] == member.network.num_classes

    return jax.tree.map(is_head, member.params)


def noise(
    member: EstimateContext, fisher: Tree, alpha: Scalar, variant: str = "golatkar", wipe_removed_class: bool = True,
    compat: str = "corrected",
) -> tuple[Tree, Tree]:  # fmt: skip
    """Mean and variance of all parameters after Fisher forgetting, by `noise_of`.

    The streams "forget" and "retain" are read for their labels alone.
    """
    removed = removed_classes(member) if wipe_removed_class else jnp.zeros(member.network.num_classes, bool)

    def one(theta: jax.Array, own: jax.Array, is_head: bool) -> tuple[jax.Array, jax.Array]:
        return noise_of(theta, own, is_head, removed, alpha, variant)

    pairs = jax.tree.map(one, member.params, fisher, heads(member, variant, compat))
    mean, variance = jax.tree.transpose(jax.tree.structure(member.params), jax.tree.structure((0, 0)), pairs)
    return mean, variance


def perturbed(mean: Tree, variance: Tree, draws: Tree) -> Tree:
    """Mean + sqrt(variance) * draws."""
    return jax.tree.map(lambda m, v, z: m + jnp.sqrt(v) * z, mean, variance, draws)


def fisher(alpha: float = 1e-6, kind: str = "expected", variant: str = "golatkar", wipe_removed_class: bool = True,
           batch: int = 0, compat: str = "corrected") -> Method:  # fmt: skip
    """Adds the more noise the less the retained data determine a parameter, and wipes the outputs of removed classes.

    A class is removed if forget rows have it and no retained row does. Without one, the noise alone is left, which is
    too small to forget single samples: this is what the method is known for. Measured per row in evaluation mode (the
    IAM seed: in training mode, where BatchNorm ties a row to its batch).

    As published: IAM `kind="empirical", alpha=1e-9`; conformal `variant="conformal", alpha=1e-6`; Over-Unlearning and
    Replay `variant="conformal", alpha=1e-8`; OPTML `fisher`: `kind="empirical", variant="optml", alpha=1e-9`,
    `fisher_new`: `kind="batch", variant="conformal"`. `compat="faithful"` takes every tensor with as many outputs as
    there are classes for the head.

    Raises:
      ConfigError: an unknown kind or variant; a network that does not end in a dense layer.
    """
    checks.choice("kind", kind, KINDS)
    checks.choice("variant", variant, VARIANTS)

    def measure(member: EstimateContext) -> tuple[Tree, Tree]:
        return information(member, "retain", kind), member.model_state

    def spread(member: EstimateContext) -> tuple[Tree, Tree]:
        found = noise(member, member.estimates["information"], alpha, variant, wipe_removed_class, compat)
        return found, member.model_state

    def change(params: Tree, *, estimates: Any, key: jax.Array, **extras: Any) -> Tree:
        del extras
        mean, variance = estimates["noise"]
        return perturbed(mean, variance, optax.tree.random_like(key, params))

    retain, forget = StreamSpec("retain", batch, shuffle=False), StreamSpec("forget", batch, shuffle=False)
    found = {
        "information": Estimate(
            measure,
            {"retain": retain},
            1.0 if kind == "empirical" else (lambda rows, classes: rows * classes),
            augment=compat == "faithful",
        ),  # fmt: skip
        "noise": Estimate(spread, {"forget": forget, "retain": retain}, 0.0),
    }
    # The IAM seed returns the model in training mode, the other sources do not.
    left = variant == "golatkar"
    return Method((Phase(transforms.one_shot(change), estimates=found, mode="eval"),), left_training=left)
