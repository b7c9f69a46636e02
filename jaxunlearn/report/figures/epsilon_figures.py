"""Figures of epsilon-hat: medians against delta, and the distributions of single samples."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.report import theme

MOST = 9


def against_delta(deltas: np.ndarray, lines: Mapping[str, np.ndarray]) -> Any:
    """Draws median epsilon-hat against delta, one line per approach; lower = better unlearning.

    Args:
      deltas: [D], ascending.
      lines: approach -> [D] medians; NaN and infinite values are left out.

    Raises:
      DataError: no line, or more than 9. ShapeError: lengths disagree.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.report.figures import epsilon_figures
      >>> figure = epsilon_figures.against_delta(np.array([0.0, 0.1]), {"ssd": np.array([2.5, 1.5])})
      >>> figure.axes[0].get_xlabel()
      'delta'
    """
    if not 1 <= len(lines) <= MOST:
        raise errors.DataError(f"{len(lines)} lines for one figure: expected 1 to {MOST}. Choose the ones that matter.")
    figure, axes = theme.plot("Median epsilon-hat against delta", height=4.4)
    for index, (name, values) in enumerate(lines.items()):
        arrays: dict[str, Any] = {"deltas": deltas, name: values}
        checks.shape("D", **arrays)
        axes.plot(deltas, np.where(np.isfinite(values), values, np.nan), label=name, **theme.line_style(index))
    axes.axhline(0, color=theme.QUIET, lw=1, ls=":")
    axes.set(xlabel="delta", ylabel="epsilon-hat (higher = easier to tell apart)")
    theme.legend(axes)
    return figure


def densities(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], what: str, bins: int = 30) -> Any:
    """Draws histograms of a statistic over retrained and over unlearned models, one panel per sample.

    Args:
      panels: title -> ([Nr] retrained, [Nu] unlearned) finite values.
      what: name of the statistic, for the title.
      bins: bars per panel.

    Raises:
      DataError: no panel, or values that are not finite.
    """
    if not panels:
        raise errors.DataError("no sample to draw. Name at least one.")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, grid = theme.plot(f"Retrained and unlearned models: {what}", 0.8 + 2.0 * rows, rows, columns, squeeze=False)
    panel_axes = np.ravel(grid)
    for axes, (name, pair) in zip(panel_axes, panels.items(), strict=False):
        pooled = np.concatenate([np.asarray(sample_values, float) for sample_values in pair])
        checks.finite(name, pooled, "N")
        edges = np.histogram_bin_edges(pooled, bins)
        for values, color, label in zip(
            pair, (theme.RETAINED, theme.FORGOTTEN), ("retrained", "unlearned"), strict=True
        ):
            theme.histogram(axes, values, edges, color, label)
        axes.set_title(theme.wrap_text(name, theme.PANEL), fontsize=9, color=theme.INK, loc="left")
        axes.set_yticks([])
    for axes in panel_axes[len(panels) :]:
        axes.set_axis_off()
    theme.legend_below(figure, panel_axes[0])
    return figure
