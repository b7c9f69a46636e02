"""Embedded outputs of several models side by side: where are the forgotten samples among the others?"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.report import theme

MOST = 6


def side_by_side(panels: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    """Draws one panel per model: forgotten samples above the retained ones.

    Args:
      panels: name -> (points [n, 2] float, is_forgotten [n] bool); at most 6, in their order.

    Returns:
      A matplotlib figure.

    Raises:
      DataError: no panel, or more than 6. ShapeError: array shapes do not agree.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.report.figures import embeddings
      >>> points, is_forgotten = np.arange(8.0).reshape(4, 2), np.array([True, False, False, False])
      >>> len(embeddings.side_by_side({"original": (points, is_forgotten), "ssd": (points, is_forgotten)}).axes)
      2
    """
    if not 0 < len(panels) <= MOST:
        raise errors.DataError(f"{len(panels)} panels to draw; expected 1 to {MOST}.")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, grid = theme.plot("Samples by the outputs of each model (t-SNE)", 0.7 + 2.3 * rows, rows, columns,
                              squeeze=False)  # fmt: skip
    axes_of = np.ravel(grid)
    for axes, (name, (points, is_forgotten)) in zip(axes_of, panels.items(), strict=False):
        checks.shape("NP N", {"P": 2}, points=points, is_forgotten=is_forgotten)
        groups = ((~is_forgotten, theme.UNCLEAR, "retained"), (is_forgotten, theme.FORGOTTEN, "forgotten"))
        for mask, color, label in groups:
            axes.scatter(*points[mask].T, s=5 if label == "forgotten" else 3, color=color, lw=0, label=label,
                         rasterized=True)  # fmt: skip
        axes.set_title(theme.wrap_text(name, theme.PANEL), fontsize=9, color=theme.INK, loc="left")
        axes.set(xticks=[], yticks=[], aspect="equal")
    for axes in axes_of[len(panels) :]:
        axes.set_visible(False)
    theme.legend(axes_of[0], location="best")
    return figure
