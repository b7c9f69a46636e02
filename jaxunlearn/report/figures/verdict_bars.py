"""Bar charts of an audit: verdicts, p-values and classes. No pyplot state; `page` saves them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.report import number_format, theme

VERDICTS = ("not forgotten", "forgotten", "suppressed", "cannot tell")


def verdicts(names: Sequence[str], counts: np.ndarray) -> Any:
    """Draws one horizontal bar per model: the fraction of its samples with each verdict.

    Args:
      names: R names of the bars, from the top.
      counts: [R, 4] samples by verdict, in the order of `VERDICTS`. Bars show fractions with counts inside; a row of
        zeros stays empty.

    Raises:
      ShapeError: not [R, 4]. DataError: no row, or negative counts.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.report.figures import verdict_bars
      >>> figure = verdict_bars.verdicts(["retrained"], np.array([[100, 300, 200, 400]]))
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['100', '300', '200', '400']
    """
    counts = np.asarray(counts)
    checks.shape("RV", {"R": len(names), "V": len(VERDICTS)}, counts=counts)
    if not len(names) or counts.min() < 0:
        raise errors.DataError("counts of verdicts: expected at least one row and no negative count.")
    total = counts.sum(1)
    labels, extra_height = theme.bar_names(
        [f"{name} ({number_format.count(n)})" for name, n in zip(names, total, strict=True)]
    )
    figure, axes = theme.plot("Verdicts per sample", height=1.5 + 0.42 * len(names) + extra_height)
    fractions = counts / np.maximum(total, 1)[:, None]
    rows, left = np.arange(len(names)), np.zeros(len(names))
    colors = (theme.RETAINED, theme.FORGOTTEN, theme.SUPPRESSED, theme.UNCLEAR)
    for column, (name, color) in enumerate(zip(VERDICTS, colors, strict=True)):
        axes.barh(rows, fractions[:, column], left=left, color=color, label=name, height=0.72, ec=theme.PAPER, lw=0.8)
        ink = theme.ON_LIGHT if color == theme.UNCLEAR else theme.ON_DARK
        for row in rows:
            text = number_format.count(counts[row, column])
            # A number wider than its segment would overlap its neighbours.
            if fractions[row, column] > 0.02 + 0.02 * len(text):
                middle = left[row] + fractions[row, column] / 2
                axes.text(middle, row, text, ha="center", va="center", color=ink, fontsize=8.5)
        left = left + fractions[:, column]
    axes.set_yticks(rows, labels)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), xlabel="fraction of the samples")
    theme.legend_below(figure, axes, columns=4)
    return figure


def calibration(p_values: np.ndarray, level: float, bins: int = 20, samples: str = "Truly forgotten samples") -> Any:
    """Draws the p-values of samples that the audited model never saw: uniform if the verdicts are calibrated.

    Args:
      p_values: [n] in [0, 1], of the null hypothesis "never seen" on samples for which it is true.
      level: rejection level marked in the figure, in (0, 1); the title gives its measured rejection rate.
      bins: number of bars.
      samples: description of the samples, first words of the title.

    Raises:
      DataError: no values, or values outside [0, 1]. ConfigError: level outside [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    checks.shape("N", p_values=values)
    checks.finite("p_values", values, "N")
    checks.in_range("level", level, 0.0, 1.0)
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise errors.DataError("p_values: expected at least one value, all of them between 0 and 1.")
    rejection_rate = float(np.mean(values <= level))
    title = f"{samples}: {number_format.rate(rejection_rate)} rejected at level {number_format.rate(level)}"
    figure, axes = theme.plot(title, height=3.3)
    weights = np.full(len(values), bins / len(values))
    axes.hist(
        values, np.linspace(0, 1, bins + 1), weights=weights, color=theme.FORGOTTEN, alpha=0.55, ec=theme.PAPER, lw=0.6
    )
    axes.axhline(1.0, color=theme.INK, lw=1.2, ls="--", label="uniform: as promised")
    axes.axvline(level, color=theme.RETAINED, lw=1.2, label=f"level {number_format.rate(level)}")
    axes.set(xlim=(0, 1), xlabel=f"p-value ({number_format.count(len(values))} samples)", ylabel="density")
    axes.set_ylim(0, 1.3 * max(axes.get_ylim()[1], 1.05))  # room for the legend above the bars
    theme.legend(axes, location="upper right")
    return figure


def classes(names: Sequence[str], retained: np.ndarray, forgotten: np.ndarray) -> Any:
    """Draws two bars per class: mean ± sd of the membership score over its retained and its forgotten samples.

    Args:
      names: C names of the classes.
      retained: [C, 2] mean and standard deviation over retained samples; NaN for classes without any.
      forgotten: [C, 2] the same over forgotten samples.

    Raises:
      ShapeError: not [C, 2]. DataError: no class.
    """
    retained, forgotten = np.asarray(retained, float), np.asarray(forgotten, float)
    checks.shape("CV", {"C": len(names), "V": 2}, retained=retained, forgotten=forgotten)
    if not len(names):
        raise errors.DataError("no class to draw; give at least one class.")
    labels, extra_height = theme.bar_names(names)
    figure, axes = theme.plot("Membership score per class, mean ± sd", height=1.5 + 0.36 * len(names) + extra_height)
    rows = np.arange(len(names), dtype=float)
    groups = ((-0.19, retained, theme.RETAINED, "retained"), (0.19, forgotten, theme.FORGOTTEN, "forgotten"))
    for offset, values, color, group in groups:
        is_finite = np.isfinite(values[:, 0])
        if is_finite.any():
            std = np.nan_to_num(values[is_finite, 1])  # a single sample has no standard deviation
            axes.barh(rows[is_finite] + offset, values[is_finite, 0], 0.36, xerr=std, color=color, alpha=0.8,
                      label=group, error_kw={"ecolor": theme.INK, "elinewidth": 1, "capsize": 2})  # fmt: skip
    axes.set_yticks(rows, labels)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="membership score")
    theme.legend_below(figure, axes)
    return figure
