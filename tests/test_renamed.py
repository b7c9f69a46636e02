"""Names of earlier versions are answered with the names of today."""

import json

import finished
import numpy as np
import pytest

from jaxunlearn import arrays, errors, records, scores, settings
from jaxunlearn.runs.drivers import external
from launch import audit, epsilon, evaluate

FLAGS = {"audit": audit, "evaluate": evaluate, "epsilon": epsilon}


@pytest.mark.parametrize("old, new", settings.RENAMED.items())
def test_a_former_setting_is_named_by_its_name_of_today(old, new, capsys):
    assert new in settings.field_names() and old not in settings.field_names()
    nested = 1
    for part in reversed(old.split(".")):
        nested = {part: nested}
    with pytest.raises(errors.ConfigError, match=f"{old} is now called {new}"):
        settings.resolve(nested)
    verb = FLAGS.get(old.split(".")[0], audit)
    assert finished.call(verb, "--config=digits", f"--config.{old}=1", "--dry_run") == 2
    assert f"{old} is now called {new}" in capsys.readouterr().err


@pytest.mark.parametrize("old, new", [pair for pair in settings.RENAMED.items() if pair[0].split(".")[0] in FLAGS])
def test_a_former_flag_is_named_by_its_name_of_today(old, new, capsys):
    group, leaf = old.split(".")
    assert finished.call(FLAGS[group], "--config=digits", f"--{leaf}=1", "--dry_run") == 2
    assert f"--{leaf} is now called --{new.split('.')[1]}" in capsys.readouterr().err


def test_a_config_file_with_a_former_name_says_what_it_is_called_now(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jaxunlearn import settings\n\n\ndef get_config():\n"
        "    config = settings.defaults()\n    config.audit.spread = 'pooled'\n    return config\n"
    )
    assert finished.call(audit, f"--config={path}", "--dry_run") == 2
    said = capsys.readouterr().err
    assert "audit.spread is now called audit.std" in said and len(said) < 300


def test_shadows_of_another_version_are_refused_with_the_folder(tmp_path):
    (tmp_path / "populations/shadow").mkdir(parents=True)
    (tmp_path / "populations/shadow/stage.json").write_text("{}")
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"audit": {"level": 0.05}}}))
    with pytest.raises(errors.ConfigError, match=f"{tmp_path.name}.*audit.level is now called audit.fdr"):
        external.settings_of(str(tmp_path))


def test_arrays_by_their_former_names_are_read():
    pairs, forgotten = np.zeros((2, 4, 3), np.float32), np.arange(8).reshape(2, 4) % 2 == 0
    logits, labels = 5 * np.eye(3, dtype=np.float32) - 2, np.arange(3)
    values = arrays.read(
        {"unlearned": logits, "labels": labels, "pairs_original": pairs, "pairs_unlearned": pairs,
         "pairs_forgotten": forgotten}, scores.FIELDS, ""
    )  # fmt: skip
    evidence = scores.evidence.from_arrays(values)
    assert isinstance(evidence, records.Evidence) and evidence.posterior_pairs_original.shape == (2, 4, 3)
    np.testing.assert_array_equal(evidence.posterior_pairs_forgotten, forgotten)
