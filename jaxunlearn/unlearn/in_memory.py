"""A method on models in memory, without settings or a run folder."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxunlearn import checks, errors, trees
from jaxunlearn.population import MemberMapping, in_memory
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.base.entries import MethodEntry
from jaxunlearn.unlearn.base.method import Method
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.wrappers import wrappers

Tree = Any
Rows = Sequence[int] | np.ndarray


def run(
    method: str | Callable[..., Method],
    network: nn.Module | Network,
    originals: Tree,
    data: tuple[np.ndarray, np.ndarray],
    *,
    forget: Rows | Sequence[Rows],
    key: jax.Array,
    train: Rows | None = None,
    validation: Rows = (),
    bn: str = "auto",
    default_batch: int = 64,
    mapping: MemberMapping | str | None = None,
    **hyperparameters: Any,
) -> Tree:
    """Unlearns rows from trained models: all requests, and all values of a sweep, as one program.

    Args:
      method: a name of METHODS, with wrappers if wanted ("ssd", "finetune+conformal", "ssd+our",
        "my_module:my_method"), or a builder, a function of hyperparameters with defaults that returns a `Method`.
      network: flax module, as for `population.fit`; or a `Network`, which knows how inputs are prepared.
      originals: flax variables of ONE model, from which every request is unlearned; or of M models (a leading M), as
        `population.fit` returns them.
      data: inputs [N, ...] and labels [N], as for `population.fit`.
      forget: the rows to be forgotten, numbers from 0 to N - 1 or a mask [N]; or M such requests, one per model.
      key: PRNG key.
      train: rows that the originals were trained on, numbers or a mask; all but `validation` if not given. Retained are
        those that are not to be forgotten.
      validation: held-out rows, for the methods that read some.
      bn: BatchNorm: "auto" (the method's choice), "frozen", "recalibrate", "faithful" or "first_epoch".
      default_batch: rows per step, where the method has no `batch` of its own.
      mapping: as for `population.fit`.
      **hyperparameters: of the method, by name; a float may be a list of M values, one per model. "retrain" trains with
        values of its own (lr, epochs, ...): to retrain by the recipe of the originals, call `population.fit` on a
        membership without the rows.

    Returns:
      Flax variables of the unlearned models, every leaf with a leading M.

    Raises:
      ConfigError: an unknown method or hyperparameter, rows that cannot be forgotten. ShapeError, DataError: arrays
        that
      do not fit.

    Example:
      >>> import jax, numpy as np
      >>> import jaxunlearn as ju
      >>> labels = np.arange(60) % 3
      >>> inputs = np.eye(3, dtype=np.float32)[labels]
      >>> network = ju.models.build(ju.settings.ModelSettings(name="logistic"), num_classes=3)
      >>> key = jax.random.key(0)
      >>> originals = ju.population.fit(network, (inputs, labels), np.ones((1, 60), bool), key=key, epochs=5, batch=15)
      >>> variables = ju.unlearn.run(
      ...     "ascent", network, originals, (inputs, labels), forget=np.arange(0, 9, 3), key=key, epochs=2, lr=0.5
      ... )
      >>> before, after = (ju.population.logits(network, models, inputs[:1]) for models in (originals, variables))
      >>> bool(after[0, 0, 0] < before[0, 0, 0])  # the label of row 0 is less likely than before
      True
    """
    dataset = in_memory.check_data(data)
    count, example = len(dataset.labels), np.asarray(dataset.inputs[0])
    network = network if isinstance(network, Network) else as_network(network, example)
    checks.labels("labels", dataset.labels, network.num_classes)
    checks.choice("bn", bn, ("auto", "frozen", "recalibrate", "faithful", "first_epoch"))
    checks.in_range("default_batch", default_batch, 1)
    entry = entry_of(method)
    held_out = as_rows("validation", validation, count)
    trained = np.setdiff1d(np.arange(count), held_out) if train is None else as_rows("train", train, count)
    requests = as_requests(forget, count)
    values, width = check_hyperparameters(entry, hyperparameters)
    variables, members = as_population(network, originals, max(len(requests), width))
    if len(requests) not in (1, members) or width not in (1, members):
        raise errors.ConfigError(
            f"{members} model(s), {len(requests)} request(s) and {width} value(s) of a hyperparameter do not fit "
            "together: give one of each, or as many as there are models."
        )
    requests = requests * members if len(requests) == 1 else requests
    for request in requests:
        check_request(entry, request, trained, held_out)
    defaults = {name: value[0] for name, value in values.items()}
    is_builtin = isinstance(method, str) and registry.is_builtin(method)
    builder = wrappers.base_builder(entry.build)
    with checks.users_code(f"the method {getattr(builder, '__name__', builder)!r}", None if is_builtin else builder):
        for member in range(width):  # every value is checked
            registry.bind_hyperparameters(entry, {name: value[member % len(value)] for name, value in values.items()})
        job = running.UnlearningJob(
            network=network,
            data=dataset,
            build=registry.bind_hyperparameters(entry, defaults),
            hyper={name: np.asarray(value, np.float64) for name, value in values.items() if len(value) > 1},
            originals=variables,
            forget=requests,
            retain=[np.setdiff1d(trained, request) for request in requests],
            validation=held_out,
            member_ids=np.arange(members, dtype=np.int32),
            submodel=np.zeros(members, np.int32),
            key=in_memory.check_key(key),
            mapping=in_memory.as_mapping(mapping),
            bn=bn,
            batch=default_batch,
            augment=False,
        )
        if running.template(job).ensemble > 1:
            raise errors.ConfigError("this method makes an ensemble; launch.unlearn runs it, and stores its parts.")
        running.trace(job)
    *_, last = running.run(job)
    assert last.outcome is not None  # the last event has it
    in_memory.warn_diverged(last.outcome.diverged_at, last.outcome.variables)
    return last.outcome.variables


def entry_of(method: Any) -> MethodEntry:
    """Returns the table line of a method, or one for a user's builder.

    Raises:
      ConfigError: an unknown name, something that is neither a name nor a function, a method for texts only.
    """
    if not isinstance(method, str) and not callable(method):
        raise errors.ConfigError("method must be a name of METHODS, or a function that returns a Method.")
    entry = registry.lookup(method) if isinstance(method, str) else MethodEntry(method, "", "yours", ())
    if "tokens" in entry.needs:
        raise errors.ConfigError(
            f"{method!r} is for texts, which are supported only by the commands (docs/language_models.md)."
        )
    return entry


def as_network(module: nn.Module, example: np.ndarray) -> Network:
    """Makes a `Network` of a flax module whose inputs need no preparation.

    Args:
      module: as for `population.fit`.
      example: [...] one row of the inputs.

    Raises:
      ConfigError: the module cannot be called on such rows.
    """
    num_classes = in_memory.num_outputs(module, in_memory.as_float, example)
    return Network(module, in_memory.as_float, jax.ShapeDtypeStruct(example.shape, example.dtype), num_classes)


def as_rows(name: str, rows: Rows, count: int) -> np.ndarray:
    """Returns sorted int32 row numbers, from numbers or from a mask [N].

    Args:
      name: what an error calls them.
      rows: numbers within 0 .. count - 1, or [count] bool.
      count: N.

    Raises:
      DataError: numbers out of range or twice. ShapeError: a mask of another length, more than one axis.
    """
    try:
        array = np.asarray(rows)
    except ValueError as error:
        raise errors.ShapeError(f"{name} must be row numbers [n] or a mask [N]: lists of unequal length.") from error
    if array.dtype == bool:
        if array.shape != (count,):
            raise errors.ShapeError(f"{name}: a mask must be [N] with N = {count} rows of data, not {array.shape}.")
        return np.flatnonzero(array).astype(np.int32)
    if array.ndim != 1:
        raise errors.ShapeError(f"{name} must be row numbers [n] or a mask [N], not an array of shape {array.shape}.")
    if len(array) and not np.issubdtype(array.dtype, np.integer):
        raise errors.DataError(f"{name} must be whole row numbers, not {array.dtype}.")
    if len(array) and (array.min() < 0 or array.max() >= count):
        raise errors.DataError(f"{name} contains row {array.max() if array.min() >= 0 else array.min()}; rows are 0 to "
                               f"{count - 1}.")  # fmt: skip
    if len(np.unique(array)) < len(array):
        raise errors.DataError(f"{name} contains a row twice.")
    return np.sort(array).astype(np.int32)


def as_requests(forget: Any, count: int) -> list[np.ndarray]:
    """Returns M requests, from one or several lists of rows or masks.

    Raises:
      DataError, ShapeError: as `as_rows`; no request.
    """
    if hasattr(forget, "ndim"):
        forget = np.asarray(forget)
        requests = list(forget) if forget.ndim == 2 else [forget]
    else:
        is_several = isinstance(forget, (list, tuple)) and len(forget) > 0 and np.ndim(forget[0]) == 1
        requests = list(forget) if is_several else [forget]
    return [as_rows("forget", request, count) for request in requests]


def check_request(entry: MethodEntry, request: np.ndarray, trained: np.ndarray, held_out: np.ndarray) -> None:
    """Checks whether a method can work on a request.

    Args:
      entry: the method.
      request: [n] rows to be forgotten.
      trained: rows that the originals were trained on.
      held_out: rows that they were not.

    Raises:
      ConfigError: an empty request, rows that the originals were not trained on, rows that are trained on and held out,
        no retained or held-out rows for a method that reads them.
    """
    if not len(request):
        raise errors.ConfigError("forget is empty: name at least one row.")
    strange = np.setdiff1d(request, trained)
    if len(strange):
        raise errors.ConfigError(
            f"forget contains row {strange[0]}, on which the originals were not trained; only trained rows can be "
            "forgotten."
        )
    both = np.intersect1d(trained, held_out)
    if len(both):
        raise errors.ConfigError(f"row {both[0]} is in train and in validation; rows are one or the other.")
    if "retain" in entry.needs and len(request) == len(trained):
        raise errors.ConfigError("forget contains every trained row; this method needs rows that are kept.")
    if "validation" in entry.needs and not len(held_out):
        raise errors.ConfigError("this method reads held-out rows: name some by validation=.")


def as_population(network: Network, originals: Tree, requests: int) -> tuple[Tree, int]:
    """Gives variables a leading M: as many models as there are originals or requests.

    Args:
      network: whose variables they are.
      originals: variables of one model, or with a leading axis.
      requests: number of requests.

    Returns:
      The variables with a leading M, and M.

    Raises:
      ShapeError: variables of another network, or numbers of models and requests that do not fit together.
    """
    shapes = jax.eval_shape(lambda: trees.join_variables(*networks.init(network, jax.random.key(0))))
    members = in_memory.num_models(originals, shapes)
    if members is None:
        return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], requests, 0), originals), requests
    if members == 1:
        return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), requests, 0), originals), requests
    if requests not in (1, members):
        raise errors.ShapeError(
            f"{members} originals and {requests} requests or values: give one, or one per original."
        )
    return originals, members


def check_hyperparameters(entry: MethodEntry, hyperparameters: dict[str, Any]) -> tuple[dict[str, list], int]:
    """Completes hyperparameters by their defaults, each as the values of the models.

    Args:
      entry: the method.
      hyperparameters: name -> value; of a hyperparameter whose default is a float also a list of floats, one per model.

    Returns:
      name -> [value], or the M values; and M, 1 where no hyperparameter has several values.

    Raises:
      ConfigError: an unknown name, a value of another type than the default, lists of different lengths.
    """
    defaults = registry.hyperparameters(entry)
    values: dict[str, list] = {name: [default] for name, default in defaults.items()}
    for name, value in hyperparameters.items():
        if name not in defaults:
            raise errors.unknown("hyperparameter", name, defaults)
        is_several = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1
        if is_several and isinstance(defaults[name], float) and len(value):
            values[name] = [_as_kind(name, number, float) for number in value]
        else:
            values[name] = [_as_kind(name, value, type(defaults[name]))]
    lengths = {len(value) for value in values.values()} - {1}
    if len(lengths) > 1:
        raise errors.ConfigError(f"hyperparameters have different numbers of values: {sorted(lengths)}.")
    return values, max(lengths, default=1)


def _as_kind(name: str, value: Any, kind: type) -> Any:
    if getattr(value, "ndim", None) == 0:  # numbers of NumPy and JAX
        value = value.item()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and is_number:
        return float(value)
    if kind is int and is_number and float(value).is_integer():
        return int(value)
    if kind is tuple and isinstance(value, (list, tuple)):
        return tuple(value)
    if type(value) is kind and kind in (bool, str):
        return value
    raise errors.ConfigError(f"hyperparameter {name} = {value!r:.60}: expected {kind.__name__}.")
