"""CR of many models at many levels: one jitted call against the loop over models and levels, in NumPy and in JAX.

Sizes: 100 models, 2,000 calibration and 10,000 test samples, 100 classes, 10 alphas. All sides get the same float32
logits in memory (JAX's on the device) and give threshold, coverage, set size and CR of every model and level.
"""

import functools
import math
from typing import Any, NamedTuple

from jaxunlearn import progress

from . import timing
from .timing import Row, Times, Variant

TARGET = 3.0


class Sizes(NamedTuple):
    """Sizes: M models, n calibration and N test samples, C classes, A levels; rounds of the times."""

    models: int = 100
    calibration: int = 2000
    samples: int = 10_000
    classes: int = 100
    levels: int = 10
    rounds: int = 5
    round_seconds: float = 1.0


FULL = Sizes()
QUICK = Sizes(3, 60, 80, 10, 3, 1, 0.01)


def run(quick: bool = False) -> list[Row]:
    """Measures CR of a population.

    Args:
      quick: tiny sizes; otherwise about two minutes and 1 GB of memory.

    Returns:
      Rows as `launch.bench` describes them.
    """
    sizes = QUICK if quick else FULL
    say = progress.Reporter().log
    ways = ways_of(sizes)
    variants = {name: _variant(name, call, sizes.models * sizes.levels) for name, call in ways.items()}
    times = timing.interleave(variants, sizes.rounds, sizes.round_seconds, say)
    return rows_of(times, sizes)


def rows_of(times: dict[str, Times], sizes: Sizes) -> list[Row]:
    """Returns one ratio per baseline without populations."""
    description = (
        f"CR of {sizes.models} models, {sizes.samples:,} samples, {sizes.classes} classes, {sizes.levels} alphas: one "
        "call against "
    )
    baselines = {"numpy": "NumPy, a loop over models and alphas", "jax": "a jitted call per model and alpha"}
    rows = []
    for key, name in baselines.items():
        target = TARGET if key == "numpy" else None
        row = timing.ratio_row(description + name, times["here"], times[key], target, **sizes._asdict())
        row["rate_unit"] = "models x alphas/s"
        rows.append(row)
    return rows


def ways_of(sizes: Sizes, seed: int = 0) -> dict[str, Any]:
    """Returns each way as a function without arguments that gives [4, M, A]: q_hat, coverage, set size, CR."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxunlearn.metrics.conformal import conformal

    generator = np.random.default_rng(seed)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.integers(0, sizes.classes, count)
        logits = generator.normal(0, 2, (sizes.models, count, sizes.classes)).astype(np.float32)
        logits[:, np.arange(count), labels] += 4
        return logits, labels

    (calibration, calibration_labels), (logits, labels) = draw(sizes.calibration), draw(sizes.samples)
    alphas = tuple(np.linspace(0.05, 0.5, sizes.levels).tolist())
    on_device = jax.device_put((calibration, logits))

    def here() -> np.ndarray:
        report = conformal.evaluate(on_device[0], calibration_labels, on_device[1], labels, alphas)
        quality = report.quality
        return np.stack([report.q_hat, quality.coverage, quality.set_size, quality.cr])

    def numpy() -> np.ndarray:
        results = np.empty((4, sizes.models, sizes.levels))
        for model in range(sizes.models):
            for level, alpha in enumerate(alphas):
                results[:, model, level] = plain(calibration[model], calibration_labels, logits[model], labels, alpha)
        return results

    @functools.partial(jax.jit, static_argnames="place")
    def single(calibration: Any, calibration_labels: Any, logits: Any, labels: Any, place: int) -> Any:
        calibration_scores = 1 - jnp.take_along_axis(jax.nn.softmax(calibration), calibration_labels[:, None], -1)[:, 0]
        q_hat = jnp.sort(calibration_scores)[place]
        inside = 1 - jax.nn.softmax(logits) <= q_hat
        coverage = jnp.take_along_axis(inside, labels[:, None], -1).mean()
        size = inside.sum(-1).mean()
        return jnp.stack([q_hat, coverage, size, coverage / size])

    def jax_loop() -> np.ndarray:
        results = [
            [single(on_device[0][model], calibration_labels, on_device[1][model], labels,
                    conformal.rank_of(sizes.calibration, alpha)) for alpha in alphas]
            for model in range(sizes.models)
        ]  # fmt: skip
        return np.moveaxis(np.asarray(jax.device_get(results)), -1, 0)

    return {"here": here, "numpy": numpy, "jax": jax_loop}


def plain(calibration: Any, calibration_labels: Any, logits: Any, labels: Any, alpha: float) -> tuple[float, ...]:
    """Computes CR of one model at one level as published code does, in NumPy.

    Args:
      calibration: [n, C] logits.
      calibration_labels: [n] labels.
      logits: [N, C] of the test samples.
      labels: [N] labels.
      alpha: error rate.
    """
    import numpy as np

    def softmax(values: Any) -> Any:
        shifted = np.exp(values - values.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)

    scores = 1 - softmax(calibration)[np.arange(len(calibration)), calibration_labels]
    level = math.ceil((len(scores) + 1) * (1 - alpha)) / len(scores)
    q_hat = np.quantile(scores, level, method="higher")
    inside = softmax(logits) >= np.float32(1 - q_hat)
    coverage, size = inside[np.arange(len(logits)), labels].mean(), inside.sum(-1).mean()
    return float(q_hat), coverage, size, coverage / size


def _variant(name: str, call: Any, units: float) -> Variant:
    def once() -> float:
        call()
        return 0.0

    return Variant(name, once, units)
