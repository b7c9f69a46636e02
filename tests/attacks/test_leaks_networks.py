"""Networks of Unlearning-Leaks in the engine, against the published implementation; DP-SGD and its accountant."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, keys, population, settings
from jaxunlearn.metrics.epsilon import privacy
from jaxunlearn.models import build
from jaxunlearn.population.private import noisy_mean
from jaxunlearn.settings import ModelSettings

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unlearning_leaks"
QUERIES = 10


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as content:
        return dict(content)


def dense(arrays, when):
    """Torch's layers in flax's names and order of axes."""
    layers = sorted(name.removeprefix(f"{when}_").removesuffix(".weight") for name in arrays
                    if name.startswith(when) and name.endswith("weight"))  # fmt: skip
    return {f"Dense_{index}": {"kernel": arrays[f"{when}_{layer}.weight"].T, "bias": arrays[f"{when}_{layer}.bias"]}
            for index, layer in enumerate(layers)}  # fmt: skip


@pytest.mark.parametrize("name, model, hidden, optimizer, tolerance", [
    ("dnn_logistic_adam", "logistic_sigmoid", (), "adam", 1e-4),
    ("dnn_logistic_sgd", "logistic_sigmoid", (), "sgd", 1e-5),
    ("dnn_mlp_adam", "mlp", (256, 128, 64, 32), "adam", 1e-4),
])  # fmt: skip
def test_one_pass_of_training_is_the_published_one(name, model, hidden, optimizer, tolerance):
    arrays = golden(name)
    rate, batch, rows = float(arrays["lr"]), int(arrays["batch"]), len(arrays["y"])
    train = settings.TrainSettings(optimizer=optimizer, learning_rate=rate, momentum=0.0, weight_decay=0.0,
                                   schedule="constant", epochs=1, batch=batch)  # fmt: skip
    module = build(ModelSettings(name=model, hidden=hidden), 2)
    example = jax.ShapeDtypeStruct((14,), jnp.float32)
    task = population.supervised(module, module, lambda inputs, key, is_train: inputs, train, example)
    start = jax.tree.map(jnp.asarray, dense(arrays, "init"))
    before = jax.nn.softmax(task.predict({"params": start}, jnp.asarray(arrays["Q"])))
    np.testing.assert_allclose(np.asarray(before), arrays["posterior_before"], rtol=0, atol=1e-5)
    state = task.init(keys.root(0))._replace(params=start)
    job = population.TrainingJob(
        task=task, streams={"train": population.from_membership(np.ones((1, rows), bool))}, batches={"train": batch},
        member_ids=np.arange(1), key=keys.root(0), steps=-(-rows // batch), unshuffled=("train",),
        constants={"learning_rate": np.full(1, rate, np.float32), "weight_decay": np.zeros(1, np.float32)},
        initial=jax.tree.map(lambda leaf: np.asarray(leaf)[None], state),
    )  # fmt: skip
    data = population.DeviceDataset(arrays["X"], arrays["y"].astype(np.int32))
    *_, latest = population.train(job, data, 1, population.make_mapping("vmap", devices=1))
    params = jax.tree.map(lambda leaf: leaf[0], latest.carry.state.params)
    expected = dense(arrays, "final")
    jax.tree.map(lambda leaf, other: np.testing.assert_allclose(np.asarray(leaf), other, rtol=0, atol=tolerance),
                 dict(params), expected)  # fmt: skip
    after = jax.nn.softmax(task.predict({"params": params}, jnp.asarray(arrays["Q"])))
    np.testing.assert_allclose(np.asarray(after), arrays["posterior_after"], rtol=0, atol=tolerance)


def test_the_small_convolutional_network_answers_as_published():
    arrays = golden("simplecnn_forward_a")
    shapes = [(32, 3, 3, 3), (32,), (64, 32, 3, 3), (64,), (128, 12544), (128,), (10, 128), (10,)]
    tensors = []
    for index, shape in enumerate(shapes):
        fan = np.prod(shape[1:]) if len(shape) > 1 else 100
        positions = np.arange(np.prod(shape))
        values = np.sin(positions * (1.3 + 0.1 * index) + float(arrays["phase"]) + index) / np.sqrt(fan)
        tensors.append(values.astype(np.float32).reshape(shape))
    first = tensors[4].reshape(128, 64, 14, 14).transpose(0, 2, 3, 1).reshape(128, -1)  # channels come last here
    params = {
        "Conv_0": {"kernel": tensors[0].transpose(2, 3, 1, 0), "bias": tensors[1]},
        "Conv_1": {"kernel": tensors[2].transpose(2, 3, 1, 0), "bias": tensors[3]},
        "Dense_0": {"kernel": first.T, "bias": tensors[5]},
        "Dense_1": {"kernel": tensors[6].T, "bias": tensors[7]},
    }
    module = build(ModelSettings(name="scnn"), 10)
    answers = module.apply({"params": params}, jnp.asarray(arrays["x"].transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(np.asarray(answers), arrays["logits"], rtol=0, atol=1e-4)


# ---- DP-SGD ---------------------------------------------------------------------------------------------------------


def test_the_accountant_gives_the_values_of_the_reference():
    assert privacy.epsilon(32, 0.001, 1.2) == pytest.approx(0.40, abs=0.005)  # the rate that the reference hands over
    assert privacy.epsilon(32, 64 / 2000, 1.2) == pytest.approx(1.30, abs=0.005)
    assert privacy.epsilon(3200, 64 / 2000, 1.2) == pytest.approx(9.84, abs=0.005)


def test_the_accountant_agrees_with_the_plain_gaussian_and_is_monotone():
    assert privacy.renyi(8, 1.0, 2.0) == pytest.approx(8 / 8)
    for order in (2.5, 3.5, 7.1):  # the series between two binomial sums
        low, high = (privacy.renyi(integer_order, 0.05, 1.1) for integer_order in (np.floor(order), np.ceil(order)))
        assert low < privacy.renyi(order, 0.05, 1.1) < high
    values = [privacy.epsilon(steps, rate, noise) for steps, rate, noise in
              ((10, 0.01, 1.0), (100, 0.01, 1.0), (100, 0.1, 1.0), (100, 0.1, 0.5))]  # fmt: skip
    assert values == sorted(values) and privacy.epsilon(1, 0.5, 0.0) == np.inf and privacy.epsilon(0, 0.5, 1.0) == 0
    with pytest.raises(errors.ConfigError, match="rate = 1.5"):
        privacy.epsilon(1, 1.5, 1.0)


def test_gradients_are_clipped_row_by_row_and_noised():
    draw = np.random.default_rng(0)
    gradients = {"a": draw.normal(size=(6, 4)), "b": draw.normal(size=(6, 2, 3))}
    gradients["a"][5] = 1e6  # padding may hold anything
    weights = jnp.asarray([1, 1, 1, 1, 1, 0.0])
    norms = np.sqrt(sum((values.reshape(6, -1) ** 2).sum(1) for values in gradients.values()))
    factors = np.minimum(1, 1.5 / (norms + 1e-6))[:5]
    traced = jax.tree.map(jnp.asarray, gradients)
    clean = noisy_mean(traced, weights, keys.root(0), 1.5, 0.0)
    for name, values in gradients.items():
        expected = np.tensordot(factors, values[:5], 1) / 5
        np.testing.assert_allclose(np.asarray(clean[name]), expected, rtol=1e-5, atol=1e-6)
    drawn = jax.vmap(lambda key: noisy_mean(traced, weights, key, 1.5, 2.0)["b"])(jax.random.split(keys.root(1), 2000))
    assert np.std(np.asarray(drawn), axis=0) == pytest.approx(1.5 * 2.0 / 5, rel=0.1)
    np.testing.assert_allclose(np.mean(np.asarray(drawn), axis=0), np.asarray(clean["b"]), atol=0.06)


def test_without_noise_and_clipping_it_is_the_plain_step():
    train = settings.TrainSettings(learning_rate=0.1, momentum=0.9, weight_decay=0.0, schedule="constant")
    module = build(ModelSettings(name="mlp", hidden=(8,)), 3)
    arguments = (module, module, lambda inputs, key, is_train: inputs, train, jax.ShapeDtypeStruct((5,), jnp.float32))
    plain, private = population.supervised(*arguments), population.private(*arguments, clip=1e9, noise=0.0)
    draw = np.random.default_rng(0)
    batch = population.Batch(jnp.asarray(draw.normal(size=(7, 5)), jnp.float32), jnp.arange(7) % 3,
                             jnp.asarray([1.0] * 6 + [0.0]), jnp.arange(7))  # fmt: skip
    constants = {"learning_rate": 0.1, "weight_decay": 0.0}
    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    state = plain.init(keys.root(3))
    plain_result, other = (
        task.step(state, {"train": batch}, step_info, keys.root(4), constants) for task in (plain, private)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain_result, other)


def test_networks_with_batch_statistics_cannot_be_private():
    train = settings.TrainSettings()
    module = build(ModelSettings(name="cnn_bn", width=4), 3)
    example = jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)
    with pytest.raises(errors.ConfigError, match="without statistics over batches"):
        population.private(module, module, lambda inputs, key, is_train: inputs, train, example, 1.0, 1.0)
