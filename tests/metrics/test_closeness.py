import numpy as np
import pytest

from jaxunlearn.metrics import utility
from jaxunlearn.metrics.populations import closeness
from jaxunlearn.records import Design

SETS = Design("per_set", 8)


def numbers(generator, ua, sets=8):
    return {
        name: mean + 0.02 * generator.normal(size=sets) for name, mean in zip(utility.GAP, (ua, 0.95, 0.9), strict=True)
    }


def test_gaps_are_those_of_the_tables_and_differences_are_paired():
    generator = np.random.default_rng(0)
    methods = {name: numbers(generator, ua) for name, ua in (("a", 0.1), ("b", 0.3))}
    retrained, original = numbers(generator, 0.2), numbers(generator, 0.0)
    comparison = closeness.compare(methods, retrained, original, SETS)
    for name, method in methods.items():
        assert comparison.gaps[name].value == pytest.approx(utility.gap(method, retrained))
        gain = utility.gap(original, retrained) - utility.gap(method, retrained)
        assert comparison.gap_to_original[name].value == pytest.approx(gain)
        assert comparison.gaps[name].n == 8 and comparison.gaps[name].low >= 0
    assert comparison.untouched.value == pytest.approx(utility.gap(original, retrained))
    best = min(comparison.gaps, key=lambda name: comparison.gaps[name].value)
    assert comparison.best == best and best not in comparison.gap_to_best
    shifted = {name: {metric: values + 0.1 for metric, values in method.items()} for name, method in methods.items()}
    moved = [{metric: values + 0.1 for metric, values in method.items()} for method in (retrained, original)]
    again = closeness.compare(shifted, *moved, SETS)
    assert again.gaps["a"].value == pytest.approx(comparison.gaps["a"].value) and again.best == comparison.best
    assert len(closeness.findings(comparison)) == 2 + 1 + 2 + 1


def test_forget_sets_without_a_model_are_left_out_of_every_side():
    generator = np.random.default_rng(1)
    method, retrained, original = (numbers(generator, ua) for ua in (0.1, 0.2, 0.0))
    kept = [{name: values[2:] for name, values in metrics.items()} for metrics in (method, retrained, original)]
    comparison = closeness.compare({"a": kept[0]}, *kept[1:], Design("per_set", 6))
    for broken in (method, retrained):
        broken["UA"] = np.where(np.arange(8) == (0 if broken is method else 1), np.nan, broken["UA"])
    result = closeness.compare({"a": method}, retrained, original, SETS)
    assert result.gap_to_original["a"].n == 6 and result.gap_to_original["a"].low == pytest.approx(
        comparison.gap_to_original["a"].low
    )
    missing = closeness.compare({"a": method}, retrained, original, SETS, (*utility.GAP, "svc_confidence"))
    assert np.isnan(missing.gaps["a"].value) and not missing.best


def test_two_forget_sets_name_nobody():
    generator = np.random.default_rng(2)
    sides = [numbers(generator, ua, sets=2) for ua in (0.2, 0.2, 0.0)]
    comparison = closeness.compare({"a": sides[0]}, sides[1], sides[2], Design("per_set", 2))
    assert (
        not comparison.best
        and np.isnan(comparison.gap_to_original["a"].low)
        and comparison.gaps["a"].value < comparison.untouched.value
    )


def test_methods_that_do_nothing_are_hardly_ever_named():
    """Ten methods as far from retraining as the original: the best of them is named in at most 5 % of 300 draws."""
    generator, named = np.random.default_rng(3), 0
    for _ in range(300):
        methods = {str(method): numbers(generator, 0.1) for method in range(10)}
        comparison = closeness.compare(methods, numbers(generator, 0.2), numbers(generator, 0.1), SETS)
        named += bool(comparison.best)
    assert named <= 25  # 15 expected at most; three deviations more


def test_repeated_models_are_no_further_units_and_crossed_originals_are():
    """Repeating every model changes nothing; originals that all methods share widen the interval."""
    generator = np.random.default_rng(4)
    sides = [numbers(generator, ua) for ua in (0.1, 0.2, 0.0)]
    once = closeness.compare({"a": sides[0]}, *sides[1:], SETS)
    repeated = [{name: np.repeat(values, 3) for name, values in metrics.items()} for metrics in sides]
    thrice = closeness.compare({"a": repeated[0]}, *repeated[1:], Design("shared", 8, 3))
    assert thrice.gap_to_original["a"].low == pytest.approx(once.gap_to_original["a"].low)
    shifts = np.tile([-0.05, 0.0, 0.05], 8)
    moved = {**repeated[0], "UA": repeated[0]["UA"] + shifts}
    crossed, shared = (
        closeness.compare({"a": moved}, *repeated[1:], Design(kind, 8, 3)) for kind in ("crossed", "shared")
    )
    widths = [side.gap_to_original["a"].high - side.gap_to_original["a"].low for side in (crossed, shared)]
    assert widths[0] > 2 * widths[1] and crossed.gap_to_original["a"].value == pytest.approx(
        shared.gap_to_original["a"].value
    )


def test_a_method_whose_models_all_diverged_has_no_gap_and_changes_no_other():
    generator = np.random.default_rng(3)
    method, retrained, original = (numbers(generator, ua) for ua in (0.2, 0.2, 0.0))
    comparison = closeness.compare({"a": method, "lost": {}}, retrained, original, SETS)
    single = closeness.compare({"a": method}, retrained, original, SETS)
    assert (
        np.isnan(comparison.gaps["lost"].value)
        and comparison.gaps["lost"].n == 0
        and np.isnan(comparison.gap_to_original["lost"].value)
    )
    assert comparison.best == single.best == "a" and comparison.gaps["a"] == single.gaps["a"]
    nobody = closeness.compare({"lost": {}}, retrained, original, SETS)
    assert nobody.best == "" and np.isnan(nobody.gaps["lost"].value)
