import math

import numpy as np
import pytest
import sklearn.metrics
from findings import bare, finding

from jaxunlearn import errors
from jaxunlearn.report import page, theme
from jaxunlearn.report.figures import curves, verdict_bars


def random_scores(size=400, shift=1.0, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.random(size) < 0.5
    return generator.normal(size=size) + shift * truth, truth


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def words_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_roc_of_the_figure_is_scikit_learns():
    scores, truth = random_scores()
    scores = scores.round(1)  # with ties
    figure = curves.roc({"iam_on": (scores, truth)})
    axes = figure.axes[0]
    area = sklearn.metrics.roc_auc_score(truth, scores)
    curve = lines_of(axes)[f"iam_on  AUC {area:.3f}".replace("0.", ".")]
    fpr, tpr, _ = sklearn.metrics.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.get_xdata(), fpr, atol=1e-12)
    np.testing.assert_allclose(curve.get_ydata(), tpr, atol=1e-12)


def test_the_roc_is_logarithmic_and_ends_at_one_false_positive():
    scores, truth = np.arange(1010.0), np.arange(1010) >= 1000
    axes = curves.roc({"a": (scores, truth)}).axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlim() == pytest.approx((1e-3, 1.0))
    guessing = lines_of(axes)["guessing"]
    np.testing.assert_array_equal(guessing.get_xdata(), guessing.get_ydata())


def test_eight_curves_of_a_figure_can_be_told_apart():
    axes = curves.roc({f"score {i}": random_scores(seed=i) for i in range(8)}).axes[0]
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 9
    assert len({theme.line_style(place)["color"] for place in range(8)}) == 8


@pytest.mark.parametrize("figure", [curves.roc, curves.histograms])
@pytest.mark.parametrize(
    "scores, truth",
    [
        (np.zeros(20), np.arange(20) % 2 == 0),
        (np.arange(20.0), np.ones(20, bool)),
        (np.arange(20.0), np.zeros(20, bool)),
        (np.array([0.3]), np.array([True])),
        (np.array([]), np.array([], bool)),
        (np.array([1e30, -1e30]), np.array([True, False])),
    ],
    ids=["constant", "retained only", "forgotten only", "one sample", "nothing", "huge"],
)
def test_degenerate_scores_are_drawn_as_far_as_they_go(figure, scores, truth):
    drawing = figure({"a": (scores, truth)})
    assert "<svg" in page.figure_svg(drawing)
    has_both_classes = truth.any() and not truth.all()
    if figure is curves.roc:
        label = drawing.axes[0].get_legend_handles_labels()[1][0]
        assert ("–" in label) == (not has_both_classes)
    else:
        assert words_of(drawing) == [
            name for name, here in (("retained", truth.any()), ("forgotten", (~truth).any())) if here
        ]


def test_constant_scores_have_the_auc_of_guessing():
    axes = curves.roc({"a": (np.zeros(20), np.arange(20) % 2 == 0)}).axes[0]
    assert "a  AUC .500" in lines_of(axes)


def test_bad_scores_are_errors_that_name_the_score():
    with pytest.raises(errors.DataError, match="scores of lira contains 1 value"):
        curves.roc({"lira": (np.array([math.nan, 1.0]), np.array([True, False]))})
    with pytest.raises(errors.ShapeError, match="truth of lira"):
        curves.histograms({"lira": (np.zeros(3), np.zeros(2, bool))})
    with pytest.raises(errors.DataError, match="9 curves"):
        curves.roc({str(i): random_scores() for i in range(9)})
    for figure in (curves.roc, curves.histograms, curves.scoreui):
        with pytest.raises(errors.DataError):
            figure({}) if figure is not curves.scoreui else figure(np.zeros(2), {})


def test_histograms_have_a_panel_per_score_and_equal_areas():
    figure = curves.histograms({f"score {i}": random_scores(seed=i) for i in range(3)})
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == ["score 0", "score 1", "score 2"]
    for axes in panels:
        outlines = [patch for patch in axes.patches if patch.get_label() in ("retained", "forgotten")]
        areas = []
        for patch in outlines:
            x, y = patch.get_xy().T
            areas.append(abs(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2)))
        np.testing.assert_allclose(areas, [1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("figure", [curves.against_shadows, curves.sensitivity])
def test_auc_lines_have_the_values_and_a_doubling_axis(figure):
    axes = figure((1, 2, 8), {"iam_on": [finding(0.6), finding(0.65), finding(0.7)]}).axes[0]
    curve = lines_of(axes)["iam_on"]
    np.testing.assert_array_equal(curve.get_xdata(), [1, 2, 8])
    np.testing.assert_array_equal(curve.get_ydata(), [0.6, 0.65, 0.7])
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "8"]


def band(axes):
    vertices = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    return vertices[:, 1].min(), vertices[:, 1].max()


def test_the_band_is_the_spread_or_else_the_interval():
    spread = [finding(0.7, 0.5, 0.9, std=0.05)] * 2
    interval = [finding(0.7, 0.5, 0.9, std=math.nan)] * 2
    assert band(curves.against_shadows((1, 2), {"a": spread}).axes[0]) == pytest.approx((0.65, 0.75))
    assert band(curves.against_shadows((1, 2), {"a": interval}).axes[0]) == pytest.approx((0.5, 0.9))
    assert not curves.against_shadows((1, 2), {"a": [bare(0.7)] * 2}).axes[0].collections


def test_one_number_of_shadows_is_a_point_with_its_range():
    axes = curves.against_shadows((4,), {"a": [finding(0.7)]}).axes[0]
    assert axes.get_xlim() == pytest.approx((2, 8))
    assert band(axes) == pytest.approx((0.697, 0.703))


def test_lines_that_do_not_fit_their_axis_are_errors():
    with pytest.raises(errors.ShapeError, match="iam_on has 1 finding"):
        curves.against_shadows((1, 2), {"iam_on": [finding()]})
    with pytest.raises(errors.DataError, match="none below 1"):
        curves.sensitivity((0, 2), {"a": [finding()] * 2})
    with pytest.raises(errors.ShapeError, match=r"a \(high\)"):
        curves.scoreui(np.linspace(0, 1, 3), {"a": (np.zeros(3), np.zeros(3), np.zeros(2))})


def test_scoreui_shows_the_score_beside_the_diagonal():
    levels = np.linspace(0, 1, 5)
    axes = curves.scoreui(levels, {"iam_on": (levels**2, levels**2 - 0.1, levels**2 + 0.1)}).axes[0]
    curve_by_label = lines_of(axes)
    np.testing.assert_array_equal(
        curve_by_label["perfect score"].get_xdata(), curve_by_label["perfect score"].get_ydata()
    )
    np.testing.assert_array_equal(curve_by_label["iam_on"].get_ydata(), levels**2)
    missing = np.full(5, math.nan)
    assert not curves.scoreui(levels, {"a": (levels, missing, missing)}).axes[0].collections


def test_verdict_bars_are_fractions_and_carry_counts():
    figure = verdict_bars.verdicts(["retrained", "nobody"], np.array([[100, 300, 200, 400], [0, 0, 0, 0]]))
    axes = figure.axes[0]
    widths = [[bar.get_width() for bar in container] for container in axes.containers]
    np.testing.assert_allclose(widths, [[0.1, 0], [0.3, 0], [0.2, 0], [0.4, 0]])
    assert [text.get_text() for text in axes.texts] == ["100", "300", "200", "400"]
    assert words_of(figure) == ["not forgotten", "forgotten", "suppressed", "cannot tell"]
    assert len({bars_of.patches[0].get_facecolor() for bars_of in axes.containers}) == 4
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["retrained (1,000)", "nobody (0)"]


def test_bad_verdict_counts_are_errors():
    with pytest.raises(errors.ShapeError, match="counts"):
        verdict_bars.verdicts(["a"], np.zeros((1, 3)))
    with pytest.raises(errors.DataError, match="negative"):
        verdict_bars.verdicts(["a"], np.array([[1, -1, 0, 0]]))
    with pytest.raises(errors.DataError, match="at least one row"):
        verdict_bars.verdicts([], np.zeros((0, 4)))


def test_the_calibration_title_is_the_measured_rejection_rate():
    figure = verdict_bars.calibration(np.array([0.01, 0.05, 0.2, 0.9]), 0.05)
    assert figure.get_suptitle() == "Truly forgotten samples: 50 % rejected at level 5 %"
    heights = [patch.get_height() * patch.get_width() for patch in figure.axes[0].patches]
    assert sum(heights) == pytest.approx(1.0)
    assert lines_of(figure.axes[0])["uniform: as promised"].get_ydata() == [1.0, 1.0]


@pytest.mark.parametrize("values", [[], [1.1], [-0.1], [math.nan]])
def test_impossible_p_values_are_errors(values):
    with pytest.raises(errors.DataError):
        verdict_bars.calibration(np.array(values), 0.05)


def test_class_bars_leave_out_what_a_class_does_not_have():
    retained = np.array([[0.9, 0.1], [math.nan, math.nan]])
    forgotten = np.array([[0.2, 0.1], [0.3, math.nan]])
    figure = verdict_bars.classes(["cat", "dog"], retained, forgotten)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [0.9, 0.2, 0.3]
    assert words_of(figure) == ["retained", "forgotten"]
    with pytest.raises(errors.ShapeError, match="retained"):
        verdict_bars.classes(["cat"], retained, forgotten)
    with pytest.raises(errors.DataError, match="at least one class"):
        verdict_bars.classes([], np.zeros((0, 2)), np.zeros((0, 2)))
