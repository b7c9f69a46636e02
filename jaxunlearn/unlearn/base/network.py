"""The model as unlearning sees it: pure functions of parameters, and its layers.

Layers are found by tracing the module once and recording the order in which submodules with parameters are called; the
names in a parameter tree do not give the order.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxunlearn import errors, keys, trees
from jaxunlearn.population import Network as Network

Tree = Any


class Layer(NamedTuple):
    """A submodule with parameters of its own.

    Attributes:
      path: its position in the parameter tree, e.g. ("stage_0_block_1", "conv_0").
      kind: "conv" (a kernel of 4 axes), "dense" (2 axes) or "norm" (no kernel).
    """

    path: tuple[str, ...]
    kind: str


def init(network: Network, key: jax.Array) -> tuple[Tree, Tree]:
    """Returns parameters and model state (other flax collections) of a random network."""
    blank = network.prepare(jnp.zeros((1, *network.example.shape), network.example.dtype), key, False)
    return trees.split_variables(network.module.init(key, blank, train=False))


def forward(
    network: Network,
    params: Tree,
    model_state: Tree,
    inputs: jax.Array,
    weights: jax.Array | None = None,
    mode: str = "eval",
    key: jax.Array | None = None,
) -> tuple[jax.Array, Tree]:
    """Returns logits [B, C] float32 and the model state afterwards (unchanged in mode "eval").

    Args:
      network: the model.
      params: its parameters.
      model_state: its other flax collections, e.g. {"batch_stats": ...}.
      inputs: [B, ...] float32, prepared.
      weights: [B], 0 = padding; None = no padding.
      mode: "train" (batch statistics; running ones move) or "eval".
      key: for dropout in mode "train"; None = a fixed one.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxunlearn import models, settings
      >>> from jaxunlearn.unlearn import Network, network
      >>> module = models.build(settings.ModelSettings("logistic"), num_classes=3)
      >>> net = Network(module, lambda inputs, key, is_train: inputs, jax.ShapeDtypeStruct((4,), jnp.float32), 3)
      >>> params, model_state = network.init(net, jax.random.key(0))
      >>> logits, model_state = network.forward(net, params, model_state, jnp.ones((5, 4)))
      >>> logits.shape
      (5, 3)
    """
    mask = None if weights is None else weights > 0
    collections = trees.join_variables(params, model_state)
    if mode == "eval":
        return jnp.asarray(network.module.apply(collections, inputs, train=False, mask=mask)), model_state
    rngs = {"dropout": key if key is not None else keys.root(0)}
    logits, new_state = network.module.apply(
        collections, inputs, train=True, mask=mask, mutable=list(model_state), rngs=rngs
    )
    return jnp.asarray(logits), dict(new_state)


def input_gradient(
    network: Network, params: Tree, model_state: Tree, inputs: jax.Array, labels: jax.Array
) -> jax.Array:
    """Returns the gradient [B, ...] of every row's cross entropy by its own inputs, in evaluation mode.

    Args:
      network: the network.
      params: its parameters.
      model_state: its other flax collections.
      inputs: [B, ...] prepared.
      labels: [B].
    """

    def summed_loss(inputs: jax.Array) -> jax.Array:
        logits, _ = forward(network, params, model_state, inputs)
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return jax.grad(summed_loss)(inputs)


def activations(
    network: Network, params: Tree, model_state: Tree, inputs: jax.Array, weights: jax.Array | None, mode: str = "eval"
) -> tuple[dict[tuple[str, ...], jax.Array], Tree]:
    """Returns outputs by path of all layers with a kernel, before normalisation and activation, and the model state.

    Args:
      network: the model.
      params: its parameters.
      model_state: its other flax collections, e.g. {"batch_stats": ...}.
      inputs: [B, ...] float32, prepared.
      weights: [B], 0 = padding; None = no padding.
      mode: "train" (batch statistics; running ones move) or "eval".
    """
    paths = {layer.path for layer in layers(network) if layer.kind != "norm"}
    outputs: dict[tuple[str, ...], jax.Array] = {}
    with nn.intercept_methods(_record_outputs(paths, outputs)):
        _, new_state = forward(network, params, model_state, inputs, weights, mode)
    return outputs, new_state


def _record_outputs(paths: Collection[tuple[str, ...]], outputs: dict[tuple[str, ...], jax.Array]) -> Any:
    """Returns an interceptor that writes the outputs of the modules at the given paths into `outputs`."""

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        if context.module.path in paths and context.method_name == "__call__":
            outputs[context.module.path] = result
        return result

    return note


def feature_paths(network: Network) -> tuple[tuple[str, ...], ...]:
    """Returns the module paths of the network's hidden features, shallow to deep.

    Raises:
      ConfigError: the module has no attribute `feature_paths`, or it is empty.
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
    """Runs `forward` and returns its logits and model state together with the hidden features.

    Args:
      network: the model.
      params: its parameters.
      model_state: its other flax collections, e.g. {"batch_stats": ...}.
      inputs: [B, ...] float32, prepared.
      weights: [B], 0 = padding; None = no padding.
      mode: "train" (batch statistics; running ones move) or "eval".
      key: for dropout in mode "train"; None = a fixed one.

    Returns:
      logits [B, C], model state, and features, each [B, D] float32; of texts, [B, T, V] and [B, T, D].

    Raises:
      ConfigError: the network names no features, or a path at which no module is called.
    """
    paths = feature_paths(network)
    outputs: dict[tuple[str, ...], jax.Array] = {}
    with nn.intercept_methods(_record_outputs(paths, outputs)):
        logits, new_state = forward(network, params, model_state, inputs, weights, mode, key)
    for path in paths:
        if path not in outputs:
            raise errors.ConfigError(
                f"{type(network.module).__name__} names the feature {'/'.join(path)!r}, but calls no module of that "
                "path."
            )
    answer_shape = logits.shape[:-1]
    return logits, new_state, tuple(outputs[path].reshape(*answer_shape, -1).astype(jnp.float32) for path in paths)


def layers(network: Network) -> tuple[Layer, ...]:
    """Returns all layers with parameters, in the order in which the network calls them.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxunlearn import models, settings
      >>> from jaxunlearn.unlearn import Network, network
      >>> module = models.build(settings.ModelSettings("mlp", hidden=(8,)), num_classes=3)
      >>> net = Network(module, lambda inputs, key, is_train: inputs, jax.ShapeDtypeStruct((4,), jnp.float32), 3)
      >>> [(layer.path, layer.kind) for layer in network.layers(net)]
      [(('Dense_0',), 'dense'), (('Dense_1',), 'dense')]
    """
    layers_by_path: dict[tuple[str, ...], Layer] = {}

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        variables = context.module.variables.get("params", {}) if context.method_name == "__call__" else {}
        leaves = {name: leaf for name, leaf in variables.items() if hasattr(leaf, "shape")}
        if leaves and context.module.path not in layers_by_path:
            axes = getattr(leaves.get("kernel"), "ndim", 0)
            layers_by_path[context.module.path] = Layer(context.module.path, {4: "conv", 2: "dense"}.get(axes, "norm"))
        return result

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: init(network, keys.root(0)))
    return tuple(layers_by_path.values())


def head(network: Network) -> Layer:
    """Returns the last dense layer, whose outputs are the logits.

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
    """Returns the subtree of a parameter tree at a module path."""
    for name in path:
        tree = tree[name]
    return tree


def replace_at(tree: Tree, path: tuple[str, ...], new: Tree) -> Tree:
    """Returns a copy of a nested dict with another subtree at a module path."""
    if not path:
        return new
    return {**tree, path[0]: replace_at(tree[path[0]], path[1:], new)}


def mask_of_paths(paths: tuple[tuple[str, ...], ...], params: Tree) -> Tree:
    """Returns a tree of bools shaped like `params`: whether the leaf is under one of the module paths."""

    def inside(path: Any, leaf: Any) -> bool:
        names = tuple(getattr(entry, "key", str(entry)) for entry in path)
        return any(names[: len(prefix)] == prefix for prefix in paths)

    return jax.tree_util.tree_map_with_path(inside, params)


def widened(network: Network) -> Network:
    """Returns the network with one more output."""
    if not hasattr(network.module, "num_classes"):
        raise errors.ConfigError(
            f"{type(network.module).__name__} has no attribute num_classes, which this method raises by one."
        )
    return network._replace(
        module=network.module.clone(num_classes=network.num_classes + 1), num_classes=network.num_classes + 1
    )


def widen(network: Network, params: Tree, key: jax.Array) -> Tree:
    """Returns parameters of `widened(network)`: those of `network`, the new output uniform in +-1/sqrt(fan_in)."""
    path = head(network).path
    old = leaf_at(params, path)
    bound = old["kernel"].shape[0] ** -0.5
    column = jax.random.uniform(key, (old["kernel"].shape[0] + 1, 1), minval=-bound, maxval=bound)
    new = {"kernel": jnp.concatenate([old["kernel"], column[:-1]], 1)}
    if "bias" in old:
        new["bias"] = jnp.concatenate([old["bias"], column[-1]])
    return replace_at(params, path, new)


def narrow(network: Network, params: Tree) -> Tree:
    """Returns parameters of `network` from those of `widened(network)`, without the last output."""
    path = head(network).path
    return replace_at(params, path, jax.tree.map(lambda leaf: leaf[..., : network.num_classes], leaf_at(params, path)))
