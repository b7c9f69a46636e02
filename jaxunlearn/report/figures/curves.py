"""Curves of an audit: arrays or findings in, matplotlib figures out. No pyplot state; `page` saves them.

Scores are membership scores: higher = the sample still looks trained on. Truth is True for members (retained).
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
    """True against false positive rate on logarithmic axes, down to one false positive; positive = retained.

    Args:
      curves: name -> (scores [n] float, truth [n] bool); at most 8, in the order of the legend. A curve without
        retained or without forgotten samples is named in the legend with a dash for its AUC and not drawn.

    Raises:
      DataError: no curve, more than 8, or scores that are not finite. ShapeError: lengths disagree.
    """
    from matplotlib.ticker import NullFormatter

    _few(curves, "curve")
    figure, axes = theme.plot("ROC: retained against forgotten samples", height=4.6)
    floor = 1.0
    for place, (name, pair) in enumerate(curves.items()):
        scores, truth = _checked(name, pair)
        fpr, tpr, area = _roc(scores, truth)
        # Below one false positive (one true positive) there is no data: the axes end there.
        floor = min([floor, *(1.0 / count for count in (truth.sum(), (~truth).sum()) if count)])
        axes.plot(fpr, tpr, label=f"{name}  AUC {number_format.number(area, bare=True)}", **theme.line(place))
    floor = min(floor, 0.1)
    diagonal = np.geomspace(floor, 1.0, 50)
    axes.plot(diagonal, diagonal, color=theme.QUIET, lw=1, ls=":", label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.0), ylim=(floor, 1.05))
    axes.xaxis.set_minor_formatter(NullFormatter())  # within one decade its numbers would run into each other
    axes.set(xlabel="false positive rate (forgotten called retained)", ylabel="true positive rate")
    axes.grid(color=theme.QUIET, alpha=0.25, lw=0.6)
    theme.legend(axes, place="lower right")
    return figure


def histograms(scores: Mapping[str, Pair], bins: int = 40) -> Any:
    """One panel per score: densities of retained and of forgotten samples.

    The panel shows the central 99.8 % of both together; what lies outside is counted in the outermost bars, so that a
    few extreme scores do not hide the rest.

    Args:
      scores: name -> (scores [n] float, truth [n] bool).
      bins: bars per panel.

    Raises:
      DataError: no score, or scores that are not finite. ShapeError: lengths disagree.
    """
    if not scores:
        raise errors.DataError("no score to draw. Hand over at least one score with its truth.")
    columns = min(2, len(scores))
    rows = math.ceil(len(scores) / columns)
    figure, grid = theme.plot("Scores (right: looks trained on)", 0.6 + 2.0 * rows, rows, columns, squeeze=False)
    panels = np.ravel(grid)
    for axes, (name, pair) in zip(panels, scores.items(), strict=False):
        values, truth = _checked(name, pair)
        low, high = np.percentile(values, [0.1, 99.9]) if len(values) else (0.0, 1.0)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, bins + 1)
        for kept, color, label in ((truth, theme.RETAINED, "retained"), (~truth, theme.FORGOTTEN, "forgotten")):
            if kept.any():
                theme.histogram(axes, np.clip(values[kept], low, high), edges, color, label)
        axes.set_title(theme.wrapped(name, theme.PANEL), fontsize=9.5, color=theme.INK, loc="left")
        axes.set_yticks([])
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    theme.legend_below(figure, panels[0])
    return figure


def against_shadows(counts: Sequence[int], lines: Mapping[str, Sequence[Finding]]) -> Any:
    """AUC against the number of shadow models, on a doubling axis.

    Args:
      counts: [k] numbers of shadow models, in growing order, each at least 1.
      lines: name -> k findings. The band is value ± spread, or the interval where there is no spread.

    Raises:
      DataError: no line, more than 8, or a count below 1. ShapeError: a line has not k findings.
    """
    figure, axes = _doubling("AUC against the number of shadow models", counts, lines)
    axes.set(xlabel="shadow models", ylabel="AUC")
    return figure


def sensitivity(levels: Sequence[int], lines: Mapping[str, Sequence[Finding]]) -> Any:
    """AUC of IAM against the number of interpolation levels, one line per choice of (e1, e2).

    Args:
      levels: [k] numbers of levels, in growing order, each at least 1.
      lines: name of the choice -> k findings; bands as in `against_shadows`.

    Raises:
      DataError: no line, more than 8, or a number of levels below 1. ShapeError: a line has not k findings.
    """
    figure, axes = _doubling("AUC against interpolation levels", levels, lines)
    axes.set(xlabel="interpolation levels", ylabel="AUC")
    return figure


def scoreui(levels: np.ndarray, lines: Mapping[str, Band]) -> Any:
    """Membership score against the true level of training, with the diagonal of a perfect score.

    Args:
      levels: [B+1] true training level in [0, 1] (0 = never trained on, 1 = fully), in growing order.
      lines: name -> (mean, low, high), each [B+1], of the normalised membership score; low or high may be NaN.

    Raises:
      DataError: no line, or more than 8. ShapeError: lengths disagree.
    """
    _few(lines, "line")
    figure, axes = theme.plot("Score against the true level of training", height=4.4)
    axes.plot([0, 1], [0, 1], color=theme.QUIET, lw=1, ls=":", label="perfect score")
    for place, (name, band) in enumerate(lines.items()):
        mean, low, high = (np.asarray(part, float) for part in band)
        named: dict[str, Any] = {f"{name} (mean)": mean, f"{name} (low)": low, f"{name} (high)": high}
        checks.shape("B", levels=levels, **named)
        _banded(axes, np.asarray(levels, float), mean, low, high, name, place)
    axes.set(xlabel="true training level (0 never seen, 1 fully trained)", ylabel="membership score", xlim=(0, 1))
    theme.legend(axes, place="upper left")
    return figure


def against_alpha(alphas: Sequence[float], panels: Mapping[tuple[str, str], Mapping[str, Sequence[Finding]]]) -> Any:
    """Coverage, set size and CR of prediction sets against alpha: one row per kind of samples, one column per number.

    Args:
      alphas: [A] levels, in growing order.
      panels: (row, column) -> line -> A findings; bands are value ± spread. The column "coverage" gets the promised
        1 - alpha as a dotted line.

    Raises:
      DataError: no line, or more than 8. ShapeError: a line has not A findings.
    """
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    names = list(next(iter(panels.values())))
    _few(dict.fromkeys(names), "line")
    figure, grid = theme.plot(
        "Prediction sets against alpha", 0.9 + 1.9 * len(rows) + 0.16 * len(names), len(rows), len(columns),
        squeeze=False, sharex=True,
    )  # fmt: skip
    places = np.asarray(alphas, float)
    for (row, column), lines in panels.items():
        axes = grid[rows.index(row)][columns.index(column)]
        for place, (name, findings) in enumerate(lines.items()):
            if len(findings) != len(places):
                raise errors.ShapeError(f"{name} has {len(findings)} finding(s) for {len(places)} alphas.")
            mean = np.array([finding.value for finding in findings], float)
            low, high = np.array([_edges(finding) for finding in findings], float).T
            _banded(axes, places, mean, low, high, name, place, markers=True)
        if column == "coverage":
            axes.plot(places, 1 - places, color=theme.QUIET, lw=1, ls=":")
        axes.set_title(theme.wrapped(f"{column}, {row}", 54 // len(columns)), fontsize=9, color=theme.INK, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("alpha", fontsize=9)
    theme.legend_below(figure, grid[0][0])
    return figure


def _roc(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """False and true positive rates at every threshold, from the strictest, and the area under them."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return np.array([]), np.array([]), math.nan
    order = np.argsort(-scores, kind="stable")
    # Tied scores share one threshold: only the last of a run of equal scores is a point of the curve.
    last = np.append(np.diff(scores[order]) != 0, True)
    fpr = np.concatenate([[0.0], np.cumsum(~truth[order])[last] / negative])
    tpr = np.concatenate([[0.0], np.cumsum(truth[order])[last] / positive])
    return fpr, tpr, float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def _checked(name: str, pair: Pair) -> Pair:
    scores, truth = np.asarray(pair[0], np.float64), np.asarray(pair[1], bool)
    named: dict[str, Any] = {f"scores of {name}": scores, f"truth of {name}": truth}
    checks.shape("N", **named)
    checks.finite(f"scores of {name}", scores, "N")
    return scores, truth


def _few(lines: Mapping[str, Any], what: str) -> None:
    if not 1 <= len(lines) <= MOST:
        raise errors.DataError(
            f"{len(lines)} {what}s for one figure: expected 1 to {MOST}, more cannot be told apart. "
            "Choose the ones that matter."
        )


def _doubling(title: str, counts: Sequence[int], lines: Mapping[str, Sequence[Finding]]) -> tuple[Any, Any]:
    from matplotlib.ticker import NullLocator

    _few(lines, "line")
    if not len(counts) or min(counts) < 1:
        raise errors.DataError(f"{list(counts)}: expected at least one number, none below 1, on a doubling axis.")
    figure, axes = theme.plot(title)
    places = np.asarray(counts, float)
    for place, (name, findings) in enumerate(lines.items()):
        if len(findings) != len(places):
            raise errors.ShapeError(
                f"{name} has {len(findings)} finding(s) for {len(places)} places. Give one for each."
            )
        mean = np.array([finding.value for finding in findings], float)
        low, high = np.array([_edges(finding) for finding in findings], float).T
        _banded(axes, places, mean, low, high, name, place, markers=True)
    axes.axhline(0.5, color=theme.QUIET, lw=1, ls=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [number_format.count(int(count)) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    if len(places) == 1:
        axes.set_xlim(places[0] / 2, places[0] * 2)
    theme.legend(axes)
    return figure, axes


def _edges(finding: Finding) -> tuple[float, float]:
    if math.isnan(finding.std):
        return finding.low, finding.high
    return finding.value - finding.std, finding.value + finding.std


def _banded(
    axes: Any, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, name: str, place: int,
    markers: bool = False,
) -> None:  # fmt: skip
    drawn = theme.line(place, markers)
    known = np.isfinite(low) & np.isfinite(high)
    if known.sum() > 1:
        axes.fill_between(x, low, high, where=known, color=drawn["color"], alpha=0.15, lw=0)
    elif known.any():
        axes.vlines(x[known], low[known], high[known], color=drawn["color"], lw=1.2)
    axes.plot(x, mean, label=name, **drawn)
