"""Curves of an audit. No pyplot state; `page` saves them.

Scores are membership scores: higher = the sample still looks trained on. `truth` is True for members (retained).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format, theme

Pair = tuple[np.ndarray, np.ndarray]
Band = tuple[np.ndarray, np.ndarray, np.ndarray]
MOST = 8


def roc(curves: Mapping[str, Pair]) -> Any:
    """Draws ROC curves on logarithmic axes, down to one false positive; positive = retained.

    Args:
      curves: name -> (scores [n] float, truth [n] bool); at most 8, in the order of the legend. A curve without
        retained or without forgotten samples is not drawn; its legend entry has a dash for the AUC.

    Raises:
      DataError: no curve, more than 8, or scores that are not finite. ShapeError: lengths disagree.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.report.figures import curves
      >>> figure = curves.roc({"iam_on": (np.array([0.9, 0.8, 0.1]), np.array([True, True, False]))})
      >>> figure.axes[0].lines[0].get_label()
      'iam_on  AUC 1.000'
    """
    from matplotlib.ticker import NullFormatter

    _check_number(curves, "curve")
    figure, axes = theme.plot("ROC: retained against forgotten samples", height=4.6)
    floor = 1.0
    for index, (name, pair) in enumerate(curves.items()):
        scores, truth = _check(name, pair)
        fpr, tpr, area = _roc(scores, truth)
        # There is no data below one false positive (one true positive): the axes end there.
        floor = min([floor, *(1.0 / count for count in (truth.sum(), (~truth).sum()) if count)])
        axes.plot(fpr, tpr, label=f"{name}  AUC {number_format.number(area, bare=True)}", **theme.line_style(index))
    floor = min(floor, 0.1)
    diagonal = np.geomspace(floor, 1.0, 50)
    axes.plot(diagonal, diagonal, color=theme.QUIET, lw=1, ls=":", label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.0), ylim=(floor, 1.05))
    axes.xaxis.set_minor_formatter(NullFormatter())  # within one decade the labels would overlap
    axes.set(xlabel="false positive rate (forgotten called retained)", ylabel="true positive rate")
    axes.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    theme.legend(axes, location="lower right")
    return figure


def histograms(scores: Mapping[str, Pair], bins: int = 40) -> Any:
    """Draws one panel per score: densities of retained and of forgotten samples.

    Panels show the central 99.8 % of all samples; scores outside are counted in the outermost bars, so that a few
    extreme values do not compress the rest.

    Args:
      scores: name -> (scores [n] float, truth [n] bool).
      bins: bars per panel.

    Raises:
      DataError: no score, or scores that are not finite. ShapeError: lengths disagree.
    """
    if not scores:
        raise errors.DataError("no score to draw; give at least one score with its truth.")
    columns = min(2, len(scores))
    rows = math.ceil(len(scores) / columns)
    figure, grid = theme.plot("Scores (right: looks trained on)", 0.6 + 2.0 * rows, rows, columns, squeeze=False)
    panels = np.ravel(grid)
    for axes, (name, pair) in zip(panels, scores.items(), strict=False):
        values, truth = _check(name, pair)
        low, high = np.percentile(values, [0.1, 99.9]) if len(values) else (0.0, 1.0)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, bins + 1)
        for mask, color, label in ((truth, theme.RETAINED, "retained"), (~truth, theme.FORGOTTEN, "forgotten")):
            if mask.any():
                theme.histogram(axes, np.clip(values[mask], low, high), edges, color, label)
        axes.set_title(theme.wrap_text(name, theme.PANEL), fontsize=9.5, color=theme.INK, loc="left")
        axes.set_yticks([])
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    theme.legend_below(figure, panels[0])
    return figure


def against_shadows(counts: Sequence[int], lines: Mapping[str, Sequence[Finding]]) -> Any:
    """Draws AUC against the number of shadow models, on a base-2 logarithmic axis.

    Args:
      counts: [k] numbers of shadow models, ascending, each at least 1.
      lines: name -> k findings. The band is value ± std, or the interval if there is no std.

    Raises:
      DataError: no line, more than 8, or a count below 1. ShapeError: a line does not have k findings.
    """
    figure, axes = _doubling_axis("AUC against the number of shadow models", counts, lines)
    axes.set(xlabel="shadow models", ylabel="AUC")
    return figure


def sensitivity(levels: Sequence[int], lines: Mapping[str, Sequence[Finding]]) -> Any:
    """Draws the AUC of IAM against the number of interpolation steps, one line per (e1, e2).

    Args:
      levels: [k] numbers of steps, ascending, each at least 1.
      lines: name -> k findings; bands as in `against_shadows`.

    Raises:
      DataError: no line, more than 8, or a number of steps below 1. ShapeError: a line does not have k findings.
    """
    figure, axes = _doubling_axis("AUC against interpolation steps", levels, lines)
    axes.set(xlabel="interpolation steps", ylabel="AUC")
    return figure


def scoreui(levels: np.ndarray, lines: Mapping[str, Band]) -> Any:
    """Draws membership scores against the true level of training, with the diagonal of a perfect score.

    Args:
      levels: [B+1] true training level in [0, 1] (0 = never trained on, 1 = fully), ascending.
      lines: name -> (mean, low, high), each [B+1], of the normalised membership score; low or high may be NaN.

    Raises:
      DataError: no line, or more than 8. ShapeError: lengths disagree.
    """
    _check_number(lines, "line")
    figure, axes = theme.plot("Score against the true level of training", height=4.4)
    axes.plot([0, 1], [0, 1], color=theme.QUIET, lw=1, ls=":", label="perfect score")
    for index, (name, band) in enumerate(lines.items()):
        mean, low, high = (np.asarray(values, float) for values in band)
        arrays: dict[str, Any] = {f"{name} (mean)": mean, f"{name} (low)": low, f"{name} (high)": high}
        checks.shape("B", levels=levels, **arrays)
        _draw_band(axes, np.asarray(levels, float), mean, low, high, name, index)
    axes.set(xlabel="true training level (0 never seen, 1 fully trained)", ylabel="membership score", xlim=(0, 1))
    theme.legend(axes, location="upper left")
    return figure


def against_alpha(alphas: Sequence[float], panels: Mapping[tuple[str, str], Mapping[str, Sequence[Finding]]]) -> Any:
    """Draws metrics of prediction sets against alpha: one row per group of samples, one column per metric.

    Args:
      alphas: [A] levels, ascending.
      panels: (row, column) -> line -> A findings; bands are value ± std. The column "coverage" gets the nominal
        1 - alpha as a dotted line.

    Raises:
      DataError: no line, or more than 8. ShapeError: a line does not have A findings.
    """
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    names = list(next(iter(panels.values())))
    _check_number(dict.fromkeys(names), "line")
    figure, grid = theme.plot(
        "Prediction sets against alpha", 0.9 + 1.9 * len(rows) + 0.16 * len(names), len(rows), len(columns),
        squeeze=False, sharex=True,
    )  # fmt: skip
    x_values = np.asarray(alphas, float)
    for (row, column), lines in panels.items():
        axes = grid[rows.index(row)][columns.index(column)]
        for index, (name, findings) in enumerate(lines.items()):
            if len(findings) != len(x_values):
                raise errors.ShapeError(f"{name} has {len(findings)} finding(s) for {len(x_values)} alphas.")
            mean = np.array([finding.value for finding in findings], float)
            low, high = np.array([_edges(finding) for finding in findings], float).T
            _draw_band(axes, x_values, mean, low, high, name, index, markers=True)
        if column == "coverage":
            axes.plot(x_values, 1 - x_values, color=theme.QUIET, lw=1, ls=":")
        axes.set_title(theme.wrap_text(f"{column}, {row}", 54 // len(columns)), fontsize=9, color=theme.INK, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("alpha", fontsize=9)
    theme.legend_below(figure, grid[0][0])
    return figure


def _roc(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Computes false and true positive rates at all thresholds, from the strictest, and the area under the curve."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return np.array([]), np.array([]), math.nan
    order = np.argsort(-scores, kind="stable")
    # Tied scores share a threshold: only the last of equal scores is a point of the curve.
    is_last = np.append(np.diff(scores[order]) != 0, True)
    fpr = np.concatenate([[0.0], np.cumsum(~truth[order])[is_last] / negative])
    tpr = np.concatenate([[0.0], np.cumsum(truth[order])[is_last] / positive])
    return fpr, tpr, float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def _check(name: str, pair: Pair) -> Pair:
    scores, truth = np.asarray(pair[0], np.float64), np.asarray(pair[1], bool)
    arrays: dict[str, Any] = {f"scores of {name}": scores, f"truth of {name}": truth}
    checks.shape("N", **arrays)
    checks.finite(f"scores of {name}", scores, "N")
    return scores, truth


def _check_number(lines: Mapping[str, Any], what: str) -> None:
    if not 1 <= len(lines) <= MOST:
        raise errors.DataError(
            f"{len(lines)} {what}s for one figure: expected 1 to {MOST}, more cannot be distinguished. "
            "Choose the ones that matter."
        )


def _doubling_axis(title: str, counts: Sequence[int], lines: Mapping[str, Sequence[Finding]]) -> tuple[Any, Any]:
    from matplotlib.ticker import NullLocator

    _check_number(lines, "line")
    if not len(counts) or min(counts) < 1:
        raise errors.DataError(f"{list(counts)}: expected at least one number, none below 1, on a doubling axis.")
    figure, axes = theme.plot(title)
    x_values = np.asarray(counts, float)
    for index, (name, findings) in enumerate(lines.items()):
        if len(findings) != len(x_values):
            raise errors.ShapeError(
                f"{name} has {len(findings)} finding(s) for {len(x_values)} places. Give one for each."
            )
        mean = np.array([finding.value for finding in findings], float)
        low, high = np.array([_edges(finding) for finding in findings], float).T
        _draw_band(axes, x_values, mean, low, high, name, index, markers=True)
    axes.axhline(0.5, color=theme.QUIET, lw=1, ls=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks(x_values, [number_format.count(int(count)) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    if len(x_values) == 1:
        axes.set_xlim(x_values[0] / 2, x_values[0] * 2)
    theme.legend(axes)
    return figure, axes


def _edges(finding: Finding) -> tuple[float, float]:
    if math.isnan(finding.std):
        return finding.low, finding.high
    return finding.value - finding.std, finding.value + finding.std


def _draw_band(
    axes: Any, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, name: str, index: int,
    markers: bool = False,
) -> None:  # fmt: skip
    style = theme.line_style(index, markers)
    is_finite = np.isfinite(low) & np.isfinite(high)
    if is_finite.sum() > 1:
        axes.fill_between(x, low, high, where=is_finite, color=style["color"], alpha=0.15, lw=0)
    elif is_finite.any():
        axes.vlines(x[is_finite], low[is_finite], high[is_finite], color=style["color"], lw=1.2)
    axes.plot(x, mean, label=name, **style)
