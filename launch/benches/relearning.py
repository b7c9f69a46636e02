"""The reminiscence attack: 240 trials at 3 learning rates as one population, against one trial after another.

Digits, a network 64-32-10, 40 probes and as many steps per trial, 14 retained rows per step; after every step all
probes are evaluated. Baselines are plain JAX of one trial, compiled once: a loop over two jitted functions, a step and
an evaluation, as in the published code, and the whole trial as one jitted scan. The attacked models are random: speed
does not depend on them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxunlearn import progress

from . import timing
from .timing import Row, Variant

TIMES = 10.0
GROUP = 60  # members side by side: their weights stay in a core's cache


class Sizes(NamedTuple):
    """Sizes of the bench; `sequential`: number of trials on which the baselines are timed."""

    repeats: int = 40
    unseen: int = 5
    rates: tuple[float, ...] = (0.005, 0.01, 0.05)
    probes: int = 40
    companions: int = 14
    hidden: int = 32
    sequential: int = 60
    rounds: int = 7
    round_seconds: float = 1.0


FULL = Sizes()
QUICK = Sizes(2, 1, (0.02, 0.1), 8, 3, 8, 4, 1, 0.01)
MOMENTUM = 0.9


class BenchProblem(NamedTuple):
    """Network, attacked models [1, ...], data set and trials."""

    module: Any
    victims: Any
    data: Any
    trials: Any


def run(quick: bool = False) -> list[Row]:
    """Runs the bench in this process.

    Args:
      quick: tiny sizes; otherwise about a minute.

    Returns:
      Rows as `launch.bench` describes them.

    Raises:
      AssertionError: the ways do not give the same trajectories.
    """
    import numpy as np

    sizes, say = QUICK if quick else FULL, progress.Reporter().log
    case = draw(sizes)
    members = len(case.trials.victim)
    ways = {"here": together(case), "steps": step_by_step(case), "scan": trial_by_trial(case)}
    few = range(min(sizes.sequential, members))
    accuracies = ways["here"]()
    for name in ("steps", "scan"):
        for trial in np.linspace(0, members - 1, 4).astype(int):
            np.testing.assert_allclose(ways[name](trial), accuracies[trial], atol=1.5 / sizes.probes, err_msg=name)

    def all_of(way: Callable[[int], Any]) -> Callable[[], Any]:
        return lambda: [way(trial) for trial in few]

    times = timing.interleave(
        {
            "here": _variant("jaxunlearn", ways["here"], members),
            "steps": _variant("two jitted functions in a loop, trial by trial", all_of(ways["steps"]), len(few)),
            "scan": _variant("one jitted scan per trial", all_of(ways["scan"]), len(few)),
        },
        sizes.rounds, sizes.round_seconds, say,
    )  # fmt: skip
    description = f"{members} relearning trials of {sizes.probes} steps"
    facts = {"members": members, "steps": sizes.probes, "hidden": sizes.hidden, "rate_unit": "trials/s"}
    seconds = [members / rate for rate in times["here"].rates]
    return [
        timing.value_row(f"{description} as one population, warm", seconds, "s", **facts),
        timing.ratio_row(f"{description}: one population against a loop of jitted steps", times["here"], times["steps"],
                         TIMES, **facts),
        timing.ratio_row(f"{description}: one population against a jitted scan per trial", times["here"], times["scan"],
                         **facts),
    ]  # fmt: skip


def draw(sizes: Sizes) -> BenchProblem:
    """Draws trials on digits: class 0 is forgotten, no model has seen the last classes."""
    import jax
    import numpy as np
    from sklearn.datasets import load_digits

    from jaxunlearn import keys, population, trees
    from jaxunlearn.attacks import relearning
    from jaxunlearn.models.architectures import dense

    inputs, labels = load_digits(return_X_y=True)
    module = dense.Mlp(10, (sizes.hidden,))
    victims = trees.to_host(jax.tree.map(lambda leaf: leaf[None], module.init(keys.root(3), inputs[:1])))
    rows = [np.flatnonzero(labels == label) for label in range(10)]
    trial_rows = relearning.draw(
        rows[0], rows[10 - sizes.unseen :], np.concatenate(rows[1 : 10 - sizes.unseen]), 0, size=sizes.probes,
        repeats=sizes.repeats, companions=sizes.companions,
    )  # fmt: skip
    data = population.DeviceDataset((inputs / 16).astype(np.float32), labels.astype(np.int32))
    return BenchProblem(module, victims, data, relearning.crossed(trial_rows, [0], sizes.rates))


def together(case: BenchProblem) -> Callable[[], Any]:
    """Returns () -> accuracies [M, T] of all trials, by a program that is compiled already."""
    import numpy as np

    from jaxunlearn import keys, population, trees
    from jaxunlearn.attacks.relearning import running
    from jaxunlearn.population import training

    mapping = population.make_mapping("map", GROUP)
    task = running.task(case.module, lambda inputs, key, is_train: inputs, MOMENTUM)
    start = trees.take(case.victims, case.trials.victim)
    members = running.members_of(case.trials, start, running.no_momentum(start), np.arange(len(case.trials.victim)))
    job = running.job_of(task, members, keys.root(0))
    program = training.compile_epoch(job, case.data, mapping)
    return lambda: running.run(job, 1, case.data, mapping, program).accuracy


def _plain(case: BenchProblem) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns (step, evaluation) of one trial in plain JAX, not jitted."""
    import jax
    import jax.numpy as jnp
    import optax

    def step(params: Any, trace: Any, inputs: Any, labels: Any, rate: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> Any:
            logits = case.module.apply({"params": params}, inputs, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradients = jax.grad(loss)(params)
        trace = jax.tree.map(lambda b, g: MOMENTUM * b + g, trace, gradients)
        return jax.tree.map(lambda p, b: p - rate * b, params, trace), trace

    def evaluation(params: Any, inputs: Any, label: Any) -> tuple[Any, Any]:
        logits = case.module.apply({"params": params}, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.full(len(inputs), label))
        return losses.mean(), (logits.argmax(-1) == label).mean()

    return step, evaluation


def _trial(case: BenchProblem, index: int) -> tuple[Any, ...]:
    """Returns (params, probes, learned with retained rows [T, 1 + r, F], their labels, label, rate) of one trial."""
    import numpy as np

    from jaxunlearn import trees

    trials, inputs = case.trials, np.asarray(case.data.inputs)
    rows = np.concatenate([trials.learned[index][:, None], trials.retained[index]], 1)
    labels = np.asarray(case.data.labels)[rows]
    labels[:, 0] = trials.label[index]
    params = trees.take(case.victims, int(trials.victim[index]))["params"]
    return params, inputs[trials.probes[index]], inputs[rows], labels, trials.label[index], trials.learning_rate[index]


def step_by_step(case: BenchProblem) -> Callable[[int], Any]:
    """Returns trial -> accuracies [T], by two jitted functions in a loop over steps; fetched once, at the end."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    step, evaluation = map(jax.jit, _plain(case))

    def trial(index: int) -> Any:
        params, probes, rows, labels, label, rate = _trial(case, index)
        trace, evaluations = jax.tree.map(jnp.zeros_like, params), []
        for inputs, step_labels in zip(rows, labels, strict=True):
            params, trace = step(params, trace, inputs, step_labels, rate)
            evaluations.append(evaluation(params, probes, label))
        return np.asarray(jax.device_get(evaluations))[:, 1]

    return trial


def trial_by_trial(case: BenchProblem) -> Callable[[int], Any]:
    """Returns trial -> accuracies [T], by one jitted call per trial."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    step, evaluation = _plain(case)

    @jax.jit
    def trial(params: Any, probes: Any, rows: Any, labels: Any, label: Any, rate: Any) -> Any:
        def step_and_evaluate(carry: Any, batch: Any) -> Any:
            carry = step(*carry, *batch, rate)
            return carry, evaluation(carry[0], probes, label)

        return jax.lax.scan(step_and_evaluate, (params, jax.tree.map(jnp.zeros_like, params)), (rows, labels))[1]

    return lambda index: np.asarray(trial(*_trial(case, index))[1])


def _variant(name: str, work: Callable[[], Any], units: int) -> Variant:
    def call() -> float:
        work()
        return 0.0

    return Variant(name, call, units)
