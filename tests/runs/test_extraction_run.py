"""Runs of launch.extract: clones of recorded models, a kill in the middle, later calls, refusals."""

import dataclasses
import json
import shutil

import finished
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, settings
from jaxunlearn.metrics import utility
from jaxunlearn.runs import experiments
from jaxunlearn.runs.roles import clone_models
from jaxunlearn.store import chunks
from launch import extract

# Five epochs of four iterations of 16 x (2 + 5) queries.
TINY = ["--config.extract.budget=2300", "--config.extract.batch=16", "--config.extract.iterations=4",
        "--config.extract.width=2", "--config.extract.latents=4", "--config.extract.clone_rate=0.1"]  # fmt: skip
GIVEN = [*finished.FLAGS, finished.TWO_EPOCHS, *TINY]
ROLES = ("retrained", "unlearned:ssd")


def launch(folder, *more, roles="retrained,unlearned:ssd"):
    return finished.launch(extract, *GIVEN, *more, f"--config.extract.roles={roles}", workdir=folder)


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(finished.folder(), tmp_path / "run")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = shutil.copytree(finished.folder(), tmp_path_factory.mktemp("finished_run") / "run")
    code, out, err = launch(folder)
    assert code == 0, err
    return folder, out, err


def logits(folder, name):
    return np.load(folder / "logits" / f"{name}.npy")


def test_clones_are_compared_with_their_models(finished_run):
    folder, out, err = finished_run
    record = json.loads((folder / "extract.json").read_text())
    assert record["queries"] == 5 * 4 * 16 * 7 and "2,240 queries to each" in out
    # Who pays for the answers is told what they cost before anything is asked.
    budget, training = err.index("2,240 queries to each of 6 models (retrained, ssd), 13,440"), err.index("training")
    assert budget < training
    split = dict(np.load(folder / "split.npz"))
    rows = np.sort(np.concatenate([split[name] for name in ("shadow", "target", "population", "test")]))
    labels, places = np.load(folder / "logits" / "labels.npy"), np.searchsorted(rows, split["test"])
    for name in ROLES:
        models, clones = logits(folder, name).argmax(-1), logits(folder, f"extracted:{name}").argmax(-1)
        role_record = record["roles"][name]
        np.testing.assert_allclose(role_record["numbers"]["agreement"], (models == clones)[:, places].mean(1))
        for number, forget in enumerate(split["forget"][:, rows]):
            share = (models == clones)[number, forget].mean()
            np.testing.assert_allclose(role_record["numbers"]["agreement_forgotten"][number], share)
            for who, answers in (("victim", models), ("clone", clones)):
                forget_accuracy = utility.accuracy(answers[number] == labels, forget)
                np.testing.assert_allclose(role_record[who]["UA"][number], 1 - forget_accuracy)
        # One set of three: no clone is another model's.
        assert not np.array_equal(clones[0], clones[1])


def test_a_second_call_asks_nothing(finished_run):
    folder, out, _ = finished_run
    before = {name: logits(folder, f"extracted:{name}") for name in ROLES}
    code, again, err = launch(folder)
    assert code == 0 and "training" not in err, err
    assert again.split("\ntotal ")[0] == out.split("\ntotal ")[0]
    for name in ROLES:
        np.testing.assert_array_equal(before[name], logits(folder, f"extracted:{name}"))


def test_killed_in_the_middle_it_ends_with_equal_clones(finished_run, copy, monkeypatch):
    inner, saved = chunks.save_partial, []

    def interrupted(*arguments, **options):
        inner(*arguments, **options)
        saved.append(arguments)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "save_partial", interrupted)
        assert launch(copy, "--config.engine.checkpoint_seconds=0")[0] == 130
    code, _, err = launch(copy)
    assert code == 0 and "3 members continue after epoch 2" in err, err
    for name in ROLES:
        np.testing.assert_array_equal(logits(finished_run[0], f"extracted:{name}"), logits(copy, f"extracted:{name}"))


def test_other_clones_are_refused_until_the_first_are_deleted(finished_run, tmp_path):
    folder = shutil.copytree(finished_run[0], tmp_path / "run")
    other = ["--config.extract.inputs=network", "--config.extract.keep=best"]
    code, _, err = launch(folder, *other, roles="retrained")
    assert code == 2 and "--overwrite=extracted:retrained" in err and "training" not in err, err
    code, _, err = launch(folder, *other, "--overwrite=extracted:retrained", roles="retrained")
    assert code == 0, err
    assert not np.array_equal(logits(folder, "extracted:retrained"), logits(finished_run[0], "extracted:retrained"))
    assert (folder / "logits" / "extracted:unlearned:ssd.npy").exists()


@pytest.mark.parametrize(
    ("roles", "flag", "message"),
    [
        ("retraind", "seed=42", "unknown role in extract.roles 'retraind'. Did you mean 'retrained'?"),
        ("unlearned:sdd", "seed=42", "sdd"),
        ("()", "seed=42", "extract.roles names nothing to copy"),
        ("retrained", "extract.budget=100", "budget = 100 queries do not pay for one iteration, which takes 112"),
        ("retrained", "extract.loss=l2", "l2"),
    ],
)
def test_impossible_extractions_are_refused_before_a_folder_is_touched(roles, flag, message, tmp_path):
    code, _, err = launch(tmp_path / "run", f"--config.{flag}", roles=roles)
    assert code == 2 and message in err and not (tmp_path / "run").exists(), err


def test_the_plan_says_what_is_trained_and_what_is_asked(tmp_path):
    code, out, err = launch(tmp_path / "run", "--dry_run")
    assert code == 0 and not (tmp_path / "run").exists(), err
    assert "2,240 queries to each of 6 models (retrained, ssd), 13,440 in total" in out
    assert "extracted:unlearned:ssd" in out and "60 model-steps" in out


@pytest.fixture(scope="module")
def experiment():
    config = settings.defaults()
    config.data.name, config.model.name, config.model.hidden = "digits", "mlp", (4,)
    return experiments.prepare(settings.resolve(config))


def test_inputs_are_in_the_range_of_the_data(experiment):
    values = jnp.linspace(-1, 1, 5)[:, None, None, None] * jnp.ones((1, 8, 8, 1))
    shown = np.asarray(clone_models.to_inputs(experiment)(values))
    dataset = experiment.dataset
    raw = np.linspace(0, 16, 5)[:, None, None, None] * np.ones((1, 8, 8, 1))
    mean, std = dataset.mean or (0.0,), dataset.std or (1.0,)
    np.testing.assert_allclose(shown, (raw / dataset.scale - np.asarray(mean)) / np.asarray(std), rtol=1e-5)
    options = dataclasses.replace(experiment.settings.extract, inputs="network")
    published = experiment._replace(settings=dataclasses.replace(experiment.settings, extract=options))
    np.testing.assert_array_equal(clone_models.to_inputs(published)(values), values)


def test_features_keep_their_own_ranges(experiment):
    rows = np.asarray([[0.0, -5.0], [10.0, 5.0], [4.0, 0.0]], np.float32)
    dataset = experiment.dataset.replace(inputs=rows, labels=np.zeros(3, np.int32), scale=1.0, mean=(), std=())
    shown = clone_models.to_inputs(experiment._replace(dataset=dataset))(jnp.asarray([[-1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(shown, [[0, 5], [5, 0]], atol=1e-6)


def test_sides_that_no_generator_makes_are_refused(experiment):
    odd = np.zeros((3, 6, 6, 1), np.float32)
    with pytest.raises(errors.ConfigError, match="multiples of 4"):
        clone_models.check(experiment._replace(dataset=experiment.dataset.replace(inputs=odd)))
