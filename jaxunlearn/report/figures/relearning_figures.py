"""Figures of relearning. No pyplot state; `page` saves them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn.report import number_format, theme

MOST = 12  # panels


def trajectories(curves: Mapping[str, Any]) -> Any:
    """Draws the accuracy on probes by step, one panel per role: forgotten against unseen classes.

    Args:
      curves: name -> record with `rate`, and `forgotten` and `unseen` [S] mean accuracies; at most 12 are drawn.
    """
    items = list(curves.items())[:MOST]
    columns = 2 if len(items) > 1 else 1
    rows = math.ceil(len(items) / columns)
    figure, axes = theme.plot("Accuracy on probes while they are learned", height=0.9 + 1.9 * rows, rows=rows,
                              columns=columns, sharex=True, sharey=True, squeeze=False)  # fmt: skip
    panels = list(np.ravel(axes))
    for panel, (name, curve) in zip(panels, items, strict=False):
        steps = np.arange(1, len(curve.forgotten) + 1)
        panel.plot(steps, curve.forgotten, color=theme.FORGOTTEN, lw=1.7, label="forgotten class")
        panel.plot(steps, curve.unseen, color=theme.RETAINED, lw=1.7, ls=(0, (5, 1.5)), label="unseen classes")
        panel.set_title(theme.wrap_text(f"{name}, rate {curve.rate:g}", theme.PANEL), fontsize=9, color=theme.INK,
                      loc="left")  # fmt: skip
        panel.set_ylim(-0.02, 1.02)
        panel.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    for panel in panels[len(items) :]:
        panel.set_axis_off()
    for panel in axes[-1]:
        panel.set_xlabel("steps")
    theme.legend(panels[0], location="lower right")
    return figure


def recovery(lines: Mapping[str, np.ndarray], per_epoch: int) -> Any:
    """Draws the accuracy on forgotten rows while a model is fine-tuned on retained rows only.

    Args:
      lines: name -> [T] accuracies by step; the first eight are drawn.
      per_epoch: steps per pass over the retained rows.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.report.figures import relearning_figures
      >>> figure = relearning_figures.recovery({"finetune": np.array([0.0, 0.2, 0.3])}, per_epoch=3)
      >>> figure.axes[0].lines[0].get_ydata().tolist()
      [0.0, 0.2, 0.3]
    """
    figure, axes = theme.plot("Forgotten rows during fine-tuning on retained rows", height=3.6)
    for index, (name, values) in enumerate(list(lines.items())[:8]):
        axes.plot(np.arange(1, len(values) + 1), values, label=name, **theme.line_style(index))
    axes.set(ylim=(-0.02, 1.02), xlabel=f"steps ({number_format.count(per_epoch)} are one pass)",
             ylabel="accuracy on forgotten rows")  # fmt: skip
    axes.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    theme.legend(axes)
    return figure
