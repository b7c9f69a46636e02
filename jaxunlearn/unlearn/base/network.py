"""The model as unlearning sees it: pure functions of parameters, and which layer is which.

Layers are found by running the module once abstractly and noting the order in which submodules with parameters are
called; names in a parameter tree say nothing about order.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn import errors, keys

Tree = Any


class Network(NamedTuple):
    """One architecture with the way its inputs are prepared.

    Attributes:
      module: called as module.apply(variables, inputs, train=..., mask=...) -> logits [B, C] float32; a language model
        takes tokens [B, T] int32 (-1 = padding) and gives [B, T, V].
      prepare: (raw inputs [B, ...], key, is_train) -> float32 network inputs.
      example: shape and dtype of ONE raw row.
      num_classes: C, or V.
    """

    module: nn.Module
    prepare: Any
    example: jax.ShapeDtypeStruct
    num_classes: int


class Layer(NamedTuple):
    """A submodule that holds parameters itself.

    Attributes:
      path: its place in the parameter tree, e.g. ("stage_0_block_1", "conv_0").
      kind: "conv" (a kernel of 4 axes), "dense" (2 axes) or "norm" (no kernel).
    """

    path: tuple[str, ...]
    kind: str


def init(network: Network, key: jax.Array) -> tuple[Tree, Tree]:
    """Parameters and statistics (other flax collections) of a random network."""
    blank = network.prepare(jnp.zeros((1, *network.example.shape), network.example.dtype), key, False)
    collections = dict(network.module.init(key, blank, train=False))
    return collections.pop("params"), collections


def forward(
    network: Network,
    params: Tree,
    model_state: Tree,
    inputs: jax.Array,
    weights: jax.Array | None = None,
    mode: str = "eval",
    key: jax.Array | None = None,
) -> tuple[jax.Array, Tree]:
    """Logits [B, C] float32 and the statistics afterwards (moved in mode "train", the same ones in mode "eval").

    `weights` [B] marks padding by 0 (None = no padding); `key` is for dropout, needed in mode "train".
    """
    mask = None if weights is None else weights > 0
    collections = {"params": params, **model_state}
    if mode == "eval":
        return jnp.asarray(network.module.apply(collections, inputs, train=False, mask=mask)), model_state
    rngs = {"dropout": key if key is not None else keys.root(0)}
    logits, moved = network.module.apply(
        collections, inputs, train=True, mask=mask, mutable=list(model_state), rngs=rngs
    )
    return jnp.asarray(logits), dict(moved)


def activations(
    network: Network, params: Tree, model_state: Tree, inputs: jax.Array, weights: jax.Array | None, mode: str = "eval"
) -> tuple[dict[tuple[str, ...], jax.Array], Tree]:
    """Outputs of every layer with a kernel (before normalisation and activation), by path, and the moved statistics."""
    wanted = {layer.path for layer in layers(network) if layer.kind != "norm"}
    seen: dict[tuple[str, ...], jax.Array] = {}
    with nn.intercept_methods(_noting(wanted, seen)):
        _, moved = forward(network, params, model_state, inputs, weights, mode)
    return seen, moved


def _noting(wanted: Collection[tuple[str, ...]], seen: dict[tuple[str, ...], jax.Array]) -> Any:
    """An interceptor that writes the outputs of the modules at the wanted paths into `seen`."""

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        if context.module.path in wanted and context.method_name == "__call__":
            seen[context.module.path] = result
        return result

    return note


def feature_paths(network: Network) -> tuple[tuple[str, ...], ...]:
    """Returns the module paths of the hidden features that the network names, shallow to deep.

    Raises:
      ConfigError: the module has no attribute `feature_paths`, or names none.
    """
    names = getattr(network.module, "feature_paths", None)
    if not names:
        raise errors.ConfigError(
            f"{type(network.module).__name__} names no hidden features, which this method reads. Give it an attribute "
            "`feature_paths`: module paths such as ('stage_2_block_1', 'stage_3_block_1'), shallow to deep."
        )
    return tuple(tuple(name.split("/")) for name in names)


def with_features(
    network: Network,
    params: Tree,
    model_state: Tree,
    inputs: jax.Array,
    weights: jax.Array | None = None,
    mode: str = "eval",
    key: jax.Array | None = None,
) -> tuple[jax.Array, Tree, tuple[jax.Array, ...]]:
    """Runs `forward` and returns its logits and statistics with the named features.

    Returns:
      logits [B, C], statistics, and features, each [B, D] float32; of texts, [B, T, V] and [B, T, D].

    Raises:
      ConfigError: the network names no features, or a path at which no module is called.
    """
    paths = feature_paths(network)
    seen: dict[tuple[str, ...], jax.Array] = {}
    with nn.intercept_methods(_noting(paths, seen)):
        logits, moved = forward(network, params, model_state, inputs, weights, mode, key)
    for path in paths:
        if path not in seen:
            raise errors.ConfigError(
                f"{type(network.module).__name__} names the feature {'/'.join(path)!r}, but calls no module of that "
                "path."
            )
    per_answer = logits.shape[:-1]
    return logits, moved, tuple(seen[path].reshape(*per_answer, -1).astype(jnp.float32) for path in paths)


def layers(network: Network) -> tuple[Layer, ...]:
    """Every layer with parameters, in the order in which the network calls them."""
    found: dict[tuple[str, ...], Layer] = {}

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        own = context.module.variables.get("params", {}) if context.method_name == "__call__" else {}
        direct = {name: leaf for name, leaf in own.items() if hasattr(leaf, "shape")}
        if direct and context.module.path not in found:
            axes = getattr(direct.get("kernel"), "ndim", 0)
            found[context.module.path] = Layer(context.module.path, {4: "conv", 2: "dense"}.get(axes, "norm"))
        return result

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: init(network, keys.root(0)))
    return tuple(found.values())


def head(network: Network) -> Layer:
    """The last dense layer: the one whose outputs are the logits.

    Raises:
      ConfigError: the network does not end in a dense layer with one output per class.
    """
    is_tied = getattr(network.module, "is_tied", False)
    dense = [layer for layer in layers(network) if layer.kind == "dense" and not is_tied]
    shapes = jax.eval_shape(lambda: init(network, keys.root(0))[0])
    if not dense or leaf_at(shapes, dense[-1].path)["kernel"].shape[-1] != network.num_classes:
        raise errors.ConfigError(
            "this method changes the head of the network, a last dense layer with one output per class, but "
            f"{type(network.module).__name__} does not end in one."
        )
    return dense[-1]


def leaf_at(tree: Tree, path: tuple[str, ...]) -> Tree:
    """The subtree of a parameter tree at a module path."""
    for name in path:
        tree = tree[name]
    return tree


def replace_at(tree: Tree, path: tuple[str, ...], new: Tree) -> Tree:
    """A copy of a nested dict with another subtree at a module path."""
    if not path:
        return new
    return {**tree, path[0]: replace_at(tree[path[0]], path[1:], new)}


def belongs(network: Network, paths: tuple[tuple[str, ...], ...], params: Tree) -> Tree:
    """Tree of bools shaped like `params`: does the leaf lie under one of the module paths?"""
    del network

    def inside(path: Any, leaf: Any) -> bool:
        names = tuple(getattr(part, "key", str(part)) for part in path)
        return any(names[: len(one)] == one for one in paths)

    return jax.tree_util.tree_map_with_path(inside, params)


def widened(network: Network) -> Network:
    """The same network with one output more."""
    if not hasattr(network.module, "num_classes"):
        raise errors.ConfigError(
            f"{type(network.module).__name__} has no attribute num_classes, which this method raises by one."
        )
    return network._replace(
        module=network.module.clone(num_classes=network.num_classes + 1), num_classes=network.num_classes + 1
    )


def widen(network: Network, params: Tree, key: jax.Array) -> Tree:
    """Parameters of `widened(network)`: the head keeps its outputs, the new one starts uniform in +-1/sqrt(fan_in)."""
    path = head(network).path
    old = leaf_at(params, path)
    bound = old["kernel"].shape[0] ** -0.5
    column = jax.random.uniform(key, (old["kernel"].shape[0] + 1, 1), minval=-bound, maxval=bound)
    new = {"kernel": jnp.concatenate([old["kernel"], column[:-1]], 1)}
    if "bias" in old:
        new["bias"] = jnp.concatenate([old["bias"], column[-1]])
    return replace_at(params, path, new)


def narrow(network: Network, params: Tree) -> Tree:
    """Parameters of `network` from those of `widened(network)`: the last output is dropped."""
    path = head(network).path
    return replace_at(params, path, jax.tree.map(lambda leaf: leaf[..., : network.num_classes], leaf_at(params, path)))
