"""The look of figures: colours that colour-blind readers can distinguish, and axes without decoration.

Lines differ by colour, dash and, where there are few points, marker, so that they can be distinguished in print too.
Figures are drawn at phone width (5 inches) with fonts that stay readable when a page scales them down. On a page, ink,
soft lines and paper follow the reader's dark or light setting; the colours of data are readable on both.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

INK, QUIET, PAPER = "#1f2937", "#9ca3af", "#ffffff"  # `page` replaces these; no other colour may be similar
ON_DARK, ON_LIGHT = "#fdfdfd", "#111827"  # text on bars: depends on the colour of the bar, not of the page
MEMBER, OTHER = "#c2410c", "#2563eb"
# Okabe and Ito's palette without yellow, which is too pale on white; its black is the ink of a page.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RETAINED, FORGOTTEN, UNCLEAR, SUPPRESSED = MEMBER, OTHER, "#cbd5e1", "#7c3aed"
WIDTH = 5.0
# Characters per line: of a figure's title, of the title of one of two panels, of the name of a bar, of an entry of a
# legend with one column, or with two.
TITLE, PANEL, NAME, ENTRY, HALF_ENTRY = 54, 27, 24, 40, 26


def wrap_text(text: str, columns: int) -> str:
    """Wraps text: between words if possible, else after `_ : / @ + ,`, else anywhere.

    Example:
      >>> from jaxunlearn.report import theme
      >>> theme.wrap_text("my_module:my_score", 10).splitlines()
      ['my_module:', 'my_score']
    """
    if len(text) <= columns:
        return text
    words = [word + " " for word in text.split()]
    fragments = [
        fragment[start : start + columns]
        for word in words
        for fragment in ([word] if len(word) <= columns + 1 else re.findall(r"[^_:/@+,]*[_:/@+,]+|[^_:/@+,]+", word))
        for start in range(0, len(fragment.rstrip()), columns)
    ]
    lines = [""]
    for fragment in fragments:
        if lines[-1] and len((lines[-1] + fragment).rstrip()) > columns:
            lines.append("")
        lines[-1] += fragment
    return "\n".join(line.rstrip() for line in lines)


def plot(title: str, height: float = 3.9, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """Makes a figure and its axes without decoration, with the title on the left.

    Args:
      title: wrapped if it is long.
      height: of the figure in inches, without further lines of the title.
      rows: of axes.
      columns: of axes.
      **options: of `Figure.subplots`.

    Returns:
      (figure, axes), the axes as `Figure.subplots` returns them.
    """
    from matplotlib.figure import Figure

    title = wrap_text(title, TITLE)
    height += 0.2 * title.count("\n")
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    for panel in np.ravel(axes):
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(QUIET)
        panel.tick_params(labelsize=9, colors=INK)
    figure.suptitle(title, color=INK, fontsize=11, x=0.01, ha="left")
    return figure, axes


def line_style(index: int, markers: bool = False) -> dict[str, Any]:
    """Returns the style of the line at an index of the legend; after eight, colours repeat with another dash."""
    num_colors = len(COLORS)
    dash = DASHES[(index + index // num_colors) % len(DASHES)]
    style = {"color": COLORS[index % num_colors], "ls": dash, "lw": 1.7}
    return {**style, "marker": MARKERS[index % len(MARKERS)], "ms": 4.5} if markers else style


def histogram(axes: Any, values: np.ndarray, edges: np.ndarray, color: str, label: str) -> None:
    """Draws a filled and outlined density histogram; two of them stay readable where they overlap.

    Args:
      axes: to draw on.
      values: [n].
      edges: [bins + 1].
      color: of area and outline.
      label: for the legend.
    """
    axes.hist(values, edges, density=True, histtype="stepfilled", alpha=0.25, color=color)
    axes.hist(values, edges, density=True, histtype="step", lw=1.3, color=color, label=label)


def legend(axes: Any, location: str = "best") -> None:
    """Adds a frameless legend inside the axes, or below the figure if a name is long; none without entries."""
    handles, names = axes.get_legend_handles_labels()
    if any(len(name) > ENTRY for name in names):
        figure = axes.figure
        num_lines = sum(1 + wrap_text(name, ENTRY).count("\n") for name in names)
        figure.set_figheight(figure.get_figheight() + 0.17 * num_lines)
        legend_below(figure, axes, columns=1)
    elif names:
        axes.legend(handles, names, frameon=False, fontsize=8.5, loc=location, handlelength=2.6)


def legend_below(figure: Any, axes: Any, columns: int = 2) -> None:
    """Adds a frameless legend of the axes' entries below the figure; none without entries."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        labels = [wrap_text(name, ENTRY if columns == 1 else HALF_ENTRY) for name in names]
        figure.legend(handles, labels, frameon=False, fontsize=8.5, ncols=columns, loc="outside lower left")


def bar_names(names: Sequence[str]) -> tuple[list[str], float]:
    """Returns the wrapped names of horizontal bars, and the extra height in inches that they need."""
    labels = [wrap_text(name, NAME) for name in names]
    return labels, 0.15 * max(0, max((name.count("\n") for name in labels), default=0) - 1) * len(labels)
