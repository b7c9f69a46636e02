"""Unlearning-Leaks populations of Adult's size: 20 originals and 400 leave-one-out models, all cores.

Baselines do the same work one model after another: scikit-learn's logistic regression to a tolerance that does not
affect the signal of a deletion (1e-7), PyTorch's Adam on the same batches (timed on some of the models). Data are
random with Adult's shape: speed does not depend on them, except for the number of solver steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxunlearn import progress

from . import timing
from .timing import Row, Variant

SECONDS, TIMES = 1.0, 5.0


class Sizes(NamedTuple):
    """Sizes of the bench; `sequential`: number of models on which a loop over networks is timed."""

    originals: int = 20
    deletions: int = 20
    rows: int = 26_000
    set_size: int = 2000
    features: int = 14
    hidden: int = 100
    epochs: int = 18
    batch: int = 200
    sequential: int = 8
    rounds: int = 5
    round_seconds: float = 1.0


FULL = Sizes()
QUICK = Sizes(2, 2, 200, 40, 6, 8, 2, 20, 2, 1, 0.01)


def run(quick: bool = False) -> list[Row]:
    """Runs the bench in this process.

    Args:
      quick: tiny sizes; otherwise about three minutes.

    Returns:
      Rows as `launch.bench` describes them.
    """
    sizes, say = QUICK if quick else FULL, progress.Reporter().log
    return [*regressions(sizes, say), *networks(sizes, say)]


class BenchProblem(NamedTuple):
    """Rows [N, F] and labels [N]; membership [M, N] bool of originals, then leave-one-out models."""

    inputs: Any
    labels: Any
    membership: Any


def draw(sizes: Sizes) -> BenchProblem:
    """Draws random data of Adult's shape, two classes, and who trains on what."""
    import numpy as np

    from jaxunlearn.attacks.leaks import plan

    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(sizes.rows, sizes.features)).astype(np.float32)
    slope = generator.normal(size=sizes.features)
    labels = (inputs @ slope + generator.normal(0, 2, sizes.rows) > 1).astype(np.int32)
    pool = plan.SideRows(np.arange(sizes.rows), np.arange(2), np.arange(2))
    plan_sizes = plan.Sizes(sizes.originals, sizes.set_size, sizes.deletions)
    record_sets = plan.draw(pool, plan_sizes, np.random.RandomState(0), np.random.RandomState(1))
    return BenchProblem(inputs, labels, plan.membership(record_sets, 0, sizes.rows)[0])


def trained(case: BenchProblem, task: Any, batch: int, epochs: int) -> Callable[[], Any]:
    """Returns () -> variables of the whole population, by a program that is compiled already.

    Args:
      case: data and membership.
      task: of one member.
      batch: rows per step.
      epochs: to train.
    """
    import numpy as np

    from jaxunlearn import keys, population
    from jaxunlearn.population import training

    members = len(case.membership)
    stream = population.from_membership(case.membership)
    job = population.TrainingJob(
        task=task, streams={"train": stream}, batches={"train": batch}, member_ids=np.arange(members),
        key=keys.root(0), steps=population.steps_per_epoch(stream, batch),
        constants={"learning_rate": np.full(members, 0.01, np.float32), "weight_decay": np.zeros(members, np.float32)},
    )  # fmt: skip
    mapping, data = population.make_mapping("map"), population.DeviceDataset(case.inputs, case.labels)
    program = training.compile_epoch(job, data, mapping)

    def work() -> Any:
        *_, latest = population.train(job, data, epochs, mapping, program=program)
        return population.variables(population.host(latest).state)

    return work


def regressions(sizes: Sizes, say: Callable[[str], None]) -> list[Row]:
    """Measures exact logistic regressions."""
    case = draw(sizes)
    members = len(case.membership)
    here, plain = regression_ways(case)
    ways = {"here": _variant("jaxunlearn", here, members), "plain": _variant("scikit-learn, in a loop", plain, members)}
    times = timing.interleave(ways, sizes.rounds, sizes.round_seconds, say)
    what = f"{members} logistic regressions of {sizes.set_size:,} rows"
    facts = {"members": members, "set_size": sizes.set_size, "features": sizes.features}
    seconds = [members / rate for rate in times["here"].rates]
    return [
        timing.value_row(f"{what} as one population, warm", seconds, "s", target=SECONDS, **facts),
        timing.ratio_row(f"{what}: one population against a loop", times["here"], times["plain"], TIMES, **facts),
    ]


def regression_ways(case: BenchProblem) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns (ours, a loop over scikit-learn), both () -> [M, 1 + F] intercepts and standardised coefficients."""
    import jax
    import numpy as np

    from jaxunlearn.attacks.leaks import logistic

    example = jax.ShapeDtypeStruct(case.inputs.shape[1:], np.float32)
    work = trained(case, logistic.task(2, example), int(case.membership.sum(1).max()), 1)

    def here() -> Any:
        params = work()["params"]
        return np.concatenate([params["intercept"], params["coef"][:, 0]], 1)

    def plain() -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        coefficients = []
        for mask in case.membership:
            rows = StandardScaler().fit_transform(case.inputs[mask].astype(np.float64))
            model = LogisticRegression(tol=1e-7, max_iter=400).fit(rows, case.labels[mask])
            coefficients.append(np.concatenate([model.intercept_, model.coef_[0]]))
        return np.stack(coefficients)

    return here, plain


def networks(sizes: Sizes, say: Callable[[str], None]) -> list[Row]:
    """Measures networks of one hidden layer; no row for PyTorch if it is not installed."""
    import jax
    import numpy as np

    from jaxunlearn import population, settings
    from jaxunlearn.models.architectures import dense

    case = draw(sizes)
    members = len(case.membership)
    train = settings.TrainSettings(
        optimizer="adam", learning_rate=0.01, weight_decay=0.0, schedule="constant", epochs=sizes.epochs,
        batch=sizes.batch,
    )  # fmt: skip
    module = dense.Mlp(2, (sizes.hidden,))
    example = jax.ShapeDtypeStruct(case.inputs.shape[1:], np.float32)
    task = population.supervised(module, module, lambda inputs, key, is_train: inputs, train, example)
    ways = {"here": _variant("jaxunlearn", trained(case, task, sizes.batch, sizes.epochs), members)}
    try:
        ways["plain"] = _variant("PyTorch, in a loop", _torch(case, sizes), sizes.sequential)
    except ImportError:
        say("PyTorch is not installed: its row is left out")
    times = timing.interleave(ways, sizes.rounds, sizes.round_seconds, say)
    what = f"{members} networks, {sizes.epochs} epochs of {sizes.set_size:,} rows"
    facts = {"members": members, "epochs": sizes.epochs, "batch": sizes.batch}
    rows = [timing.value_row(f"{what}, as one population, warm", [members / rate for rate in times["here"].rates], "s",
                             **facts)]  # fmt: skip
    if "plain" in times:
        rows.append(timing.ratio_row(f"{what}: one population against a loop", times["here"], times["plain"], TIMES,
                                     **facts))  # fmt: skip
    return rows


def _torch(case: BenchProblem, sizes: Sizes) -> Callable[[], Any]:
    """Returns () -> some networks, trained by PyTorch one after another from tensors in memory."""
    import numpy as np
    import torch

    inputs, labels = torch.tensor(case.inputs), torch.tensor(case.labels, dtype=torch.int64)

    def work() -> Any:
        models = []
        for mask in case.membership[: sizes.sequential]:
            rows = torch.tensor(np.flatnonzero(mask))
            model = torch.nn.Sequential(
                torch.nn.Linear(sizes.features, sizes.hidden), torch.nn.ReLU(), torch.nn.Linear(sizes.hidden, 2)
            )
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
            for _ in range(sizes.epochs):
                order = rows[torch.randperm(len(rows))]
                for batch in order.split(sizes.batch):
                    optimizer.zero_grad(set_to_none=True)
                    torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
                    optimizer.step()
            models.append(model)
        return models

    return work


def _variant(name: str, work: Callable[[], Any], units: int) -> Variant:
    def call() -> float:
        work()
        return 0.0

    return Variant(name, call, units)
