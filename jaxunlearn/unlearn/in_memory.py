"""A method on models in memory, without settings or a run folder."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxunlearn import checks, errors, trees
from jaxunlearn.population import MemberMapping, in_memory, user_inputs
from jaxunlearn.population.user_inputs import Prepare
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.base.entries import MethodEntry
from jaxunlearn.unlearn.base.method import Method
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.wrappers import wrappers

Tree = Any
Rows = Sequence[int] | np.ndarray
# Of `run`, next to the hyperparameters.
ARGUMENTS = ("forget", "key", "train", "validation", "prepare", "bn", "default_batch", "member_ids", "mapping")


def run(
    method: str | Callable[..., Method],
    network: nn.Module | Network,
    originals: Tree,
    data: tuple[np.ndarray, np.ndarray],
    *,
    forget: Rows | Sequence[Rows],
    key: jax.Array,
    train: Rows | Sequence[Rows] | None = None,
    validation: Rows = (),
    prepare: Prepare | None = None,
    bn: str = "auto",
    default_batch: int = 64,
    member_ids: Sequence[int] | np.ndarray | None = None,
    mapping: MemberMapping | str | None = None,
    **hyperparameters: Any,
) -> Tree:
    """Unlearns rows from trained models: all requests, and all values of a sweep, as one program.

    Args:
      method: a name of METHODS, with wrappers if wanted ("ssd", "finetune+conformal", "ssd+our",
        "my_module:my_method"), or a builder, a function of hyperparameters with defaults that returns a `Method`.
      network: flax module or `Network`, as for `population.fit`.
      originals: flax variables of ONE model, from which every request is unlearned; or of M models (a leading M), as
        `population.fit` returns them.
      data: inputs [N, ...] and labels [N], as for `population.fit`.
      forget: the rows to be forgotten, numbers from 0 to N - 1 or a mask [N] (bools, or 0 and 1); or M such requests,
        one per model.
      key: PRNG key.
      train: the rows that the originals were trained on, numbers or a mask; of M originals with rows of their own, M of
        them, such as the `membership` [M, N] of `population.fit`. Methods retain those that are not to be forgotten.
        WITHOUT IT EVERY ROW OF `data` BUT `validation` COUNTS AS TRAINED ON, and is retained.
      validation: held-out rows, for the methods that read some.
      prepare: as for `population.fit`: what the originals were trained with. Methods that augment do so, by is_train.
      bn: BatchNorm: "auto" (the method's choice), "frozen", "recalibrate", "faithful" or "first_epoch".
      default_batch: rows per step, where the method has no `batch` of its own.
      member_ids: [M] number of each model, from which its own key is derived. If not given: 0 to M - 1 over originals
        or requests; 0 for all values of a sweep over one original and one request, which share their random numbers
        and batches and differ in the value alone. A model is the same alone, with its own number, as among others.
      mapping: as for `population.fit`.
      **hyperparameters: of the method, by name; one whose default is a float may be a list of M values, one per
        model. "retrain" trains with values of its own (lr, epochs, ...): to retrain by the recipe of the originals,
        call `population.fit` on a membership without the rows.

    Returns:
      Flax variables of the unlearned models, every leaf with a leading M. A model whose loss stops being finite is
      frozen at that step; a warning names it, and its answers mean nothing.

    Raises:
      ConfigError: an unknown method or hyperparameter, rows that cannot be forgotten. ShapeError, DataError: arrays
        that do not fit, originals that are not finite.

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
    dataset = user_inputs.check_data(data)
    count, example = len(dataset.labels), np.asarray(dataset.inputs[0])
    module, prepare = user_inputs.unpacked(network, prepare)
    num_classes = user_inputs.num_outputs(module, prepare, example, is_trained=True)
    network = Network(module, prepare, jax.ShapeDtypeStruct(example.shape, example.dtype), num_classes)
    checks.labels("labels", dataset.labels, network.num_classes)
    checks.choice("bn", bn, ("auto", "frozen", "recalibrate", "faithful", "first_epoch"))
    default_batch = checks.whole("default_batch", default_batch, low=1)
    entry = entry_of(method)
    held_out = checks.rows("validation", validation, count)
    trained = [np.setdiff1d(np.arange(count), held_out)] if train is None else as_row_lists("train", train, count)
    requests = as_row_lists("forget", forget, count)
    values, width = check_hyperparameters(entry, hyperparameters)
    variables, members, num_originals = as_population(network, originals, max(len(requests), width))
    if len(requests) not in (1, members) or width not in (1, members):
        raise errors.ConfigError(
            f"{members} model(s), {len(requests)} request(s) and {width} value(s) of a hyperparameter do not fit "
            "together: give one of each, or as many as there are models."
        )
    is_sweep = num_originals == len(requests) == 1  # of one and the same, M times
    ids = user_inputs.as_member_ids(member_ids, members, np.zeros(members) if is_sweep else None)
    if len(trained) not in (1, num_originals):
        raise errors.ConfigError(
            f"train has rows for {len(trained)} models, but there are {num_originals} original(s): give rows for all "
            "of them, or for each."
        )
    check_requests(entry, requests, trained, held_out)
    requests, trained = (rows * members if len(rows) == 1 else rows for rows in (requests, trained))
    defaults = {name: value[0] for name, value in values.items()}
    is_builtin = isinstance(method, str) and registry.is_builtin(method)
    builder = wrappers.base_builder(entry.build)
    with checks.users_code(f"the method {getattr(builder, '__name__', builder)!r}", None if is_builtin else builder):
        for member in range(width):  # every value is checked
            registry.bind_hyperparameters(entry, {name: value[member % len(value)] for name, value in values.items()})
        build = registry.bind_hyperparameters(entry, defaults)
        check_trains(build({}), values)
        job = running.UnlearningJob(
            network=network,
            data=dataset,
            build=build,
            hyper={name: np.asarray(value, np.float64) for name, value in values.items() if len(value) > 1},
            originals=variables,
            forget=requests,
            retain=[np.setdiff1d(rows, request) for rows, request in zip(trained, requests, strict=True)],
            validation=held_out,
            member_ids=ids,
            submodel=np.zeros(members, np.int32),
            key=user_inputs.check_key(key),
            mapping=user_inputs.as_mapping(mapping),
            bn=bn,
            batch=default_batch,
        )
        if running.template(job).ensemble > 1:
            raise errors.ConfigError(
                f"{method!r} makes an ensemble, one network per part of the data, which only the command unlearn runs."
            )
        running.trace(job)
    *_, last = running.run(job)
    assert last.outcome is not None  # the last event has it
    in_memory.warn_diverged(last.outcome.diverged_at, last.outcome.variables, "lr" if "lr" in values else "")
    return last.outcome.variables


def entry_of(method: Any) -> MethodEntry:
    """Returns the table line of a method, or one for a user's builder.

    Raises:
      ConfigError: an unknown name, something that is neither a name nor a function, a method for texts only.
    """
    if not isinstance(method, str) and not callable(method):
        raise errors.ConfigError("method must be a name of METHODS, or a function that returns a Method.")
    if isinstance(method, str):
        base = method.partition(wrappers.SEPARATOR)[0].partition(wrappers.MID)[0]
        if ":" not in base and base not in registry.METHODS:
            raise errors.unknown("unlearning method", base, runnable())
    entry = registry.lookup(method) if isinstance(method, str) else MethodEntry(method, "", "yours", ())
    if "tokens" in entry.needs:
        raise errors.ConfigError(
            f"{method!r} is for texts, which are supported only by the commands (docs/language_models.md)."
        )
    return entry


def runnable() -> list[str]:
    """Returns the names of the methods that `run` can run: for rows with class labels, and without ensembles."""
    return [
        name
        for name, entry in registry.METHODS.items()
        if "tokens" not in entry.needs and entry.build(**registry.hyperparameters(entry)).ensemble == 1
    ]


def check_trains(method: Method, values: dict[str, list]) -> None:
    """Refuses numbers of epochs with which a method that trains would leave every model as it is.

    Args:
      method: with these values.
      values: of its hyperparameters, as from `check_hyperparameters`.

    Raises:
      ConfigError: no phase of training has an epoch, and none comes before them.
    """
    trainings = [phase for phase in method.phases if phase.gradient_steps]
    if not method.phases[0].gradient_steps or any(phase.epochs for phase in trainings):
        return
    names = [f"{name} = 0" for name, value in values.items() if "epochs" in name and value[0] == 0]
    raise errors.ConfigError(
        f"{' and '.join(names) or 'every phase has 0 epochs'}: the method would not train; give at least 1."
    )


def as_row_lists(name: str, values: Any, count: int) -> list[np.ndarray]:
    """Returns the row numbers of one or several models, from rows or masks, or from several of them.

    Args:
      name: of the argument, for the message.
      values: rows or a mask, or a list or [M, ...] array of them.
      count: N.

    Raises:
      DataError, ShapeError: as `checks.rows`; the message names which of several it is.
    """
    if isinstance(values, tuple) or getattr(values, "ndim", 0) > 1:
        values = list(values)
    is_several = isinstance(values, list) and any(
        isinstance(item, (list, tuple, range, set)) or getattr(item, "ndim", 0) > 0 for item in values
    )
    if not is_several:
        return [checks.rows(name, values, count)]
    return [checks.rows(f"{name}[{index}]", rows, count) for index, rows in enumerate(values)]


def check_requests(
    entry: MethodEntry, requests: list[np.ndarray], trained: list[np.ndarray], held_out: np.ndarray
) -> None:
    """Checks whether a method can work on requests.

    Args:
      entry: the method.
      requests: [n] rows to be forgotten, of all models or of each.
      trained: rows that the originals were trained on, likewise.
      held_out: rows that none of them was trained on.

    Raises:
      ConfigError: an empty request, rows that the originals were not trained on, rows that are trained on and held out,
        no retained or held-out rows for a method that reads them.
    """
    for index in range(max(len(requests), len(trained))):
        name = f"forget[{index}]" if len(requests) > 1 else "forget"
        model = f"original {index} was" if len(trained) > 1 else "the originals were"
        request, rows = requests[index % len(requests)], trained[index % len(trained)]
        if not len(request):
            raise errors.ConfigError(f"{name} is empty: name at least one row.")
        strange = np.setdiff1d(request, rows)
        if len(strange):
            raise errors.ConfigError(
                f"{name} contains row {strange[0]}, on which {model} not trained ({len(strange)} such row(s)); only "
                "trained rows can be forgotten."
            )
        both = np.intersect1d(rows, held_out)
        if len(both):
            raise errors.ConfigError(f"row {both[0]} is in train and in validation; rows are one or the other.")
        if "retain" in entry.needs and len(request) == len(rows):
            raise errors.ConfigError(f"{name} contains every trained row; this method needs rows that are kept.")
    if "validation" in entry.needs and not len(held_out):
        raise errors.ConfigError("this method reads held-out rows: name some by validation=.")


def as_population(network: Network, originals: Tree, requests: int) -> tuple[Tree, int, int]:
    """Gives variables a leading M: as many models as there are originals or requests.

    Args:
      network: whose variables they are.
      originals: variables of one model, or with a leading axis.
      requests: number of requests.

    Returns:
      The variables with a leading M, M, and the number of originals.

    Raises:
      ShapeError: variables of another network, or numbers of models and requests that do not fit together. DataError:
        weights that are not finite.
    """
    params, model_state = jax.eval_shape(lambda: networks.init(network, jax.random.key(0)))
    num_originals = user_inputs.num_models(originals, trees.join_variables(params, model_state))
    if num_originals is None:
        originals = jax.tree.map(lambda leaf: np.asarray(leaf)[None], originals)
    user_inputs.check_finite("originals", originals)
    if num_originals in (None, 1):
        return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), requests, 0), originals), requests, 1
    if requests not in (1, num_originals):
        raise errors.ShapeError(
            f"{num_originals} originals and {requests} requests or values: give one, or one per original."
        )
    return originals, num_originals, num_originals


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
            raise errors.ConfigError(
                f"unknown hyperparameter {name!r}.{errors.nearest(name, [*defaults, *ARGUMENTS])} Known: "
                f"{', '.join(sorted(defaults)) or 'none'}."
            )
        kind = type(defaults[name])
        if checks.is_several(value) and kind is float and len(value):
            values[name] = [_as_kind(name, number, float) for number in value]
        elif checks.is_several(value) and kind is not tuple:
            raise errors.ConfigError(
                f"hyperparameter {name} = {value!r:.60}: "
                + ("give at least one value." if kind is float else
                   "only float hyperparameters can be swept; call run once per value.")
            )  # fmt: skip
        else:
            values[name] = [_as_kind(name, value, kind)]
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
