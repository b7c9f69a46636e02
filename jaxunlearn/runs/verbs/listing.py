"""The list of unlearning methods: sources, needs, costs and hyperparameters."""

import textwrap
from collections.abc import Callable

import numpy as np

from jaxunlearn import unlearn
from jaxunlearn.runs import experiments, splits
from jaxunlearn.runs.roles import variants
from jaxunlearn.runs.verbs import account
from jaxunlearn.settings import Settings
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.engine import costs

# Without a config: forget sets of 2 % of 50,000 rows, as in the published experiments, on a ResNet.
NOMINAL = costs.Sizes(1_000, 49_000, 10, 128)


def text(settings: Settings, with_data: bool) -> str:
    """Returns every requested method: name, description, source, needs, cost in retain-epochs, hyperparameters.

    Args:
      settings: their `unlearn` and `data.name` select methods and defaults.
      with_data: whether to compute costs for the configured split (loads the data); else for 1,000 of 50,000 rows.
    """
    variants.check_options(settings)
    sizes_of = _split_sizes(experiments.prepare(settings)) if with_data else _nominal_sizes
    first = sizes_of(unlearn.lookup(variants.EXACT).build())
    lines = [
        "cost = rows read, in passes over the retained rows "
        f"(here {first.forget:,} forgotten, {first.retain:,} retained)"
    ]
    names = list(variants.method_names(settings))
    if "all" in settings.unlearn.methods:
        names.append(variants.EXACT)
    for name in names:
        no_needs = "nothing" if registry.is_builtin(name) else "not declared"
        entry = unlearn.lookup(name)
        hyperparameters = variants.hyperparameters(settings, name)
        method = entry.build(**hyperparameters)
        cost = costs.retain_epochs(method, sizes_of(method))
        hyperparameter_text = ", ".join(f"{key}={_short(value)}" for key, value in hyperparameters.items())
        facts = f"{entry.source}; needs {', '.join(entry.needs) or no_needs}; cost {cost:.2f}; bn {method.bn}"
        lines += [f"{name}", *_indent(entry.about), *_indent(facts), *_indent(hyperparameter_text)]
    return "\n".join(lines)


def _nominal_sizes(method: unlearn.Method) -> costs.Sizes:
    return NOMINAL._replace(recalibrates=method.bn == "recalibrate")


def _split_sizes(experiment: experiments.Experiment) -> Callable[[unlearn.Method], costs.Sizes]:
    """Returns method -> sizes that its cost depends on, for the mean forget set of the configured split."""
    split = splits.draw(experiment)
    forget = int(np.asarray(split.forget).sum(1).mean())
    retain = len(np.asarray(split.target)) - forget
    has_batch_stats = account.network_has_batch_stats(experiment)
    return lambda method: account.sizes_of(experiment, method, forget, retain, has_batch_stats)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _indent(paragraph: str) -> list[str]:
    return textwrap.wrap(paragraph, 116, initial_indent="    ", subsequent_indent="      ")
