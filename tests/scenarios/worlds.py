"""Populations with known truth: data of independent worlds, and training of their models.

A world is one user's rows, rows that no model sees, and a pool that shadow models are trained on. The worlds of one
family are drawn from the same distribution (digits: other splits of the same rows). All networks of one architecture,
of all worlds, are trained as ONE population.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from jaxunlearn import keys, population, settings
from jaxunlearn.metrics.verdict import out_model
from jaxunlearn.models.architectures.dense import Mlp
from tests.compiling import optimised

WRONG = 0.08
SEEDS_PER_WORLD = 10_000
PREDICTED_TOGETHER = 64


class Family(NamedTuple):
    """One kind of data and of model.

    Attributes:
      rows: N, of the user; population: P, seen by no model; pool: rows that shadow models draw from.
      asked: rows of a request.
      features, classes, noise: of the generated data; unused by digits.
      kind: "network" or "forest".
      architectures: name -> hidden widths of a network (none: logistic regression), or greatest depth of a forest
        (None = unlimited).
      epochs, learning_rate: of networks.
    """

    name: str
    rows: int
    population: int
    pool: int
    request_size: int
    features: int
    classes: int
    noise: float
    kind: str
    architectures: dict[str, tuple[int, ...] | int | None]
    epochs: int = 0
    learning_rate: float = 0.0


class Data(NamedTuple):
    """W worlds: inputs [W, A, d], labels [W, A], is_wrong [W, A]; the user's rows first, then population, then pool."""

    inputs: np.ndarray
    labels: np.ndarray
    is_wrong: np.ndarray


class Model(NamedTuple):
    """One model to train: index of its world, its rows there, seed (equal seeds: equal start and order)."""

    world: int
    rows: np.ndarray
    seed: int


NET = Family(
    "net", 600, 1000, 12_000, 30, 20, 4, 0.28, "network",
    {"same": (48,), "other": (32, 32), "narrow": (24,)}, 60, 0.1,
)  # fmt: skip
FOREST = Family("forest", 600, 1000, 12_000, 30, 20, 2, 0.3, "forest", {"same": None, "other": 4})
DIGITS = Family("digits", 400, 397, 800, 20, 64, 10, 0.0, "network", {"same": (32,)}, 150, 0.2)
LOGISTIC = Family("logistic", 300, 1000, 6_000, 30, 100, 2, 0.3, "network", {"same": ()}, 60, 0.02)
FAMILIES = {family.name: family for family in (NET, FOREST, DIGITS, LOGISTIC)}


def generator(*names: object) -> np.random.Generator:
    """Returns a generator that depends on the names only, so that parts of the study reproduce its numbers."""
    return np.random.default_rng(keys.name_hash(" ".join(map(str, names))))


def draw(family: Family, worlds: int) -> Data:
    """Draws the rows of `worlds` worlds."""
    count = family.rows + family.population + family.pool
    weights = generator(family.name, "teacher").normal(size=(family.features, family.classes))
    by_world = []
    for world in range(worlds):
        draws = generator(family.name, "rows", world)
        if family is DIGITS:
            digits = load_digits()
            order = draws.permutation(len(digits.target))[:count]
            inputs, labels = (digits.data[order] / 16).astype(np.float32), digits.target[order]
        else:
            inputs = draws.normal(size=(count, family.features)).astype(np.float32)
            scores = inputs @ weights / np.sqrt(family.features)
            labels = (scores + family.noise * draws.gumbel(size=scores.shape)).argmax(1)
        is_wrong = draws.random(count) < WRONG
        labels = np.where(is_wrong, (labels + draws.integers(1, family.classes, count)) % family.classes, labels)
        by_world.append((inputs, labels.astype(np.int32), is_wrong))
    return Data(*(np.stack(arrays) for arrays in zip(*by_world, strict=True)))


def with_copies(data: Data, originals: np.ndarray, noise: float = 0.05) -> Data:
    """Appends near-copies of rows [W, k] of each world."""
    world = np.arange(len(originals))[:, None]
    copies = data.inputs[world, originals]
    copies = copies + noise * generator("copies").normal(size=copies.shape).astype(np.float32)
    return Data(
        np.concatenate([data.inputs, copies], 1),
        np.concatenate([data.labels, data.labels[world, originals]], 1),
        np.concatenate([data.is_wrong, data.is_wrong[world, originals]], 1),
    )


def train(family: Family, data: Data, models: Sequence[Model], architecture: str = "same") -> np.ndarray:
    """Returns [M, N + P] float32 log-odds of the true class from M trained models, on their world's rows."""
    if family.kind == "network":
        return answer(family, data, models, fit(family, data, models, architecture), architecture)
    answers = []
    for model in models:
        inputs, labels = data.inputs[model.world], data.labels[model.world]
        seed = model.world * SEEDS_PER_WORLD + model.seed
        depth = family.architectures[architecture]
        learner = RandomForestClassifier(n_estimators=40, max_depth=depth, random_state=seed, n_jobs=1)
        learner.fit(inputs[model.rows], labels[model.rows])
        num_answers = family.rows + family.population
        probabilities = learner.predict_proba(inputs[:num_answers])
        answers.append(log_odds_of_probabilities(probabilities, labels[:num_answers]).astype(np.float32))
    return np.stack(answers)


def log_odds_of_probabilities(probabilities, labels):
    """[..., N] float64 from probabilities [..., N, C], clipped to [1e-6, 1 - 1e-6] first."""
    index = np.broadcast_to(labels[..., None], (*probabilities.shape[:-1], 1))
    p = np.clip(np.take_along_axis(np.float64(probabilities), index, -1)[..., 0], 1e-6, 1 - 1e-6)
    return np.log(p) - np.log(1 - p)


class Moves(NamedTuple):
    """Further training: from variables with leading M, a number of steps at a rate (negative: gradient ascent)."""

    variables: dict
    steps: int
    learning_rate: float
    batch: int


@optimised()
def fit(
    family: Family, data: Data, models: Sequence[Model], architecture: str = "same", moves: Moves | None = None
) -> dict:
    """Returns the flax variables, with leading M, of networks trained from their seeds, or moved on."""
    network, task = _network(family, architecture)
    offset = data.labels.shape[1]
    batch = moves.batch if moves else 50
    stream = population.from_rows([[model.rows + model.world * offset] for model in models], batch)
    ids = np.asarray([model.world * SEEDS_PER_WORLD + model.seed for model in models], np.int32)
    rate = moves.learning_rate if moves else family.learning_rate
    constants = {
        "learning_rate": np.full(len(ids), rate, np.float32),
        "weight_decay": np.zeros(len(ids), np.float32),
    }
    steps = population.steps_per_epoch(stream, batch)
    initial, epochs = None, family.epochs
    if moves:
        initial = population.State(moves.variables["params"], {}, _empty_momentum(task, moves.variables["params"]))
        epochs = -(-moves.steps // steps)
    job = population.TrainingJob(
        task, {"train": stream}, {"train": batch}, ids, keys.root(0), constants, steps, initial=initial,
        max_steps=moves.steps if moves else 0,
    )  # fmt: skip
    resident = population.DeviceDataset(data.inputs.reshape(-1, data.inputs.shape[-1]), data.labels.reshape(-1))
    for latest in population.train(job, resident, epochs, population.make_mapping("map")):
        carry = latest
    return population.kept_variables(population.host(carry))


def _network(family: Family, architecture: str) -> tuple[Mlp, population.Task]:
    config = settings.defaults()
    config.update_from_flattened_dict({"train.epochs": family.epochs})
    network = Mlp(family.classes, family.architectures[architecture])
    example = jax.ShapeDtypeStruct((family.features,), np.float32)
    recipe = settings.resolve(config).train
    return network, population.supervised(network, network, lambda inputs, *_: inputs, recipe, example)


def _empty_momentum(task: population.Task, params: dict) -> dict:
    """Returns the optimizer's state of a training that begins, with leading M."""
    count = len(jax.tree.leaves(params)[0])
    shapes = jax.eval_shape(task.init, keys.root(0)).optimizer
    return jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), shapes)


def answer(family: Family, data: Data, models: Sequence[Model], variables: dict, architecture: str) -> np.ndarray:
    """Returns [M, N + P] float32 log-odds of networks on their world's rows."""
    labels = [data.labels[model.world, : family.rows + family.population] for model in models]
    return out_model.log_odds(outputs(family, data, models, variables, architecture), np.stack(labels)).astype("f4")


@optimised()
def outputs(family: Family, data: Data, models: Sequence[Model], variables: dict, architecture: str) -> np.ndarray:
    """Returns [M, N + P, C] float32 logits of networks on their world's rows."""
    network, _ = _network(family, architecture)
    logits_of = jax.jit(jax.vmap(network.apply))
    num_answers = family.rows + family.population
    worlds = np.asarray([model.world for model in models])
    blocks = []
    for start in range(0, len(models), PREDICTED_TOGETHER):
        chunk = np.minimum(np.arange(start, start + PREDICTED_TOGETHER), len(models) - 1)
        subset = jax.tree.map(lambda leaf, chunk=chunk: leaf[chunk], variables)
        logits = np.asarray(logits_of(subset, data.inputs[worlds[chunk], :num_answers]))
        blocks.append(logits[: len(models) - start])
    return np.concatenate(blocks)
