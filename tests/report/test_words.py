import math

import pytest
from findings import bare, finding

from jaxunlearn.report import sentences


def test_the_best_score_is_named_with_its_interval():
    findings = {"confidence": finding(0.6, 0.58, 0.62), "iam_on": finding(0.671, 0.66, 0.682), "update": bare(math.nan)}
    assert sentences.best_score(findings) == (
        "Largest of 2 scores (selected post hoc): iam_on, AUC .671 [.660, .682]."
    )  # fmt: skip
    assert sentences.best_score(findings, primary="confidence") == (
        "confidence, fixed in advance, separates retained from forgotten: AUC .600 [.580, .620]. Largest of 2 "
        "scores (selected post hoc): iam_on, AUC .671 [.660, .682]."
    )
    assert sentences.best_score(findings, primary="iam_on") == (
        "iam_on, fixed in advance, separates retained from forgotten: AUC .671 [.660, .682]. It is also the largest "
        "of 2 scores."
    )
    noise = {"random": finding(0.7, 0.6, 0.8), "iam_on": finding(0.6, 0.58, 0.62)}
    assert sentences.best_score(noise, primary="iam_on").startswith("iam_on separates")
    assert "random" not in sentences.best_score(noise)
    sentence = sentences.best_score({"iam_on": finding(0.52, 0.48, 0.56)})
    assert sentence == (
        "iam_on separates retained from forgotten: AUC .520 [.480, .560], not distinguishable from guessing (.500)."
    )
    assert sentences.best_score({"a": finding(0.4, 0.38, 0.42)}).endswith("[.380, .420], below guessing (.500).")
    assert sentences.best_score({"a": bare(0.7, metric="AUC")}).endswith("AUC .700, without an interval.")
    assert sentences.best_score({"a": bare(math.nan)}).startswith("No score could be computed")
    assert sentences.best_score({}).startswith("No score could be computed")


def test_rates_below_one_sample_are_to_be_read_with_care():
    assert sentences.resolution(37, 5000) == (
        "Read with care: with 37 forgotten samples the FPR changes in steps of 1/37, so the levels of TPR@FPR 1e-2 and "
        "TPR@FPR 1e-3 are below the smallest FPR above 0."
    )
    assert sentences.resolution(100, 500) == (
        "Read with care: with 100 forgotten samples the FPR changes in steps of 1/100, so the level of TPR@FPR 1e-3 is "
        "below the smallest FPR above 0; with 500 retained samples the FNR changes in steps of 1/500, so the level of "
        "TNR@FNR 1e-3 is below the smallest FNR above 0."
    )
    assert not sentences.resolution(1000, 1000)


@pytest.mark.parametrize(
    "value, low, high, relation",
    [
        (0.12, 0.10, 0.14, "a is significantly above b: AUC difference +.120 [+.100, +.140], 95 % interval."),
        (-0.12, -0.14, -0.10, "a is significantly below b: AUC difference -.120 [-.140, -.100], 95 % interval."),
        (0.01, -0.02, 0.04, "a is not distinguishable from b: AUC difference +.010 [-.020, +.040], 95 % interval."),
        (0.01, 0.0, 0.02, "a is not distinguishable from b: AUC difference +.010 [.000, +.020], 95 % interval."),
        (0.01, math.nan, math.nan, "a against b: AUC difference +.010, without an interval."),
        (math.nan, math.nan, math.nan, "a and b could not be compared."),
    ],
)
def test_two_scores_are_compared_by_the_interval_of_their_difference(value, low, high, relation):
    assert sentences.compare("a", "b", finding(value, low, high)) == relation
