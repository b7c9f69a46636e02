"""Populations without settings or a run folder: train M models on arrays, and ask them."""

import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, settings, trees
from jaxunlearn.population import executor, prediction, streams, training
from jaxunlearn.population.task import Task, supervised
from jaxunlearn.population.task import variables as variables_of

Tree = Any
EXPLODED = 1e9  # weights that no training means
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
      ConfigError: something else, such as a number or several keys.
    """
    try:
        words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        is_key = words.shape == (2,) and words.dtype == jnp.uint32
    except AttributeError:
        is_key = False
    if not is_key:
        raise errors.ConfigError("key must be one PRNG key, e.g. jax.random.key(0).")
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


def num_outputs(module: nn.Module, prepare: Prepare, example: np.ndarray) -> int:
    """Returns the number of classes that a flax module answers for; a module that cannot be called is named.

    Args:
      module: called as `module.apply(variables, inputs, train=..., mask=...) -> logits [B, C]`.
      prepare: see `fit`.
      example: [...] one row of the inputs.

    Raises:
      ConfigError: no flax module; it does not take the inputs, `train` or `mask`; its answers are not [B, C].
    """
    if not isinstance(module, nn.Module):
        raise errors.ConfigError(f"the network must be a flax module (see jaxunlearn.models), not {module!r:.60}.")
    key = jax.random.key(0)

    def answer(rows: jax.Array) -> Any:
        inputs = prepare(rows, key, False)
        return module.init_with_output(key, inputs, train=False, mask=jnp.ones(len(rows), bool))[0]

    try:
        logits = jax.eval_shape(answer, jax.ShapeDtypeStruct((2, *example.shape), example.dtype))
    except Exception as error:  # whatever a user's module or `prepare` raises
        raise errors.ConfigError(
            f"{type(module).__name__} cannot be called on rows of shape {example.shape} as module.apply(variables, "
            f"prepare(inputs, key, False), train=False, mask=None): {checks.describe_error(error)}."
        ) from error
    if getattr(logits, "ndim", 0) == 3:
        raise errors.ConfigError("this network answers for every token; texts are supported only by the "
                                 "commands (docs/language_models.md).")  # fmt: skip
    if getattr(logits, "ndim", 0) != 2 or logits.shape[1] < 2:
        raise errors.ConfigError(f"{type(module).__name__} must return logits [B, C] with C >= 2 classes, not "
                                 f"{getattr(logits, 'shape', type(logits).__name__)}.")  # fmt: skip
    return int(logits.shape[1])


def task_of(module: nn.Module, prepare: Prepare, recipe: settings.TrainSettings, example: np.ndarray) -> Task:
    """Builds the supervised task of a flax module that `num_outputs` has checked.

    Args:
      module: the network.
      prepare: see `fit`.
      recipe: how it is trained.
      example: [...] one row of the inputs.
    """
    return supervised(module, module, prepare, recipe, jax.ShapeDtypeStruct(example.shape, example.dtype))


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


def fit(
    module: nn.Module,
    data: tuple[np.ndarray, np.ndarray],
    membership: np.ndarray,
    *,
    key: jax.Array,
    prepare: Prepare = as_float,
    mapping: executor.MemberMapping | str | None = None,
    **recipe: Any,
) -> Tree:
    """Trains M models of one architecture as one program, each on rows of its own.

    Args:
      module: flax linen module, called as `module.apply(variables, inputs, train=False, mask=None) -> logits [B, C]`;
        all of `jaxunlearn.models` are.
      data: inputs [N, ...] as the network takes them (or as `prepare` does), labels [N] class numbers from 0.
      membership: [M, N] bool; model m trains on the rows where membership[m].
      key: PRNG key; model m's numbers depend on it, on m and on its rows, not on the other models.
      prepare: (raw inputs [B, ...], key, is_train) -> network inputs, such as normalisation and augmentation; without
        it inputs are cast to float32 (token ids stay int32).
      mapping: how models are mapped onto the device: "map" (one after another), "vmap" (side by side), or a
        `MemberMapping`; what suits the device if not given.
      **recipe: settings of the training by name, as in the section `train`: epochs=20, batch=64, learning_rate=0.1,
        optimizer="sgd" ...

    Returns:
      Flax variables, every leaf with a leading M; a model whose loss stopped being finite is the last finite one, and a
      warning names it.

    Raises:
      ConfigError: an unknown setting, a module that cannot be called. ShapeError, DataError: arrays that do not fit.

    Example:
      >>> import jax, numpy as np
      >>> import jaxunlearn as ju
      >>> labels = np.arange(60) % 3
      >>> inputs = np.eye(3, dtype=np.float32)[labels]
      >>> network = ju.models.build(ju.settings.ModelSettings(name="logistic"), num_classes=3)
      >>> membership = np.arange(60) % 4 != np.arange(4)[:, None]  # 4 models, each without a quarter of the rows
      >>> data, key = (inputs, labels), jax.random.key(0)
      >>> variables = ju.population.fit(network, data, membership, key=key, epochs=5, batch=15)
      >>> logits = ju.population.logits(network, variables, inputs)
      >>> logits.shape, bool((logits.argmax(-1) == labels).all())
      ((4, 60, 3), True)
    """
    dataset = check_data(data)
    membership = check_membership(membership, len(dataset.labels))
    example = np.asarray(dataset.inputs[0])
    checks.labels("labels", dataset.labels, num_outputs(module, prepare, example))
    train = settings.resolve({"train": recipe}).train
    if train.keep == "best" or train.snapshots:
        raise errors.ConfigError("fit keeps the weights of the last epoch; leave keep and snapshots out.")
    stream = streams.from_membership(membership)
    ids = np.arange(len(membership), dtype=np.int32)
    job = training.Job(
        task=task_of(module, prepare, train, example),
        streams={"train": stream},
        batches={"train": train.batch},
        member_ids=ids,
        key=check_key(key),
        constants={
            "learning_rate": np.full(len(ids), train.learning_rate, np.float32),
            "weight_decay": np.full(len(ids), train.weight_decay, np.float32),
        },
        steps=streams.steps_per_epoch(stream, train.batch),
    )
    *_, last = training.train(job, dataset, train.epochs, as_mapping(mapping))
    carry = training.host(last)
    variables = training.kept_variables(carry)
    warn_diverged(np.asarray(carry.diverged_at), variables)
    return variables


def warn_diverged(diverged_at: np.ndarray, variables: Tree) -> None:
    """Issues a warning that names the members whose loss stopped being finite, or is about to.

    Args:
      diverged_at: [M] step at which a member was frozen.
      variables: of the members; weights beyond `EXPLODED` count as diverged: no answer of such a network is finite.
    """
    largest = [np.abs(np.asarray(leaf)).reshape(len(diverged_at), -1).max(1, initial=0.0)
               for leaf in jax.tree.leaves(variables)]  # fmt: skip
    is_diverged = (np.asarray(diverged_at) != training.NOT_DIVERGED) | (np.max(largest, 0) > EXPLODED)
    diverged = np.flatnonzero(is_diverged)
    if len(diverged):
        warnings.warn(
            f"the loss of {len(diverged)} of {len(diverged_at)} models stopped being finite (first: model "
            f"{diverged[0]}); they are as they were at the last finite one. Lower the learning rate.",
            stacklevel=3,
        )


def logits(
    module: nn.Module,
    variables: Tree,
    inputs: np.ndarray,
    *,
    prepare: Prepare = as_float,
    mapping: executor.MemberMapping | str | None = None,
    batch: int = 256,
) -> np.ndarray:
    """Returns the logits of M models on N rows.

    Args:
      module: as for `fit`.
      variables: flax variables with a leading M, as `fit` and `unlearn.run` return them.
      inputs: [N, ...], as for `fit`.
      prepare: as for `fit`.
      mapping: as for `fit`.
      batch: rows per forward pass of one model.

    Returns:
      [M, N, C] float32.

    Raises:
      ConfigError: a module that cannot be called. ShapeError: no rows, variables of another network. DataError: NaN.

    Example:
      >>> import jax, numpy as np
      >>> import jaxunlearn as ju
      >>> network = ju.models.build(ju.settings.ModelSettings(name="logistic"), num_classes=2)
      >>> params = {"Dense_0": {"kernel": np.zeros((3, 4, 2), np.float32), "bias": np.zeros((3, 2), np.float32)}}
      >>> ju.population.logits(network, {"params": params}, np.ones((5, 4), np.float32)).shape  # 3 models, 5 rows
      (3, 5, 2)
    """
    inputs = as_inputs(inputs)
    num_outputs(module, prepare, inputs[0])
    checks.in_range("batch", batch, 1)
    task = task_of(module, prepare, settings.TrainSettings(), inputs[0])
    state = jax.eval_shape(task.init, jax.random.key(0))
    if num_models(variables, variables_of(state)) is None:
        raise errors.ShapeError(
            "variables must have the same leading axis M in every leaf; add one to those of one model."
        )
    blocks = prediction.predict(task, variables, inputs, np.arange(len(inputs)), as_mapping(mapping), batch=batch)
    return np.concatenate([block for _, block in blocks], 1)
