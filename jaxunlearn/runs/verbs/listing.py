"""What there is and what it would take: the list of methods, and the plan of a dry run."""

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

# Without a config: forget sets of 2 % of 50,000 rows, the size of the published experiments, on a ResNet.
NOMINAL = costs.Sizes(1_000, 49_000, 10, 128)


def text(settings: Settings, with_data: bool) -> str:
    """Every method asked for: name, what it does, source, what it needs, cost in retain-epochs, hyperparameters.

    Args:
      settings: their `unlearn` and `data.name` say which methods and defaults.
      with_data: count the cost for the configured split (loads the data); else for 1,000 of 50,000 rows.
    """
    variants.check_options(settings)
    sizes_of = _sizes(experiments.prepare(settings)) if with_data else _nominal
    first = sizes_of(unlearn.lookup(variants.EXACT).build())
    lines = [
        "cost = rows read, in passes over the retained rows "
        f"(here {first.forget:,} forgotten, {first.retain:,} retained)"
    ]
    names = list(variants.names(settings))
    if "all" in settings.unlearn.methods:
        names.append(variants.EXACT)
    for name in names:
        nothing = "nothing" if registry.is_builtin(name) else "what it reads"
        entry = unlearn.lookup(name)
        chosen = variants.hyperparameters(settings, name)
        method = entry.build(**chosen)
        cost = costs.retain_epochs(method, sizes_of(method))
        given = ", ".join(f"{key}={_short(value)}" for key, value in chosen.items())
        facts = f"{entry.source}; needs {', '.join(entry.needs) or nothing}; cost {cost:.2f}; bn {method.bn}"
        lines += [f"{name}", *_indented(entry.about), *_indented(facts), *_indented(given)]
    return "\n".join(lines)


def _nominal(method: unlearn.Method) -> costs.Sizes:
    return NOMINAL._replace(recalibrates=method.bn == "recalibrate")


def _sizes(experiment: experiments.Experiment) -> Callable[[unlearn.Method], costs.Sizes]:
    """Method -> what its cost depends on, for the configured split's mean forget set."""
    split = splits.draw(experiment)
    forget = int(np.asarray(split.forget).sum(1).mean())
    retain = len(np.asarray(split.target)) - forget
    normed = account.has_statistics(experiment)
    return lambda method: account.sizes_of(experiment, method, forget, retain, normed)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _indented(said: str) -> list[str]:
    return textwrap.wrap(said, 116, initial_indent="    ", subsequent_indent="      ")
