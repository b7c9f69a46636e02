"""Training and unlearning on arrays in memory: what goes in, and what a model's numbers depend on."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxunlearn as ju

ROWS, CLASSES = 60, 3
LABELS = np.arange(ROWS) % CLASSES
INPUTS = (np.eye(CLASSES)[LABELS] + np.random.default_rng(0).normal(0, 0.6, (ROWS, CLASSES))).astype(np.float32)
DATA = (INPUTS, LABELS)
RAW = (np.round(20 * INPUTS + 100).astype(np.uint8), LABELS)
KEY = jax.random.key(3)
MASKS = np.arange(ROWS) % 5 != np.arange(3)[:, None]
NETWORK = ju.models.build(ju.settings.ModelSettings(name="mlp", hidden=(8,)), CLASSES)


def fitted(data=DATA, membership=MASKS, network=NETWORK, **more):
    return ju.population.fit(network, data, membership, **{"key": KEY, "epochs": 2, "batch": 30, **more})


def unlearned(originals, method="finetune", network=NETWORK, data=DATA, **more):
    return ju.unlearn.run(method, network, originals, data, **{"forget": [2, 4], "key": KEY, **more})


@pytest.fixture(scope="module")
def originals():
    return fitted()


def some(variables, *members):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[list(members)], variables)


def assert_same(variables, others):
    jax.tree.map(np.testing.assert_array_equal, variables, others)


def distance(variables, others):
    pairs = zip(jax.tree.leaves(variables), jax.tree.leaves(others), strict=True)
    return max(np.abs(np.asarray(leaf) - np.asarray(other)).max() for leaf, other in pairs)


def scaled(inputs, key, is_train):
    return (inputs.astype(jnp.float32) - 100) / 20


def test_inputs_are_prepared_in_the_same_way_everywhere():
    prepared = (np.asarray(scaled(jnp.asarray(RAW[0]), KEY, False)), LABELS)
    net = ju.unlearn.Network(NETWORK, scaled, jax.ShapeDtypeStruct((CLASSES,), np.uint8), CLASSES)
    models = fitted(prepared)
    assert distance(models, fitted(RAW, prepare=scaled)) < 1e-5
    assert_same(fitted(RAW, prepare=scaled), fitted(RAW, network=net))
    expected = unlearned(models, data=prepared, epochs=1)
    assert distance(expected, unlearned(models, data=RAW, prepare=scaled, epochs=1)) < 1e-5
    assert distance(expected, unlearned(models, data=RAW, network=net, epochs=1)) < 1e-5
    logits = ju.population.logits(NETWORK, models, prepared[0])
    assert np.abs(logits - ju.population.logits(NETWORK, models, RAW[0], prepare=scaled)).max() < 1e-5
    assert np.abs(logits - ju.population.logits(net, models, RAW[0])).max() < 1e-5


def test_unlearning_augments_as_training_does(originals):
    def noisy(inputs, key, is_train):
        return inputs + is_train * jax.random.normal(key, inputs.shape)

    plain, augmented = (unlearned(originals, epochs=1, lr=0.1, prepare=prepare) for prepare in (None, noisy))
    assert distance(plain, augmented) > 1e-3
    still = [unlearned(originals, "poison", prepare=prepare) for prepare in (None, noisy)]  # it never augments
    assert distance(*still) < 1e-6


class NeedsMask(nn.Module):
    """A module whose mask has no default."""

    @nn.compact
    def __call__(self, inputs, train, mask):
        return nn.Dense(CLASSES)(inputs)


class FailsInTraining(nn.Module):
    """A module that another shape leaves when it trains."""

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        return nn.Dense(CLASSES)(inputs)[:, :, 0] if train else nn.Dense(CLASSES)(inputs)


def in_evaluation_only(inputs, key, is_train):
    return inputs[:, :, 0] if is_train else inputs


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"network": NeedsMask()}, r"NeedsMask cannot be called on rows of shape \(3,\) as module.init\(.*train=False"),
        ({"network": FailsInTraining()}, r"FailsInTraining cannot be called .* train=True"),
        (
            {"prepare": in_evaluation_only},
            r"prepare\(inputs, key, True\) fails on inputs of shape \(2, 3\): IndexError",
        ),
        ({"prepare": lambda inputs: inputs}, r"prepare\(inputs, key, False\) fails .* TypeError"),
        ({"prepare": lambda inputs, key, is_train: inputs[:1]}, "as many rows as it gets"),
        ({"prepare": lambda inputs, key, is_train: None}, "as many rows as it gets"),
        ({"prepare": 3}, "prepare must be a function"),
        ({"network": ju.unlearn.Network(NETWORK, scaled, None, CLASSES), "prepare": scaled}, "prepare is there twice"),
        ({"network": ju.models.build(ju.settings.ModelSettings(name="cnn"), CLASSES)}, "Cnn cannot be called on rows"),
        ({"key": jax.random.key(0, impl="rbg")}, "of the kind threefry2x32"),
    ],
)
def test_what_cannot_be_called_is_named_before_any_training(originals, changes, message):
    for act in (lambda: fitted(**changes), lambda: unlearned(originals, **changes)):
        with pytest.raises(ju.errors.ConfigError, match=message):
            act()


def test_a_model_is_the_same_alone_as_among_others(originals):
    for member in (1, 2):
        assert_same(fitted(membership=MASKS[[member]], member_ids=[member]), some(originals, member))
    trained = np.flatnonzero(MASKS.all(0))
    requests = [trained[:2], trained[2:5], trained[5:6]]
    for method in ("finetune", "negrad_plus", "salun", "ssd"):
        together = unlearned(originals, method, forget=requests, train=trained)
        alone = unlearned(some(originals, 2), method, forget=requests[2], train=trained, member_ids=[2])
        assert_same(alone, some(together, 2))
        renamed = unlearned(some(originals, 0, 1), method, forget=requests[:2], train=trained, member_ids=[0, 5])
        assert_same(some(renamed, 0), some(together, 0))
        assert (distance(some(renamed, 1), some(together, 1)) > 0) == (method != "ssd")  # which draws nothing


def test_values_of_a_sweep_differ_in_the_value_alone(originals):
    first, how = some(originals, 0), {"epochs": 1, "batch": 10}
    swept = unlearned(first, lr=[0.1, 0.1, 0.2], **how)
    assert_same(some(swept, 0), some(swept, 1))
    for member, lr in ((1, 0.1), (2, 0.2)):
        assert_same(some(swept, member), unlearned(first, lr=lr, **how))
    assert distance(some(swept, 0), some(swept, 2)) > 1e-3
    repeated = unlearned(first, forget=[[2, 4]] * 2, **how)  # requests are members of their own
    assert distance(some(repeated, 0), some(repeated, 1)) > 0
    assert_same(some(repeated, 1), unlearned(first, **how, member_ids=1))
    assert_same(some(unlearned(first, lr=[0.1, 0.2], **how, member_ids=[0, 1]), 0), some(swept, 0))


@pytest.mark.parametrize(
    "member_ids, message",
    [
        ([0, 1], r"member_ids must be \[M\] for M = 3 models, not \[2\]"),
        ([0, 1, -1], "member_ids = -1: must be between 0"),
        ([0, 1, 0.5], "member_ids = 0.5: expected a whole number"),
        ("one", "member_ids = 'one': expected a whole number"),
    ],
)
def test_bad_member_ids_are_named(originals, member_ids, message):
    for act in (fitted, lambda **more: unlearned(originals, **more)):
        with pytest.raises(ju.errors.UserError, match=message):
            act(member_ids=member_ids)


def test_every_original_has_rows_of_its_own(originals):
    requests = [np.flatnonzero(mask)[:3] for mask in MASKS]
    lists = [np.flatnonzero(mask) for mask in MASKS]
    for method in ("finetune", "ssd"):
        how = {"method": method, "forget": requests}
        together = unlearned(originals, train=MASKS, **how)
        assert_same(together, unlearned(originals, train=lists, **how))
        assert_same(together, unlearned(originals, train=MASKS.astype(int).tolist(), **how))
        for member in range(3):
            how = {"forget": requests[member], "train": MASKS[member], "member_ids": [member]}
            assert_same(some(together, member), unlearned(some(originals, member), method, **how))
    shared = unlearned(originals, train=MASKS, forget=np.flatnonzero(MASKS.all(0))[:2])
    assert distance(shared, unlearned(originals, forget=np.flatnonzero(MASKS.all(0))[:2])) > 0


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"forget": [[0], [0], [0]], "train": MASKS},
            r"forget\[0\] contains row 0, on which original 0 was not trained",
        ),
        ({"forget": [1, 2, 4], "train": MASKS}, r"forget contains row 1, on which original 1 was not trained \(1 such"),
        ({"forget": [1, 7], "train": [2, 3]}, r"row 1, on which the originals were not trained \(2 such"),
        ({"forget": [4], "train": MASKS[:2]}, r"train has rows for 2 models, but there are 3 original\(s\)"),
        ({"forget": [4], "train": [[4, 5], [4, 5, 6], [99]]}, r"train\[2\] contains row 99"),
        ({"forget": [4], "train": MASKS, "validation": [5]}, "row 5 is in train and in validation"),
        ({"forget": [[3], [], [4]]}, r"forget\[1\] is empty"),
        ({"forget": [[], [3], [4]]}, r"forget\[0\] is empty"),
        ({"forget": np.zeros((3, ROWS), bool)}, r"forget\[0\] is empty"),
        (
            {"forget": [[3], 4, [5]]},
            r"forget\[1\] must be row numbers \[n\] or a mask \[N\], not an array of shape \(\)",
        ),
        ({"forget": [[3], [[4]], [5]]}, r"forget\[1\] must be row numbers"),
    ],
)
def test_rows_that_do_not_fit_are_named_with_their_model(originals, changes, message):
    with pytest.raises(ju.errors.UserError, match=message):
        unlearned(originals, **changes)


def with_nan(originals, member):
    return jax.tree.map(lambda leaf: np.where(np.arange(3).reshape(-1, *[1] * (leaf.ndim - 1)) == member, np.nan, leaf),
                        originals)  # fmt: skip


def test_models_that_are_not_finite_are_refused_by_number(originals):
    broken = with_nan(originals, 1)
    message = r"{}: the weights of 1 of 3 models \(model 1\) are NaN or infinite"
    with pytest.raises(ju.errors.DataError, match=message.format("originals")):
        unlearned(broken, "ssd")
    with pytest.raises(ju.errors.DataError, match=message.format("variables")):
        ju.population.logits(NETWORK, broken, INPUTS)
    assert np.isfinite(ju.population.logits(NETWORK, some(broken, 0, 2), INPUTS)).all()
    with pytest.raises(ju.errors.DataError, match=r"1 of 1 models \(model 0\)"):
        unlearned(jax.tree.map(lambda leaf: leaf[1], broken), "ssd")


def test_a_warning_says_what_divergence_leaves(originals):
    with pytest.warns(UserWarning, match=r"3 of 3 models diverged \(models 0, 1, 2\).*mean nothing.*or lower lr\."):
        exploded = unlearned(originals, "ascent", lr=1e6, epochs=3)
    assert distance(exploded, originals) > 1e9  # frozen at the step whose loss was not finite, not before
    huge = jax.tree.map(lambda leaf: 1e30 * np.sign(leaf), some(originals, 0))
    with pytest.warns(UserWarning, match=r"the logits of 1 of 2 models \(model 1\) are NaN or infinite"):
        ju.population.logits(NETWORK, jax.tree.map(lambda *leaves: np.concatenate(leaves), some(originals, 0), huge),
                             INPUTS)  # fmt: skip
    with pytest.warns(UserWarning, match="diverged .*leave them out, or lower learning_rate"):
        fitted(learning_rate=1e10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unlearned(originals, epochs=1)


def test_floats_of_a_sweep_are_numbers_of_any_kind(originals):
    expected = unlearned(originals, "ssd", alpha=[1.0, 2.0, 3.0])
    for values in (range(1, 4), [1, 2, 3], np.arange(1, 4), np.arange(1, 4, dtype=np.float32)):
        assert_same(unlearned(originals, "ssd", alpha=values), expected)


def test_models_of_a_population_have_rates_of_their_own():
    rates, decays = [0.1, 0.02, 0.1], np.array([0.0, 0.0, 0.01], np.float32)
    models = fitted(learning_rate=rates, weight_decay=decays)
    for member in range(3):
        how = {"learning_rate": rates[member], "weight_decay": decays[member], "member_ids": [member]}
        assert_same(fitted(membership=MASKS[[member]], **how), some(models, member))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lr": 0.1}, r"unknown training setting 'lr'\. Did you mean 'learning_rate'"),
        ({"batch_size": 3}, "Did you mean 'batch'"),
        ({"prepared": None}, "Did you mean 'prepare'"),
        ({"snapshot": 3}, r"unknown training setting 'snapshot'\. Known: batch, decay, epochs, l1"),
        ({"epochs": 1.5}, "^epochs = 1.5: expected int"),
        (
            {"epochs": [1, 2, 3]},
            "only learning_rate and weight_decay can differ between models; call fit once per value",
        ),
        ({"learning_rate": [0.1, 0.2]}, "learning_rate has 2 values for M = 3 models"),
        ({"learning_rate": [0.1, -0.2, 0.1]}, "^learning_rate = -0.2: must be at least 0"),
        ({"schedule": "step"}, "^schedule = 'step' needs milestones"),
    ],
)
def test_a_recipe_is_named_by_the_arguments_of_fit(changes, message):
    with pytest.raises(ju.errors.UserError, match=message) as caught:
        fitted(**changes)
    assert "train." not in str(caught.value) and "--" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"learning_rate": 0.1}, r"unknown hyperparameter 'learning_rate'\. Did you mean 'lr'"),
        ({"batch_size": 3}, "Did you mean 'batch'"),
        ({"validations": [3]}, "Did you mean 'validation'"),
        ({"lr": []}, "give at least one value"),
        ({"epochs": [1, 2, 3]}, "epochs = .*only float hyperparameters can be swept; call run once per value"),
        ({"schedule": ["cosine", "step"]}, "schedule = .*only float hyperparameters can be swept"),
        ({"nesterov": [True, False, True]}, "nesterov = .*only float hyperparameters can be swept"),
        ({"epochs": 0}, "^epochs = 0: the method would not train; give at least 1"),
        ({"method": "task_vector", "epochs": 0}, "^epochs = 0: the method would not train"),
        ({"method": "hybrid", "epochs": 0, "poison_epochs": 0}, "^epochs = 0 and poison_epochs = 0: the method"),
        ({"method": "SSD"}, r"unknown unlearning method 'SSD'\. Did you mean 'ssd'"),
        ({"method": "NegGrad+"}, r"unknown unlearning method 'NegGrad'\. Did you mean 'negrad_plus'"),
        ({"method": "sisa"}, "'sisa' makes an ensemble"),
    ],
)
def test_a_method_is_named_by_the_arguments_of_run(originals, changes, message):
    with pytest.raises(ju.errors.ConfigError, match=message) as caught:
        unlearned(originals, **changes)
    known = str(caught.value).partition("Known: ")[2]
    assert "npo" not in known and "sisa" not in known


def test_methods_that_do_something_else_than_training_need_no_epoch(originals):
    for method, more in (("hybrid", {}), ("eu_k", {"k": 1}), ("activation_reset", {})):
        assert distance(unlearned(originals, method, epochs=0, **more), originals) > 0


def test_hyperparameters_are_those_of_a_name_or_an_entry():
    assert ju.unlearn.hyperparameters("ssd") == ju.unlearn.hyperparameters(ju.unlearn.lookup("ssd"))
