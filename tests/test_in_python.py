"""The library without a command: `import jaxunlearn as ju`."""

import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

import jaxunlearn as ju

ROWS, CLASSES = 90, 3
LABELS = np.arange(ROWS) % CLASSES
INPUTS = (np.eye(CLASSES)[LABELS] + np.random.default_rng(0).normal(0, 0.6, (ROWS, CLASSES))).astype(np.float32)
DATA = (INPUTS, LABELS)
KEY = jax.random.key(3)
MASKS = np.arange(ROWS) % 5 != np.arange(3)[:, None]


def network():
    return ju.models.build(ju.settings.ModelSettings(name="mlp", hidden=(8,)), CLASSES)


@pytest.fixture(scope="module")
def originals():
    return ju.population.fit(network(), DATA, MASKS, key=KEY, epochs=3, batch=30)


def leaf(variables, member):
    return np.asarray(jax.tree.leaves(variables)[0][member])


def test_importing_does_no_work_and_rooms_are_there_when_asked_for():
    lines = (
        "import sys, jaxunlearn as ju; print('jax' in sys.modules); print(ju.Evidence.__name__, 'scores' in dir(ju))"
    )
    run = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "Evidence", "True"]
    with pytest.raises(AttributeError, match="no attribute 'scors'"):
        _ = ju.scors
    assert all(getattr(ju, name) is not None for name in ju.__all__)


def test_a_model_depends_on_its_own_number_and_rows_alone(originals):
    first = ju.population.fit(network(), DATA, MASKS[:1], key=KEY, epochs=3, batch=30)
    np.testing.assert_allclose(leaf(first, 0), leaf(originals, 0), atol=1e-6)
    assert np.abs(leaf(originals, 0) - leaf(originals, 1)).max() > 0.01
    logits = ju.population.logits(network(), originals, INPUTS)
    assert logits.shape == (3, ROWS, CLASSES) and logits.dtype == np.float32
    some = ju.population.logits(network(), originals, INPUTS[7:12], batch=2)
    np.testing.assert_allclose(some, logits[:, 7:12], atol=1e-5)
    for batch in (2.5, True, "2", 0):
        with pytest.raises(ju.errors.ConfigError, match="batch = "):
            ju.population.logits(network(), originals, INPUTS, batch=batch)


def test_requests_are_unlearned_together_as_they_are_alone(originals):
    requests = [np.array([1, 2]), np.array([11, 12, 13]), np.array([0, 5])]
    trained = np.arange(20)
    how = {"key": KEY, "train": trained, "epochs": 2, "lr": 0.3, "batch": 10}
    together = ju.unlearn.run("negrad_plus", network(), originals, DATA, forget=requests, **how)
    before = ju.population.logits(network(), originals, INPUTS[:20])
    after = ju.population.logits(network(), together, INPUTS[:20])
    for member, request in enumerate(requests):
        chance = [np.take_along_axis(jax.nn.softmax(z[member]), LABELS[:20, None], 1)[:, 0] for z in (before, after)]
        kept = np.setdiff1d(trained, request)
        assert (chance[1] - chance[0])[request].mean() < (chance[1] - chance[0])[kept].mean()
    first = jax.tree.map(lambda values: np.asarray(values)[0], originals)  # of one model, without the leading axis
    alone = ju.unlearn.run("negrad_plus", network(), first, DATA, forget=requests[0], **how)
    np.testing.assert_allclose(leaf(alone, 0), leaf(together, 0), atol=1e-6)
    mask = np.isin(np.arange(ROWS), requests[0])
    for same in (mask, mask.astype(int), mask.astype(float).tolist(), [mask.astype(int)]):
        masked = ju.unlearn.run("negrad_plus", network(), first, DATA, forget=same, **how)
        np.testing.assert_array_equal(leaf(masked, 0), leaf(alone, 0))


def test_values_of_a_sweep_are_members(originals):
    first = jax.tree.map(lambda values: np.asarray(values)[0], originals)
    requests = [np.array([1])] * 2
    swept = ju.unlearn.run("finetune", network(), first, DATA, forget=requests, key=KEY, lr=[0.0, 0.2], epochs=1)
    np.testing.assert_allclose(leaf(swept, 0), leaf(originals, 0), atol=1e-7)
    assert np.abs(leaf(swept, 1) - leaf(originals, 0)).max() > 1e-3


def test_a_builder_of_ones_own_and_wrapped_names_run(originals):
    def gentle(lr: float = 0.1):
        return ju.unlearn.METHODS["finetune"].build(lr=lr, epochs=1)

    how = {"forget": [3], "key": KEY}
    mine = ju.unlearn.run(gentle, network(), originals, DATA, lr=0.05, **how)
    named = ju.unlearn.run("finetune", network(), originals, DATA, lr=0.05, epochs=1, **how)
    np.testing.assert_array_equal(leaf(mine, 2), leaf(named, 2))
    wrapped = ju.unlearn.run(
        "finetune+conformal", network(), originals, DATA, epochs=1, validation=np.arange(60, ROWS), **how
    )
    assert np.isfinite(leaf(wrapped, 0)).all()


def test_scores_and_verdicts_of_arrays(originals):
    logits = ju.population.logits(network(), originals, INPUTS)
    evidence = ju.Evidence(unlearned=logits[0], original=logits[0], shadows=logits[1:], labels=LABELS)
    result = ju.scores.run(["iam_on", "confidence"], evidence)
    assert set(result.scores) == {"iam_on", "confidence"} and result["iam_on"].values.shape == (ROWS,)
    report = ju.analyses.audit(evidence, LABELS == 0, scores=("confidence",))
    assert "NOT FORGOTTEN" in dict(report.summary)["In short"]
    by_number = ju.analyses.audit(evidence, np.flatnonzero(LABELS == 0), scores=("confidence",))
    assert str(by_number) == str(report)
    with pytest.raises(ju.errors.UserError, match="twice"):
        ju.analyses.audit({"unlearned": logits[0], "labels": LABELS, "forgotten": LABELS == 0}, LABELS == 0)


TOKENS = np.ones((ROWS, 4), np.int32)


class Flat(nn.Module):
    """A network that answers with one number per row."""

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        return nn.Dense(1)(inputs)[:, 0]


class Plain(nn.Module):
    """A module that takes neither `train` nor `mask`."""

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(CLASSES)(inputs)


def unlearned(originals, **changes):
    values = {
        "method": "finetune",
        "network": network(),
        "originals": originals,
        "data": DATA,
        "forget": [1],
        "key": KEY,
    }
    return ju.unlearn.run(**{**values, **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "fintune"}, "Did you mean 'finetune'"),
        ({"rate": 0.1}, "unknown hyperparameter 'rate'"),
        ({"lr": [0.1, 0.2]}, "3 originals and 2 requests or values"),
        ({"lr": [0.1, -0.1, 0.1]}, "lr = -0.1: must be"),
        ({"lr": [0.1, None, 0.1]}, "lr = None: expected float"),
        ({"lr": "a"}, "lr = 'a': expected float"),
        ({"epochs": [1, 2, 3]}, "only float hyperparameters can be swept; call run once per value"),
        ({"epochs": 2.5}, "epochs = 2.5: expected int"),
        ({"nesterov": "yes"}, "nesterov = 'yes': expected bool"),
        ({"learning_rate": 0.1}, "unknown hyperparameter 'learning_rate'"),
        ({"bn": "typo"}, "unknown bn"),
        ({"default_batch": 0}, "default_batch = 0"),
        ({"default_batch": 2.5}, "default_batch = 2.5: expected a whole number"),
        ({"default_batch": True}, "default_batch = True: expected a whole number"),
        ({"mapping": "side"}, "unknown mapping"),
        ({"key": 0}, "key must be one PRNG key"),
        ({"method": 3}, "method must be a name"),
        ({"method": "npo"}, "is for texts"),
        ({"method": "forsaken"}, "reads held-out rows"),
        ({"forget": np.arange(ROWS)}, "needs rows that are kept"),
        ({"train": np.arange(50), "validation": np.arange(40, 60)}, "row 40 is in train and in validation"),
        ({"forget": [1], "train": [[1], [1, 2]]}, "train has rows for 2 models"),
        ({"forget": [1, [2]]}, r"forget\[0\] must be row numbers"),
        ({"forget": 3}, "must be row numbers"),
        ({"forget": np.int64(3)}, "must be row numbers"),
        ({"forget": None}, "must be row numbers"),
        ({"forget": []}, "forget is empty"),
        ({"forget": [ROWS]}, "forget contains row 90; rows are 0 to 89"),
        ({"forget": [-1]}, "forget contains row -1"),
        ({"forget": [1, 1]}, "row 1 twice"),
        ({"forget": [0.5]}, "whole row numbers"),
        ({"forget": np.ones(4, bool)}, "a mask must be"),
        ({"forget": [1], "train": [2, 3]}, "were not trained"),
        ({"forget": [[1], [2]]}, "3 originals and 2 requests or values"),
        ({"forget": [[1], [2], [3]], "lr": [0.1, 0.2]}, "3 request\\(s\\) and 2 value\\(s\\)"),
        ({"method": "sisa"}, "ensemble"),
        ({"network": Plain()}, "Plain cannot be called"),
        ({"network": ju.models.build(ju.settings.ModelSettings(name="mlp", hidden=(9,)), CLASSES)}, "shapes differ"),
        ({"network": ju.models.build(ju.settings.ModelSettings(name="logistic"), CLASSES)}, "names differ"),
        ({"data": (INPUTS, LABELS[:5])}, "of the same N"),
        ({"data": (INPUTS, LABELS - 1)}, "whole numbers from 0"),
        ({"data": (INPUTS, LABELS + 1)}, r"labels must lie in \[0, 2\] for 3 classes, but row 2 is 3"),
        ({"data": (INPUTS, LABELS + 2**40)}, "whole numbers from 0"),
        ({"data": INPUTS}, "a pair"),
        ({"data": (INPUTS.astype(str), LABELS)}, "real numbers"),
        ({"data": (1e300 * INPUTS.astype(np.float64), LABELS)}, "NaN or infinite"),
        ({"data": (np.full_like(INPUTS, np.nan), LABELS)}, "NaN or infinite"),
    ],
)
def test_bad_input_of_unlearning_is_named(originals, changes, message):
    with pytest.raises(ju.errors.UserError, match=message):
        unlearned(originals, **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epoch": 3}, "unknown training setting 'epoch'. Did you mean 'epochs'"),
        ({"epochs": 0}, "^epochs = 0: must be between 1"),
        ({"keep": "best"}, "leave keep and snapshots out"),
        ({"membership": np.ones((2, 4), bool)}, "membership must be"),
        ({"membership": np.zeros((2, ROWS), bool)}, "no row to train on"),
        ({"membership": np.arange(ROWS)[None]}, "0 and 1"),
        ({"membership": np.full((1, ROWS), 0.5)}, "0 and 1"),
        ({"membership": np.zeros((0, ROWS), bool)}, "membership must be"),
        ({"data": (INPUTS, LABELS + 5)}, r"labels must lie in \[0, 2\] for 3 classes"),
        ({"module": "mlp"}, "must be a flax module"),
        (
            {"module": ju.models.build(ju.settings.ModelSettings(name="lm", width=16), 16), "data": (TOKENS, LABELS)},
            "texts are supported only by the commands",
        ),
        ({"module": Flat()}, "must return logits"),
        ({"key": jax.random.split(KEY, 2)}, "one PRNG key"),
        ({"mapping": "side"}, "unknown mapping"),
        ({"module": Plain()}, "Plain cannot be called"),
    ],
)
def test_bad_input_of_training_is_named(changes, message):
    values = {"module": network(), "data": DATA, "membership": MASKS, "key": KEY}
    with pytest.raises(ju.errors.UserError, match=message):
        ju.population.fit(**{**values, **changes})


@pytest.mark.parametrize("scale, rate", [(1e20, 1e30), (1.0, 1e10)])
def test_models_that_diverge_are_named(scale, rate):
    with pytest.warns(UserWarning, match="models diverged .*stopped being finite"):
        ju.population.fit(network(), (scale * INPUTS, LABELS), MASKS[:1], key=KEY, epochs=3, learning_rate=rate)


def test_a_method_has_its_own_batch_and_numbers_of_every_kind(originals):
    how = {"forget": [np.array([1, 2])], "key": KEY, "train": np.arange(20)}
    small, usual, numpy_kind = (
        leaf(ju.unlearn.run("scrub", network(), originals, DATA, epochs=epochs, **how, **more), 0)
        for epochs, more in ((1, {"batch": 4}), (1, {}), (np.int64(1), {"lr": np.float32(5e-4)}))
    )
    assert np.abs(small - usual).max() > 1e-6 and numpy_kind.shape == usual.shape
    lists = ju.population.fit(network(), (INPUTS.tolist(), LABELS.tolist()), MASKS[:1].tolist(), key=KEY, epochs=1)
    arrays = ju.population.fit(network(), DATA, MASKS[:1].astype(int), key=KEY, epochs=1, mapping="vmap")
    np.testing.assert_allclose(leaf(lists, 0), leaf(arrays, 0), atol=1e-6)


def test_an_error_of_a_users_builder_is_named(originals):
    def broken(lr: float = 0.1):
        raise ZeroDivisionError("no")

    with pytest.raises(ju.errors.ConfigError, match="'broken' does not run: ZeroDivisionError: no"):
        ju.unlearn.run(broken, network(), originals, DATA, forget=[3], key=KEY)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda variables: jax.tree.map(lambda values: values[0], variables), "same leading axis"),
        (lambda variables: variables["params"], "names differ"),
        (lambda variables: None, "names differ"),
    ],
)
def test_variables_of_another_form_are_named(originals, change, message):
    with pytest.raises(ju.errors.ShapeError, match=message):
        ju.population.logits(network(), change(originals), INPUTS)


def test_evidence_of_other_forms(originals):
    logits = ju.population.logits(network(), originals, INPUTS)
    values = {"unlearned": logits[0].tolist(), "labels": LABELS.tolist()}
    result = ju.scores.run("confidence", values)
    np.testing.assert_array_equal(
        result.scores["confidence"].values,
        ju.scores.run(["confidence"], ju.Evidence(unlearned=logits[0], labels=LABELS)).scores["confidence"].values,
    )
    by_mask, by_number = (
        str(ju.analyses.audit(values, forgotten, scores=("confidence",)))
        for forgotten in ((LABELS == 0).astype(float), np.flatnonzero(LABELS == 0))
    )
    assert by_mask == by_number
    for evidence, forgotten, message in (
        (None, None, "an Evidence or a dict"),
        (values, [1, 1, 2], "twice"),
        (values, [], "at least one row"),
        ({"unlearned": logits[0]}, [1], "no array 'labels'"),
        ({**values, "unlearned": [[1.0], [1.0, 2.0]]}, None, "unequal length"),
    ):
        with pytest.raises(ju.errors.UserError, match=message):
            ju.analyses.audit(evidence, forgotten)
    for evidence, message in ((None, "an Evidence or a dict"), ({"labels": LABELS}, "needs `unlearned`"),
                              ({**values, "shadow": 1}, "unknown array 'shadow'")):  # fmt: skip
        with pytest.raises(ju.errors.UserError, match=message):
            ju.scores.run(["confidence"], evidence)


@pytest.mark.slow
def test_the_lines_of_the_docs_run(capsys):
    text = (Path(__file__).resolve().parents[1] / "docs/in_python.md").read_text()
    first, sweep = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(compile(first, "docs/in_python.md", "exec"), names)
    assert "50 CANNOT TELL" in capsys.readouterr().out
    assert names["logits"].shape == (17, 1797, 10) and "In short" in dict(names["report"].summary)
    exec(compile(sweep, "docs/in_python.md", "exec"), names)
    assert len(re.findall("rows caught", capsys.readouterr().out)) == 3


def test_names_stand_for_settings_and_the_room_lists_what_it_offers():
    assert ju.models.build("mlp", 5).num_classes == 5
    hidden = ju.models.build(ju.settings.ModelSettings(name="mlp", hidden=8), CLASSES)
    assert hidden == network()
    assert ju.data.load("digits").num_classes == 10
    assert ju.unlearn.hyperparameters("ssd") == ju.unlearn.hyperparameters(ju.unlearn.lookup("ssd"))
    for call in (ju.data.load, lambda wrong: ju.models.build(wrong, 5)):
        with pytest.raises(ju.errors.ConfigError, match="not .*3"):
            call(3)
    with pytest.raises(ju.errors.ConfigError, match="hidden = 'x'"):
        ju.models.build(ju.settings.ModelSettings(name="mlp", hidden="x"), 5)
    assert set(ju.__all__) == {name for name in dir(ju) if not name.startswith("__")}
