"""Scores against plain NumPy on one core: IAM, RMIA, LiRA, EMIA, the pass over the logits, all scores, memory.

Times and memory are measured in separate processes (`one_core`) that hold nothing else. Baselines (`plain_scores`) get
the same arrays. Sizes: 128 shadows, 2,000 audited and population samples, 100 classes.
"""

import functools
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxunlearn import progress

from . import one_core, timing
from .one_core import Say
from .timing import Row

IAM_TARGET, RMIA_TARGET, ALL_SECONDS, MEMORY_FRACTION = 100.0, 20.0, 1.0, 0.5


class Sizes(NamedTuple):
    """Sizes of the bench.

    Attributes:
      shadows, samples, classes, population, levels: S, N, C, P, I; `rows_per_shadow`: for IAM-Off.
      memory_samples: N of the memory row.
      rounds, round_seconds: of the times.
    """

    shadows: int = 128
    samples: int = 2000
    classes: int = 100
    population: int = 2000
    levels: int = 100
    rows_per_shadow: int = 2000
    memory_samples: int = 50_000
    rounds: int = 5
    round_seconds: float = 0.5


FULL = Sizes()
QUICK = Sizes(4, 60, 10, 40, 10, 20, 3000, 2, 0.01)


def run(quick: bool = False) -> list[Row]:
    """Measures times and memory, each in a separate process on one core.

    Args:
      quick: tiny sizes; otherwise about three minutes and 2.6 GB of temporary disk.

    Returns:
      Rows as `launch.bench` describes them.
    """
    say = progress.Reporter().log
    rows = []
    for measurement in ("time", "memory"):
        say(f"{measurement} of scores, in a process on one core")
        rows += one_core.rows_of(__name__, measurement, quick)
    return rows


def time_rows(sizes: Sizes, say: Say) -> list[Row]:
    """Measures one ratio per score, and the seconds from logits to all scores, in this process."""
    from jaxunlearn import scores

    evidence = draw(sizes)
    options = scores.Options(interpolation_steps=sizes.levels)
    rows = []
    for name, (here, plain, target) in pairs(evidence, options).items():
        say(name)
        rows.append(one_core.ratio(name, here, plain, target, sizes.rounds, sizes.round_seconds, **_facts(sizes)))
    say("all scores")
    count = len(_all(evidence, options))
    name = f"logits to all {count} scores that need no reference models, pairs or views, warm"
    work = functools.partial(_all, evidence, options)
    return [*rows, one_core.seconds(name, work, ALL_SECONDS, sizes.rounds, sizes.round_seconds, **_facts(sizes))]


def draw(sizes: Sizes, seed: int = 0) -> Any:
    """Draws evidence of random float32 logits, the true class raised by 4 to 5."""
    import numpy as np

    from jaxunlearn.records import Evidence

    generator = np.random.default_rng(seed)
    s, n, c, p = sizes.shadows, sizes.samples, sizes.classes, sizes.population
    labels, population_labels = generator.integers(0, c, n), generator.integers(0, c, p)
    member_labels = generator.integers(0, c, (s, sizes.rows_per_shadow))
    logits = functools.partial(raised, generator, c)
    return Evidence(
        unlearned=logits(labels), labels=labels.astype(np.int32), original=logits(labels),
        shadows=np.stack([logits(labels) for _ in range(s)]),
        population_labels=population_labels.astype(np.int32), population_original=logits(population_labels),
        population_unlearned=logits(population_labels), population_in=logits(population_labels),
        population_shadows=np.stack([logits(population_labels) for _ in range(s)]),
        shadow_train_logits=np.stack([logits(shadow_labels) for shadow_labels in member_labels]),
        shadow_train_labels=member_labels.astype(np.int32),
    )  # fmt: skip


def raised(generator: Any, classes: int, labels: Any) -> Any:
    """Draws [n, C] float32 normal logits with the true class raised by 4 to 5."""
    import numpy as np

    values = generator.standard_normal((len(labels), classes), np.float32)
    values[np.arange(len(labels)), labels] += generator.uniform(4, 5, len(labels)).astype(np.float32)
    return values


def pairs(evidence: Any, options: Any) -> dict[str, tuple[Callable[[], Any], Callable[[], Any], float | None]]:
    """Returns name -> (ours, plain, target ratio or None); both compute the same numbers from the same arrays."""
    import numpy as np

    from jaxunlearn import scores
    from jaxunlearn.scores.families import emia, iam, lira, rmia

    from . import plain_scores as plain

    labels, population_labels = evidence.labels, evidence.population_labels
    temperature, a, gamma = options.constants.temperature, options.constants.offline_a, options.gamma
    audit_signals = scores.signals_pass(evidence, options)
    u, o, s = audit_signals.unlearned, audit_signals.original, audit_signals.shadows
    z, zs = audit_signals.population_unlearned, audit_signals.population_shadows
    odds, level = (u.log_odds, o.log_odds, s.log_odds), options.interpolation_steps
    comparisons: dict[str, Any] = {}
    for family, std, target in (
        ("gumbel", "pooled", IAM_TARGET), ("gumbel", "per_sample", None), ("norm", "pooled", None),
        ("norm", "per_sample", None), ("ecdf", "pooled", None), ("kde", "pooled", None),
    ):  # fmt: skip
        ours = functools.partial(
            iam.interpolate, odds[1], odds[0], odds[2], interpolation_steps=level, family=family, std=std
        )
        comparisons[f"IAM {family} {std.replace('_', ' ')}"] = (
            ours, functools.partial(plain.iam, odds[1], odds[0], odds[2], level, family, std), target,
        )  # fmt: skip

    def rmia_here() -> Any:
        audited, out = (scores.signals_of(x, labels, options).ratio for x in (evidence.unlearned, evidence.shadows))
        population_logits = (evidence.population_unlearned, evidence.population_shadows)
        population, population_out = (scores.signals_of(x, population_labels, options).ratio for x in population_logits)
        return rmia.offline(audited, out, population, population_out, a, gamma)

    def rmia_plain() -> Any:
        margin, models = plain.taylor_soft_margin, plain.model_by_model
        return plain.rmia_offline(
            margin(evidence.unlearned, labels, temperature), models(margin, evidence.shadows, labels, temperature),
            margin(evidence.population_unlearned, population_labels, temperature),
            models(margin, evidence.population_shadows, population_labels, temperature), a, gamma,
        )  # fmt: skip

    def lira_here() -> list[Any]:
        offline_odds = (odds[0], odds[2])
        variance = {"variance": "per_sample"}
        return [lira.offline(*offline_odds, **variance), lira.online(*odds, **variance), lira.update(*odds, **variance)]

    signals = (u.margin, s.margin, z.margin, zs.margin)
    return {
        **comparisons,
        f"RMIA offline with the signals of {len(s.margin)} models on targets and population": (
            rmia_here, rmia_plain, RMIA_TARGET,
        ),
        "RMIA offline from signals": (
            lambda: rmia.offline(*signals, a, gamma), lambda: plain.rmia_offline(*signals, a, gamma), None,
        ),
        "LiRA offline, online and update attack": (lira_here, lambda: plain.lira(*odds), None),
        "EMIA-R": (
            lambda: emia.reference(u.true_logit, s.true_logit),
            lambda: plain.emia_reference(u.true_logit, s.true_logit), None,
        ),
        "EMIA-P": (
            lambda: emia.population(u.true_logit, z.true_logit),
            lambda: plain.emia_population(u.true_logit, z.true_logit), None,
        ),
        f"signals of {len(s.margin)} models": (
            lambda: (lambda traced: [np.asarray(traced.log_odds), traced.true_logit, traced.margin])(
                scores.signals_of(evidence.shadows, labels, options)
            ),
            lambda: plain.three_signals(evidence.shadows, labels, temperature), None,
        ),
    }  # fmt: skip


def _all(evidence: Any, options: Any) -> dict[str, Any]:
    from jaxunlearn import scores

    return scores.run(("all",), evidence, options).scores


def _facts(sizes: Sizes) -> dict[str, int]:
    names = ("shadows", "samples", "classes", "population", "levels")
    return {name: getattr(sizes, name) for name in names}


def memory_rows(sizes: Sizes, say: Say) -> list[Row]:
    """Measures peak anonymous memory while scoring a memory-mapped file, relative to the size of that file.

    Pages of the file itself count as file memory and are not included (they can be dropped at any time).
    """
    import numpy as np

    from jaxunlearn import scores

    rows = sizes.memory_samples
    small = draw(sizes._replace(samples=8, rows_per_shadow=min(sizes.rows_per_shadow, 200)))
    generator = np.random.default_rng(1)
    labels = generator.integers(0, sizes.classes, rows).astype(np.int32)
    with tempfile.TemporaryDirectory() as folder:
        bytes_per_shadow = rows * sizes.classes * 4
        # At most half of the free disk; the row reports the number of shadows.
        shadows = max(2, min(sizes.shadows, shutil.disk_usage(folder).free // 2 // bytes_per_shadow))
        say(f"writing logits of {shadows} shadows x {rows} samples")
        path = Path(folder) / "shadows.npy"
        memory_map = np.lib.format.open_memmap(path, "w+", np.float32, (shadows, rows, sizes.classes))
        for model in range(shadows):
            memory_map[model] = raised(generator, sizes.classes, labels)
        memory_map.flush()
        del memory_map
        evidence = small.replace(
            unlearned=raised(generator, sizes.classes, labels), original=raised(generator, sizes.classes, labels),
            labels=labels, shadows=np.load(path, mmap_mode="r"),
            population_shadows=small.population_shadows[:shadows],
            shadow_train_logits=small.shadow_train_logits[:shadows],
            shadow_train_labels=small.shadow_train_labels[:shadows],
        )  # fmt: skip
        say("scoring them")
        peak = peak_anonymous_bytes(lambda: _all(evidence, scores.Options(interpolation_steps=sizes.levels)))
    size = shadows * bytes_per_shadow
    name = f"anonymous memory at its peak while scoring, over the input ({progress.size(size)}, memory-mapped)"
    facts = {**_facts(sizes), "samples": rows, "shadows": shadows, "peak_bytes": peak, "input_bytes": size}
    return [timing.value_row(name, [peak / size], "of the input", target=MEMORY_FRACTION, **facts)]


def peak_anonymous_bytes(work: Callable[[], Any], every_seconds: float = 0.005) -> int:
    """Measures the largest growth of this process's anonymous memory during `work`, by a thread (Linux only)."""
    start, peak, is_done = _anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not is_done.wait(every_seconds):
            peak[0] = max(peak[0], _anonymous_bytes() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        is_done.set()
        watcher.join()
    return max(peak[0], _anonymous_bytes() - start)


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status names no anonymous memory")


if __name__ == "__main__":
    one_core.main({"time": time_rows, "memory": memory_rows}, QUICK, FULL)
