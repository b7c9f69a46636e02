"""Attack classifiers: features of shadow records whose state is known -> P(deleted member) of target records.

    dt, rf      decision tree of at most 10 leaves, random forest: scikit-learn, on the host
    lr, mlp     exact logistic regression, network of 100 ReLU units: all features at once, as one population
    threshold   no training but of one number: the distance of the pair, or the largest posterior of the original

Higher = more like a record that was trained on and then deleted. A logistic regression is blind to differences whose
sign says nothing (it wants l2_distance); trees are not.

Source: Unlearning-Leaks, attack models. Differs from the published code: the network sees standardised features, has a
seed, and keeps its best of a fixed number of epochs (published: raw features, early stopping by patience); `rf` has a
seed for every feature alike.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, keys, population
from jaxunlearn.attacks.leaks import features, logistic
from jaxunlearn.models.architectures import dense
from jaxunlearn.settings import TrainSettings

EPOCHS = 60
HELD_OUT = 0.1
Tables = Mapping[str, np.ndarray]


class Answers(NamedTuple):
    """What an attack says of N records.

    Attributes:
      score: [N] ranks them, higher = deleted member.
      probability: [N] in [0, 1] that it was; decisions are taken above 0.5.
    """

    score: np.ndarray
    probability: np.ndarray


class Attacked(NamedTuple):
    """One feature's attack: answers on the shadow records it was trained on, and on the target records."""

    shadow: Answers
    target: Answers


def run(
    kind: str, shadow: Tables, deleted: np.ndarray, target: Tables, *, seed: int = 0, faithful: bool = False
) -> dict[str, Attacked]:
    """Trains one classifier per feature and applies it.

    Args:
      kind: one of `ATTACKS`.
      shadow: feature -> [N, d] of shadow records.
      deleted: [N] bool, which of them were deleted members (the others nobody trained on).
      target: feature -> [n, d] of target records, the same names and widths.
      seed: of networks and forests.
      faithful: lr standardises target records by themselves for its probabilities, as published; not for its scores.

    Returns:
      feature -> answers. `threshold` knows only the features of `features.THRESHOLDS` and leaves the others out.

    Raises:
      ConfigError: unknown attack, or one that knows none of the features. DataError: only one kind of record.
      ShapeError: widths differ.
    """
    checks.choice("attack", kind, ATTACKS)
    deleted = np.asarray(deleted, bool)
    if deleted.all() or not deleted.any():
        raise errors.DataError(
            f"the attack is trained on {int(deleted.sum())} deleted and {int((~deleted).sum())} other shadow records; "
            "it needs both kinds."
        )
    for name, values in shadow.items():
        checks.shape("NF nF N", shadow=values, target=target[name], deleted=deleted)
    return ATTACKS[kind](shadow, deleted, target, seed, faithful)


def _alike(probability: np.ndarray) -> Answers:
    return Answers(probability, probability)


def _host(make: Callable[[int], Any]) -> Callable[..., dict[str, Attacked]]:
    """An attack of scikit-learn, one feature after another."""

    def attack(shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool) -> dict[str, Attacked]:
        del faithful
        found = {}
        for name, values in shadow.items():
            classifier = make(seed).fit(values, deleted)
            found[name] = Attacked(*(_alike(classifier.predict_proba(one)[:, 1]) for one in (values, target[name])))
        return found

    return attack


def _tree(seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    del seed  # published: 0
    return DecisionTreeClassifier(max_leaf_nodes=10, random_state=0)


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=500, min_samples_leaf=30, random_state=seed)


def _padded(tables: Tables) -> np.ndarray:
    """[A, N, D] float32: all features side by side, narrow ones filled with columns of zeros."""
    width = max(values.shape[1] for values in tables.values())
    return np.stack([np.pad(values, ((0, 0), (0, width - values.shape[1]))) for values in tables.values()]).astype(
        np.float32
    )


def _regression(shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool) -> dict[str, Attacked]:
    del seed
    known, asked = jnp.asarray(_padded(shadow)), jnp.asarray(_padded(target))
    scores, probabilities = _regressions(known, jnp.asarray(deleted, jnp.int32), asked)
    own = probabilities
    if faithful:
        own = _regressions_by_their_queries(known, jnp.asarray(deleted, jnp.int32), asked)
    return {
        name: Attacked(
            _alike(np.asarray(scores[place])), Answers(np.asarray(probabilities[place]), np.asarray(own[place]))
        )
        for place, name in enumerate(shadow)
    }


def _fit_all(known: jax.Array, deleted: jax.Array) -> logistic.Logistic:
    weights = jnp.ones(len(deleted), known.dtype)
    return jax.vmap(lambda table: logistic.fit(table, deleted, weights, 2))(known)


def _answers(model: logistic.Logistic, queries: jax.Array) -> jax.Array:
    return jax.nn.softmax(logistic.logits(model, queries))[:, 1]


@jax.jit
def _regressions(known: jax.Array, deleted: jax.Array, asked: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P(deleted) [A, N] of the known and [A, n] of the asked records, from [A, N, D] and [A, n, D]."""
    models = _fit_all(known, deleted)
    return jax.vmap(_answers)(models, known), jax.vmap(_answers)(models, asked)


@jax.jit
def _regressions_by_their_queries(known: jax.Array, deleted: jax.Array, asked: jax.Array) -> jax.Array:
    """The same of the asked records, standardised by themselves."""

    def one(model: logistic.Logistic, queries: jax.Array) -> jax.Array:
        return _answers(logistic.standardised_by(model, queries), queries)

    return jax.vmap(one)(_fit_all(known, deleted), asked)


def _network(shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool) -> dict[str, Attacked]:
    del faithful
    known, asked = _padded(shadow), _padded(target)
    mean, scale = known.mean(1, keepdims=True), known.std(1, keepdims=True)
    scale = np.where(scale > 0, scale, 1.0)
    known, asked = (known - mean) / scale, (asked - mean) / scale
    attacks, rows, width = known.shape
    train = TrainSettings(optimizer="adam", learning_rate=0.01, weight_decay=0.0, schedule="constant", epochs=EPOCHS,
                          batch=200, keep="best")  # fmt: skip
    module = dense.Mlp(2, (100,))
    task = population.supervised(
        module, module, lambda inputs, key, is_train: inputs, train, jax.ShapeDtypeStruct((width,), jnp.float32)
    )
    data = np.concatenate([known.reshape(-1, width), asked.reshape(-1, width)])
    labels = np.concatenate([np.tile(deleted, attacks), np.zeros(attacks * asked.shape[1], bool)]).astype(np.int32)
    out = _held_out(deleted, seed)
    own = np.repeat(np.eye(attacks, dtype=bool), rows, 1)  # [A, A * N]: each attack's own table
    later = np.zeros((attacks, attacks * asked.shape[1]), bool)
    member, best = (np.concatenate([own & np.tile(mask, attacks), later], 1) for mask in (~out, out))
    stream = population.from_membership(member)
    numbers = np.asarray([list(features.FEATURES).index(name) for name in shadow])  # not places: others may be left out
    job = population.Job(
        task=task, streams={"train": stream}, batches={"train": 200}, member_ids=numbers,
        key=keys.stream(keys.root(seed), "attack"),
        constants={"learning_rate": np.full(attacks, 0.01, np.float32), "weight_decay": np.zeros(attacks, np.float32)},
        steps=population.steps_per_epoch(stream, 200), held_out=population.from_membership(best),
    )  # fmt: skip
    mapping = population.make_mapping("vmap", devices=1)
    *_, latest = population.train(job, population.DeviceDataset(data, labels), EPOCHS, mapping)
    variables = latest.carry.best
    answers = jax.vmap(lambda own, queries: jax.nn.softmax(task.predict(own, queries))[:, 1])
    known_p, asked_p = (np.asarray(answers(variables, jnp.asarray(table))) for table in (known, asked))
    return {name: Attacked(_alike(known_p[place]), _alike(asked_p[place])) for place, name in enumerate(shadow)}


def _held_out(deleted: np.ndarray, seed: int) -> np.ndarray:
    """[N] bool: a tenth of each kind, on which the best epoch is chosen."""
    generator, held_out = np.random.default_rng(seed), np.zeros(len(deleted), bool)
    for kind in (deleted, ~deleted):
        rows = np.flatnonzero(kind)
        held_out[generator.choice(rows, max(1, int(HELD_OUT * len(rows))), replace=False)] = len(rows) > 1
    return held_out


def _threshold(shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool) -> dict[str, Attacked]:
    del seed, faithful
    known = [name for name in shadow if name in features.THRESHOLDS]
    if not known:
        raise errors.ConfigError(
            f"attack = 'threshold' knows the features {', '.join(features.THRESHOLDS)}; ask for one of them."
        )
    found = {}
    for name in known:
        numbers = features.THRESHOLDS[name](shadow[name])
        order = np.argsort(-numbers, kind="stable")
        falling, hits = numbers[order], np.cumsum(deleted[order])
        misses = np.arange(1, len(order) + 1) - hits
        ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(order) - 1)
        right = hits[ends] + (~deleted).sum() - misses[ends]
        place = ends[int(right.argmax())]
        above = hits[place] / (place + 1)
        rest = len(order) - place - 1
        below = (deleted.sum() - hits[place]) / rest if rest else 0.0

        def answers(values: np.ndarray, cut: float = falling[place], sides: tuple = (above, below)) -> Answers:
            return Answers(values, np.where(values >= cut, *sides))

        found[name] = Attacked(answers(numbers), answers(features.THRESHOLDS[name](target[name])))
    return found


ATTACKS: dict[str, Callable[..., dict[str, Attacked]]] = {
    "dt": _host(_tree),
    "rf": _host(_forest),
    "lr": _regression,
    "mlp": _network,
    "threshold": _threshold,
}
