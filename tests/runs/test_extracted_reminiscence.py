"""The Reminiscence Attack on clones: which models are attacked, what is kept of them, and what is missing."""

import json

import finished
import numpy as np
import pytest

from jaxunlearn.attacks import extraction
from jaxunlearn.runs.execution import members
from launch import extract, reminisce

GIVEN = ["--config=configs/our_digits.py:smoke", "--config.unlearn.methods=ssd,", "--config.model.hidden=8,",
         "--config.extract.width=2", "--config.extract.batch=16", "--config.reminisce.learning_rates=0.05,",
         "--config.reminisce.steps=6", "--config.reminisce.recovery_epochs=1"]  # fmt: skip
CLONES = "--target=extracted"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose retrained and unlearned models are copied."""
    path = tmp_path_factory.mktemp("copied") / "run"
    code, _, err = finished.launch(reminisce, *GIVEN, CLONES, workdir=path)
    assert code == 2 and "no clones of retrained" in err, err
    assert f"python -m launch.extract --config=... --workdir={path}" in err and "training" not in err
    code, _, err = finished.launch(extract, *GIVEN, workdir=path)
    assert code == 0, err
    return path


def kept(folder, role):
    """File -> losses of all trials, or accuracies on retained rows alone."""
    files = {path.name: np.load(path) for path in (folder / "relearned" / role).glob("*.npz")}
    return {name: arrays["loss" if "loss" in arrays else "accuracy"] for name, arrays in files.items()}


def test_clones_are_attacked_in_place_of_their_models(folder, monkeypatch):
    code, out, err = finished.launch(reminisce, *GIVEN, CLONES, workdir=folder)
    assert code == 0, err
    # Titles are those of the models, and what is compared with is the retrained models' clones.
    record = json.loads((folder / "reminiscence.json").read_text())
    assert record["control"] == "retrained" and list(record["roles"]) == ["retrained", "ssd"]
    queries = json.loads((folder / "extract.json").read_text())["queries"]
    page = (folder / "report" / "reminiscence.html").read_text()
    assert f"answers to {queries:,} queries per model" in page and "original: not copied" in page
    assert not (folder / "relearned" / "retrained").exists()
    clones = {role: kept(folder, f"extracted:{role}") for role in ("retrained", "unlearned:ssd")}

    loaded, inner = {}, members.load
    with monkeypatch.context() as patch:
        patch.setattr(members, "load", lambda *arguments: loaded.setdefault(arguments[1].name, inner(*arguments)))
        code, _, err = finished.launch(reminisce, *GIVEN, workdir=folder)
    assert code == 0, err
    models = {role: kept(folder, role) for role in clones}
    for role, role_clones in clones.items():
        assert role_clones.keys() == models[role].keys() and len(role_clones) == 3
        assert all(
            not np.array_equal(role_clones[f"set_{number}.npz"], models[role][f"set_{number}.npz"]) for number in (0, 1)
        )
        # Going back and forth mixes nothing up: both are still there.
        again = kept(folder, f"extracted:{role}")
        assert all(np.array_equal(again[name], role_clones[name]) for name in role_clones)

    # A clone that is its model is attacked by the same trials, with the same end.
    perfect = iter([loaded["retrained"], loaded["unlearned:ssd"]])
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "clones_of", lambda variables: next(perfect))
        code, _, err = finished.launch(reminisce, *GIVEN, CLONES, "--overwrite=reminiscence", workdir=folder)
    assert code == 0, err
    for role, role_clones in models.items():
        again = kept(folder, f"extracted:{role}")
        assert all(np.array_equal(again[name], role_clones[name]) for name in role_clones)


def test_roles_without_clones_are_a_message(tmp_path):
    code, _, err = finished.launch(reminisce, *GIVEN, CLONES, "--roles=original", workdir=tmp_path / "run")
    assert code == 2 and "none of them is copied" in err and not (tmp_path / "run").exists(), err


def test_clones_of_other_settings_are_not_attacked(folder):
    code, _, err = finished.launch(reminisce, *GIVEN, CLONES, "--config.extract.keep=best", workdir=folder)
    assert code == 2 and "recorded from other models" in err and "launch.extract" in err, err
    assert extraction.clones_of({"params": {"clone": 1, "generator": 2}, "clone": {"batch_stats": 3}}) == {
        "params": 1,
        "batch_stats": 3,
    }
