"""How the figures of an audit look: colours that colour-blind readers can tell apart, and axes without decoration.

Lines differ by colour, dash and, where there are few points, by marker, so that they can be told apart in print too.
Figures are drawn at phone width (5 inches) with type that stays readable when a page scales them down.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn.report.figures import INK, MEMBER, OTHER, QUIET

# Okabe and Ito's palette, its yellow left out because it is too pale on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RETAINED, FORGOTTEN, UNCLEAR, SUPPRESSED = MEMBER, OTHER, "#cbd5e1", "#7c3aed"
WIDTH = 5.0

__all__ = [
    "COLORS", "FORGOTTEN", "INK", "MARKERS", "QUIET", "RETAINED", "SUPPRESSED", "UNCLEAR", "WIDTH", "histogram",
    "legend", "line", "plot",
]  # fmt: skip


def plot(title: str, height: float = 3.9, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes ([rows, columns] of them where there are several), tidied, title on the left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    for one in np.ravel(axes):
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(QUIET)
        one.tick_params(labelsize=9, colors=INK)
    figure.suptitle(title, color=INK, fontsize=11, x=0.01, ha="left")
    return figure, axes


def line(place: int, markers: bool = False) -> dict[str, Any]:
    """How the line at this place of the legend is drawn; colours repeat after eight with another dash."""
    number = len(COLORS)
    dash = DASHES[(place + place // number) % len(DASHES)]
    style = {"color": COLORS[place % number], "ls": dash, "lw": 1.7}
    return {**style, "marker": MARKERS[place % len(MARKERS)], "ms": 4.5} if markers else style


def histogram(axes: Any, values: np.ndarray, edges: np.ndarray, color: str, label: str) -> None:
    """A filled and outlined density, so that two of them stay readable where they overlap."""
    axes.hist(values, edges, density=True, histtype="stepfilled", alpha=0.25, color=color)
    axes.hist(values, edges, density=True, histtype="step", lw=1.3, color=color, label=label)


def legend(axes: Any, entries: Sequence[Any] = (), place: str = "best") -> None:
    """A frameless legend inside the axes; nothing where there is nothing to name."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        axes.legend(list(entries) or handles, names, frameon=False, fontsize=8.5, loc=place, handlelength=2.6)
