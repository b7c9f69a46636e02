"""Work after training: all scores, prediction sets and epsilon-hat at full size."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..timing import value_row
from . import clock

Row = dict[str, Any]


def analyses(names: Sequence[str], *, pace: clock.Pace, sizes: dict[str, dict[str, int]]) -> Iterator[Row]:
    """Yields rows named by their first word: scores, signals, sets, epsilon-hat.

    Args:
      names: rows to measure.
      pace: of the windows.
      sizes: analysis -> sizes that differ from the full ones of its own bench.
    """
    for name in names:
        analysis = name.split()[0].rstrip(",:")
        yield WORKS[analysis](name, pace, sizes[analysis])


def _scores(name: str, pace: clock.Pace, sizes: dict[str, int]) -> Row:
    """Measures seconds from logits in host memory to every score, with transfers and work on the host."""
    import jax
    import numpy as np

    from jaxunlearn import scores

    from .. import scores as bench

    # A few shadows are drawn and repeated: drawing them all takes longer than scoring them.
    bench_sizes = bench.FULL._replace(**sizes)
    few = bench.draw(bench_sizes._replace(shadows=min(bench_sizes.shadows, 4)))
    repeated = {name: np.concatenate([getattr(few, name)] * (bench_sizes.shadows // 4 or 1)) for name in
                ("shadows", "population_shadows", "shadow_train_logits", "shadow_train_labels")}  # fmt: skip
    evidence = dataclasses.replace(few, **repeated)
    options = scores.Options()
    seconds = clock.windows(lambda: scores.run(("all",), evidence, options).scores, pace, jax.block_until_ready)
    return value_row(name, seconds, "s", shape=list(evidence.shadows.shape))


def _signals(name: str, pace: clock.Pace, sizes: dict[str, int]) -> Row:
    """Measures milliseconds from logits on the device to the three signals on which every score is based."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxunlearn.scores import signals

    shape = (sizes["shadows"], sizes["samples"], sizes["classes"])
    labels = jnp.asarray(np.random.default_rng(0).integers(0, shape[2], shape[1]), jnp.int32)
    logits = jax.jit(lambda key: 3 * jax.random.normal(key, shape))(jax.random.key(0))

    @jax.jit
    def all_signals(logits: Any, labels: Any) -> Any:
        kernels = (signals.true_logit, signals.log_odds, lambda a, b: signals.taylor_soft_margin(a, b, jnp.float32(2)))
        return [jax.vmap(kernel, (0, None))(logits, labels) for kernel in kernels]

    seconds = clock.windows(lambda: all_signals(logits, labels), pace, jax.block_until_ready)
    row = value_row(name, [1e3 * window for window in seconds], "ms", shape=list(shape))
    return {**row, "byte_rate": logits.nbytes / (row["value"] * 1e-3)}


def _sets(name: str, pace: clock.Pace, sizes: dict[str, int]) -> Row:
    """Measures seconds for threshold, coverage, size and CR of every model and level, from logits on the device."""
    from .. import conformal as bench

    bench_sizes = bench.FULL._replace(**sizes)
    work = bench.ways_of(bench_sizes)["here"]
    row = value_row(name, clock.windows(work, pace, lambda result: None), "s", sizes=bench_sizes._asdict())
    num_bytes = 4 * bench_sizes.models * bench_sizes.classes * (bench_sizes.samples + bench_sizes.calibration)
    return {**row, "byte_rate": num_bytes / row["value"]}


def _epsilon(name: str, pace: clock.Pace, sizes: dict[str, int]) -> Row:
    """Measures seconds from logits in host memory to epsilon-hat of all approaches."""
    from .. import epsilon as bench

    bench_sizes = bench.FULL._replace(**sizes)
    work, _ = next(iter(bench.works_of(bench_sizes).values()))
    return value_row(name, clock.windows(work, pace, lambda result: None), "s", sizes=bench_sizes._asdict())


WORKS: dict[str, Callable[[str, clock.Pace, dict[str, int]], Row]] = {
    "scores": _scores, "signals": _signals, "sets": _sets, "epsilon-hat": _epsilon,
}  # fmt: skip
