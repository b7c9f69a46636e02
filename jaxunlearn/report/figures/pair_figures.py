"""Figures of attacks on pairs of models: arrays in, matplotlib figures out. No pyplot state; `page` saves them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn.report import number_format, theme

Curve = tuple[np.ndarray, np.ndarray]


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], floor: float) -> Any:
    """True against false positive rates of attacks on logarithmic axes; positive = deleted record.

    Args:
      curves: name -> (false positive rates ascending, true positive rates, AUC); at most 8.
      floor: where the axes begin: one false positive.
    """
    figure, axes = theme.plot("Deleted records recognised, against false alarms", height=4.6)
    for place, (name, (fpr, tpr, area)) in enumerate(curves.items()):
        axes.plot(fpr, tpr, label=f"{name}  AUC {number_format.number(area, bare=True)}", **theme.line(place))
    diagonal = np.geomspace(floor, 1.0, 50)
    axes.plot(diagonal, diagonal, color=theme.QUIET, lw=1, ls=":", label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.0), ylim=(floor, 1.05))
    axes.set(xlabel="false alarms among records never trained on", ylabel="deleted records recognised")
    axes.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    theme.legend(axes, place="lower right")
    return figure


def distances(values: np.ndarray, deleted: np.ndarray) -> Any:
    """How far answers move between the two versions, for deleted records and for records never trained on.

    Args:
      values: [N] distances >= 0; exact zeros are drawn at the left end and counted in the legend.
      deleted: [N] bool.
    """
    figure, axes = theme.plot("How far the answer to a record moves", height=3.4)
    positive = values[values > 0]
    if not len(positive):
        axes.text(0.5, 0.5, "no answer moves at all", ha="center", va="center", color=theme.QUIET,
                  transform=axes.transAxes)  # fmt: skip
        axes.set_axis_off()
        return figure
    low, high = np.log10(positive.min()), np.log10(positive.max())
    edges = np.linspace(low - 0.05, max(high, low + 0.1) + 0.05, 41)
    for kind, color, name in ((deleted, theme.FORGOTTEN, "deleted"), (~deleted, theme.RETAINED, "never trained on")):
        own = values[kind]
        still = f", {number_format.count(int((own == 0).sum()))} of {number_format.count(len(own))} unmoved"
        shown = np.where(own > 0, np.log10(np.maximum(own, 1e-300)), edges[0])
        theme.histogram(axes, np.clip(shown, edges[0], edges[-1]), edges, color, f"{name}{still}")
    axes.set(xlabel="log10 of the distance between the two posteriors", ylabel="density")
    axes.set_yticks([])
    theme.legend(axes)
    return figure
