"""The registry of unlearning methods, and how hyperparameters reach a builder.

To add one: a builder in its family file, and one line in `METHODS` (for language models: in `language_table.py`).
`my_module:my_method` works wherever a name does.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxunlearn import checks, errors, settings
from jaxunlearn.unlearn.base.entries import COMPATS, MethodEntry
from jaxunlearn.unlearn.base.method import Method
from jaxunlearn.unlearn.language import language_table
from jaxunlearn.unlearn.methods import (
    arithmetic,
    boundary,
    descent,
    exact,
    forsaken,
    pruning,
    relabelling,
    replay,
    saliency,
    sparsity,
    teachers,
    unsir,
)
from jaxunlearn.unlearn.methods.importance import codec, dampening, fisher, influence
from jaxunlearn.unlearn.wrappers import wrappers

WRAPPERS_NEED = {
    "conformal": ("validation", "classes"),
    "our": ("retain",),
    "orthogonal": ("retain", "classes"),
    "salient": (),
}
# Hyperparameters of built-in methods that are fractions; all their numbers are at least 0.
SHARES = ("fraction", "quantile", "share", "sparsity", "tolerance", "momentum")


_BOTH = ("forget", "retain")

METHODS: dict[str, MethodEntry] = {
    "retrain": MethodEntry(
        exact.retrain, "a new network on the retained samples: the exact answer", "exact", ("retain",)
    ),
    "sisa": MethodEntry(
        exact.sisa, "one new network per shard of the data, slice by slice; probabilities are averaged",
        "Bourtoule et al. 2021", ("retain", "classes"),
    ),
    "finetune": MethodEntry(
        descent.finetune, "trains on the retained samples alone", "IAM; conformal FT", ("retain",),
        {"cifar20": {"lr": 0.025, "epochs": 10, "schedule": "overshooting", "milestones": (6,), "factor": 0.8}},
    ),
    "cf_k": MethodEntry(
        descent.cf_k, "trains the last k layers on the retained samples, the others frozen", "Goel et al. 2022",
        ("retain",),
    ),
    "eu_k": MethodEntry(
        descent.eu_k, "reinitialises the last k layers and trains them on the retained samples", "Goel et al. 2022",
        ("retain",),
    ),
    "ascent": MethodEntry(
        descent.ascent, "climbs the loss of the forget set", "IAM; conformal GA", ("forget",),
        {"digits": {"lr": 0.03}},  # the published 0.01 hardly moves so small a network; 0.03 destroys larger ones
    ),
    "negrad_plus": MethodEntry(
        descent.negrad_plus, "descends on retained samples and climbs on those to forget", "Over-Unlearning and Replay",
        _BOTH,
        {"cifar10": {"lr": 0.04, "epochs": 8, "alpha": 0.7, "l2": 0.07}, "cifar100": {"lr": 0.005, "l2": 0.095},
         "cifar20": {"lr": 0.01, "epochs": 2}},
    ),
    "random_label": MethodEntry(
        relabelling.random_label, "trains on the forget set with random wrong labels, and on the retained samples",
        "conformal RL; SalUn's baseline", (*_BOTH, "labels"),
        {"cifar10": {"lr": 0.01, "epochs": 10, "order": "sequential", "fresh": True}},
    ),
    "amnesiac": MethodEntry(
        relabelling.amnesiac, "random wrong labels, drawn once, with Adam", "Graves et al. 2021", (*_BOTH, "labels"),
        {name: {"lr": 1e-4, "batch": 128} for name in ("cifar10", "cifar20", "cifar100")},
    ),
    "relabel": MethodEntry(
        relabelling.relabel, "new random labels every epoch, forget set first, then the retained, with Adam",
        "Over-Unlearning and Replay", (*_BOTH, "labels"),
        {"cifar10": {"lr": 6.5e-4, "batch": 256}, "cifar20": {"lr": 8.5e-4, "epochs": 8, "batch": 256}},
    ),
    "poison": MethodEntry(
        relabelling.poison, "trains on the forget set alone with labels drawn from all classes",
        "Forget with precision", ("forget", "labels"), {"cifar10": {"lr": 7e-4, "batch": 128}},
    ),
    "poison_full": MethodEntry(
        relabelling.poison_full, "trains on retained samples followed by the poisoned forget set",
        "Forget with precision", (*_BOTH, "labels"), {"cifar10": {"lr": 2e-3, "batch": 128}},
    ),
    "hybrid": MethodEntry(
        relabelling.hybrid, "poisons, then fine-tunes on the retained samples", "Forget with precision",
        (*_BOTH, "labels"), {"cifar10": {"lr": 1e-2, "lr_repair": 1e-3, "batch": 128}},
    ),
    "bad_teacher": MethodEntry(
        teachers.bad_teacher, "a random network teaches the forget set, the original the retained samples",
        "Chundawat et al. 2023", _BOTH,
        {"cifar10": {"lr": 1e-4, "share": 0.0}, "cifar20": {"lr": 1e-4, "batch": 256}, "cifar100": {"lr": 1e-4}},
    ),
    "scrub": MethodEntry(
        teachers.scrub, "away from the original on the forget set, towards it on the retained", "Kurmanji et al. 2023",
        _BOTH,
        {"cifar10": {"lr": 4e-4, "epochs": 7, "msteps": 2, "milestones": (3, 5, 9), "batch": 256},
         "cifar20": {"lr": 4e-4, "epochs": 10, "msteps": 2, "milestones": (3, 5, 9), "batch": 256},
         "cifar100": {"lr": 1e-4, "epochs": 9, "msteps": 2, "milestones": (3, 5, 9), "batch": 64}},
    ),
    "unsir": MethodEntry(
        unsir.unsir, "impairs the forgotten classes by learned noise, then repairs", "Tarun et al. 2023",
        (*_BOTH, "statistics", "classes"),
        {name: {"lr": 1e-4, "lr_repair": 1e-4, "batch": 32, "batch_repair": 128}
         for name in ("cifar10", "cifar20", "cifar100")},
    ),
    "boundary_shrink": MethodEntry(
        boundary.boundary_shrink, "moves the forget set to the nearest wrong class", "Chen et al. 2023",
        ("forget", "labels", "statistics", "classes"),
        {"cifar10": {"lr": 1e-5, "epochs": 10, "bound": 0.1, "mean": (0.4914, 0.4822, 0.4465),
                     "std": (0.247, 0.2435, 0.2616)},
         "cifar100": {"lr": 1e-5, "epochs": 10, "bound": 0.01, "mean": (0.5071, 0.4866, 0.4409),
                      "std": (0.2673, 0.2564, 0.2762)}},
    ),
    "boundary_expand": MethodEntry(
        boundary.boundary_expand, "moves the forget set to an additional class that is then dropped",
        "Chen et al. 2023", ("forget", "labels", "classes"),
        {name: {"lr": 1e-5, "epochs": 10} for name in ("cifar10", "cifar100", "cinic10", "purchase100")},
    ),
    "l1_sparse": MethodEntry(
        sparsity.l1_sparse, "fine-tunes with a falling L1 penalty", "Jia et al. 2023", ("retain",),
        {"cifar10": {"epochs": 10}},
    ),
    "ft_prune": MethodEntry(
        sparsity.ft_prune, "prunes small weights (optional), then fine-tunes with a falling L1 penalty",
        "Over-Unlearning and Replay; Jia et al. 2023", ("retain",),
        {"cifar10": {"lr": 0.008, "epochs": 10, "warmup": 6}, "cifar100": {"lr": 0.005, "epochs": 10},
         "cifar20": {"lr": 0.01, "epochs": 10}},
    ),
    "influence": MethodEntry(
        influence.influence, "one Newton step by the Fisher information of the retained samples (IU, WoodFisher)",
        "Izzo et al. 2021; OPTML wfisher", (*_BOTH, "statistics"),
        {"cifar20": {"alpha": 50.0, "recursion": "rank_one"}, "cifar10": {"alpha": 130.0, "recursion": "rank_one"}},
    ),
    "fisher": MethodEntry(
        fisher.fisher, "noise where the retained samples do not need the weights; wipes removed classes",
        "Golatkar et al. 2020", (*_BOTH, "statistics"),
        {name: {"alpha": 1e-9, "kind": "empirical"} for name in ("cifar10", "cifar100", "cinic10", "purchase100")},
    ),
    "ntk": MethodEntry(
        influence.ntk, "scrubs by the linearised difference of trainings with and without the forget set",
        "Golatkar et al. 2020", (*_BOTH, "statistics", "classes"),
        {"cifar20": {"alpha": 1.0}},
    ),
    "ssd": MethodEntry(
        dampening.ssd, "scales down parameters that matter more to the forget set than to all data",
        "Foster et al. 2024", (*_BOTH, "statistics"),
        {name: {"alpha": alpha, "clip": 1.0, "batch": 128}
         for name, alpha in {"cifar10": 60.0, "cifar100": 60.0, "cinic10": 10.0, "purchase100": 10.0}.items()},
    ),
    "lfssd": MethodEntry(
        dampening.lfssd, "SSD without labels, by the gradient of the squared logits", "Foster et al. 2024",
        (*_BOTH, "statistics"),
    ),
    "salun": MethodEntry(
        saliency.salun, "random labels, moving only the weights that matter most to the forget set", "Fan et al. 2024",
        (*_BOTH, "labels", "statistics"),
        {"cifar10": {"form": "sequential", "lr": 0.013, "epochs": 10},
         "cifar100": {"form": "adam", "lr": 4e-4, "epochs": 3}, "cifar20": {"form": "adam", "lr": 2.8e-4}},
    ),
    "sfron": MethodEntry(
        saliency.sfron, "masked, weighted ascent on the forget set in turn with descent on the retained",
        "Huang et al. 2024", (*_BOTH, "statistics"), {"cifar10": {"iterations": 3000, "epochs": 20, "clip": 7.0}},
    ),
    "sfron_plain": MethodEntry(
        saliency.sfron_plain, "SFRon as plain SGD under a saliency mask, without weights, cosine and clipping",
        "Over-Unlearning and Replay", (*_BOTH, "statistics"),
        {"cifar10": {"lr": 0.035, "epochs": 8, "every": 5}, "cifar100": {"lr": 0.001, "epochs": 8, "every": 5}},
    ),
    "rum": MethodEntry(
        saliency.rum, "fine-tunes, then SalUn on the third of the forget set that is memorised most",
        "Zhao et al. 2024", (*_BOTH, "labels", "statistics", "classes"),
        {"cifar10": {"lr": 0.12, "lr_relabel": 5e-4}, "cifar100": {"lr_relabel": 3e-4}},
    ),
    "l_codec": MethodEntry(
        codec.l_codec, "Newton removal step on the channels that explain the forget set's loss", "Mehta et al. 2022",
        (*_BOTH, "statistics", "classes"),
    ),
    "forsaken": MethodEntry(
        forsaken.forsaken, "learns a step that makes the mean output on the forget set that on held-out rows",
        "Ma et al. 2022",
        ("forget", "validation", "statistics", "classes"),
    ),
    "random_perturb": MethodEntry(
        forsaken.random_perturb, "adds noise to every parameter, independent of the forget set: a control",
        "IAM's Forsaken as coded", (),
    ),
    "deltagrad": MethodEntry(
        replay.deltagrad, "replays its own training without the forget set, with L-BFGS corrections",
        "Wu et al. 2020", _BOTH,
    ),
    "task_vector": MethodEntry(
        arithmetic.task_vector, "fine-tunes a copy on the forget set and goes the other way",
        "Ilharco et al. 2023", ("forget",),
    ),
    "prune": MethodEntry(
        pruning.prune, "reinitialises the weights that the forget set moved least, then fine-tunes",
        "Forget with precision", _BOTH, {"cifar10": {"lr": 1e-3, "batch": 128}},
    ),
    "prune_last_layer": MethodEntry(
        pruning.prune_last_layer, "prune in the last layer alone", "Forget with precision", _BOTH,
        {"cifar10": {"lr": 1e-3, "batch": 128}},
    ),
    "prune_complex": MethodEntry(
        pruning.prune_complex, "reinitialises weights that neither the forget nor some retained rows moved",
        "Forget with precision", _BOTH, {"cifar10": {"lr": 1e-3, "fraction": 0.02, "batch": 128}},
    ),
    "activation_reset": MethodEntry(
        pruning.activation_reset, "reinitialises the kernels that the forget set excites most, then fine-tunes",
        "Forget with precision", (*_BOTH, "statistics", "classes"),
        {"cifar10": {"lr": 1e-3, "fraction": 0.02, "batch": 128}},
    ),
    **language_table.METHODS,
}  # fmt: skip


def lookup(name: str) -> MethodEntry:
    """Returns the entry of a method's name, or of a user's own builder `my_module:my_method`, with its wrappers.

    Raises:
      ConfigError: no such method or wrapper (the message names the nearest one), module or function.

    Example:
      >>> from jaxunlearn import unlearn
      >>> unlearn.lookup("finetune+salient").needs
      ('retain', 'forget')
    """
    base, chain = wrappers.split(name)
    if ":" not in base:
        if base not in METHODS:
            raise errors.unknown("unlearning method", base, METHODS)
        entry = METHODS[base]
    else:
        build = checks.lookup("unlearning method", base, {})
        about = (inspect.getdoc(build) or base).splitlines()[0]
        entry = MethodEntry(build, about, "yours", ())
    for wrapper in chain:
        summary = (inspect.getdoc(wrappers.WRAPPERS[wrapper]) or wrapper).splitlines()[0]
        about = f"{entry.about}; wrapped: {summary}"
        needs = tuple(dict.fromkeys((*entry.needs, "forget", *WRAPPERS_NEED[wrapper])))
        # A wrapper that replaces the method has no use for its published values.
        replacement = wrappers.INSTEAD.get(wrapper, {}).get(entry.build)
        published = entry.published if replacement is None else {"digits": replacement.digits}
        entry = entry._replace(
            build=wrappers.wrap_builder(entry.build, wrapper), about=about, needs=needs, published=published
        )
    if name.endswith(wrappers.MID):
        entry = entry._replace(
            build=wrappers.mid_builder(entry.build, chain), about=f"{entry.about}; before its Replay"
        )
    return entry


def is_builtin(name: str) -> bool:
    """Returns whether the method of a name, wrapped or not, is one of `METHODS`."""
    return wrappers.split(name)[0] in METHODS


def hyperparameters(entry: MethodEntry | str, dataset: str = "") -> dict[str, Any]:
    """Returns names and default values of a builder's arguments, with those published for the data set.

    Args:
      entry: of the table, or the name of a method.
      dataset: name of a data set; empty = the defaults.

    Raises:
      ConfigError: an argument without a default, or whose default a command line cannot express.

    Example:
      >>> from jaxunlearn import unlearn
      >>> unlearn.hyperparameters("task_vector")["alpha"]
      1.0
      >>> unlearn.hyperparameters("ascent", "digits")["lr"]
      0.03
    """
    entry = lookup(entry) if isinstance(entry, str) else entry
    defaults: dict[str, Any] = {}
    for name, parameter in inspect.signature(entry.build).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            raise errors.ConfigError(
                f"argument {name!r} of {entry.build.__name__} has no default; every hyperparameter needs one."
            )
        if not isinstance(parameter.default, bool | int | float | str | tuple):
            raise errors.ConfigError(
                f"argument {name!r} of {entry.build.__name__} has the default {parameter.default!r}; hyperparameters "
                "are numbers, bools, words or tuples of numbers."
            )
        defaults[name] = parameter.default
    return {**defaults, **entry.published.get(dataset, {})}


def bind_hyperparameters(entry: MethodEntry, values: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Method]:
    """Returns {name: number} -> Method, with `values` for all other hyperparameters.

    Raises:
      ConfigError: values out of range, an unknown `compat`; the builder does not return a Method, or returns one with
        negative numbers of epochs or rows.
    """
    _check_values(entry, values)
    method = entry.build(**values)
    if not isinstance(method, Method):
        raise errors.ConfigError(
            f"{entry.build.__name__} returned {type(method).__name__}, expected an unlearn.Method."
        )
    _check_phases(entry, method)

    def build(hyper: Mapping[str, Any]) -> Method:
        return entry.build(**{**values, **hyper})

    return build


def _check_values(entry: MethodEntry, values: Mapping[str, Any]) -> None:
    in_table = any(wrappers.base_builder(entry.build) is builtin.build for builtin in METHODS.values())
    if in_table and "compat" in values:
        checks.choice("compat", values["compat"], COMPATS)
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if not math.isfinite(number):
                raise errors.ConfigError(f"hyperparameter {name} = {number}: expected a finite number.")
            if in_table:
                high = 1 if name in SHARES else settings.MAX_EPOCHS if "epochs" in name else None
                checks.in_range(f"hyperparameter {name}", number, 0, high)


def _check_phases(entry: MethodEntry, method: Method) -> None:
    def need(quantity: str, value: int, low: int) -> None:
        if value < low:
            raise errors.ConfigError(f"{entry.build.__name__} has {quantity} = {value}: must be at least {low}.")

    need("ensemble", method.ensemble, 1)
    need("phases", len(method.phases), 1)
    for phase in method.phases:
        need("epochs", phase.epochs, 0)
        need("max_steps", phase.max_steps, 0)
        for step in phase.gradient_steps:
            need("interval", step.interval, 1)
        estimates = (*phase.estimates.values(), *phase.every_epoch.values())
        for specs in (phase.stream_specs, *(estimate.stream_specs for estimate in estimates)):
            for spec in specs.values():
                need("rows per batch", spec.batch, 0)


def swept(entry: MethodEntry, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the hyperparameters that may differ between members: those whose default is a float."""
    defaults = hyperparameters(entry)
    return tuple(name for name in values if isinstance(defaults.get(name), float))


def parse_hyperparameter(entry: MethodEntry, name: str, text: str) -> Any:
    """Parses the value of hyperparameter `name` from a command line, with the type of its default.

    Raises:
      ConfigError: no such hyperparameter, or a value of another type.
    """
    defaults = hyperparameters(entry)
    if name not in defaults:
        raise errors.unknown("hyperparameter", name, defaults)
    kind = type(defaults[name])
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if kind is tuple:
            return tuple(int(item) if item.lstrip("-").isdigit() else float(item) for item in text.split(";") if item)
        return kind(text)
    except (KeyError, ValueError) as error:
        raise errors.ConfigError(f"hyperparameter {name} = {text!r}: expected {kind.__name__}.") from error
