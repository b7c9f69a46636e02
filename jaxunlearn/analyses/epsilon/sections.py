"""What epsilon-hat says as tables, figures and sentences. Numbers only; door and study end here."""

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
    ("epsilon.npz", "per sample, in the order given: ids, epsilon, proved bound, challenge; medians by delta"),
    ("epsilon.json", "per approach: every number"),
)
# Never marked as the best.
BASELINES = (BASELINE, START, *closeness.YARDSTICKS)
# The published half width of a mean accuracy.
PUBLISHED_Z = 1.96


def arrays(found: EpsilonReport, names: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What epsilon.npz holds: NAME__epsilon, NAME__proved, NAME__challenge [S], NAME__median_by_delta [D]."""
    kept: dict[str, np.ndarray] = {**names, "labels": found.labels}
    for name, one in found.approaches.items():
        parts = {"epsilon": one.epsilon, "proved": one.bound, "median_by_delta": one.curve}
        if one.challenge is not None:
            parts["challenge"] = one.challenge.epsilon
        kept |= {f"{name}__{part}": values for part, values in parts.items() if len(values)}
        if len(one.curve):
            kept["deltas"] = DELTAS
    return kept


def plain(found: EpsilonReport) -> dict[str, Any]:
    """What epsilon.json holds: all but the values per sample; null = not known, "inf" = infinite."""
    told: dict[str, Any] = {}
    for name, one in found.approaches.items():
        own: dict[str, Any] = {
            "models": one.sizes, **one.summary._asdict(), "interval": [one.interval.low, one.interval.high],
            "ceiling": one.max_finite, "equal_groups": one.null_median, "proved_median": _median(one.bound),
            "proved_share": _share(one.bound), "proved_ceiling": one.max_bound,
            "accuracies": {part: list(_accuracy(values)) for part, values in one.accuracies.items()},
            "forget_error_of_logits" if not found.is_regression else "mean_absolute_error":
                float((one.own_accuracy if found.is_regression else 1 - one.own_accuracy).mean()),
        }  # fmt: skip
        differences = (
            ("behind_best", found.gap_to_best),
            (f"beyond_{PLAIN}", found.gap_to_finetuning),
            (f"beyond_{START}", found.gap_to_original),
        )
        for key, apart in differences:
            if name in apart:
                own[key] = list(apart[name])
        if one.challenge is not None:
            own["challenge"] = {key: value for key, value in one.challenge._asdict().items() if key != "epsilon"}
        told[name] = own
    whole = {"settings": vars(found.options.settings), "compat": found.options.compat, "order": found.order}
    return {**whole, "approaches": told}


def provenance(found: EpsilonReport) -> dict[str, str]:
    """What was measured, for the foot of the page."""
    chosen = found.options.settings
    return {
        "samples": f"{len(found.labels):,}",
        "epsilon-hat": f"score {'squared error' if found.is_regression else chosen.score}, delta {chosen.delta:g}, "
        f"{chosen.bootstrap} resamples of the models",
        "compat": found.options.compat,
    }


def sections(found: EpsilonReport, samples: tuple[int, ...] = (), names: Sequence[str] = ()) -> list[Section]:
    """Tables and figures; `samples`: whose margins are drawn, empty = from the hardest to the easiest to tell apart.

    `names` are what the user calls all samples; empty = their numbers.
    """
    wanted = found.options.settings.metric
    made = []
    if wanted != "challenge":
        made.append(_main(found))
        if any(len(one.bound) for one in found.approaches.values()):
            made.append(_proved(found))
    if any(one.challenge is not None for one in found.approaches.values()):
        made.append(_challenge(found))
    if wanted != "challenge" and found.options.settings.sweep:
        made += _curves(found)
    chosen = samples or typical(found)
    return made + [_margins(found, chosen, names)] if chosen else made


def _main(found: EpsilonReport) -> Section:
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    for name in ranked(found):
        one = found.approaches[name]
        told = one.summary
        median = _finding(
            one.interval._replace(value=told.median), "median epsilon-hat", name, "retrained models", found
        )
        behind = (
            _finding(found.gap_to_best[name], "behind the best", name, found.order[0], found)
            if name in found.gap_to_best
            else ""
        )
        utility = _utility(found, one, name)
        beyond = [
            _finding(apart[name], f"beyond {other}", name, other, found)
            for other, apart in ((PLAIN, found.gap_to_finetuning), (START, found.gap_to_original)) if name in apart
        ]  # fmt: skip
        every += [cell for cell in (median, behind, *utility, *beyond) if isinstance(cell, Finding)]
        rows.append((name, f"{one.sizes[0]} + {one.sizes[1]}", median, behind, told.finite_mean, told.low_quartile,
                     told.high_quartile, told.inf, told.nan, told.negative, *utility))  # fmt: skip
    chosen = found.options.settings
    caption = (
        f"epsilon-hat at delta = {chosen.delta:g} over {len(found.labels):,} forgotten samples, of so many retrained + "
        f"unlearned models; higher = easier to tell apart. {_of_intervals(found)}{BASELINE} = one half of the "
        "retrained models against the other. mean = of finite samples; 25 %, 75 % = quartiles; inf = samples that are "
        "told apart without error; nan = no usable rule; neg = no evidence at all. "
        + ("MAE = mean absolute error on the forget set." if found.is_regression else
           "RA, UA, TA: accuracy on retained samples, 1 - accuracy on forgotten ones, accuracy on test samples; [ ] in "
           "the files = 1.96 standard errors over models.")
    )  # fmt: skip
    utility = ("MAE",) if found.is_regression else ("RA % ↑", "UA %", "TA % ↑")
    header = ("approach", "models", "epsilon-hat ↓", "behind", "mean", "25 %", "75 %", "inf", "nan", "neg", *utility)
    table = Table("", caption, header, tuple(rows), BASELINES)
    title = "How well can unlearned and retrained models be told apart?"
    return Section(STEM, title, wording.limits(found), table, None, tuple(every))


def _of_intervals(found: EpsilonReport) -> str:
    if not found.gap_to_best:
        return ""
    chosen = found.options.settings
    over = "models (those that start from one original say nothing about another)"
    if found.options.design.kind != "given":
        over = sentences.units(found.options.design)
    return (
        f"[ ] = {number_format.rate(chosen.confidence_level)} interval over {over}; {chosen.bootstrap} resamples of "
        "the models, value ± "
        "z deviations. behind = median minus that of "
        "the best approach, intervals of all pairs together. "
    )


def _accuracy(values: np.ndarray) -> Interval:
    """Mean accuracy of models with its published interval, 1.96 standard errors (ddof 1)."""
    half = PUBLISHED_Z * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
    mean = float(np.mean(values))
    return Interval(mean, mean - half, mean + half)


def _utility(found: EpsilonReport, one: ApproachMetrics, name: str) -> tuple[Cell, ...]:
    """RA, UA and TA in per cent, or the error of a regression."""
    if found.is_regression:
        return (float(one.own_accuracy.mean()),)
    cells: list[Cell] = []
    for metric, part in (("RA", "retain"), ("UA", "forget"), ("TA", "test")):
        if part not in one.accuracies:
            cells.append(float("nan"))
            continue
        value, low, high = (100 * end for end in _accuracy(one.accuracies[part]))
        if metric == "UA":
            value, low, high = 100 - value, 100 - high, 100 - low
        n = len(one.accuracies[part])
        cells.append(Finding(value, low, high, metric=f"{metric} (%)", n=n, of=name, method="1.96 standard errors"))
    return tuple(cells)


def _proved(found: EpsilonReport) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(found):
        one = found.approaches[name]
        rows.append((name, _median(one.bound), _share(one.bound), one.max_bound, one.max_finite))
    confidence_level = number_format.rate(found.options.settings.confidence_level)
    caption = (
        "Half of the models choose the rule, the other half count its errors, whose rates are bounded after Clopper "
        f"and Pearson: for each sample the bound holds with probability {confidence_level}, for models made from the "
        "same "
        "original. share = samples with a bound above 0; without any difference at most "
        f"{number_format.rate(1 - found.options.settings.confidence_level)} are expected. Not comparable with "
        "epsilon-hat, which is an "
        "estimate without guarantee."
    )
    header = ("approach", "proved epsilon, median", "share above 0", "largest provable", "largest finite epsilon-hat")
    text = "A lower bound as the auditing of differential privacy uses it; higher = proved worse unlearning."
    return Section("epsilon_proved", "What is proved?", text, Table("", caption, header, tuple(rows)))


def _challenge(found: EpsilonReport) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(found):
        told = found.approaches[name].challenge
        if told is not None:
            rows.append((name, float(np.median(told.epsilon)), told.capped, told.forget, told.retain_ratio,
                         told.test_ratio, told.final))  # fmt: skip
    caption = (
        "The NeurIPS-2023 challenge: delta 1e-5, one- and two-sided rules on the confidence, forget = mean of 2/2^bin "
        "over bins of 0.5, final = forget times the ratios of accuracies, unlearned over retrained. Its many rules "
        f"overfit: even {BASELINE} is far from 1, the more so as its halves have fewer models. Scores with different "
        "numbers of models do not compare."
    )
    header = ("approach", "median epsilon ↓", "at 50", "forget ↑", "RA ratio", "TA ratio", "final ↑")
    return Section("epsilon_challenge", "The challenge score", "HIGHER = better, unlike epsilon-hat.",
                   Table("", caption, header, tuple(rows), BASELINES))  # fmt: skip


def _curves(found: EpsilonReport) -> list[Section]:
    kept = [name for name in ranked(found) if np.isfinite(found.approaches[name].curve).any()]
    if not kept:
        return []  # axes without a line would look like a result
    if len(kept) > epsilon_figures.MOST:
        kept = kept[: epsilon_figures.MOST - 1] + kept[-1:]
    nowhere = sum(not np.isfinite(one.curve).any() for one in found.approaches.values())
    left_out = len(found.approaches) - nowhere - len(kept)
    figure = epsilon_figures.against_delta(DELTAS, {name: found.approaches[name].curve for name in kept})
    text = "Median over samples; not drawn where it is infinite, or where no rule of so many models is of use." + (
        f" {left_out} approaches between the best and the worst are left out." if left_out else ""
    )
    text += f" {nowhere} approach(es) have a finite median nowhere." if nowhere else ""
    return [Section("epsilon_delta", "epsilon-hat against delta", text, figure=figure)]


def _best(found: EpsilonReport) -> str:
    return found.order[0] if found.order else BASELINE


def _margins(found: EpsilonReport, samples: tuple[int, ...], names: Sequence[str]) -> Section:
    name = _best(found)
    first, second = found.margins[name]
    values = found.approaches[name].epsilon
    panels = {}
    for sample in samples:
        told = f", epsilon-hat {number_format.number(values[sample], 2)}" if len(values) else ""
        panels[f"{names[sample] if names else f'sample {sample}'}{told}"] = first[sample], second[sample]
    what = "squared errors" if found.is_regression else "margins (logit of the true class minus the largest other one)"
    figure = epsilon_figures.densities(panels, "squared error" if found.is_regression else "margin")
    text = f"{name}: {what} of all models for single samples."
    return Section("epsilon_margins", "What the models say of single samples", text, figure=figure)


def typical(found: EpsilonReport) -> tuple[int, ...]:
    """Samples from the hardest to the easiest to tell apart, of the best approach."""
    wanted = found.options.settings.histograms
    values = found.approaches[_best(found)].epsilon
    if not wanted:
        return ()
    if not len(values):
        return tuple(range(min(wanted, len(found.labels))))
    order = np.argsort(np.nan_to_num(values, nan=-np.inf, posinf=1e9), kind="stable")
    places = np.linspace(0.05, 0.95, wanted) * (len(order) - 1)
    return tuple(dict.fromkeys(int(order[round(place)]) for place in places))


def modes(running: EpsilonReport, batch: EpsilonReport) -> Section:
    """epsilon-hat of the same models answering with running statistics and, as published, by batches."""
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(running):
        cells: list[Cell] = []
        for found in (running, batch):
            one = found.approaches.get(name)
            if one is None:
                cells += ["", ""]
                continue
            median = one.interval._replace(value=one.summary.median)
            cells += [
                _finding(median, "median epsilon-hat", name, "retrained models", found),
                100 - 100 * float(one.own_accuracy.mean()),
            ]
        rows.append((name, *cells))
    caption = (
        "running = BatchNorm uses its running statistics, as a model in use does; batch = it normalises by batches of "
        f"{min(running.options.settings.bn_batch, len(running.labels))} forgotten samples, in order, as the published "
        "logits were recorded. UA of the logits themselves."
    )
    header = ("approach", "running ↓", "UA % running", "batch ↓", "UA % batch")
    text = "What the mode of BatchNorm does to the estimate."
    return Section("epsilon_modes", "Both modes of BatchNorm", text, Table("", caption, header, tuple(rows)))


def _finding(interval: Interval, metric: str, of: str, against: str, found: EpsilonReport) -> Finding:
    chosen = found.options.settings
    method = "" if math.isnan(interval.low) else f"bootstrap over models, {chosen.bootstrap} resamples, normal"
    return Finding(
        interval.value, interval.low, interval.high, metric=metric, n=len(found.labels),
        confidence_level=chosen.confidence_level, of=of, against=against, method=method,
    )  # fmt: skip


def _median(values: np.ndarray) -> float:
    return epsilon.summarise(values).median if len(values) else float("nan")


def _share(values: np.ndarray) -> float:
    return float((values > 0).mean()) if len(values) else float("nan")
