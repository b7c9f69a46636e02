"""The tuner and the choice of a mapping."""

import json

import jax
import pytest

from jaxunlearn import progress, settings
from jaxunlearn.runs import experiments, tuning


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return experiments.prepare(settings.Settings(engine=settings.EngineSettings(tune=True)))


def test_the_fastest_candidate_that_works_is_taken_and_remembered(experiment, tmp_path, monkeypatch, capsys):
    speeds = {"cpu": 100.0, "im2col": 300.0}

    def measure(candidate):
        if candidate.mapping_policy.mapping == "vmap":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return speeds[candidate.mapping_policy.conv] / candidate.mapping_policy.group

    monkeypatch.setattr(tuning, "measure_mappings", measure)
    tuned = tuning.obtain(experiment, progress.Reporter())
    assert tuned.mapping_policy[:3] == ("map", 1, "im2col")
    assert "vmap, conv im2col fails here (RESOURCE_EXHAUSTED" in capsys.readouterr().err
    (answer,) = json.loads((tmp_path / "jaxunlearn" / "tuning.json").read_text()).values()
    assert answer["rate"] == 300.0
    monkeypatch.setattr(tuning, "measure_mappings", lambda candidate: pytest.fail("timed again"))
    assert tuning.obtain(experiment, progress.Reporter()).mapping_policy == tuned.mapping_policy


@pytest.mark.slow
def test_a_real_measurement_is_a_positive_rate(experiment):
    small = experiment._replace(settings=settings.Settings(shadows=settings.ShadowSettings(count=2)))
    assert tuning.measure_mappings(small) > 0


def test_nothing_is_tuned_unasked_or_when_fixed_by_hand(experiment, monkeypatch):
    monkeypatch.setattr(tuning, "measure_mappings", lambda candidate: pytest.fail("timed"))
    for engine in (settings.EngineSettings(), settings.EngineSettings(tune=True, conv="native")):
        fixed = experiment._replace(settings=settings.Settings(engine=engine))
        assert tuning.obtain(fixed, progress.Reporter()) is fixed


def test_the_executor_never_has_more_devices_or_larger_groups_than_members(experiment):
    wide = experiment._replace(mapping_policy=experiments.MappingPolicy("map", 8, "unrolled", 2))
    assert experiments.member_mapping(wide, 1)[:2] == ("map", 1) and experiments.member_mapping(wide, 1).mesh.size == 1
    assert experiments.member_mapping(wide, 6).group == 3 and experiments.member_mapping(wide, 6).mesh.size == 2
    assert experiments.member_mapping(wide, 128).group == 8
