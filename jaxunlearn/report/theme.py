"""How the figures of an audit look: colours that colour-blind readers can tell apart, and axes without decoration.

Lines differ by colour, dash and, where there are few points, by marker, so that they can be told apart in print too.
Figures are drawn at phone width (5 inches) with type that stays readable when a page scales them down. On a page ink,
soft lines and paper follow the reader's setting, dark or light; the colours of data are readable on both.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

INK, QUIET, PAPER = "#1f2937", "#9ca3af", "#ffffff"  # `page` replaces these; nothing else may look like them
ON_DARK, ON_LIGHT = "#fdfdfd", "#111827"  # type on bars: it goes with the colour of the bar, not with the page's
MEMBER, OTHER = "#c2410c", "#2563eb"
# Okabe and Ito's palette, its yellow left out because it is too pale on white; its black is the ink of a page.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RETAINED, FORGOTTEN, UNCLEAR, SUPPRESSED = MEMBER, OTHER, "#cbd5e1", "#7c3aed"
WIDTH = 5.0
# Characters that fit into a line: of a title over the whole figure, over one of two panels, of a name beside a bar, of
# an entry of a legend that has one column, or two.
TITLE, PANEL, NAME, ENTRY, HALF_ENTRY = 54, 27, 24, 40, 26


def wrapped(text: str, columns: int) -> str:
    r"""Breaks text that is longer than a line: between words, then behind `_ : / @ + ,`, at last anywhere.

    Example: wrapped("my_module:my_score", 10) == "my_module:\nmy_score".
    """
    if len(text) <= columns:
        return text
    words = [word + " " for word in text.split()]
    parts = [
        part[start : start + columns]
        for word in words
        for part in ([word] if len(word) <= columns + 1 else re.findall(r"[^_:/@+,]*[_:/@+,]+|[^_:/@+,]+", word))
        for start in range(0, len(part.rstrip()), columns)
    ]
    lines = [""]
    for part in parts:
        if lines[-1] and len((lines[-1] + part).rstrip()) > columns:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def plot(title: str, height: float = 3.9, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes ([rows, columns] of them where there are several), tidied, title on the left."""
    from matplotlib.figure import Figure

    title = wrapped(title, TITLE)
    height += 0.2 * title.count("\n")
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


def legend(axes: Any, place: str = "best") -> None:
    """A frameless legend inside the axes, below the figure where a name is long; nothing where there is nothing."""
    handles, names = axes.get_legend_handles_labels()
    if any(len(name) > ENTRY for name in names):
        figure = axes.figure
        lines = sum(1 + wrapped(name, ENTRY).count("\n") for name in names)
        figure.set_figheight(figure.get_figheight() + 0.17 * lines)
        legend_below(figure, axes, columns=1)
    elif names:
        axes.legend(handles, names, frameon=False, fontsize=8.5, loc=place, handlelength=2.6)


def legend_below(figure: Any, axes: Any, columns: int = 2) -> None:
    """A frameless legend of the axes' entries under the whole figure; nothing where there is nothing to name."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        shown = [wrapped(name, ENTRY if columns == 1 else HALF_ENTRY) for name in names]
        figure.legend(handles, shown, frameon=False, fontsize=8.5, ncols=columns, loc="outside lower left")


def bar_names(names: Sequence[str]) -> tuple[list[str], float]:
    """Names beside horizontal bars, broken where they are long, and the inches that the further lines take."""
    shown = [wrapped(name, NAME) for name in names]
    return shown, 0.15 * max(0, max((name.count("\n") for name in shown), default=0) - 1) * len(shown)
