"""What a user of the functions on arrays in memory brings: read and checked before anything is computed."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, trees
from jaxunlearn.population import executor, training
from jaxunlearn.population.task import Network

Tree = Any
Prepare = Callable[[jax.Array, jax.Array, bool], jax.Array]  # (raw inputs [B, ...], key, is_train) -> network inputs


def default_mapping() -> executor.MemberMapping:
    """Returns the mapping that suits the device: one member after another on a CPU, all side by side elsewhere."""
    return executor.make_mapping("map" if jax.default_backend() == "cpu" else "vmap")


def as_float(inputs: jax.Array, key: jax.Array, is_train: bool) -> jax.Array:
    """Prepares inputs that are network inputs already: returns them as float32, token ids (int32) as they are."""
    return inputs if inputs.dtype == jnp.int32 else inputs.astype(jnp.float32)


def as_mapping(mapping: executor.MemberMapping | str | None) -> executor.MemberMapping:
    """Returns how models are mapped: as given, by its name (map, vmap, loop), or `default_mapping()`.

    Raises:
      ConfigError: an unknown name.
    """
    if mapping is None:
        return default_mapping()
    if isinstance(mapping, executor.MemberMapping):
        return mapping
    checks.choice("mapping", mapping, ("map", "vmap", "loop"))
    return executor.make_mapping(mapping)


def check_key(key: Any) -> jax.Array:
    """Returns a PRNG key.

    Raises:
      ConfigError: something else, such as a number, several keys, or a key of another generator.
    """
    try:
        words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        is_key = words.shape == (2,) and words.dtype == jnp.uint32
    except AttributeError:
        is_key = False
    if not is_key:
        raise errors.ConfigError(
            "key must be one PRNG key of the kind threefry2x32 (JAX's default), e.g. jax.random.key(0)."
        )
    return key


def as_inputs(inputs: Any) -> np.ndarray:
    """Returns inputs [N, ...] as uint8, int32 or float32.

    Raises:
      ShapeError: no row, or no second axis. DataError: no real numbers, NaN, or infinite after the cast to float32.
    """
    try:
        array = np.asarray(inputs)
    except ValueError as error:
        raise errors.ShapeError(f"inputs must be one array [N, ...]: {checks.describe_error(error)}.") from error
    if array.dtype.kind not in "fiub":
        raise errors.DataError(f"inputs must be an array [N, ...] of real numbers, not of {array.dtype}.")
    if array.ndim < 2 or not len(array):
        raise errors.ShapeError(f"inputs must be [N, ...] with at least one row, not {array.shape}.")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu":
        if np.abs(array.astype(np.float64)).max() > np.iinfo(np.int32).max:
            raise errors.DataError("inputs contain whole numbers beyond int32; give floats.")
        return array.astype(np.int32)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise errors.DataError("inputs contain NaN or infinite values (in float32).")
    return array


def check_data(data: Any) -> training.DeviceDataset:
    """Checks arrays that a user brings.

    Args:
      data: (inputs [N, ...] finite numbers, labels [N] class numbers from 0).

    Raises:
      ShapeError: not two arrays of the same N. DataError: NaN, infinite or no rows; labels that are not class numbers.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise errors.ShapeError("data must be a pair (inputs, labels), e.g. (dataset.inputs, dataset.labels).")
    inputs, labels = as_inputs(data[0]), np.asarray(data[1])
    if labels.ndim != 1 or len(inputs) != len(labels):
        raise errors.ShapeError(
            f"inputs must be [N, ...] and labels [N] of the same N, not {inputs.shape} and {labels.shape}. Texts, "
            "whose labels are their next tokens, are supported only by the commands (docs/language_models.md)."
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise errors.DataError("labels must be class numbers: whole numbers from 0.")
    return training.DeviceDataset(inputs, labels.astype(np.int32))


def unpacked(network: nn.Module | Network, prepare: Prepare | None) -> tuple[nn.Module, Prepare]:
    """Returns the flax module and the preparation of its inputs, `as_float` if there is none.

    Raises:
      ConfigError: a preparation next to that of a `Network`, or one that is no function; no flax module.
    """
    if isinstance(network, Network):
        if prepare is not None:
            raise errors.ConfigError("prepare is there twice, in the Network and as an argument. Leave one out.")
        network, prepare = network.module, network.prepare
    if prepare is not None and not callable(prepare):
        raise errors.ConfigError(
            f"prepare must be a function (raw inputs [B, ...], key, is_train) -> network inputs, not {prepare!r:.60}."
        )
    if not isinstance(network, nn.Module):
        raise errors.ConfigError(
            f"the network must be a flax module (see jaxunlearn.models) or a Network, not {network!r:.60}."
        )
    return network, prepare or as_float


def num_outputs(module: nn.Module, prepare: Prepare, example: np.ndarray, is_trained: bool = False) -> int:
    """Returns the number of classes that a flax module answers for; a module that cannot be called is named.

    Args:
      module: called as `module.apply(variables, inputs, train=..., mask=...) -> logits [B, C]`, and without `mask`.
      prepare: see `fit`.
      example: [...] one row of the inputs.
      is_trained: the module is to be trained, so that it is also called with train=True, on inputs prepared for that.

    Raises:
      ConfigError: `prepare` fails; the module does not take the inputs, `train` or `mask`, or needs other arguments;
        its answers are not [B, C].
    """
    key, mask = jax.random.key(0), jnp.ones(2, bool)
    rows = jax.ShapeDtypeStruct((2, *example.shape), example.dtype)
    inputs = {is_train: _prepared(prepare, rows, is_train) for is_train in (False, *([True] if is_trained else []))}

    def logits_of(call: str, fn: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return jax.eval_shape(fn, *arguments)
        except Exception as error:  # whatever a user's module raises
            reason = str(error) if isinstance(error, errors.UserError) else f"{checks.describe_error(error)}."
            raise errors.ConfigError(
                f"{type(module).__name__} cannot be called on rows of shape {example.shape} as {call}: {reason}"
            ) from error

    variables = logits_of(
        "module.init(key, inputs, train=False)", lambda values: module.init(key, values, train=False), inputs[False]
    )
    answers = [
        logits_of(f"module.apply(variables, inputs, train=False{text})",
                  lambda collections, values, more=more: module.apply(collections, values, train=False, **more),
                  variables, inputs[False])
        for text, more in (("", {}), (", mask=mask", {"mask": mask}))
    ]  # fmt: skip
    if is_trained:
        names = [name for name in variables if name != "params"]

        def train(collections: Any, values: jax.Array) -> Any:
            rngs = {"dropout": key}
            return module.apply(collections, values, train=True, mask=mask, mutable=names, rngs=rngs)[0]

        call = "module.apply(variables, inputs, train=True, mask=mask, mutable=[...], rngs={'dropout': key})"
        answers.append(logits_of(call, train, variables, inputs[True]))
    for logits in answers:
        if getattr(logits, "ndim", 0) == 3:
            raise errors.ConfigError("this network answers for every token; texts are supported only by the commands "
                                     "(docs/language_models.md).")  # fmt: skip
        if getattr(logits, "ndim", 0) != 2 or logits.shape[1] < 2:
            raise errors.ConfigError(f"{type(module).__name__} must return logits [B, C] with C >= 2 classes, not "
                                     f"{getattr(logits, 'shape', type(logits).__name__)}.")  # fmt: skip
    return int(answers[0].shape[1])


def _prepared(prepare: Prepare, rows: jax.ShapeDtypeStruct, is_train: bool) -> jax.ShapeDtypeStruct:
    """Returns shape and dtype of prepared rows.

    Raises:
      ConfigError: `prepare` fails, or does not return an array with as many rows.
    """
    call = f"prepare(inputs, key, {is_train})"
    try:
        inputs = jax.eval_shape(lambda values: prepare(values, jax.random.key(0), is_train), rows)
    except Exception as error:  # whatever a user's function raises
        raise errors.ConfigError(
            f"{call} fails on inputs of shape {rows.shape}: {checks.describe_error(error, prepare)}."
        ) from error
    if getattr(inputs, "shape", ())[:1] != rows.shape[:1]:
        raise errors.ConfigError(f"{call} must return an array with as many rows as it gets, not "
                                 f"{getattr(inputs, 'shape', type(inputs).__name__)} for {rows.shape}.")  # fmt: skip
    return inputs


def check_membership(membership: Any, count: int) -> np.ndarray:
    """Returns a membership [M, N] of bools.

    Args:
      membership: [M, N] bool, or 0 and 1.
      count: N.

    Raises:
      ShapeError: another shape, or no model. DataError: values other than 0 and 1, such as row numbers.
    """
    array = np.asarray(membership)
    if array.ndim != 2 or array.shape[1] != count or not len(array):
        raise errors.ShapeError(f"membership must be [M, N] bool with N = {count} rows of data, not {array.shape}.")
    if array.dtype != bool:
        if array.dtype.kind not in "fiu" or not np.isin(array, (0, 1)).all():
            raise errors.DataError("membership must be bool (or 0 and 1): whether model m trains on row n.")
        array = array.astype(bool)
    return array


def as_member_ids(member_ids: Any, count: int, default: np.ndarray | None = None) -> np.ndarray:
    """Returns the numbers [M] of models from which their keys are derived.

    Args:
      member_ids: whole numbers from 0, one per model or one for all; None = the default.
      count: M.
      default: [M]; 0 .. M - 1 if there is none.

    Raises:
      ConfigError: fractions, negative numbers. ShapeError: another number of them.
    """
    if member_ids is None:
        return np.arange(count, dtype=np.int32) if default is None else default.astype(np.int32)
    values = [member_ids] if np.ndim(member_ids) == 0 else list(member_ids)
    if len(values) not in (1, count):
        raise errors.ShapeError(f"member_ids must be [M] for M = {count} models, not [{len(values)}].")
    high = np.iinfo(np.int32).max
    ids = np.asarray([checks.whole("member_ids", value, 0, high) for value in values], np.int32)
    return np.broadcast_to(ids, count).copy()


def num_models(variables: Any, expected: Tree) -> int | None:
    """Returns M, the number of models that variables hold; None for those of one model, without a leading axis.

    Args:
      variables: flax variables.
      expected: those of one model, as arrays or shapes.

    Raises:
      ShapeError: variables of another network, or without a leading axis that all leaves share.
    """
    leaves = trees.named_leaves(variables) if hasattr(variables, "keys") else []
    wanted_leaves = trees.named_leaves(expected)
    if [name for name, _ in leaves] != [name for name, _ in wanted_leaves]:
        raise errors.ShapeError("these are not the variables of this network: their names differ.")
    shapes = [np.shape(leaf) for _, leaf in leaves]
    if shapes == [leaf.shape for _, leaf in wanted_leaves]:
        return None
    if len({shape[:1] for shape in shapes}) != 1 or any(
        shape[1:] != leaf.shape for shape, (_, leaf) in zip(shapes, wanted_leaves, strict=True)
    ):
        raise errors.ShapeError(
            "these are not the variables of this network: their shapes differ, or not all leaves have the same leading "
            "axis M."
        )
    return int(shapes[0][0])


def some_models(numbers: np.ndarray) -> str:
    """Returns the numbers of models in words, the first five of them."""
    words = ", ".join(str(number) for number in numbers[:5])
    return f"model{'s' if len(numbers) > 1 else ''} {words}{', ...' if len(numbers) > 5 else ''}"


def check_finite(name: str, variables: Tree) -> None:
    """Refuses models whose weights are NaN or infinite.

    Args:
      name: of the argument, for the message.
      variables: flax variables with a leading M.

    Raises:
      DataError: there are such models; the message names them.
    """
    finite = [np.isfinite(np.asarray(leaf)).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(variables)]
    broken = np.flatnonzero(~np.all(finite, 0))
    if len(broken):
        raise errors.DataError(
            f"{name}: the weights of {len(broken)} of {len(finite[0])} models ({some_models(broken)}) are NaN or "
            "infinite. Leave these models out."
        )
