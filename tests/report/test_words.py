import math

import pytest
from findings import bare, finding

from jaxunlearn import errors
from jaxunlearn.report import words
from jaxunlearn.report.words import Verdicts

RETRAINED = Verdicts(4, 380, 116)
ASKED = "asked to be forgotten"
RATE = "(exact retraining: 4 of 500), at a false discovery rate of 5 %"
TRULY = "samples that truly were forgotten"


@pytest.mark.parametrize(
    "verdicts, said",
    [
        (Verdicts(37, 343, 120), f"37 of 500 samples {ASKED} still look trained on {RATE}; 120 look forgotten, 343 "
         "cannot be told apart."),
        (Verdicts(1, 498, 1), f"1 of 500 samples {ASKED} still looks trained on {RATE}; 1 looks forgotten, 498 cannot "
         "be told apart."),
        (Verdicts(3, 0, 2), f"3 of 5 samples {ASKED} still look trained on {RATE}; 2 look forgotten."),
        (Verdicts(3, 2, 0), f"3 of 5 samples {ASKED} still look trained on {RATE}; none looks forgotten, 2 cannot be "
         "told apart."),
        (Verdicts(3, 2, None), f"3 of 5 samples {ASKED} still look trained on {RATE}; 2 cannot be told apart."),
        (Verdicts(0, 0, 500), f"None of the 500 samples {ASKED} still looks trained on {RATE}; all 500 look "
         "forgotten."),
        (Verdicts(0, 500, 0), f"None of the 500 samples {ASKED} still looks trained on {RATE}; none looks forgotten, "
         "all 500 cannot be told apart."),
        (Verdicts(12345, 0, 0), f"All 12,345 samples {ASKED} still look trained on {RATE}."),
        (Verdicts(1, 0, 0), f"The one sample {ASKED} still looks trained on {RATE}."),
        (Verdicts(0, 0, 1), f"The one sample {ASKED} does not look trained on {RATE}; it looks forgotten."),
        (Verdicts(0, 1, 0), f"The one sample {ASKED} does not look trained on {RATE}; it cannot be told apart."),
    ],
)  # fmt: skip
def test_the_answer_is_one_grammatical_sentence_for_any_counts(verdicts, said):
    assert words.answer(verdicts, level=0.05, retrained=RETRAINED) == said


def test_the_answer_says_that_retraining_is_missing():
    assert words.answer(Verdicts(2, 3, 5), level=0.01) == (
        "2 of 10 samples asked to be forgotten still look trained on, at a false discovery rate of 1 %; "
        "5 look forgotten, 3 cannot be told apart. No exact retraining was audited for comparison."
    )


def test_the_answer_says_that_requests_are_unknown():
    said = words.answer(Verdicts(2, 3, 5), level=0.05, retrained=Verdicts(0, 5, 5), requested=False)
    assert said == (
        "2 of 10 audited samples still look trained on (exact retraining: 0 of 10), at a false discovery rate of 5 %; "
        "5 look forgotten, 3 cannot be told apart. Which samples were asked to be forgotten is not known."
    )
    assert "asked to be forgotten still" not in said
    assert words.answer(Verdicts(1, 0, 0), level=0.05, requested=False).startswith("The one audited sample still looks")


def test_the_answer_says_what_is_needed_where_no_verdict_is_possible():
    obstacle = words.too_few(3, 19, 0.05)
    assert words.answer(None, level=0.05, obstacle=obstacle) == (
        "No verdicts on single samples. 3 shadow models can show no p-value below 1/4: a false discovery rate of 5 % "
        "needs at least 19 shadow models. Raise their number, or accept a higher rate (audit.level)."
    )
    assert words.too_few(1, 19, 0.05).startswith("1 shadow model can show no p-value below 1/2")
    assert words.too_few(0, 19, 0.05, "calibration sample").startswith("There is no calibration sample to calibrate on")
    assert words.answer(Verdicts(0, 0, 0), level=0.05) == "No verdicts on single samples. No samples were judged."


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan])
def test_an_impossible_level_is_an_error(level):
    for call in (
        lambda: words.answer(Verdicts(1, 1, 1), level=level),
        lambda: words.too_few(1, 2, level),
        lambda: words.calibration_sentence(finding(), level),
    ):
        with pytest.raises(errors.ConfigError, match="must lie between 0 and 1"):
            call()


def test_negative_counts_are_an_error():
    with pytest.raises(errors.DataError, match="at least 0"):
        words.answer(Verdicts(-1, 2, None), level=0.05)
    with pytest.raises(errors.DataError, match="at least 0"):
        words.answer(Verdicts(1, 2, 3), level=0.05, retrained=Verdicts(1, 2, -3))


def test_the_best_score_is_named_with_its_interval():
    findings = {"confidence": finding(0.6, 0.58, 0.62), "iam_on": finding(0.671, 0.66, 0.682), "update": bare(math.nan)}
    assert words.best_score(findings) == (
        "The best of 2 scores, a maximum that flatters: iam_on, AUC .671 [.660, .682]."
    )  # fmt: skip
    assert words.best_score(findings, chosen="confidence") == (
        "confidence, chosen beforehand, separates retained from forgotten: AUC .600 [.580, .620]. The best of 2 "
        "scores, a maximum: iam_on, AUC .671 [.660, .682]."
    )
    assert words.best_score(findings, chosen="iam_on") == (
        "iam_on, chosen beforehand, separates retained from forgotten: AUC .671 [.660, .682]. It is also the best of 2 "
        "scores, a maximum."
    )
    noise = {"random": finding(0.7, 0.6, 0.8), "iam_on": finding(0.6, 0.58, 0.62)}
    assert words.best_score(noise, chosen="iam_on").startswith("iam_on separates")
    assert "random" not in words.best_score(noise)
    alone = words.best_score({"iam_on": finding(0.52, 0.48, 0.56)})
    assert alone == (
        "iam_on separates retained from forgotten: AUC .520 [.480, .560], not distinguishable from guessing (.500)."
    )
    assert words.best_score({"a": finding(0.4, 0.38, 0.42)}).endswith("[.380, .420], below guessing (.500).")
    assert words.best_score({"a": bare(0.7, metric="AUC")}).endswith("AUC .700, without an interval.")
    assert words.best_score({"a": bare(math.nan)}).startswith("No score could be computed")
    assert words.best_score({}).startswith("No score could be computed")


def test_rates_below_one_sample_are_to_be_read_with_care():
    assert words.resolution(37, 5000) == (
        "Read with care: with 37 forgotten samples the FPR has steps of 1/37, and TPR@FPR 1e-2 and TPR@FPR 1e-3 lie "
        "below the first."
    )
    assert words.resolution(100, 500) == (
        "Read with care: with 100 forgotten samples the FPR has steps of 1/100, and TPR@FPR 1e-3 lies below the first; "
        "with 500 retained samples the FNR has steps of 1/500, and TNR@FNR 1e-3 lies below the first."
    )
    assert not words.resolution(1000, 1000)


def test_no_sentence_contradicts_the_test_beside_it():
    rate = finding(0.053, 0.047, 0.06, n=3000)
    assert words.calibration_sentence(rate, 0.05, uniform=0.3).endswith("no drift from the promised rate can be shown.")
    said = words.calibration_sentence(rate, 0.05, uniform=0.002)
    assert "no drift" not in said and said.endswith("are not uniform (Kolmogorov-Smirnov p = 0.002).")


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
    assert words.compare("a", "b", finding(value, low, high)) == relation


@pytest.mark.parametrize(
    "rate, said",
    [
        (finding(0.053, 0.047, 0.06, n=3000), f"Of 3,000 {TRULY}, 5.3 % [4.7 %, 6 %] are rejected at level 5 %: no "
         "drift from the promised rate can be shown."),
        (finding(0.08, 0.07, 0.09, n=3000), f"Of 3,000 {TRULY}, 8 % [7 %, 9 %] are rejected at level 5 %: 3 percentage "
         "points more than promised, the verdicts are too eager."),
        (finding(0.02, 0.01, 0.03, n=3000), f"Of 3,000 {TRULY}, 2 % [1 %, 3 %] are rejected at level 5 %: 3 percentage "
         "points fewer than promised, the verdicts are cautious."),
        (finding(0.0, 0.0, 0.975, n=1), "Of the one sample that truly was forgotten, 0 % [0 %, 97.5 %] is rejected at "
         "level 5 %: no drift from the promised rate can be shown."),
        (bare(0.04, n=50), f"Of 50 {TRULY}, 4 % are rejected at level 5 %; how certain that is, is not known."),
        (bare(math.nan), "The calibration could not be checked: no samples are known to have been truly forgotten."),
    ],
)  # fmt: skip
def test_the_drift_of_the_calibration_is_measured_in_words(rate, said):
    assert words.calibration_sentence(rate, 0.05) == said
