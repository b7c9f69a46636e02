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
    user_arrays = {}
    for subset, size in SIZES.items():
        labels = np.full(size, GONE) if subset == "forget" else rng.integers(0, GONE, size)
        answers = rng.integers(0, GONE, size) if subset == "forget" else labels
        for prefix, centres in (("", labels), ("retrained_", answers)):
            user_arrays[f"{prefix}{subset}"] = (
                rng.normal(0, 1, (size, classes)) + 8 * np.eye(classes)[centres]
            ).astype("f4")
        user_arrays[f"{subset}_labels"] = labels
    if with_features:  # 7 features, in which it is the other way round
        for subset in ("forget", "retain"):
            for prefix, other in (("", "retrained_"), ("retrained_", "")):
                user_arrays[f"{prefix}{subset}_features"] = np.pad(user_arrays[f"{other}{subset}"], ((0, 0), (0, 3)))
    return user_arrays


def opened(tmp_path, user_arrays, metrics=("distribution",), **evaluate_settings):
    np.savez(tmp_path / "a.npz", **user_arrays)
    config = settings.resolve({"evaluate": {"metrics": metrics, "alphas": (0.1,), **evaluate_settings}})
    EVALUATION.check(config)
    named, _ = array_input.read(Path(tmp_path / "a.npz"), EVALUATION)
    return EVALUATION.from_arrays(arrays.read(named, EVALUATION.fields, EVALUATION.expected), config), config


def test_a_clump_is_told_from_a_scattered_class_and_features_count_where_they_are_given(tmp_path):
    evaluation_inputs, config = opened(tmp_path, given_arrays())
    evaluation = EVALUATION.analyse(evaluation_inputs, config, QUIET)
    unlearned, retrained = (evaluation.roles[role] for role in ("unlearned", "retrained"))
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
        report = EVALUATION.compose(evaluation, config)
        named = {section.name: section for section in report.sections}
        assert named["embedded_1"].figure is not None and "200 forgotten and retained" in named["embedded_1"].text
    titles = named["distribution"].table.header
    assert titles == ("role", "variance", "silhouette", "overlap sum", "overlap")
    assert {report_section.metric for report_section in named["distribution"].findings} == set(distributions.NUMBERS)
    # What is read back has the table, and no figure.
    again = sections.sections(sections.from_plain(sections.plain(evaluation)))
    assert "distribution" in {report_section.name for report_section in again} and "embedded_1" not in {
        report_section.name for report_section in again
    }


def test_a_bounded_draw_is_the_same_for_all_roles_and_keeps_enough_forgotten_samples():
    subsets = Subsets(*np.zeros((len(Subsets._fields), 2, 5000), bool))
    subsets.forget[:, :100], subsets.retain[:, 100:4100] = True, True
    options = EvaluationOptions(EvaluateSettings(tsne_rows=500), ("distribution",), seed=3)
    rows = distributions.rows_of(subsets, 0, options)
    assert len(np.unique(rows)) == 500 and (rows < 100).sum() == 50 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, distributions.rows_of(subsets, 0, options))
    assert not np.array_equal(rows, distributions.rows_of(subsets, 1, options))
    all_rows = distributions.rows_of(subsets, 0, options._replace(settings=EvaluateSettings(tsne_rows=0)))
    np.testing.assert_array_equal(all_rows, np.arange(4100))


def test_models_that_diverged_have_no_numbers():
    rng = np.random.default_rng(0)
    subsets = Subsets(*np.zeros((len(Subsets._fields), 2, 40), bool))
    subsets.forget[:, :10], subsets.retain[:, 10:] = True, True
    features = rng.normal(size=(2, 40, 3))
    features[0] = np.nan
    options = EvaluationOptions(EvaluateSettings(), ("distribution",))
    metrics = distributions.measure_distributions(
        features, np.arange(40) % 3, subsets, options, np.array([False, True])
    )
    assert (
        np.isnan(metrics["silhouette"][0]) and np.isfinite([metrics[name][1] for name in distributions.NUMBERS]).all()
    )
    assert len(metrics["points"]) == 40
    nobody = distributions.measure_distributions(features, np.arange(40) % 3, subsets, options, np.zeros(2, bool))
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
    user_arrays = given_arrays(with_features=True) | changes
    with pytest.raises(errors.UserError, match=message):
        opened(tmp_path, {name: array for name, array in user_arrays.items() if name not in drop}, metrics)


def test_figures_of_no_or_too_many_models_are_refused():
    panel = (np.zeros((2, 2)), np.array([True, False]))
    for panels in ({}, {str(i): panel for i in range(7)}):
        with pytest.raises(errors.DataError, match="expected 1 to 6"):
            embeddings.side_by_side(panels)
