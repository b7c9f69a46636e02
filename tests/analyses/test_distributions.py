"""How forgotten samples lie among the others, as metrics of the evaluation: from arrays of any framework."""

from pathlib import Path

import figures
import numpy as np
import pytest

from jaxunlearn import arrays, errors, settings
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context
from jaxunlearn.analyses.evaluation import distributions, sections
from jaxunlearn.analyses.evaluation.measures import EvaluationOptions, Subsets, groups_of
from jaxunlearn.metrics import distribution
from jaxunlearn.report.figures import embeddings
from jaxunlearn.runs.drivers import array_input
from jaxunlearn.settings import EvaluateSettings

EVALUATION = ANALYSES["evaluation"]
QUIET = Context(lambda line: None, lambda *step: None, lambda name, facts, compute: compute())
SIZES = {"forget": 40, "retain": 160, "test": 60, "calibration": 30}
GONE = 3


def given_arrays(with_features=False, classes=4):
    """Class 3 is a clump for the unlearned model, and scattered over the others for the retrained one."""
    rng = np.random.default_rng(0)
    given = {}
    for part, size in SIZES.items():
        labels = np.full(size, GONE) if part == "forget" else rng.integers(0, GONE, size)
        answers = rng.integers(0, GONE, size) if part == "forget" else labels
        for prefix, seen in (("", labels), ("retrained_", answers)):
            given[f"{prefix}{part}"] = (rng.normal(0, 1, (size, classes)) + 8 * np.eye(classes)[seen]).astype("f4")
        given[f"{part}_labels"] = labels
    if with_features:  # 7 features, in which it is the other way round
        for part in ("forget", "retain"):
            for prefix, other in (("", "retrained_"), ("retrained_", "")):
                given[f"{prefix}{part}_features"] = np.pad(given[f"{other}{part}"], ((0, 0), (0, 3)))
    return given


def opened(tmp_path, given, metrics=("distribution",), **chosen):
    np.savez(tmp_path / "a.npz", **given)
    config = settings.resolve({"evaluate": {"metrics": metrics, "alphas": (0.1,), **chosen}})
    EVALUATION.check(config)
    named, _ = array_input.read(Path(tmp_path / "a.npz"), EVALUATION)
    return EVALUATION.from_arrays(arrays.read(named, EVALUATION.fields, EVALUATION.expected), config), config


def test_a_clump_is_told_from_a_scattered_class_and_features_count_where_they_are_given(tmp_path):
    given, config = opened(tmp_path, given_arrays())
    found = EVALUATION.analyse(given, config, QUIET)
    unlearned, retrained = (found.roles[role] for role in ("unlearned", "retrained"))
    assert unlearned["silhouette"][0] > 0.5 > retrained["silhouette"][0]
    assert unlearned["distribution_variance"][0] < retrained["distribution_variance"][0]
    assert unlearned["overlap_integral"][0] < 0.05 < retrained["overlap_integral"][0]
    # The numbers are those of the kernels on the logits of forgotten, then retained samples.
    raw = given_arrays()
    points = distribution.embed(np.concatenate([raw["forget"], raw["retain"]]))
    alone = distribution.measure_distribution(
        points, np.r_[raw["forget_labels"], raw["retain_labels"]], np.arange(200) < 40
    )
    assert unlearned["overlap_sum"][0] == pytest.approx(alone.overlap.sum, rel=1e-6)
    assert unlearned["distribution_variance"][0] == pytest.approx(alone.variance)

    with_features, config = opened(tmp_path, given_arrays(with_features=True))
    swapped = EVALUATION.analyse(with_features, config, QUIET)
    assert swapped.roles["retrained"]["silhouette"][0] == pytest.approx(unlearned["silhouette"][0], abs=0.1)

    with figures.drawn():
        report = EVALUATION.compose(found, config)
        named = {section.name: section for section in report.sections}
        assert named["embedded_1"].figure is not None and "200 forgotten and retained" in named["embedded_1"].text
    titles = named["distribution"].table.header
    assert titles == ("role", "variance", "silhouette", "overlap sum", "overlap")
    assert {one.metric for one in named["distribution"].findings} == set(distributions.NUMBERS)
    # What is read back has the table, and no figure.
    again = sections.sections(sections.from_plain(sections.plain(found)))
    assert "distribution" in {one.name for one in again} and "embedded_1" not in {one.name for one in again}


def test_a_bounded_draw_is_the_same_for_all_roles_and_keeps_enough_forgotten_samples():
    parts = Subsets(*np.zeros((len(Subsets._fields), 2, 5000), bool))
    parts.forget[:, :100], parts.retain[:, 100:4100] = True, True
    choices = EvaluationOptions(EvaluateSettings(tsne_rows=500), ("distribution",), seed=3)
    rows = distributions.rows_of(parts, 0, choices)
    assert len(np.unique(rows)) == 500 and (rows < 100).sum() == 50 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, distributions.rows_of(parts, 0, choices))
    assert not np.array_equal(rows, distributions.rows_of(parts, 1, choices))
    every = distributions.rows_of(parts, 0, choices._replace(settings=EvaluateSettings(tsne_rows=0)))
    np.testing.assert_array_equal(every, np.arange(4100))


def test_models_that_diverged_have_no_numbers():
    rng = np.random.default_rng(0)
    parts = Subsets(*np.zeros((len(Subsets._fields), 2, 40), bool))
    parts.forget[:, :10], parts.retain[:, 10:] = True, True
    features = rng.normal(size=(2, 40, 3))
    features[0] = np.nan
    choices = EvaluationOptions(EvaluateSettings(), ("distribution",))
    found = distributions.measure_distributions(features, np.arange(40) % 3, parts, choices, np.array([False, True]))
    assert np.isnan(found["silhouette"][0]) and np.isfinite([found[name][1] for name in distributions.NUMBERS]).all()
    assert len(found["points"]) == 40
    nobody = distributions.measure_distributions(features, np.arange(40) % 3, parts, choices, np.zeros(2, bool))
    assert len(nobody["points"]) == 0 and np.isnan(nobody["overlap_sum"]).all()


def test_the_costly_group_is_only_measured_when_it_is_named():
    assert "distribution" not in groups_of(("all",)) and groups_of(("all", "distribution"))[-1] == "distribution"


@pytest.mark.parametrize(
    ("changes", "drop", "metrics", "message"),
    [
        ({}, ("retain", "retain_labels", "retrained_retain", "forget_features", "retain_features",
              "retrained_forget_features", "retrained_retain_features"),
         ("distribution",), "model 0 has no sample to retain"),
        ({}, ("retrained_retain_features",), ("distribution",), "but not retrained_retain_features"),
        ({}, ("forget_features",), ("distribution",), "but not forget_features"),
        ({}, (), ("entropy",), "forget_features is given, but nothing reads it"),
        ({"forget_features": np.zeros((39, 7))}, (), ("distribution",), "axis F is 39|39.*40"),
        ({"forget_features": np.zeros((40, 6))}, (), ("distribution",), "7 features, but .* 6"),
        ({"forget_features": np.full((40, 7), np.nan)}, (), ("distribution",), "forget_features"),
    ],
)  # fmt: skip
def test_features_that_do_not_do_are_refused(tmp_path, changes, drop, metrics, message):
    given = given_arrays(with_features=True) | changes
    with pytest.raises(errors.UserError, match=message):
        opened(tmp_path, {name: array for name, array in given.items() if name not in drop}, metrics)


def test_figures_of_no_or_too_many_models_are_refused():
    panel = (np.zeros((2, 2)), np.array([True, False]))
    for panels in ({}, {str(i): panel for i in range(7)}):
        with pytest.raises(errors.DataError, match="expected 1 to 6"):
            embeddings.side_by_side(panels)
