"""Populations without settings or a run folder: train M models on arrays, and ask them."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxunlearn import checks, errors, settings, trees
from jaxunlearn.population import executor, prediction, streams, training, user_inputs
from jaxunlearn.population.task import Network, Task, supervised
from jaxunlearn.population.user_inputs import Prepare

Tree = Any
EXPLODED = 1e9  # weights that no training means
PER_MODEL = ("learning_rate", "weight_decay")  # settings of the training that may differ between models
ARGUMENTS = ("membership", "key", "prepare", "member_ids", "mapping")  # of `fit`, next to the settings


def task_of(module: nn.Module, prepare: Prepare, recipe: settings.TrainSettings, example: np.ndarray) -> Task:
    """Builds the supervised task of a flax module that `num_outputs` has checked.

    Args:
      module: the network.
      prepare: see `fit`.
      recipe: how it is trained.
      example: [...] one row of the inputs.
    """
    return supervised(module, module, prepare, recipe, jax.ShapeDtypeStruct(example.shape, example.dtype))


def read_recipe(recipe: dict[str, Any], count: int) -> tuple[settings.TrainSettings, dict[str, np.ndarray]]:
    """Returns the settings of a training, and those values that may differ between the models.

    Args:
      recipe: settings by name, as for `fit`.
      count: M.

    Returns:
      The settings of all models, and name -> [M] float32 of those in `PER_MODEL`.

    Raises:
      ConfigError: an unknown name, wrong types or values, several values of another setting. ShapeError: another number
        of values than models.
    """
    refused = ("keep", "snapshots")  # of a run folder, below
    names = [field.name for field in dataclasses.fields(settings.TrainSettings) if field.name not in refused]
    defaults = settings.TrainSettings()
    for name, value in recipe.items():
        if name not in (*names, *refused):
            raise errors.ConfigError(
                f"unknown training setting {name!r}.{errors.nearest(name, [*names, *ARGUMENTS])} Known: "
                f"{', '.join(sorted(names))}."
            )
        if checks.is_several(value) and name not in PER_MODEL and not isinstance(getattr(defaults, name), tuple):
            raise errors.ConfigError(
                f"{name} = {value!r:.60}: only {' and '.join(PER_MODEL)} can differ between models; call fit once per "
                "value."
            )
    lists = {name: list(recipe[name]) for name in PER_MODEL if checks.is_several(recipe.get(name))}
    for name, values in lists.items():
        if len(values) != count:
            raise errors.ShapeError(f"{name} has {len(values)} values for M = {count} models: give one of each.")
        for value in values:
            settings.build(settings.TrainSettings, {name: value})
    train = settings.build(settings.TrainSettings, {**recipe, **{name: values[0] for name, values in lists.items()}})
    if train.keep == "best" or train.snapshots:
        raise errors.ConfigError("fit keeps the weights of the last epoch; leave keep and snapshots out.")
    constants = {
        name: np.asarray(lists.get(name, [getattr(train, name)] * count), np.float32) for name in PER_MODEL
    }  # fmt: skip
    return train, constants


def fit(
    module: nn.Module | Network,
    data: tuple[np.ndarray, np.ndarray],
    membership: np.ndarray,
    *,
    key: jax.Array,
    prepare: Prepare | None = None,
    member_ids: Sequence[int] | np.ndarray | None = None,
    mapping: executor.MemberMapping | str | None = None,
    **recipe: Any,
) -> Tree:
    """Trains M models of one architecture as one program, each on rows of its own.

    Args:
      module: flax linen module, called as `module.apply(variables, inputs, train=False, mask=None) -> logits [B, C]`;
        all of `jaxunlearn.models` are; or a `Network`, a module with its `prepare`.
      data: inputs [N, ...] as the network takes them (or as `prepare` does), labels [N] class numbers from 0.
      membership: [M, N] bool; model m trains on the rows where membership[m].
      key: PRNG key; model m's numbers depend on it, on the model's member id and rows, not on the other models.
      prepare: (raw inputs [B, ...], key, is_train) -> network inputs, such as normalisation and augmentation; without
        it inputs are cast to float32 (token ids stay int32). `logits` and `unlearn.run` need the same one.
      member_ids: [M] number of each model, from which its own key is derived; 0 to M - 1 if not given. Model 3 alone,
        with member_ids=[3], is the same as model 3 of the population.
      mapping: how models are mapped onto the device: "map" (one after another), "vmap" (side by side), or a
        `MemberMapping`; what suits the device if not given.
      **recipe: settings of the training by name, as in the section `train`: epochs=20, batch=64, learning_rate=0.1,
        optimizer="sgd" ... learning_rate and weight_decay may be lists of M values, one per model.

    Returns:
      Flax variables, every leaf with a leading M. A model whose loss stops being finite is frozen at that step; a
      warning names it, and its answers mean nothing.

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
    dataset = user_inputs.check_data(data)
    module, prepare = user_inputs.unpacked(module, prepare)
    membership = user_inputs.check_membership(membership, len(dataset.labels))
    example = np.asarray(dataset.inputs[0])
    checks.labels("labels", dataset.labels, user_inputs.num_outputs(module, prepare, example, is_trained=True))
    train, constants = read_recipe(recipe, len(membership))
    stream = streams.from_membership(membership)
    ids = user_inputs.as_member_ids(member_ids, len(membership))
    job = training.TrainingJob(
        task=task_of(module, prepare, train, example),
        streams={"train": stream},
        batches={"train": train.batch},
        member_ids=ids,
        key=user_inputs.check_key(key),
        constants=constants,
        steps=streams.steps_per_epoch(stream, train.batch),
    )
    *_, last = training.train(job, dataset, train.epochs, user_inputs.as_mapping(mapping))
    carry = training.host(last)
    variables = training.kept_variables(carry)
    warn_diverged(np.asarray(carry.diverged_at), variables, "learning_rate")
    return variables


def warn_diverged(diverged_at: np.ndarray, variables: Tree, rate: str = "") -> None:
    """Issues a warning that names the members whose loss stopped being finite, or is about to.

    Args:
      diverged_at: [M] step at which a member was frozen.
      variables: of the members; weights beyond `EXPLODED` count as diverged: no answer of such a network is finite.
      rate: the argument to be lowered; empty = there is none.
    """
    largest = [np.abs(np.asarray(leaf)).reshape(len(diverged_at), -1).max(1, initial=0.0)
               for leaf in jax.tree.leaves(variables)]  # fmt: skip
    is_diverged = (np.asarray(diverged_at) != training.NOT_DIVERGED) | ~(np.max(largest, 0) <= EXPLODED)
    diverged = np.flatnonzero(is_diverged)
    if len(diverged):
        warnings.warn(
            f"{len(diverged)} of {len(diverged_at)} models diverged ({user_inputs.some_models(diverged)}): the loss "
            f"stopped being finite, where training stops, or weights passed {EXPLODED:g}. Their answers mean nothing: "
            f"leave them out{f', or lower {rate}' if rate else ''}.",
            stacklevel=3,
        )


def logits(
    module: nn.Module | Network,
    variables: Tree,
    inputs: np.ndarray,
    *,
    prepare: Prepare | None = None,
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
      ConfigError: a module that cannot be called. ShapeError: no rows, variables of another network. DataError: inputs
        or models that are not finite. Finite models whose logits are not are named by a warning.

    Example:
      >>> import jax, numpy as np
      >>> import jaxunlearn as ju
      >>> network = ju.models.build(ju.settings.ModelSettings(name="logistic"), num_classes=2)
      >>> params = {"Dense_0": {"kernel": np.zeros((3, 4, 2), np.float32), "bias": np.zeros((3, 2), np.float32)}}
      >>> ju.population.logits(network, {"params": params}, np.ones((5, 4), np.float32)).shape  # 3 models, 5 rows
      (3, 5, 2)
    """
    inputs = user_inputs.as_inputs(inputs)
    module, prepare = user_inputs.unpacked(module, prepare)
    user_inputs.num_outputs(module, prepare, inputs[0])
    batch = checks.whole("batch", batch, low=1)
    task = task_of(module, prepare, settings.TrainSettings(), inputs[0])
    state = jax.eval_shape(task.init, jax.random.key(0))
    if user_inputs.num_models(variables, trees.join_variables(state.params, state.model_state)) is None:
        raise errors.ShapeError(
            "variables must have the same leading axis M in every leaf; add one to those of one model."
        )
    user_inputs.check_finite("variables", variables)
    blocks = prediction.predict(
        task, variables, inputs, np.arange(len(inputs)), user_inputs.as_mapping(mapping), batch=batch
    )
    logits = np.concatenate([block for _, block in blocks], 1)
    overflown = np.flatnonzero(~np.isfinite(logits).all((1, 2)))
    if len(overflown):
        warnings.warn(
            f"the logits of {len(overflown)} of {len(logits)} models ({user_inputs.some_models(overflown)}) are NaN or "
            "infinite: they diverged. Scores and audits refuse such logits; leave these models out.",
            stacklevel=2,
        )
    return logits
