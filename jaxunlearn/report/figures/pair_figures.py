"""Figures of attacks on pairs of models. No pyplot state; `page` saves them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxunlearn.report import number_format, theme

Curve = tuple[np.ndarray, np.ndarray]


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], floor: float) -> Any:
    """Draws ROC curves of attacks on logarithmic axes; positive = deleted record.

    Args:
      curves: name -> (false positive rates ascending, true positive rates, AUC); at most 8.
      floor: lower end of both axes: the rate of one false positive.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.report.figures import pair_figures
      >>> rates = np.array([0.0, 0.5, 1.0])
      >>> pair_figures.roc({"sorted_diff": (rates, np.sqrt(rates), 0.6)}, floor=0.01).axes[0].get_xscale()
      'log'
    """
    figure, axes = theme.plot("Detection of deleted records against false alarms", height=4.6)
    for index, (name, (fpr, tpr, area)) in enumerate(curves.items()):
        axes.plot(fpr, tpr, label=f"{name}  AUC {number_format.number(area, bare=True)}", **theme.line_style(index))
    diagonal = np.geomspace(floor, 1.0, 50)
    axes.plot(diagonal, diagonal, color=theme.QUIET, lw=1, ls=":", label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.0), ylim=(floor, 1.05))
    axes.set(xlabel="false alarms among records never trained on", ylabel="deleted records detected")
    axes.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    theme.legend(axes, location="lower right")
    return figure


def distances(values: np.ndarray, deleted: np.ndarray) -> Any:
    """Draws how far posteriors move between the two versions, for deleted records and records never trained on.

    Args:
      values: [N] distances >= 0; exact zeros are drawn at the left end and counted in the legend.
      deleted: [N] bool.
    """
    figure, axes = theme.plot("Distance between the two posteriors of a record", height=3.4)
    positive = values[values > 0]
    if not len(positive):
        axes.text(0.5, 0.5, "no posterior changes at all", ha="center", va="center", color=theme.QUIET,
                  transform=axes.transAxes)  # fmt: skip
        axes.set_axis_off()
        return figure
    low, high = np.log10(positive.min()), np.log10(positive.max())
    edges = np.linspace(low - 0.05, max(high, low + 0.1) + 0.05, 41)
    for mask, color, name in ((deleted, theme.FORGOTTEN, "deleted"), (~deleted, theme.RETAINED, "never trained on")):
        group_values = values[mask]
        num_zero, num_all = (number_format.count(int(n)) for n in ((group_values == 0).sum(), len(group_values)))
        logarithms = np.where(group_values > 0, np.log10(np.maximum(group_values, 1e-300)), edges[0])
        theme.histogram(
            axes, np.clip(logarithms, edges[0], edges[-1]), edges, color, f"{name}, {num_zero} of {num_all} unmoved"
        )
    axes.set(xlabel="log10 of the distance between the two posteriors", ylabel="density")
    axes.set_yticks([])
    theme.legend(axes)
    return figure
