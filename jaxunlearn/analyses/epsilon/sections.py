"""Sections of the report on epsilon-hat: tables, figures and captions, from arrays or from a run alike."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn.analyses.epsilon import wording
from jaxunlearn.analyses.epsilon.measures import BASELINE, DELTAS, PLAIN, START, ApproachMetrics, EpsilonReport, ranked
from jaxunlearn.metrics.epsilon import epsilon
from jaxunlearn.metrics.inference.intervals import Interval
from jaxunlearn.metrics.populations import closeness
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format, sentences
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.figures import epsilon_figures
from jaxunlearn.report.section import Section

STEM = "epsilon"
WIDTH = 150
FILES = (
    ("epsilon.npz", "per sample, in the order given: ids, epsilon, proven bound, challenge; medians by delta"),
    ("epsilon.json", "per approach: every number"),
)
# Never marked as the best.
BASELINES = (BASELINE, START, *closeness.YARDSTICKS)
# The published half width of a mean accuracy.
PUBLISHED_Z = 1.96


def arrays(report: EpsilonReport, names: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what epsilon.npz holds: NAME__epsilon, NAME__proved, NAME__challenge [S], NAME__median_by_delta [D]."""
    columns: dict[str, np.ndarray] = {**names, "labels": report.labels}
    for name, metrics in report.approaches.items():
        values_of = {"epsilon": metrics.epsilon, "proved": metrics.bound, "median_by_delta": metrics.curve}
        if metrics.challenge is not None:
            values_of["challenge"] = metrics.challenge.epsilon
        columns |= {f"{name}__{quantity}": values for quantity, values in values_of.items() if len(values)}
        if len(metrics.curve):
            columns["deltas"] = DELTAS
    return columns


def plain(report: EpsilonReport) -> dict[str, Any]:
    """Returns the content of epsilon.json: all but per-sample values; null = not known, "inf" = infinite."""
    approaches: dict[str, Any] = {}
    for name, metrics in report.approaches.items():
        record: dict[str, Any] = {
            "models": metrics.sizes,
            **metrics.summary._asdict(),
            "interval": [metrics.interval.low, metrics.interval.high],
            "max_finite": metrics.max_finite,
            "null_median": metrics.null_median,
            "proved_median": _median(metrics.bound),
            "proved_share": _share(metrics.bound),
            "max_bound": metrics.max_bound,
            "accuracies": {subset: list(_accuracy(values)) for subset, values in metrics.accuracies.items()},
        }
        if report.is_regression:
            record["mean_absolute_error"] = float(metrics.own_accuracy.mean())
        else:
            record["forget_error_of_logits"] = float((1 - metrics.own_accuracy).mean())
        differences = (
            ("gap_to_best", report.gap_to_best),
            (f"gap_to_{PLAIN}", report.gap_to_finetuning),
            (f"gap_to_{START}", report.gap_to_original),
        )
        for key, gaps in differences:
            if name in gaps:
                record[key] = list(gaps[name])
        if metrics.challenge is not None:
            record["challenge"] = {key: value for key, value in metrics.challenge._asdict().items() if key != "epsilon"}
        approaches[name] = record
    header = {"settings": vars(report.options.settings), "compat": report.options.compat, "order": report.order}
    return {**header, "approaches": approaches}


def provenance(report: EpsilonReport) -> dict[str, str]:
    """Returns what was measured, for the foot of the page."""
    settings = report.options.settings
    score = "squared error" if report.is_regression else settings.score
    return {
        "samples": f"{len(report.labels):,}",
        "epsilon-hat": f"score {score}, delta {settings.delta:g}, {settings.bootstrap} resamples of the models",
        "compat": report.options.compat,
    }


def sections(report: EpsilonReport, samples: tuple[int, ...] = (), names: Sequence[str] = ()) -> list[Section]:
    """Returns tables and figures.

    Args:
      report: metrics of all approaches.
      samples: those whose margins are drawn; empty = some from the hardest to the easiest to tell apart.
      names: [S] names of all samples; empty = their positions.
    """
    metric = report.options.settings.metric
    report_sections = []
    if metric != "challenge":
        report_sections.append(_main(report))
        if any(len(metrics.bound) for metrics in report.approaches.values()):
            report_sections.append(_bounds(report))
    if any(metrics.challenge is not None for metrics in report.approaches.values()):
        report_sections.append(_challenge(report))
    if metric != "challenge" and report.options.settings.sweep:
        report_sections += _curves(report)
    drawn_samples = samples or typical(report)
    return report_sections + [_margins(report, drawn_samples, names)] if drawn_samples else report_sections


def _main(report: EpsilonReport) -> Section:
    rows: list[tuple[Cell, ...]] = []
    findings: list[Finding] = []
    for name in ranked(report):
        metrics = report.approaches[name]
        summary = metrics.summary
        median = _finding(
            metrics.interval._replace(value=summary.median), "median epsilon-hat", name, "retrained models", report
        )
        gap = (
            _finding(report.gap_to_best[name], "gap to best", name, report.order[0], report)
            if name in report.gap_to_best
            else ""
        )
        utility = _utility(report, metrics, name)
        further_gaps = [
            _finding(gaps[name], f"gap to {other}", name, other, report)
            for other, gaps in ((PLAIN, report.gap_to_finetuning), (START, report.gap_to_original)) if name in gaps
        ]  # fmt: skip
        findings += [cell for cell in (median, gap, *utility, *further_gaps) if isinstance(cell, Finding)]
        quantiles = summary.finite_mean, summary.low_quartile, summary.high_quartile
        counts = summary.inf, summary.nan, summary.negative
        sizes = f"{metrics.sizes[0]} + {metrics.sizes[1]}"
        rows.append((name, sizes, median, gap, *quantiles, *counts, *utility))
    settings = report.options.settings
    caption = (
        f"epsilon-hat at delta = {settings.delta:g} over {len(report.labels):,} forgotten samples; higher = easier to "
        f"tell apart. {_of_intervals(report)}{BASELINE} = one half of the retrained models against the other. models = "
        "retrained + unlearned ones. mean = of finite samples; 25 %, 75 % = quartiles; inf = samples that are told "
        "apart without error; nan = no usable rule; neg = no evidence at all. "
        + ("MAE = mean absolute error on the forget set." if report.is_regression else
           "RA, UA, TA: accuracy on retained samples, 1 - accuracy on forgotten ones, accuracy on test samples; [ ] in "
           "the files = 1.96 standard errors over models.")
    )  # fmt: skip
    utility = ("MAE",) if report.is_regression else ("RA % ↑", "UA %", "TA % ↑")
    columns = ("approach", "models", "epsilon-hat ↓", "gap to best", "mean", "25 %", "75 %", "inf", "nan", "neg")
    header = (*columns, *utility)
    table = Table("", caption, header, tuple(rows), BASELINES)
    title = "How well can unlearned and retrained models be told apart?"
    return Section(STEM, title, wording.limits(report), table, None, tuple(findings))


def _of_intervals(report: EpsilonReport) -> str:
    if not report.gap_to_best:
        return ""
    settings = report.options.settings
    units = "models (those that start from one original say nothing about another)"
    if report.options.design.kind != "given":
        units = sentences.units(report.options.design)
    return (
        f"[ ] = {number_format.rate(settings.confidence_level)} interval over {units}; {settings.bootstrap} resamples "
        "of the models, value ± z standard deviations. gap to best = median minus that of the best approach, with "
        "simultaneous intervals over all pairs. "
    )


def _accuracy(values: np.ndarray) -> Interval:
    """Returns the mean accuracy of models with its published interval, 1.96 standard errors (ddof 1)."""
    half_width = (
        PUBLISHED_Z * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
    )
    mean = float(np.mean(values))
    return Interval(mean, mean - half_width, mean + half_width)


def _utility(report: EpsilonReport, metrics: ApproachMetrics, name: str) -> tuple[Cell, ...]:
    """Returns RA, UA and TA in per cent, or the mean absolute error of a regression."""
    if report.is_regression:
        return (float(metrics.own_accuracy.mean()),)
    cells: list[Cell] = []
    for metric, subset in (("RA", "retain"), ("UA", "forget"), ("TA", "test")):
        if subset not in metrics.accuracies:
            cells.append(float("nan"))
            continue
        value, low, high = (100 * end for end in _accuracy(metrics.accuracies[subset]))
        if metric == "UA":
            value, low, high = 100 - value, 100 - high, 100 - low
        n = len(metrics.accuracies[subset])
        cells.append(Finding(value, low, high, metric=f"{metric} (%)", n=n, of=name, method="1.96 standard errors"))
    return tuple(cells)


def _bounds(report: EpsilonReport) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(report):
        metrics = report.approaches[name]
        rows.append((name, _median(metrics.bound), _share(metrics.bound), metrics.max_bound, metrics.max_finite))
    confidence_level = number_format.rate(report.options.settings.confidence_level)
    caption = (
        "Half of the models choose the rule, the other half count its errors, whose rates are bounded after Clopper "
        f"and Pearson: for each sample the bound holds with probability {confidence_level}, for models made from the "
        "same original. share = samples with a bound above 0; without any difference at most "
        f"{number_format.rate(1 - report.options.settings.confidence_level)} are expected. Not comparable with "
        "epsilon-hat, which is an estimate without guarantee."
    )
    header = ("approach", "proven epsilon, median", "share above 0", "largest provable", "largest finite epsilon-hat")
    text = "A lower bound as in audits of differential privacy; higher = provably worse unlearning."
    return Section("epsilon_proved", "What is proven?", text, Table("", caption, header, tuple(rows)))


def _challenge(report: EpsilonReport) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(report):
        challenge = report.approaches[name].challenge
        if challenge is not None:
            ratios = challenge.retain_ratio, challenge.test_ratio
            median = float(np.median(challenge.epsilon))
            rows.append((name, median, challenge.capped, challenge.forget, *ratios, challenge.final))
    caption = (
        "The NeurIPS-2023 challenge: delta 1e-5, one- and two-sided rules on the confidence, forget = mean of 2/2^bin "
        "over bins of 0.5, final = forget times the ratios of accuracies, unlearned over retrained. Its many rules "
        f"overfit: even {BASELINE} is far from 1, especially because its halves have fewer models. Scores with "
        "different numbers of models are not comparable."
    )
    header = ("approach", "median epsilon ↓", "at 50", "forget ↑", "RA ratio", "TA ratio", "final ↑")
    return Section("epsilon_challenge", "The challenge score", "HIGHER = better, unlike epsilon-hat.",
                   Table("", caption, header, tuple(rows), BASELINES))  # fmt: skip


def _curves(report: EpsilonReport) -> list[Section]:
    names = [name for name in ranked(report) if np.isfinite(report.approaches[name].curve).any()]
    if not names:
        return []  # axes without a line would look like a result
    if len(names) > epsilon_figures.MOST:
        names = names[: epsilon_figures.MOST - 1] + names[-1:]
    num_infinite = sum(not np.isfinite(metrics.curve).any() for metrics in report.approaches.values())
    left_out = len(report.approaches) - num_infinite - len(names)
    figure = epsilon_figures.against_delta(DELTAS, {name: report.approaches[name].curve for name in names})
    text = "Median over samples; not drawn where it is infinite, or where these models allow no informative rule." + (
        f" {left_out} approaches between the best and the worst are left out." if left_out else ""
    )
    text += f" {num_infinite} approach(es) have no finite median at any delta." if num_infinite else ""
    return [Section("epsilon_delta", "epsilon-hat against delta", text, figure=figure)]


def _best(report: EpsilonReport) -> str:
    return report.order[0] if report.order else BASELINE


def _margins(report: EpsilonReport, samples: tuple[int, ...], names: Sequence[str]) -> Section:
    name = _best(report)
    first, second = report.margins[name]
    values = report.approaches[name].epsilon
    panels = {}
    for sample in samples:
        label = f", epsilon-hat {number_format.number(values[sample], 2)}" if len(values) else ""
        panels[f"{names[sample] if names else f'sample {sample}'}{label}"] = first[sample], second[sample]
    quantity = "squared error" if report.is_regression else "margin"
    definition = "" if report.is_regression else " (logit of the true class minus the largest other one)"
    figure = epsilon_figures.densities(panels, quantity)
    text = f"{name}: {quantity}s{definition} of all models for single samples."
    return Section("epsilon_margins", "Outputs on single samples", text, figure=figure)


def typical(report: EpsilonReport) -> tuple[int, ...]:
    """Returns samples that range from the hardest to the easiest to tell apart, for the best approach."""
    count = report.options.settings.histograms
    values = report.approaches[_best(report)].epsilon
    if not count:
        return ()
    if not len(values):
        return tuple(range(min(count, len(report.labels))))
    order = np.argsort(np.nan_to_num(values, nan=-np.inf, posinf=1e9), kind="stable")
    positions = np.linspace(0.05, 0.95, count) * (len(order) - 1)
    return tuple(dict.fromkeys(int(order[round(position)]) for position in positions))


def modes(running: EpsilonReport, batch: EpsilonReport) -> Section:
    """Compares epsilon-hat of the same models with running statistics and, as published, with batch statistics."""
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(running):
        cells: list[Cell] = []
        for report in (running, batch):
            metrics = report.approaches.get(name)
            if metrics is None:
                cells += ["", ""]
                continue
            median = metrics.interval._replace(value=metrics.summary.median)
            cells += [
                _finding(median, "median epsilon-hat", name, "retrained models", report),
                100 - 100 * float(metrics.own_accuracy.mean()),
            ]
        rows.append((name, *cells))
    caption = (
        "running = BatchNorm uses its running statistics, as a model in use does; batch = it normalises by batches of "
        f"{min(running.options.settings.bn_batch, len(running.labels))} forgotten samples, in order, as the published "
        "logits were recorded. UA of the logits themselves."
    )
    header = ("approach", "running ↓", "UA % running", "batch ↓", "UA % batch")
    text = "How the mode of BatchNorm changes the estimate."
    return Section("epsilon_modes", "Both modes of BatchNorm", text, Table("", caption, header, tuple(rows)))


def _finding(interval: Interval, metric: str, of: str, against: str, report: EpsilonReport) -> Finding:
    settings = report.options.settings
    method = "" if math.isnan(interval.low) else f"bootstrap over models, {settings.bootstrap} resamples, normal"
    return Finding(
        interval.value, interval.low, interval.high, metric=metric, n=len(report.labels),
        confidence_level=settings.confidence_level, of=of, against=against, method=method,
    )  # fmt: skip


def _median(values: np.ndarray) -> float:
    return epsilon.summarise(values).median if len(values) else float("nan")


def _share(values: np.ndarray) -> float:
    return float((values > 0).mean()) if len(values) else float("nan")
