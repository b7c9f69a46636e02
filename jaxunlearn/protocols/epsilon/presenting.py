"""What epsilon-hat says as tables, figures and sentences. Numbers only; door and study end here."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxunlearn.metrics import epsilon
from jaxunlearn.metrics.intervals import Interval
from jaxunlearn.protocols.audit.presenting import Piece
from jaxunlearn.protocols.epsilon.measures import BASELINE, DELTAS, PLAIN, Found, Numbers, best_of
from jaxunlearn.records import Finding
from jaxunlearn.report import formats, populations, tables
from jaxunlearn.report.cells import Cell, Table

STEM = "epsilon"
WIDTH = 150
FILES = (
    "  epsilon.npz              per sample, in the order given: epsilon, proved bound, challenge; medians by delta\n"
    "  epsilon.json             per approach: every number"
)
MOST_LINES = 9  # curves that can still be told apart, the baseline among them


def arrays(found: Found) -> dict[str, np.ndarray]:
    """What epsilon.npz holds: NAME__epsilon, NAME__proved, NAME__challenge [S], NAME__median_by_delta [D]."""
    kept: dict[str, np.ndarray] = {"labels": found.labels}
    for name, one in found.numbers.items():
        parts = {"epsilon": one.epsilon, "proved": one.bound, "median_by_delta": one.curve}
        if one.challenge is not None:
            parts["challenge"] = one.challenge.epsilon
        kept |= {f"{name}__{part}": values for part, values in parts.items() if len(values)}
        if len(one.curve):
            kept["deltas"] = DELTAS
    return kept


def plain(found: Found) -> dict[str, Any]:
    """What epsilon.json holds: all but the values per sample."""
    told: dict[str, Any] = {}
    for name, one in found.numbers.items():
        own: dict[str, Any] = {
            "models": one.sizes, **one.summary._asdict(), "interval": [one.interval.low, one.interval.high],
            "ceiling": one.ceiling, "proved_median": _median(one.bound), "proved_share": _share(one.bound),
            "proved_ceiling": one.bound_ceiling,
            "accuracies": {part: float(np.mean(values)) for part, values in one.accuracies.items()},
        }  # fmt: skip
        if name in found.behind:
            own["behind_best"] = list(found.behind[name])
        if one.challenge is not None:
            own["challenge"] = {key: value for key, value in one.challenge._asdict().items() if key != "epsilon"}
        told[name] = own
    return {"settings": vars(found.asked.settings), "compat": found.asked.compat, "approaches": told}


def provenance(found: Found) -> dict[str, str]:
    """What was measured, for the foot of the page."""
    chosen = found.asked.settings
    return {
        "samples": f"{len(found.labels):,}",
        "epsilon-hat": f"score {'squared error' if found.is_regression else chosen.score}, delta {chosen.delta:g}, "
        f"{chosen.bootstrap} resamples of the models",
        "compat": found.asked.compat,
    }


def pieces(found: Found, samples: tuple[int, ...] = ()) -> list[Piece]:
    """Tables and figures; `samples`: whose margins are drawn, empty = from the hardest to the easiest to tell apart."""
    wanted = found.asked.settings.metric
    made = []
    if wanted != "challenge":
        made += [_main(found), _proved(found)]
    if any(one.challenge is not None for one in found.numbers.values()):
        made.append(_challenge(found))
    if wanted != "challenge" and found.asked.settings.sweep:
        made.append(_curves(found))
    chosen = samples or typical(found)
    return made + [_margins(found, chosen)] if chosen else made


def _main(found: Found) -> Piece:
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    for name in ranked(found):
        one = found.numbers[name]
        told = one.summary
        median = _finding(one.interval._replace(value=told.median), "median epsilon-hat", name, found)
        behind = _finding(found.behind[name], "behind the best", name, found) if name in found.behind else ""
        every += [cell for cell in (median, behind) if isinstance(cell, Finding)]
        rows.append((name, median, behind, told.finite_mean, told.low_quartile, told.high_quartile, told.inf, told.nan,
                     told.negative, *_utility(found, one)))  # fmt: skip
    sizes = next(one.sizes for name, one in found.numbers.items() if name != BASELINE)
    chosen = found.asked.settings
    caption = (
        f"epsilon-hat at delta = {chosen.delta:g} over {len(found.labels):,} forgotten samples, {sizes[0]} retrained "
        f"and {sizes[1]} unlearned models; higher = easier to tell apart. {_of_intervals(found)}{BASELINE} = one half "
        "of the retrained models against the other: the floor of the estimate. behind = median minus that of the best "
        "approach. mean = of finite samples; 25 %, 75 % = quartiles; inf = samples that are told apart without error; "
        "nan = no usable rule; neg = no evidence at all. "
        + ("MAE = mean absolute error on the forget set." if found.is_regression else
           "RA, UA, TA: accuracy on retained samples, 1 - accuracy on forgotten ones, accuracy on test samples.")
    )  # fmt: skip
    utility = ("MAE",) if found.is_regression else ("RA % ↑", "UA %", "TA % ↑")
    header = ("approach", "epsilon-hat ↓", "behind", "mean", "25 %", "75 %", "inf", "nan", "neg", *utility)
    table = Table("", caption, header, tuple(rows))
    return Piece(STEM, "How well can unlearned and retrained models be told apart?", _ceilings(found), table, None,
                 tuple(every))  # fmt: skip


def _of_intervals(found: Found) -> str:
    chosen = found.asked.settings
    if chosen.bootstrap < 2:
        return ""
    level = formats.rate(chosen.level)
    return f"[ ] = {level} interval over models ({chosen.bootstrap} resamples, value ± z deviations). "


def _ceilings(found: Found) -> str:
    """The finite-N note."""
    said = []
    for name, one in found.numbers.items():
        text = f"{one.sizes[0]} + {one.sizes[1]} models can show no finite epsilon-hat above {one.ceiling:.3f}"
        if text not in said and name != BASELINE:
            said.append(text)
    floor = found.numbers.get(BASELINE)
    if floor is not None:
        said.append(f"the halves of the baseline none above {floor.ceiling:.3f}")
    return "; ".join(said) + "."


def _utility(found: Found, one: Numbers) -> tuple[Cell, ...]:
    if found.is_regression:
        return (float(one.own_accuracy.mean()),)
    known = {part: 100 * float(np.mean(values)) for part, values in one.accuracies.items()}
    nothing = float("nan")
    return known.get("retain", nothing), 100 - known.get("forget", nothing), known.get("test", nothing)


def _proved(found: Found) -> Piece:
    rows: list[tuple[Cell, ...]] = [
        (name, _median(one.bound), _share(one.bound), one.bound_ceiling, one.ceiling)
        for name, one in ((name, found.numbers[name]) for name in ranked(found))
    ]
    level = formats.rate(found.asked.settings.level)
    caption = (
        "Half of the models choose the rule, the other half count its errors, whose rates are bounded after Clopper "
        f"and Pearson: for each sample the bound holds with probability {level}. share = samples with a bound above 0; "
        f"without any difference at most {formats.rate(1 - found.asked.settings.level)} are expected. Not comparable "
        "with epsilon-hat, which is an estimate without guarantee."
    )
    header = ("approach", "proved epsilon, median", "share above 0", "largest provable", "largest finite epsilon-hat")
    text = "A lower bound as the auditing of differential privacy uses it; higher = proved worse unlearning."
    return Piece("epsilon_proved", "What is proved?", text, Table("", caption, header, tuple(rows)))


def _challenge(found: Found) -> Piece:
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(found):
        told = found.numbers[name].challenge
        if told is not None:
            rows.append((name, float(np.median(told.epsilon)), told.capped, told.forget, told.retain_ratio,
                         told.test_ratio, told.final))  # fmt: skip
    caption = (
        "The NeurIPS-2023 challenge: delta 1e-5, one- and two-sided rules on the confidence, forget = mean of 2/2^bin "
        "over bins of 0.5, final = forget times the ratios of accuracies, unlearned over retrained. Its many rules "
        f"overfit: even {BASELINE} is far from 1. Scores with different numbers of models do not compare."
    )
    header = ("approach", "median epsilon ↓", "at 50", "forget ↑", "RA ratio", "TA ratio", "final ↑")
    return Piece("challenge", "The challenge score", "HIGHER = better, unlike epsilon-hat.",
                 Table("", caption, header, tuple(rows)))  # fmt: skip


def _curves(found: Found) -> Piece:
    kept = ranked(found)
    if len(kept) > MOST_LINES:
        kept = kept[: MOST_LINES - 1] + kept[-1:]
    left_out = len(found.numbers) - len(kept)
    figure = populations.against_delta(DELTAS, {name: found.numbers[name].curve for name in kept})
    text = "Median over samples; a line ends where no rule of so many models is of use." + (
        f" {left_out} approaches between the best and the worst are left out." if left_out else ""
    )
    return Piece("epsilon_delta", "epsilon-hat against delta", text, figure=figure)


def _margins(found: Found, samples: tuple[int, ...]) -> Piece:
    name = best_of({name: one for name, one in found.numbers.items() if name != BASELINE})
    retrained, unlearned = found.margins[name]
    values = found.numbers[name].epsilon
    panels = {}
    for sample in samples:
        told = f", epsilon-hat {formats.number(values[sample], 2)}" if len(values) else ""
        panels[f"sample {sample}{told}"] = retrained[sample], unlearned[sample]
    what = "squared errors" if found.is_regression else "margins (logit of the true class minus the largest other one)"
    figure = populations.densities(panels, "squared error" if found.is_regression else "margin")
    text = f"{name}: {what} of all models for single samples."
    return Piece("epsilon_margins", "What the models say of single samples", text, figure=figure)


def typical(found: Found) -> tuple[int, ...]:
    """Samples from the hardest to the easiest to tell apart, of the approach with the lowest median."""
    name = best_of({name: one for name, one in found.numbers.items() if name != BASELINE})
    wanted = found.asked.settings.histograms
    values = found.numbers[name].epsilon
    if not wanted:
        return ()
    if not len(values):
        return tuple(range(min(wanted, len(found.labels))))
    order = np.argsort(np.nan_to_num(values, nan=-np.inf, posinf=1e9), kind="stable")
    places = np.linspace(0.05, 0.95, wanted) * (len(order) - 1)
    return tuple(dict.fromkeys(int(order[round(place)]) for place in places))


def in_words(found: Found) -> str:
    """The best and the worst approach, and whether they differ by more than chance."""
    approaches = {name: one for name, one in found.numbers.items() if name != BASELINE}
    if found.asked.settings.metric == "challenge":
        finals = {name: one.challenge.forget for name, one in approaches.items() if one.challenge is not None}
        best = max(finals, key=lambda name: finals[name])
        return f"{best} has the highest forget score of the challenge, {finals[best]:.4f}."
    order = sorted(approaches, key=lambda name: _rank(approaches[name]))
    best = order[0]
    said = [f"{best} is hardest to tell from retraining: median epsilon-hat {_shown(approaches[best])}."]
    floor = found.numbers.get(BASELINE)
    if floor is not None:
        said.append(f"Retrained models among themselves (the floor): {_shown(floor)}.")
    equal = [name for name in order[1:] if name in found.behind and found.behind[name].low <= 0]
    if equal:
        said.append(f"Other models might put these before it: {', '.join(equal)}.")
    if found.beyond:
        better = [f"{name} ({_interval(one)})" for name, one in found.beyond.items() if one.high < 0]
        said.append(f"Better than {PLAIN}, by the interval: {', '.join(better) or 'none'}.")
    if len(order) > 1:
        said.append(f"Easiest to tell: {order[-1]}, {_shown(approaches[order[-1]])}.")
    return " ".join(said)


def text(shown: Iterable[Piece]) -> str:
    """The tables for the terminal."""
    parts = [f"{one.title}\n{one.text}\n\n{tables.text(one.table, width=WIDTH)}" for one in shown if one.table]
    return "\n\n".join(parts)


def ranked(found: Found) -> list[str]:
    """The baseline, then the approaches from the hardest to the easiest to tell apart."""
    others = sorted((name for name in found.numbers if name != BASELINE), key=lambda name: _rank(found.numbers[name]))
    return [name for name in (BASELINE, *others) if name in found.numbers]


def modes(running: Found, batch: Found) -> Piece:
    """epsilon-hat of the same models answering with running statistics and, as published, by batches."""
    rows: list[tuple[Cell, ...]] = []
    for name in ranked(running):
        cells: list[Cell] = []
        for found in (running, batch):
            one = found.numbers.get(name)
            if one is None:
                cells += ["", ""]
                continue
            median = one.interval._replace(value=one.summary.median)
            cells += [_finding(median, "median epsilon-hat", name, found), 100 - 100 * float(one.own_accuracy.mean())]
        rows.append((name, *cells))
    caption = (
        "running = BatchNorm uses its running statistics, as a model in use does; batch = it normalises by batches of "
        f"{running.asked.settings.bn_batch} forgotten samples, in order, as the published logits were recorded. UA of "
        "the logits themselves."
    )
    header = ("approach", "running ↓", "UA % running", "batch ↓", "UA % batch")
    text = "What the mode of BatchNorm does to the estimate."
    return Piece("epsilon_modes", "Both modes of BatchNorm", text, Table("", caption, header, tuple(rows)))


def _rank(one: Numbers) -> tuple[float, float]:
    """Order of approaches: by median, then by mean of finite samples."""
    low = np.nan_to_num(one.summary.median, nan=np.inf)
    return float(low), float(np.nan_to_num(one.summary.finite_mean, nan=np.inf))


def _shown(one: Numbers) -> str:
    return _interval(one.interval._replace(value=one.summary.median))


def _interval(one: Interval) -> str:
    value = formats.number(one.value)
    return value if math.isnan(one.low) else f"{value} [{formats.number(one.low)}, {formats.number(one.high)}]"


def _finding(interval: Interval, metric: str, of: str, found: Found) -> Finding:
    chosen = found.asked.settings
    return Finding(
        interval.value, interval.low, interval.high, metric=metric, n=len(found.labels), level=chosen.level, of=of,
        against="retrained models", method="bootstrap over models, normal",
    )  # fmt: skip


def _median(values: np.ndarray) -> float:
    return epsilon.summarise(values).median if len(values) else float("nan")


def _share(values: np.ndarray) -> float:
    return float((values > 0).mean()) if len(values) else float("nan")
