"""epsilon-hat of a published folder on one thread: all approaches, sweep over delta, intervals, challenge score.

Sizes: 8 approaches, 1,000 samples, 80 retrained and 80 unlearned models, 10 classes, as in the paper. Baselines: the
published computation (a scalar density per model, a curve per sample) on 100 samples of one approach; the challenge
rules one by one on 2 samples. The last rows are not times: the coverage of intervals over models.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn import progress

from . import one_core, timing
from .one_core import Say
from .timing import Row

ALL_SECONDS = 2.0


class Sizes(NamedTuple):
    """Sizes of the bench.

    Attributes:
      approaches, samples, models, classes: of the logits.
      resamples: of the bootstrap.
      plain_samples, rule_samples: samples of the two baselines.
      rounds, round_seconds: see `timing`.
      repetitions: of the coverage.
    """

    approaches: int = 8
    samples: int = 1000
    models: int = 80
    classes: int = 10
    resamples: int = 200
    plain_samples: int = 100
    rule_samples: int = 2
    rounds: int = 5
    round_seconds: float = 0.5
    repetitions: int = 200


FULL = Sizes()
QUICK = Sizes(2, 12, 8, 4, 4, 6, 1, 2, 0.01, 4)
SHIFTS = (0.0, 1.0, 2.0)


def run(quick: bool = False) -> list[Row]:
    """Runs the bench in a separate process on one core.

    Args:
      quick: tiny sizes; otherwise about two minutes.

    Returns:
      Rows as `launch.bench` describes them.
    """
    progress.Reporter().log("epsilon-hat, in a process on one core")
    return one_core.rows_of(__name__, "time", quick)


def time_rows(sizes: Sizes, say: Say) -> list[Row]:
    """Measures the rows in this process."""
    works, ways = works_of(sizes), ways_of(sizes)
    facts = {name: getattr(sizes, name) for name in ("approaches", "samples", "models", "classes")}
    rows = []
    for name, (work, target) in works.items():
        say(name)
        rows.append(one_core.seconds(name, work, target, sizes.rounds, sizes.round_seconds, **facts))
    with tempfile.TemporaryDirectory() as folder:
        name, work = from_folder(sizes, Path(folder))
        say(name)
        rows.append(one_core.seconds(name, work, ALL_SECONDS, sizes.rounds, sizes.round_seconds, **facts))
    for name, (here, plain) in ways.items():
        say(name)
        rows.append(one_core.ratio(name, here, plain, None, sizes.rounds, sizes.round_seconds, **facts))
    say("coverage of intervals")
    return rows + [coverage(sizes, shift, facts) for shift in SHIFTS]


def draw(sizes: Sizes, seed: int = 0) -> tuple[Any, list[Any], Any]:
    """Draws retrained logits [S, N, C], those of every approach, and labels [S]."""
    import numpy as np

    generator = np.random.default_rng(seed)
    labels = generator.integers(0, sizes.classes, sizes.samples)
    center = generator.normal(0, 2, (sizes.samples, 1, sizes.classes)).astype(np.float32)
    center[np.arange(sizes.samples), 0, labels] += 6

    def models(shift: float) -> Any:
        noise = generator.standard_normal((sizes.samples, sizes.models, sizes.classes), np.float32)
        values = center + noise
        values[np.arange(sizes.samples), :, labels] += np.float32(shift)
        return values

    return models(0.0), [models(0.3 * approach) for approach in range(sizes.approaches)], labels


def works_of(sizes: Sizes) -> dict[str, tuple[Callable[[], Any], float | None]]:
    """Returns the works that are timed without a baseline: name -> (work, target in seconds)."""
    import numpy as np

    from jaxunlearn.metrics.epsilon import challenge, epsilon, epsilon_bounds

    retrained, approaches, labels = draw(sizes)
    pairs = [epsilon.halves(retrained), *((retrained, logits) for logits in approaches)]
    statistics = [epsilon.statistics_of(*pair, labels) for pair in pairs]
    counts = [epsilon.count(*pair_statistics) for pair_statistics in statistics]
    deltas = np.arange(99) / 100

    def challenges() -> list[Any]:
        return [challenge.challenge_epsilon(*(challenge.scaled_confidence(logits, labels) for logits in pair))
                for pair in pairs]  # fmt: skip

    def bootstrap() -> Any:
        return epsilon_bounds.bootstrap({"one": statistics[1]}, iterations=sizes.resamples).medians

    all_of = f"{sizes.approaches} approaches and the baseline"
    return {
        f"logits to epsilon-hat of {all_of}, warm": (
            lambda: [epsilon.epsilon_hat(*pair, labels) for pair in pairs], ALL_SECONDS,
        ),
        f"99 values of delta, {all_of}, from the counts": (
            lambda: [epsilon.epsilon_sweep(pair_counts, deltas) for pair_counts in counts], None,
        ),
        f"proven lower bounds of {all_of}": (
            lambda: [epsilon_bounds.lower_bound(*pair_statistics) for pair_statistics in statistics], None,
        ),
        f"{sizes.resamples} resamples of one approach": (bootstrap, None),
        f"logits to the challenge score of {all_of}": (challenges, None),
    }  # fmt: skip


def from_folder(sizes: Sizes, folder: Path) -> tuple[str, Callable[[], Any]]:
    """Returns (name, work) from files in the published layout to the report, without intervals and challenge score."""
    import numpy as np

    from jaxunlearn import settings, store
    from jaxunlearn.runs.drivers import array_input

    retrained, approaches, labels = draw(sizes)
    accuracies = {subset: np.full(sizes.models, 0.9) for subset in store.published_layout.SUBSETS}
    logits_of = {f"approach_{index}": logits for index, logits in enumerate(approaches)}
    store.published_layout.write(
        folder / "data", labels, retrained, logits_of, dict.fromkeys(("", *logits_of), accuracies)
    )
    run_settings = settings.resolve({"epsilon": {"bootstrap": 0, "metric": "epsilon", "sweep": False}})
    data, out = str(folder / "data"), str(folder / "out")
    name = f"folder of {sizes.approaches} approaches to tables, figure and report, warm"
    return name, lambda: array_input.run("epsilon", data, run_settings, out, (), False, False)


def coverage(sizes: Sizes, shift: float, facts: dict[str, int]) -> Row:
    """Measures how often the 95 % interval of one approach's median contains the average over such models.

    Margins are normal, .3 of their variance common to all samples of a model; 32 models and 60 samples.
    """
    import numpy as np

    from jaxunlearn.metrics.epsilon import epsilon, epsilon_bounds

    generator = np.random.default_rng(0)

    def models(mean: float) -> Any:
        common, noise = generator.standard_normal((1, 32)), generator.standard_normal((60, 32))
        return (mean + np.sqrt(0.3) * common + np.sqrt(0.7) * noise).astype(np.float32)

    pairs = [(models(0.0), models(shift)) for _ in range(2 * sizes.repetitions)]
    medians = [epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(*pair))).median for pair in pairs]
    truth = np.mean(medians[: sizes.repetitions])
    inside = []
    for seed, pair in enumerate(pairs[sizes.repetitions :]):
        resamples = epsilon_bounds.bootstrap({"a": pair}, iterations=sizes.resamples, seed=seed)
        _, low, high = epsilon_bounds.interval(resamples, "a")
        inside.append(low <= truth <= high)
    name = f"coverage of the 95 % interval, models shifted by {shift:g} deviations, {sizes.repetitions} repetitions"
    return timing.value_row(name, [float(np.mean(inside))], "of repetitions", ">=", **facts)


def ways_of(sizes: Sizes) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Returns the comparisons: name -> (ours, plain); both give the same numbers."""
    from jaxunlearn.metrics.epsilon import challenge, epsilon

    from . import plain_epsilon as plain

    retrained, approaches, labels = draw(sizes)
    few, fewer = slice(sizes.plain_samples), slice(sizes.rule_samples)
    first = retrained[few], approaches[-1][few], labels[few]
    confidences = [challenge.scaled_confidence(logits[fewer], labels[fewer]) for logits in (retrained, approaches[-1])]
    return {
        f"epsilon-hat of {sizes.plain_samples} samples: one call against the published loops": (
            lambda: epsilon.epsilon_hat(*first), lambda: plain.epsilon_hat(*first),
        ),
        f"challenge epsilon of {sizes.rule_samples} sample(s): counts against all rules": (
            lambda: challenge.challenge_epsilon(*confidences), lambda: plain.challenge_epsilon(*confidences),
        ),
    }  # fmt: skip


if __name__ == "__main__":
    one_core.main({"time": time_rows}, QUICK, FULL)
