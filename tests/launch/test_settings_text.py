"""--help lists every setting with its sentence; --print_config is YAML that reads back as the settings."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import finished
import pytest
import yaml

from jaxunlearn import settings
from launch import _settings_text, audit, shadows, unlearn

ROOT = Path(__file__).resolve().parents[2]


def lists(values):
    """Nested settings with tuples as lists, as YAML has them."""
    if isinstance(values, dict):
        return {name: lists(value) for name, value in values.items()}
    return [lists(value) for value in values] if isinstance(values, tuple) else values


def test_help_lists_every_setting_with_default_range_and_sentence(capsys):
    assert finished.call(shadows, "--help") == 0
    printed = capsys.readouterr().out
    assert printed.index("--workdir") < printed.index("Settings, given as --config.GROUP.NAME=VALUE")
    for name in settings.field_names():
        assert f"  {name} = " in printed, name
    joined = " ".join(printed.split())
    assert "data.held_out = 0.2 fraction held out where a source has no test part of its own [0.01 to 0.9]" in joined
    assert "train.keep = last weights to keep: those of the last epoch, or the best on held-out rows [last | best]" in (
        joined
    )
    assert "model.hidden = (empty) mlp: widths" in joined and "[1 to 65536]" in joined
    assert "split.forget: The forget sets." in joined
    settings_part = printed[printed.index("Settings, given as") :]
    assert max(map(len, settings_part.splitlines())) <= 120


def test_every_setting_has_a_sentence():
    for name in settings.field_names():
        group = settings.Settings()
        *path, leaf = name.split(".")
        for group_name in path:
            group = getattr(group, group_name)
        setting = next(field for field in dataclasses.fields(group) if field.name == leaf)
        assert len(setting.metadata["help"].split()) >= 1, name


def test_printed_settings_read_back_and_each_has_its_sentence(capsys):
    flags = ["--config.unlearn.options=ssd.alpha=5", "--config.data.path=a: b # 'c' \"d\" \\e é\t\u2028",
             "--config.train.weight_decay=1e-7", "--config.train.snapshots=(1,3)",
             "--config.audit.scores=iam_on,yes"]  # fmt: skip
    assert finished.call(shadows, "--config=digits", *flags, "--print_config") == 0
    printed = capsys.readouterr().out
    read = yaml.safe_load(printed)
    assert read["data"]["path"] == "a: b # 'c' \"d\" \\e é\t\u2028"
    assert read["train"]["weight_decay"] == 1e-7 and isinstance(read["train"]["weight_decay"], float)
    assert read["train"]["snapshots"] == [1, 3] and read["audit"]["scores"] == ["iam_on", "yes"]
    assert "weight_decay: 1.0e-07  # default: 0.0005" in printed
    lines = printed.splitlines()
    assert lines[lines.index('  name: "digits"') - 1].startswith("  # a source: digits, npz")


@pytest.mark.parametrize("config", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_the_settings_of_every_config_survive_the_round_trip(config):
    namespace = {}
    exec(compile((ROOT / "configs" / f"{config}.py").read_text(), config, "exec"), namespace)  # noqa: S102
    for variant in ("smoke", "", "paper"):
        run_settings = settings.resolve(namespace["get_config"](variant))
        read = yaml.safe_load(_settings_text.yaml(run_settings))
        assert read == lists(settings.to_dict(run_settings))
        assert settings.resolve(read) == run_settings


@pytest.mark.parametrize("value", [0.0, -1.5, 1e-5, 1e300, 5e-324, 123456789.123, math.inf, -math.inf])
def test_numbers_survive_the_round_trip(value):
    train = dataclasses.replace(settings.TrainSettings(), weight_decay=value)
    read = yaml.safe_load(_settings_text.yaml(dataclasses.replace(settings.Settings(), train=train)))
    assert read["train"]["weight_decay"] == value and isinstance(read["train"]["weight_decay"], float)


def test_flags_that_are_settings_are_among_the_printed(capsys):
    assert finished.call(audit, "--config=digits", "--fdr=0.1", "--seed=7", "--print_config") == 0
    read = yaml.safe_load(capsys.readouterr().out)
    assert read["audit"]["fdr"] == 0.1 and read["seed"] == 7
    assert finished.call(unlearn, "--config=digits", "--methods=ssd,scrub", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["unlearn"]["methods"] == ["ssd", "scrub"]
    assert finished.call(audit, "--config=digits", "--fdr=0.9", "--print_config") == 2
    assert "audit.fdr = 0.9" in capsys.readouterr().err


def test_settings_are_printed_without_importing_jax():
    code = (
        "import sys\nfrom launch import shadows, _entry\n"
        "code = _entry.main(shadows.command, '', ['x', '--config=digits', '--print_config'])\n"
        "assert 'jax' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and yaml.safe_load(done.stdout)["data"]["name"] == "digits", done.stderr
