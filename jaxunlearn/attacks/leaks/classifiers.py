"""Attack classifiers: features of shadow records whose state is known -> P(deleted member) of target records.

    dt, rf      decision tree of at most 10 leaves, random forest: scikit-learn, on the host
    lr, mlp     exact logistic regression, network of 100 ReLU units: all features at once, as one population
    threshold   one fitted number: a threshold on the distance of the pair, or on the original's largest posterior

Higher = more like a record that was trained on and then deleted. A logistic regression is blind to differences whose
sign carries no information (it needs l2_distance); trees are not.

Source: Unlearning-Leaks, attack models. Differs from the published code: the network sees standardised features, has a
seed, and keeps its best of a fixed number of epochs (published: raw features, early stopping by patience); `rf` has a
seed for all features.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, keys, population
from jaxunlearn.attacks.leaks import features, host_models, logistic
from jaxunlearn.models.architectures import dense
from jaxunlearn.settings import TrainSettings

EPOCHS = 60
HELD_OUT = 0.1
Tables = Mapping[str, np.ndarray]


class Answers(NamedTuple):
    """Answers of an attack on N records.

    Attributes:
      score: [N] for ranking, higher = deleted member.
      probability: [N] in [0, 1] of a deleted member; decisions are taken above 0.5.
    """

    score: np.ndarray
    probability: np.ndarray


class FeatureAnswers(NamedTuple):
    """Answers of one feature's attack on the shadow records it was trained on, and on the target records."""

    shadow: Answers
    target: Answers


def run(
    kind: str, shadow: Tables, deleted: np.ndarray, target: Tables, *, seed: int = 0, faithful: bool = False
) -> dict[str, FeatureAnswers]:
    """Trains one classifier per feature and applies it.

    Args:
      kind: one of `ATTACKS`.
      shadow: feature -> [N, d] of shadow records.
      deleted: [N] bool, which of them were deleted members (no model trained on the others).
      target: feature -> [n, d] of target records, the same names and widths.
      seed: of networks and forests.
      faithful: lr standardises target records by themselves for its probabilities, as published; not for its scores.

    Returns:
      feature -> answers. `threshold` reads only the features of `features.THRESHOLDS` and leaves the others out.

    Raises:
      ConfigError: unknown attack, or one that reads none of the features. DataError: only one kind of record.
      ShapeError: widths differ.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks import classifiers
      >>> shadow = {"l2_distance": np.array([[0.1], [0.2], [0.8], [0.9]])}
      >>> deleted = np.array([False, False, True, True])
      >>> attacks = classifiers.run("threshold", shadow, deleted, {"l2_distance": np.array([[0.7], [0.85]])})
      >>> attacks["l2_distance"].target.probability.tolist()
      [0.0, 1.0]
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


def _answers_of(probability: np.ndarray) -> Answers:
    return Answers(probability, probability)


def _host(family: str) -> Callable[..., dict[str, FeatureAnswers]]:
    """Returns an attack by scikit-learn, which fits one feature after another."""

    def attack(
        shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool
    ) -> dict[str, FeatureAnswers]:
        del faithful
        attacks = {}
        for name, values in shadow.items():
            classifier = host_models.classifier(family, seed).fit(values, deleted)
            tables = (values, target[name])
            attacks[name] = FeatureAnswers(*(_answers_of(classifier.predict_proba(table)[:, 1]) for table in tables))
        return attacks

    return attack


def _padded(tables: Tables) -> np.ndarray:
    """Stacks all features, [A, N, D] float32; narrow ones are filled up with columns of zeros."""
    width = max(values.shape[1] for values in tables.values())
    return np.stack([np.pad(values, ((0, 0), (0, width - values.shape[1]))) for values in tables.values()]).astype(
        np.float32
    )


def _regression(
    shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool
) -> dict[str, FeatureAnswers]:
    del seed
    shadow_inputs, target_inputs = jnp.asarray(_padded(shadow)), jnp.asarray(_padded(target))
    shadow_p, target_p = _regressions(shadow_inputs, jnp.asarray(deleted, jnp.int32), target_inputs)
    decision_p = target_p
    if faithful:
        decision_p = _regressions_by_their_queries(shadow_inputs, jnp.asarray(deleted, jnp.int32), target_inputs)
    return {
        name: FeatureAnswers(
            _answers_of(np.asarray(shadow_p[index])),
            Answers(np.asarray(target_p[index]), np.asarray(decision_p[index])),
        )
        for index, name in enumerate(shadow)
    }


def _fit_all(shadow: jax.Array, deleted: jax.Array) -> logistic.Logistic:
    weights = jnp.ones(len(deleted), shadow.dtype)
    return jax.vmap(lambda table: logistic.fit(table, deleted, weights, 2))(shadow)


def _answers(model: logistic.Logistic, queries: jax.Array) -> jax.Array:
    return jax.nn.softmax(logistic.logits(model, queries))[:, 1]


@jax.jit
def _regressions(shadow: jax.Array, deleted: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns P(deleted) [A, N] of shadow and [A, n] of target records, from [A, N, D] and [A, n, D]."""
    models = _fit_all(shadow, deleted)
    return jax.vmap(_answers)(models, shadow), jax.vmap(_answers)(models, target)


@jax.jit
def _regressions_by_their_queries(shadow: jax.Array, deleted: jax.Array, target: jax.Array) -> jax.Array:
    """Returns P(deleted) [A, n] of target records that are standardised by themselves."""

    def answer(model: logistic.Logistic, queries: jax.Array) -> jax.Array:
        return _answers(logistic.standardised_by(model, queries), queries)

    return jax.vmap(answer)(_fit_all(shadow, deleted), target)


def _network(
    shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool
) -> dict[str, FeatureAnswers]:
    del faithful
    shadow_inputs, target_inputs = _padded(shadow), _padded(target)
    mean, scale = shadow_inputs.mean(1, keepdims=True), shadow_inputs.std(1, keepdims=True)
    scale = np.where(scale > 0, scale, 1.0)
    shadow_inputs, target_inputs = (shadow_inputs - mean) / scale, (target_inputs - mean) / scale
    attacks, rows, width = shadow_inputs.shape
    train = TrainSettings(optimizer="adam", learning_rate=0.01, weight_decay=0.0, schedule="constant", epochs=EPOCHS,
                          batch=200, keep="best")  # fmt: skip
    module = dense.Mlp(2, (100,))
    task = population.supervised(
        module, module, lambda inputs, key, is_train: inputs, train, jax.ShapeDtypeStruct((width,), jnp.float32)
    )
    data = np.concatenate([shadow_inputs.reshape(-1, width), target_inputs.reshape(-1, width)])
    queries = attacks * target_inputs.shape[1]
    labels = np.concatenate([np.tile(deleted, attacks), np.zeros(queries, bool)]).astype(np.int32)
    held_out = _held_out(deleted, seed)
    table_mask = np.repeat(np.eye(attacks, dtype=bool), rows, 1)  # [A, A * N]: each attack's own table
    target_mask = np.zeros((attacks, queries), bool)
    training_mask, validation_mask = (
        np.concatenate([table_mask & np.tile(mask, attacks), target_mask], 1) for mask in (~held_out, held_out)
    )
    stream = population.from_membership(training_mask)
    # Ids of features, not their positions in `shadow`: a feature draws the same whichever others there are.
    member_ids = np.asarray([list(features.FEATURES).index(name) for name in shadow])
    job = population.TrainingJob(
        task=task, streams={"train": stream}, batches={"train": 200}, member_ids=member_ids,
        key=keys.stream(keys.root(seed), "attack"),
        constants={"learning_rate": np.full(attacks, 0.01, np.float32), "weight_decay": np.zeros(attacks, np.float32)},
        steps=population.steps_per_epoch(stream, 200), held_out=population.from_membership(validation_mask),
    )  # fmt: skip
    mapping = population.make_mapping("vmap", devices=1)
    *_, latest = population.train(job, population.DeviceDataset(data, labels), EPOCHS, mapping)
    variables = latest.carry.best
    predict = jax.vmap(lambda model, queries: jax.nn.softmax(task.predict(model, queries))[:, 1])
    shadow_p, target_p = (
        np.asarray(predict(variables, jnp.asarray(table))) for table in (shadow_inputs, target_inputs)
    )
    return {
        name: FeatureAnswers(_answers_of(shadow_p[index]), _answers_of(target_p[index]))
        for index, name in enumerate(shadow)
    }


def _held_out(deleted: np.ndarray, seed: int) -> np.ndarray:
    """Draws a mask [N] of a tenth of each kind of record, on which the best epoch is chosen."""
    generator, held_out = np.random.default_rng(seed), np.zeros(len(deleted), bool)
    for kind in (deleted, ~deleted):
        rows = np.flatnonzero(kind)
        held_out[generator.choice(rows, max(1, int(HELD_OUT * len(rows))), replace=False)] = len(rows) > 1
    return held_out


def _threshold(
    shadow: Tables, deleted: np.ndarray, target: Tables, seed: int, faithful: bool
) -> dict[str, FeatureAnswers]:
    del seed, faithful
    names = [name for name in shadow if name in features.THRESHOLDS]
    if not names:
        raise errors.ConfigError(
            f"attack = 'threshold' supports the features {', '.join(features.THRESHOLDS)}; choose one of them."
        )
    attacks = {}
    for name in names:
        statistic = features.THRESHOLDS[name](shadow[name])
        order = np.argsort(-statistic, kind="stable")
        descending, hits = statistic[order], np.cumsum(deleted[order])
        misses = np.arange(1, len(order) + 1) - hits
        ends = np.append(np.flatnonzero(descending[1:] != descending[:-1]), len(order) - 1)
        num_correct = hits[ends] + (~deleted).sum() - misses[ends]
        cut_index = ends[int(num_correct.argmax())]
        p_above = hits[cut_index] / (cut_index + 1)
        num_below = len(order) - cut_index - 1
        p_below = (deleted.sum() - hits[cut_index]) / num_below if num_below else 0.0

        def answers(
            values: np.ndarray, cut: float = descending[cut_index], sides: tuple = (p_above, p_below)
        ) -> Answers:
            return Answers(values, np.where(values >= cut, *sides))

        attacks[name] = FeatureAnswers(answers(statistic), answers(features.THRESHOLDS[name](target[name])))
    return attacks


ATTACKS: dict[str, Callable[..., dict[str, FeatureAnswers]]] = {
    "dt": _host("dt"),
    "rf": _host("rf"),
    "lr": _regression,
    "mlp": _network,
    "threshold": _threshold,
}
