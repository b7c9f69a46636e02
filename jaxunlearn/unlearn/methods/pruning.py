"""Resets of weights, then repair: weights that a forget set did not need are drawn anew before fine-tuning.

    prune              overfit a copy on the forget set - reset the weights that moved least - fine-tune
    prune_last_layer   the same in the last layer alone
    prune_complex      a second copy is overfitted on as many retained rows; reset what moved least in both
    activation_reset   reset the convolution kernels that the forget set excites more than retained rows do

Every stage descends with Nesterov SGD at a constant rate. A reset is `where(mask, noise, weights)`; masks and noise are
functions of their own. Source: "Forget with Precision: Assessing Machine Unlearning Approaches" (2023) and its code.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, keys, trees
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    MemberRows,
    Method,
    Phase,
    Samples,
    Scalar,
    StreamSpec,
)
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.blocks import losses, passes, transforms
from jaxunlearn.unlearn.methods import descent

Tree = Any
Means = dict[tuple[str, ...], jax.Array]


def weights(params: Tree) -> Tree:
    """Tree of bools: kernels of two axes or more (dense and convolution), never biases or normalisation."""

    def is_weight(path: Any, leaf: Any) -> bool:
        return getattr(path[-1], "key", "") == "kernel" and leaf.ndim >= 2

    return jax.tree_util.tree_map_with_path(is_weight, params)


def moved_least(before: jax.Array, after: jax.Array, quantile: Scalar) -> jax.Array:
    """Bools shaped like one tensor: |before - after| strictly below its quantile over the tensor, in between linear.

    Equal distances select nothing, quantile 0 neither; quantile 1 selects all but the largest.
    """
    distance = jnp.abs(before - after)
    ranked = jnp.sort(distance.ravel())
    place = jnp.clip(jnp.asarray(quantile, jnp.float32), 0.0, 1.0) * (ranked.size - 1)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, ranked.size - 1)
    # Not the weighted sum of both: of two equal distances it may round to something larger, and then all are selected.
    return distance < ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def reset_mask_quantile(params: Tree, overfit: Tree, quantile: Scalar, other: Tree = None, chosen: Tree = None) -> Tree:
    """What to reset: weights that moved least while a copy was overfitted, each tensor by its own quantile.

    Args:
      params: the original model.
      overfit: the copy overfitted on the forget set.
      quantile: part of every tensor, in [0, 1].
      other: a second copy; a weight must have moved least in both.
      chosen: tree of bools, which tensors take part; None = all `weights`.

    Returns:
      tree of bools shaped like the leaves of `params`, True = reset.
    """

    def one(is_chosen: bool, before: jax.Array, *copies: jax.Array) -> jax.Array:
        mask = jnp.full(before.shape, is_chosen)
        for copy in copies if is_chosen else ():
            mask &= moved_least(before, copy, quantile)
        return mask

    copies = (overfit,) if other is None else (overfit, other)
    return jax.tree.map(one, weights(params) if chosen is None else chosen, params, *copies)


def reset_mask_activation(forget: jax.Array, retain: jax.Array, tolerance: Scalar) -> jax.Array:
    """[C] bool, True = reset: `forget` exceeds `retain` ([H, W, C] means) at more than tolerance * H * W places."""
    count = jnp.sum(forget > retain, axis=tuple(range(forget.ndim - 1)))
    return count > tolerance * (forget.size // forget.shape[-1])


def kaiming_noise(key: jax.Array, params: Tree) -> Tree:
    """Fresh weights N(0, 2 / fan_in) in all `weights`, a key each by its path; zeros elsewhere."""
    named = dict(trees.named_leaves(weights(params)))

    def draw(name: str, leaf: jax.Array) -> jax.Array:
        if not named[name]:
            return jnp.zeros_like(leaf)
        scale = (2.0 / (leaf.size // leaf.shape[-1])) ** 0.5
        return scale * jax.random.normal(keys.stream(key, name), leaf.shape, leaf.dtype)

    leaves = [draw(name, leaf) for name, leaf in trees.named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def reset(params: Tree, mask: Tree, noise: Tree) -> Tree:
    """`noise` where the mask is true, elsewhere the parameters bit for bit."""
    return jax.tree.map(lambda old, flag, new: jnp.where(flag, new, old), params, mask, noise)


def _redraw(params: Tree, *, estimates: Any, key: jax.Array, **extras: Any) -> Tree:
    """The edit of all four methods: estimates["reset"] says what is drawn anew."""
    del extras
    return reset(params, estimates["reset"], kaiming_noise(key, params))


def _overfitted(rows: Any, lr: Scalar, epochs: int, batch: int, keep: str) -> Phase:
    """A copy of the original model is trained on a few rows and remembered."""
    descent_of = transforms.sgd(lr, 0.9, 5e-4, nesterov=True)
    reads = {"rows": StreamSpec(rows, batch)}
    return Phase(
        descent_of, (GradientStep(losses.cross_entropy_on("rows")),), reads, epochs, start="original", save_as=keep
    )


def _repaired(lr: Scalar, epochs: int, batch: int, momentum: Scalar, weight_decay: Scalar, compat: str = "") -> Phase:
    """Fine-tuning on the retained rows."""
    reads = {"retain": StreamSpec("retain", batch, shuffle=compat != "faithful")}
    repair = transforms.sgd(lr, momentum, weight_decay, nesterov=True)
    return Phase(repair, (GradientStep(descent.retain_loss),), reads, epochs)


def _selected(quantile: Scalar, chosen: Callable[[Network, Tree], Tree], both: bool = False) -> Phase:
    """From the original model, resets what moved least in the remembered copies."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        other = member.saved_states["overfit_retain"].params if both else None
        mask = reset_mask_quantile(
            member.params, member.saved_states["overfit"].params, quantile, other, chosen(member.network, member.params)
        )
        return mask, member.model_state

    return Phase(transforms.one_shot(_redraw), estimates={"reset": Estimate(compute)}, start="original")


def _every_weight(net: Network, params: Tree) -> Tree:
    del net
    return weights(params)


def _head_weight(net: Network, params: Tree) -> Tree:
    inside = network.belongs(net, (network.head(net).path,), params)
    return jax.tree.map(lambda a, b: a and b, weights(params), inside)


def subset(fraction: float) -> Callable[[MemberRows], np.ndarray]:
    """Rows: a random part of the retained ones, rounded down, at least one where there is one."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        count = max(int(fraction * len(member_rows.retain)), min(1, len(member_rows.retain)))
        return np.sort(member_rows.rng.permutation(member_rows.retain)[:count])

    return rows


def prune(lr: float = 0.01, epochs: int = 5, quantile: float = 0.3, overfit_lr: float = 0.01, overfit_epochs: int = 20,
          momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0) -> Method:  # fmt: skip
    """Draws anew the weights that moved least while a copy was overfitted on the forget set, then fine-tunes.

    In every weight tensor those below the quantile of |weight - overfitted weight|; biases and BatchNorm stay. Source:
    the paper's "Pruning" (quantile 0.3; its script has 0.2), section 4.
    """
    return Method(
        (
            _overfitted("forget", overfit_lr, overfit_epochs, batch, "overfit"),
            _selected(quantile, _every_weight),
            _repaired(lr, epochs, batch, momentum, weight_decay),
        ),
        "recalibrate",
        augment=False,
    )


def prune_last_layer(
    lr: float = 0.01, epochs: int = 5, quantile: float = 0.3, overfit_lr: float = 0.01, overfit_epochs: int = 20,
    momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """`prune` in the weights of the last dense layer alone; its bias stays.

    `compat="faithful"`: fine-tuning reads the retained rows in their own order every epoch. Source: "Pruning Last".

    Raises:
      ConfigError: the network does not end in a dense layer with one output per class.
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    return Method(
        (
            _overfitted("forget", overfit_lr, overfit_epochs, batch, "overfit"),
            _selected(quantile, _head_weight),
            _repaired(lr, epochs, batch, momentum, weight_decay, compat),
        ),
        "recalibrate",
        augment=False,
    )


def prune_complex(
    lr: float = 0.01, epochs: int = 5, quantile: float = 0.3, overfit_lr: float = 0.01, overfit_epochs: int = 20,
    fraction: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Draws anew the weights that moved least both on the forget set and on a random `fraction` of the retained rows.

    The second copy is overfitted at a third of the rate. The published code divides that rate with `//`, which makes it
    0 and the method plain fine-tuning; no option restores it. `compat="faithful"`: fine-tuning reads the retained rows
    in their own order every epoch. Source: "Pruning Complex".
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    return Method(
        (
            _overfitted("forget", overfit_lr, overfit_epochs, batch, "overfit"),
            _overfitted(subset(fraction), overfit_lr / 3.0, overfit_epochs, batch, "overfit_retain"),
            _selected(quantile, _every_weight, both=True),
            _repaired(lr, epochs, batch, momentum, weight_decay, compat),
        ),
        "recalibrate",
        augment=False,
    )


def convolutions(net: Network) -> tuple[tuple[str, ...], ...]:
    """Paths of the convolutions that may be reset: all but those of shortcuts (1x1, next to a residual block)."""
    return tuple(
        layer.path for layer in network.layers(net) if layer.kind == "conv" and "shortcut" not in layer.path[-1]
    )


def mean_activations(member: EstimateContext, name: str) -> tuple[Means, Tree]:
    """Path of convolution -> [H, W, C] mean of its outputs over a stream (0 if empty), and the statistics after it."""
    paths = convolutions(member.network)

    def maps(samples: Samples, model_state: Tree) -> tuple[Means, Tree]:
        seen, moved = network.activations(
            member.network, member.params, model_state, samples.inputs, samples.weights, member.mode
        )
        flags = samples.weights > 0
        return {path: jnp.sum(jnp.where(flags[:, None, None, None], seen[path], 0.0), 0) for path in paths}, moved

    def update(total: tuple[Means, Tree], samples: Samples, key: jax.Array) -> tuple[Means, Tree]:
        del key
        found, moved = maps(samples, total[1])
        return {path: total[0][path] + found[path] for path in paths}, moved

    def blank() -> Means:
        shape = jax.ShapeDtypeStruct((1, *member.data.inputs.shape[1:]), member.data.inputs.dtype)

        def probe(raw: jax.Array) -> Means:
            inputs = member.network.prepare(raw, member.key, False)
            one = jnp.zeros(1, jnp.int32)
            return maps(Samples(inputs, one, jnp.ones(1), one, one > 0), member.model_state)[0]

        return {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in jax.eval_shape(probe, shape).items()}

    summed, model_state = passes.fold(member, name, (blank(), member.model_state), update)
    rows = passes.count(member, name)
    return {path: leaf / rows for path, leaf in summed.items()}, model_state


def _excited(tolerance: Scalar, retain_mean: str, reset_mlp: bool) -> Callable[[EstimateContext], tuple[Tree, Tree]]:
    """Computes the mask of activation reset from streams "forget", "subset" and, for the published rule, "retain"."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        paths = convolutions(member.network)
        if not paths and not reset_mlp:
            raise errors.ConfigError(
                f"activation_reset has nothing to reset: {type(member.network.module).__name__} has no convolution. "
                "Set reset_mlp=true to draw the weights of its last layer anew, or choose prune."
            )
        forget, moved = mean_activations(member, "forget")
        retain, moved = mean_activations(member._replace(model_state=moved), "subset")
        share: Scalar = 1.0
        if retain_mean == "full":
            share = passes.count(member, "subset") / passes.count(member, "retain")
        mask = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), member.params)
        for path in paths:
            kernel = network.leaf_at(mask, path)["kernel"]
            channels = reset_mask_activation(forget[path], share * retain[path], tolerance)
            mask = network.replace_at(mask, (*path, "kernel"), jnp.broadcast_to(channels, kernel.shape))
        if reset_mlp:
            whole = (*network.head(member.network).path, "kernel")
            mask = network.replace_at(mask, whole, jnp.ones_like(network.leaf_at(mask, whole)))
        return mask, moved

    return compute


def activation_reset(
    lr: float = 0.01, epochs: int = 5, tolerance: float = 0.8, fraction: float = 0.1, reset_mlp: bool = True,
    retain_mean: str = "subset", momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Draws anew the convolution kernels that the forget set excites more than retained rows do, then fine-tunes.

    A kernel goes as a whole when its mean output (before normalisation) over the forget set exceeds that over a random
    `fraction` of the retained rows at more than `tolerance` of all places. Convolutions of shortcuts stay; `reset_mlp`
    draws the weights of the last dense layer anew. Source: "Activation Reset".

    Differs from the published code: `retain_mean="full"` restores its division of the subset's sum by the number of ALL
    retained rows, which makes retained means about 50 times too small; `compat="faithful"` does so too, runs the
    networks in training mode while it compares, and fine-tunes on the retained rows in their own order.

    Raises:
      ConfigError: no convolution and no `reset_mlp`; `reset_mlp` on a network without a dense head.
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    checks.choice("retain_mean", retain_mean, ("subset", "full"))
    published = compat == "faithful"
    mean = "full" if published else retain_mean
    reads = {
        "forget": StreamSpec("forget", batch, shuffle=False),
        "subset": StreamSpec(subset(fraction), batch, shuffle=False),
    }
    if mean == "full":
        reads["retain"] = StreamSpec("retain", batch, shuffle=False)  # only its number of rows is looked at
    excited = Estimate(_excited(tolerance, mean, reset_mlp), reads, 1 / 3)
    edit = Phase(transforms.one_shot(_redraw), estimates={"reset": excited}, mode="train" if published else "eval")
    return Method((edit, _repaired(lr, epochs, batch, momentum, weight_decay, compat)), "recalibrate", augment=False)
