"""Resets and fine-tuning: reinitialises weights that a forget set did not need, then fine-tunes.

    prune              overfit a copy on the forget set - reset the weights that moved least - fine-tune
    prune_last_layer   the same in the last layer alone
    prune_complex      a second copy is overfitted on some retained rows; reset what moved least in both
    activation_reset   reset the convolution kernels that the forget set excites more than retained rows do

Every phase descends with Nesterov SGD at a constant rate. A reset is `where(mask, noise, weights)`; separate functions
compute mask and noise. Source: "Forget with Precision: Assessing Machine Unlearning Approaches" (2023) and its code.
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
    """Returns a tree of bools, True for kernels of two or more axes (dense, convolution): no bias, no normalisation."""

    def is_weight(path: Any, leaf: Any) -> bool:
        return getattr(path[-1], "key", "") == "kernel" and leaf.ndim >= 2

    return jax.tree_util.tree_map_with_path(is_weight, params)


def moved_least(before: jax.Array, after: jax.Array, quantile: Scalar) -> jax.Array:
    """Returns bools shaped like one tensor: is |before - after| strictly below its quantile over the tensor?

    Quantiles are interpolated linearly. Equal distances select nothing, nor does quantile 0; quantile 1 selects all but
    the largest.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import pruning
      >>> pruning.moved_least(jnp.zeros(4), jnp.array([0.1, 0.4, 0.2, 0.3]), 0.5).tolist()
      [True, False, True, False]
    """
    distance = jnp.abs(before - after)
    ranked = jnp.sort(distance.ravel())
    position = jnp.clip(jnp.asarray(quantile, jnp.float32), 0.0, 1.0) * (ranked.size - 1)
    low = jnp.floor(position).astype(jnp.int32)
    high = jnp.minimum(low + 1, ranked.size - 1)
    # Not the weighted sum of both: of two equal distances it may round to something larger, and then all are selected.
    return distance < ranked[low] + (ranked[high] - ranked[low]) * (position - low)


def reset_mask_quantile(
    params: Tree, overfit: Tree, quantile: Scalar, second_overfit: Tree = None, included: Tree = None
) -> Tree:
    """Selects the weights that moved least while a copy was overfitted, each tensor by its own quantile.

    Args:
      params: the original model.
      overfit: the copy overfitted on the forget set.
      quantile: fraction of every tensor, in [0, 1].
      second_overfit: a second copy; a weight must have moved least in both.
      included: tree of bools, which tensors take part; None = all `weights`.

    Returns:
      tree of bools shaped like the leaves of `params`, True = reset.
    """

    def tensor_mask(is_included: bool, original: jax.Array, *copies: jax.Array) -> jax.Array:
        mask = jnp.full(original.shape, is_included)
        for copy in copies if is_included else ():
            mask &= moved_least(original, copy, quantile)
        return mask

    copies = (overfit,) if second_overfit is None else (overfit, second_overfit)
    return jax.tree.map(tensor_mask, weights(params) if included is None else included, params, *copies)


def reset_mask_activation(forget: jax.Array, retain: jax.Array, tolerance: Scalar) -> jax.Array:
    """Returns [C] bool, True = reset: `forget` > `retain` ([H, W, C] means) at more than tolerance * H * W pixels."""
    count = jnp.sum(forget > retain, axis=tuple(range(forget.ndim - 1)))
    return count > tolerance * (forget.size // forget.shape[-1])


def kaiming_noise(key: jax.Array, params: Tree) -> Tree:
    """Draws N(0, 2 / fan_in) for all `weights`, with a key per path; zeros elsewhere."""
    named = dict(trees.named_leaves(weights(params)))

    def draw(name: str, leaf: jax.Array) -> jax.Array:
        if not named[name]:
            return jnp.zeros_like(leaf)
        scale = (2.0 / (leaf.size // leaf.shape[-1])) ** 0.5
        return scale * jax.random.normal(keys.stream(key, name), leaf.shape, leaf.dtype)

    leaves = [draw(name, leaf) for name, leaf in trees.named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def reset(params: Tree, mask: Tree, noise: Tree) -> Tree:
    """Replaces the parameters by `noise` where the mask is true; the others stay bit for bit."""
    return jax.tree.map(lambda old, flag, new: jnp.where(flag, new, old), params, mask, noise)


def _redraw(params: Tree, *, estimates: Any, key: jax.Array, **extras: Any) -> Tree:
    """Reinitialises the weights in the mask estimates["reset"]: the one-shot change of all four methods."""
    del extras
    return reset(params, estimates["reset"], kaiming_noise(key, params))


def _overfitting(rows: Any, lr: Scalar, epochs: int, batch: int, save_as: str) -> Phase:
    """Returns a phase that overfits a copy of the original model on a few rows and saves it."""
    transform = transforms.sgd(lr, 0.9, 5e-4, nesterov=True)
    stream_specs = {"rows": StreamSpec(rows, batch)}
    return Phase(
        transform,
        (GradientStep(losses.cross_entropy_on("rows")),),
        stream_specs,
        epochs,
        start="original",
        save_as=save_as,
    )


def _fine_tuning(
    lr: Scalar, epochs: int, batch: int, momentum: Scalar, weight_decay: Scalar, compat: str = ""
) -> Phase:
    """Returns a phase of fine-tuning on the retained rows."""
    stream_specs = {"retain": StreamSpec("retain", batch, shuffle=compat != "faithful")}
    transform = transforms.sgd(lr, momentum, weight_decay, nesterov=True)
    return Phase(transform, (GradientStep(descent.retain_loss),), stream_specs, epochs)


def _reset_least_moved(
    quantile: Scalar, included: Callable[[Network, Tree], Tree], uses_retain_copy: bool = False
) -> Phase:
    """Returns a phase that resets, from the original model, the weights that moved least in the saved copies."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        retain_copy = member.saved_states["overfit_retain"].params if uses_retain_copy else None
        mask = reset_mask_quantile(
            member.params,
            member.saved_states["overfit"].params,
            quantile,
            retain_copy,
            included(member.network, member.params),
        )
        return mask, member.model_state

    return Phase(transforms.one_shot(_redraw), estimates={"reset": Estimate(compute)}, start="original")


def _every_weight(net: Network, params: Tree) -> Tree:
    del net
    return weights(params)


def _head_weight(net: Network, params: Tree) -> Tree:
    in_head = network.mask_of_paths((network.head(net).path,), params)
    return jax.tree.map(lambda a, b: a and b, weights(params), in_head)


def subset(fraction: float) -> Callable[[MemberRows], np.ndarray]:
    """Returns a function for `StreamSpec.rows`: a random fraction of the retained rows, rounded down, at least one."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        count = max(int(fraction * len(member_rows.retain)), min(1, len(member_rows.retain)))
        return np.sort(member_rows.rng.permutation(member_rows.retain)[:count])

    return rows


def prune(lr: float = 0.01, epochs: int = 5, quantile: float = 0.3, overfit_lr: float = 0.01, overfit_epochs: int = 20,
          momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0) -> Method:  # fmt: skip
    """Reinitialises the weights that moved least while a copy was overfitted on the forget set, then fine-tunes.

    Args:
      lr, epochs, momentum, weight_decay, batch: of the fine-tuning.
      quantile: fraction of every weight tensor, by |weight - overfitted weight|; biases and BatchNorm stay.
      overfit_lr, overfit_epochs: of the copy.

    Source: the paper's "Pruning" (quantile 0.3; its script has 0.2), section 4.
    """
    return Method(
        (
            _overfitting("forget", overfit_lr, overfit_epochs, batch, "overfit"),
            _reset_least_moved(quantile, _every_weight),
            _fine_tuning(lr, epochs, batch, momentum, weight_decay),
        ),
        "recalibrate",
        augment=False,
    )


def prune_last_layer(
    lr: float = 0.01, epochs: int = 5, quantile: float = 0.3, overfit_lr: float = 0.01, overfit_epochs: int = 20,
    momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """Applies `prune` to the weights of the last dense layer alone; its bias stays.

    Args:
      lr, epochs, momentum, weight_decay, batch: of the fine-tuning.
      quantile, overfit_lr, overfit_epochs: see `prune`.
      compat: "faithful" fine-tunes on the retained rows in their own order every epoch.

    Source: "Pruning Last".

    Raises:
      ConfigError: the network does not end in a dense layer with one output per class.
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    return Method(
        (
            _overfitting("forget", overfit_lr, overfit_epochs, batch, "overfit"),
            _reset_least_moved(quantile, _head_weight),
            _fine_tuning(lr, epochs, batch, momentum, weight_decay, compat),
        ),
        "recalibrate",
        augment=False,
    )


def prune_complex(
    lr: float = 0.01, epochs: int = 5, quantile: float = 0.3, overfit_lr: float = 0.01, overfit_epochs: int = 20,
    fraction: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Reinitialises the weights that moved least on the forget set and on a random `fraction` of the retained rows.

    The second copy is overfitted at a third of the rate. The published code divides that rate with `//`, which makes it
    0 and the method plain fine-tuning; no option restores it.

    Args:
      lr, epochs, momentum, weight_decay, batch: of the fine-tuning.
      quantile, overfit_lr, overfit_epochs: see `prune`.
      fraction: of the retained rows, for the second copy.
      compat: "faithful" fine-tunes on the retained rows in their own order every epoch.

    Source: "Pruning Complex".
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    return Method(
        (
            _overfitting("forget", overfit_lr, overfit_epochs, batch, "overfit"),
            _overfitting(subset(fraction), overfit_lr / 3.0, overfit_epochs, batch, "overfit_retain"),
            _reset_least_moved(quantile, _every_weight, uses_retain_copy=True),
            _fine_tuning(lr, epochs, batch, momentum, weight_decay, compat),
        ),
        "recalibrate",
        augment=False,
    )


def convolutions(net: Network) -> tuple[tuple[str, ...], ...]:
    """Returns the paths of the convolutions that may be reset: all but those of shortcuts (1x1, of residual blocks)."""
    return tuple(
        layer.path for layer in network.layers(net) if layer.kind == "conv" and "shortcut" not in layer.path[-1]
    )


def mean_activations(member: EstimateContext, name: str) -> tuple[Means, Tree]:
    """Returns {path of convolution: [H, W, C] mean output over a stream, 0 if empty}, and the model state after it."""
    paths = convolutions(member.network)

    def maps(samples: Samples, model_state: Tree) -> tuple[Means, Tree]:
        activations, new_state = network.activations(
            member.network, member.params, model_state, samples.inputs, samples.weights, member.mode
        )
        flags = samples.weights > 0
        return {
            path: jnp.sum(jnp.where(flags[:, None, None, None], activations[path], 0.0), 0) for path in paths
        }, new_state

    def update(total: tuple[Means, Tree], samples: Samples, key: jax.Array) -> tuple[Means, Tree]:
        del key
        sums, new_state = maps(samples, total[1])
        return {path: total[0][path] + sums[path] for path in paths}, new_state

    def blank() -> Means:
        shape = jax.ShapeDtypeStruct((1, *member.data.inputs.shape[1:]), member.data.inputs.dtype)

        def probe(raw: jax.Array) -> Means:
            inputs = member.network.prepare(raw, member.key, False)
            zero = jnp.zeros(1, jnp.int32)
            return maps(Samples(inputs, zero, jnp.ones(1), zero, zero > 0), member.model_state)[0]

        return {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in jax.eval_shape(probe, shape).items()}

    summed, model_state = passes.fold(member, name, (blank(), member.model_state), update)
    rows = passes.count(member, name)
    return {path: leaf / rows for path, leaf in summed.items()}, model_state


def _excitation(tolerance: Scalar, retain_mean: str, reset_mlp: bool) -> Callable[[EstimateContext], tuple[Tree, Tree]]:
    """Computes the mask of activation reset from streams "forget", "subset" and, for the published rule, "retain"."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        paths = convolutions(member.network)
        if not paths and not reset_mlp:
            raise errors.ConfigError(
                f"activation_reset has nothing to reset: {type(member.network.module).__name__} has no convolution. "
                "Set reset_mlp=true to draw the weights of its last layer anew, or choose prune."
            )
        forget, model_state = mean_activations(member, "forget")
        retain, model_state = mean_activations(member._replace(model_state=model_state), "subset")
        share: Scalar = 1.0
        if retain_mean == "full":
            share = passes.count(member, "subset") / passes.count(member, "retain")
        mask = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), member.params)
        for path in paths:
            kernel = network.leaf_at(mask, path)["kernel"]
            channels = reset_mask_activation(forget[path], share * retain[path], tolerance)
            mask = network.replace_at(mask, (*path, "kernel"), jnp.broadcast_to(channels, kernel.shape))
        if reset_mlp:
            head_kernel = (*network.head(member.network).path, "kernel")
            mask = network.replace_at(mask, head_kernel, jnp.ones_like(network.leaf_at(mask, head_kernel)))
        return mask, model_state

    return compute


def activation_reset(
    lr: float = 0.01, epochs: int = 5, tolerance: float = 0.8, fraction: float = 0.1, reset_mlp: bool = True,
    retain_mean: str = "subset", momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Reinitialises the convolution kernels that the forget set excites more than retained rows do, then fine-tunes.

    A whole kernel is reinitialised when its mean output (before normalisation) over the forget set exceeds that over a
    random subset of the retained rows at enough pixels. Convolutions of shortcuts stay.

    Args:
      lr, epochs, momentum, weight_decay, batch: of the fine-tuning.
      tolerance: fraction of the pixels that must exceed.
      fraction: of the retained rows, for the comparison.
      reset_mlp: also reinitialise the weights of the last dense layer.
      retain_mean: "subset"; "full" divides the subset's sum by the number of ALL retained rows as the published code
        does, which makes retained means about 50 times too small.
      compat: "faithful" = "full", compares in training mode, and fine-tunes on the retained rows in their own order.

    Source: "Activation Reset".

    Raises:
      ConfigError: no convolution and no `reset_mlp`; `reset_mlp` on a network without a dense head.
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    checks.choice("retain_mean", retain_mean, ("subset", "full"))
    is_faithful = compat == "faithful"
    mean = "full" if is_faithful else retain_mean
    stream_specs = {
        "forget": StreamSpec("forget", batch, shuffle=False),
        "subset": StreamSpec(subset(fraction), batch, shuffle=False),
    }
    if mean == "full":
        stream_specs["retain"] = StreamSpec("retain", batch, shuffle=False)  # only its number of rows is looked at
    reset_mask = Estimate(_excitation(tolerance, mean, reset_mlp), stream_specs, 1 / 3)
    redraw = Phase(
        transforms.one_shot(_redraw), estimates={"reset": reset_mask}, mode="train" if is_faithful else "eval"
    )
    return Method(
        (redraw, _fine_tuning(lr, epochs, batch, momentum, weight_decay, compat)), "recalibrate", augment=False
    )
