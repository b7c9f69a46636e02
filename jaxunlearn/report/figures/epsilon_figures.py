"""Figures of two populations of models told apart: medians against delta, and what they say of single samples."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.report import theme

MOST = 9


def against_delta(deltas: np.ndarray, lines: Mapping[str, np.ndarray]) -> Any:
    """Median epsilon-hat against delta, one line per approach; lower = better unlearning.

    Args:
      deltas: [D] in growing order.
      lines: approach -> [D] medians; NaN and infinite ones are left out.

    Raises:
      DataError: no line, or more than 9. ShapeError: lengths disagree.
    """
    if not 1 <= len(lines) <= MOST:
        raise errors.DataError(f"{len(lines)} lines for one figure: expected 1 to {MOST}. Choose the ones that matter.")
    figure, axes = theme.plot("Median epsilon-hat against delta", height=4.4)
    for place, (name, values) in enumerate(lines.items()):
        named: dict[str, Any] = {"deltas": deltas, name: values}
        checks.shape("D", **named)
        axes.plot(deltas, np.where(np.isfinite(values), values, np.nan), label=name, **theme.line(place))
    axes.axhline(0, color=theme.QUIET, lw=1, ls=":")
    axes.set(xlabel="delta", ylabel="epsilon-hat (higher = easier to tell apart)")
    theme.legend(axes)
    return figure


def densities(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], what: str, bins: int = 30) -> Any:
    """Histograms of a number over retrained and over unlearned models, one panel per sample.

    Args:
      panels: title -> ([Nr] retrained, [Nu] unlearned) finite values.
      what: the number, for the axis.
      bins: bars per panel.

    Raises:
      DataError: no panel, or values that are not finite.
    """
    if not panels:
        raise errors.DataError("no sample to draw. Name at least one.")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, grid = theme.plot(f"Retrained and unlearned models: {what}", 0.8 + 2.0 * rows, rows, columns, squeeze=False)
    places = np.ravel(grid)
    for axes, (name, pair) in zip(places, panels.items(), strict=False):
        both = np.concatenate([np.asarray(one, float) for one in pair])
        checks.finite(name, both, "N")
        edges = np.histogram_bin_edges(both, bins)
        for values, color, label in zip(
            pair, (theme.RETAINED, theme.FORGOTTEN), ("retrained", "unlearned"), strict=True
        ):
            theme.histogram(axes, values, edges, color, label)
        axes.set_title(theme.wrapped(name, theme.PANEL), fontsize=9, color=theme.INK, loc="left")
        axes.set_yticks([])
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    theme.legend_below(figure, places[0])
    return figure
