"""Figures of relearning: arrays in, matplotlib figures out. No pyplot state; `page` saves them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn.report import number_format, theme

MOST = 12  # panels


def trajectories(curves: Mapping[str, Any]) -> Any:
    """Accuracy on probes by step, one panel per role: forgotten against unseen classes.

    Args:
      curves: name -> record with `rate`, and `forgotten` and `unseen` [S] mean accuracies; at most 12 are drawn.
    """
    shown = list(curves.items())[:MOST]
    columns = 2 if len(shown) > 1 else 1
    rows = math.ceil(len(shown) / columns)
    figure, axes = theme.plot("Accuracy on probes while they are learned", height=0.9 + 1.9 * rows, rows=rows,
                              columns=columns, sharex=True, sharey=True, squeeze=False)  # fmt: skip
    flat = list(np.ravel(axes))
    for own, (name, curve) in zip(flat, shown, strict=False):
        steps = np.arange(1, len(curve.forgotten) + 1)
        own.plot(steps, curve.forgotten, color=theme.FORGOTTEN, lw=1.7, label="forgotten class")
        own.plot(steps, curve.unseen, color=theme.RETAINED, lw=1.7, ls=(0, (5, 1.5)), label="unseen classes")
        own.set_title(theme.wrapped(f"{name}, rate {curve.rate:g}", theme.PANEL), fontsize=9, color=theme.INK,
                      loc="left")  # fmt: skip
        own.set_ylim(-0.02, 1.02)
        own.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    for own in flat[len(shown) :]:
        own.set_axis_off()
    for own in axes[-1]:
        own.set_xlabel("steps")
    theme.legend(flat[0], place="lower right")
    return figure


def recovery(lines: Mapping[str, np.ndarray], per_epoch: int) -> Any:
    """Accuracy on forgotten rows while a model is fine-tuned on retained rows alone.

    Args:
      lines: name -> [T] accuracies by step; those of the first eight are drawn.
      per_epoch: steps per pass over the retained rows.
    """
    figure, axes = theme.plot("Forgotten rows during fine-tuning on retained rows", height=3.6)
    for place, (name, values) in enumerate(list(lines.items())[:8]):
        axes.plot(np.arange(1, len(values) + 1), values, label=name, **theme.line(place))
    axes.set(ylim=(-0.02, 1.02), xlabel=f"steps ({number_format.count(per_epoch)} are one pass)",
             ylabel="accuracy on forgotten rows")  # fmt: skip
    axes.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    theme.legend(axes)
    return figure
