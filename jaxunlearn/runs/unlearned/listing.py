"""What there is and what it would take: the list of methods, and the plan of a dry run."""

import textwrap
from collections.abc import Callable

import numpy as np

from jaxunlearn import progress, unlearn
from jaxunlearn.report import tables
from jaxunlearn.runs import splits, target_roles, workbench
from jaxunlearn.runs.unlearned import account, members, variants
from jaxunlearn.settings import Settings
from jaxunlearn.unlearn import costs, table

# Without a config: forget sets of 2 % of 50,000 rows, the size of the published experiments, on a ResNet.
NOMINAL = costs.Sizes(1_000, 49_000, 10, 128)


def text(settings: Settings, with_data: bool) -> str:
    """Every method asked for: name, what it does, source, what it needs, cost in retain-epochs, hyperparameters.

    Args:
      settings: their `unlearn` and `data.name` say which methods and defaults.
      with_data: count the cost for the configured split (loads the data); else for 1,000 of 50,000 rows.
    """
    variants.check_options(settings)
    sizes_of = _sizes(workbench.prepare(settings)) if with_data else _nominal
    first = sizes_of(unlearn.lookup(variants.EXACT).build())
    lines = [
        "cost = rows read, in passes over the retained rows "
        f"(here {first.forget:,} forgotten, {first.retain:,} retained)"
    ]
    names = list(variants.names(settings))
    if "all" in settings.unlearn.methods:
        names.append(variants.EXACT)
    for name in names:
        nothing = "nothing" if table.is_ours(name) else "what it reads"
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


def _sizes(bench: workbench.Workbench) -> Callable[[unlearn.Method], costs.Sizes]:
    """Method -> what its cost depends on, for the configured split's mean forget set."""
    split = splits.draw(bench)
    forget = int(np.asarray(split.forget).sum(1).mean())
    retain = len(np.asarray(split.target)) - forget
    normed = account.has_statistics(bench)
    return lambda method: account.sizes_of(bench, method, forget, retain, normed)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _indented(said: str) -> list[str]:
    return textwrap.wrap(said, 116, initial_indent="    ", subsequent_indent="      ")


def plan(bench: workbench.Workbench, asked: tuple[variants.Variant, ...]) -> str:
    """Members, cost and disk space of every variant; nothing is trained."""
    split = splits.draw(bench)
    sets = len(np.asarray(split.forget))
    sizes_of = _sizes(bench)
    rows, disk = [], 0
    for variant in asked:
        method = members.built(variant)
        size = target_roles.disk_bytes(members.describe(bench, split, variant, method)) * method.ensemble
        cost = costs.retain_epochs(method, sizes_of(method))
        disk += size
        said = f"{sets * method.ensemble} member(s), {cost:.2f} retain-epochs each, {progress.size(size)}"
        rows.append((variant.role, said))
    rows.append(("in all", f"about {progress.size(disk)}; shadows, originals, retrains come on top (launch.targets)"))
    files = [("files", "\n  logits/unlearned:METHOD.npy  populations/unlearned:METHOD/\n  unlearned.json")]
    return tables.pairs(rows + files)
