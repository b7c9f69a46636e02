"""Lists the lines of the study, and measures each once: finished lines are read from a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.scenarios import models, study
from tests.scenarios.models import Arrays
from tests.scenarios.study import Facts, Line
from tests.scenarios.worlds import FAMILIES, Family

REQUESTS = 24
TRIED = ("retrained", "again")  # what planning looks at
PLANNED = ("random", "hard")


class Preparation(NamedTuple):
    """Kinds of requests and further models that the lines of one family need."""

    kinds: tuple[str, ...]
    extras: tuple[str, ...] = ()
    shadows: int = models.FEWER_SHADOWS


PREPARATIONS = {
    "net": Preparation(
        ("random", "easy", "hard", "class", "mislabelled", "remembered", "person", "copies"),
        ("small", "narrow", "other", "own", "moved", "others", "reference"), models.MOST_SHADOWS,
    ),
    "forest": Preparation(("random", "easy", "hard", "remembered", "person"), ("other", "own", "others")),
    "digits": Preparation(("random", "easy", "person")),
    "logistic": Preparation(("random", "hard", "remembered"), ("others",)),
}  # fmt: skip

# family -> label -> line; the label says what differs from 20 shadows of the same kind.
MEASURED: dict[str, dict[str, Line]] = {
    "net": {
        **{kind: Line(kind, edits=kind in PLANNED, moved=kind in PLANNED) for kind in PREPARATIONS["net"].kinds},
        **{f"{kind}, 2 shadows": Line(kind, 2) for kind in ("random", "easy", "hard")},
        **{f"{kind}, other architecture": Line(kind, source="other") for kind in ("random", "easy", "hard")},
        **{f"{kind}, half the rows": Line(kind, source="small") for kind in ("random", "easy", "hard")},
        **{f"{kind}, half the width": Line(kind, source="narrow") for kind in ("random", "hard")},
        "random, own halves": Line("random", source="random/own"),
        "random, own halves, known": Line("random", source="random/own", knows_saw=True),
        **{f"{kind}, strict": Line(kind, is_strict=True) for kind in PLANNED},
    },
    "forest": {
        **{kind: Line(kind, edits=kind in PLANNED) for kind in PREPARATIONS["forest"].kinds},
        **{f"{kind}, 2 shadows": Line(kind, 2) for kind in ("random", "easy", "hard")},
        "easy, shallow shadows": Line("easy", source="other"),
        "random, own halves": Line("random", source="random/own"),
        **{f"{kind}, strict": Line(kind, is_strict=True) for kind in PLANNED},
    },
    "digits": {kind: Line(kind) for kind in PREPARATIONS["digits"].kinds},
    "logistic": {kind: Line(kind) for kind in PREPARATIONS["logistic"].kinds},
}
PLANNING: dict[str, dict[str, Line]] = {
    "shadows": {f"{n}": Line("", n) for n in (2, 5, 10, 20, 64)},
    "rows that no model saw": {f"{n}": Line("", population=n) for n in (40, 100, 300, 1000)},
    "retained rows": {f"{n}": Line("", retained=n) for n in (50, 100, 200, 570)},
}


def prepared(family: Family, cache: str, count: int = REQUESTS) -> Arrays:
    """Trains the models that the lines of one family need, or reads their answers."""
    kinds, extras, shadows = PREPARATIONS[family.name]
    return models.prepare(family, count, kinds, extras, shadows, cache)


def measured(
    family: Family, arrays: Arrays, label: str, line: Line, only: Sequence[str] = (), cache: str = ""
) -> dict[str, Facts]:  # fmt: skip
    """Runs one line, or reads its results."""
    name = f"{family.name}_{len(arrays['original'])}_{label}".replace(" ", "-").replace("/", "-").replace(",", "")
    path = Path(cache) / f"line_{name}.npz" if cache else None
    if path and path.exists():
        return _unflattened(dict(np.load(path)))
    facts_of = study.run(family, arrays, line, only)
    if path:
        flat_arrays = {
            f"{name}/{field}": getattr(facts, field) for name, facts in facts_of.items() for field in Facts._fields
        }
        np.savez(path, **flat_arrays)
    return facts_of


def _unflattened(flat: Arrays) -> dict[str, Facts]:
    names = dict.fromkeys(key.rsplit("/", 1)[0] for key in flat)
    return {name: Facts(*(flat[f"{name}/{field}"] for field in Facts._fields)) for name in names}


def every_line(cache: str, count: int = REQUESTS) -> Iterator[tuple[str, str, dict[str, Facts]]]:
    """Yields (family, label, facts) of all lines of the two measured tables."""
    for name, lines in MEASURED.items():
        arrays = prepared(FAMILIES[name], cache, count)
        for label, line in lines.items():
            yield name, label, measured(FAMILIES[name], arrays, label, line, cache=cache)


def planning(cache: str, count: int = REQUESTS) -> Iterator[tuple[str, str, str, dict[str, Facts]]]:
    """Yields (what is varied, how much, kind of request, facts), all of the network."""
    family = FAMILIES["net"]
    arrays = prepared(family, cache, count)
    for quantity, lines in PLANNING.items():
        for label, line in lines.items():
            for kind in PLANNED:
                usual = _usual(line._replace(kind=kind), family)
                name = f"planning {quantity} {label} {kind}" if usual != Line(kind) else f"planning usual {kind}"
                yield quantity, label, kind, measured(family, arrays, name, usual, TRIED, cache)


def _usual(line: Line, family: Family) -> Line:
    """Returns the line with 0 for "all" where it names as many rows as there are."""
    population = 0 if line.population == family.population else line.population
    return line._replace(
        population=population, retained=0 if line.retained == family.rows - family.request_size else line.retained
    )
