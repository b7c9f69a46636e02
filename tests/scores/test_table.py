"""The table of scores: names, what is skipped, users' own scores, the two compat modes, calibration on shadows."""

import functools

import audit_case
import jax
import numpy as np
import pytest

from jaxunlearn import errors, scores
from jaxunlearn.scores import entries

OPTIONS = scores.Options(interpolation_steps=5)
NAMES = scores.names_of(("all",))
# Scores that have a published form of their own; everything else is the same in both modes for pictures.
COMPAT = {"bavaria_t", "bavaria_n", "lira_on", "lira_off", "update", "lira_on_views", "lira_off_views"} | {
    f"iam_{family}_{side}" for family in ("ecdf", "kde", "beta") for side in ("on", "off")
}


@functools.cache
def small():
    return audit_case.make()  # the shapes of test_every_score, whose programs are compiled already


@functools.cache
def measured(pairs=False):
    return scores.signals_pass(small(), OPTIONS, pairs=pairs)


def alone(name, measured, options=OPTIONS):
    """The entry without the program around it: quicker where only the wiring is looked at."""
    return np.asarray(scores.SCORES[name].entry(measured, options))


def test_names_are_resolved_in_order_and_once():
    assert scores.names_of(("all",)) == NAMES
    assert set(scores.names_of(("all",), scores.TOKENS)) == set(scores.SCORES) - set(NAMES) | {"random"}
    assert scores.names_of(("update", "iam_on", "update")) == ("update", "iam_on")
    assert scores.names_of(("random", "all"))[0] == "random" and len(scores.names_of(("random", "all"))) == len(NAMES)


@pytest.mark.parametrize(
    "names, message",
    [
        (("iam_onn",), r"unknown score 'iam_onn'\. Did you mean 'iam_on"),
        ((), "no score is named"),
        (("iam",), r"unknown score 'iam': which one is meant\? iam_on, iam_off, iam_confidence"),
        (("lm_min",), r"which one is meant\? lm_min_k, lm_min_k_pp"),
        (("IAM_ON",), "Did you mean 'iam_on'"),
        (("iam-off",), "Did you mean 'iam_off'"),
        (("q",), "Known: iam_on, iam_off, rmia_on"),
        (([],), "scores are given by name"),
        ((lambda evidence: 0,), "scores are given by name"),
        (None, "scores are given by name"),
        (("no_such_module:score",), "cannot import module 'no_such_module'"),
        (("json:scroe",), "module 'json' has no function 'scroe'"),
    ],
)
def test_names_that_mean_nothing_are_refused(names, message):
    with pytest.raises(errors.ConfigError, match=message):
        scores.names_of(names)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"family": "gumble"}, "unknown IAM family 'gumble'. Did you mean 'gumbel'"),
        ({"std": "all"}, "unknown IAM std"),
        ({"variance": "none"}, "unknown LiRA variance"),
        ({"rmia_signal": "tsm"}, "unknown RMIA signal"),
        ({"compat": "fast"}, "unknown compat"),
        ({"forget_type": "classes"}, "unknown forget_type"),
        ({"interpolation_steps": 1}, "IAM interpolation_steps = 1: must be between 2 and 10000"),
        ({"gamma": -1.0}, "RMIA gamma"),
        ({"constants": scores.Constants(1.5, 2.0)}, "RMIA offline_a = 1.5"),
        ({"constants": scores.Constants(0.5, 0.0)}, "RMIA temperature"),
        ({"constants": scores.Constants(0.5, 1.0, e1=0.01, e2=1.0)}, "log-log signal needs"),
        ({"constants": scores.Constants(0.5, 1.0, offline_e1=0.0)}, "log-log signal needs"),
    ],
)
def test_impossible_options_are_refused(change, message):
    with pytest.raises(errors.ConfigError, match=message):
        scores.run(("confidence",), small(), OPTIONS._replace(**change))


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_computed_from_what_it_needs_and_skipped_without_any_of_it(name):
    needs = scores.SCORES[name].needs
    support = {
        "population_labels",
        "shadow_train_labels",
        "posterior_pairs_unlearned",
        "posterior_pairs_forgotten",
        "reference_member",
    }
    fields = {"unlearned", "labels", *needs, *support}
    # Arrays come with their companions, and nothing that is not needed is there.
    only = {field: getattr(small(), field) for field in fields}
    assert scores.missing(name, scores.Evidence(**only)) == []
    assert alone(name, scores.signals_pass(scores.Evidence(**only), OPTIONS, pairs=name == "unleak")).shape == (60,)
    for lacking in set(needs) - support:
        result = scores.run((name, "confidence"), scores.Evidence(**{**only, lacking: None}), OPTIONS)
        if name != "confidence":
            assert set(result.scores) == {"confidence"} and result.skipped == {name: f"needs {lacking}"}


def test_unknown_names_get_the_scores_of_their_own_kind_alone():
    for name, kind in (("q", scores.LOGITS), ("iam", scores.LOGITS), ("lm_iamm", scores.TOKENS), ("q", scores.TOKENS)):
        with pytest.raises(errors.ConfigError) as raised:
            scores.names_of((name,), kind)
        assert ("lm_" in str(raised.value).replace(name, "")) == (kind == scores.TOKENS)
        assert "iam_beta_on" not in str(raised.value)


def test_where_nothing_can_be_computed_the_reasons_are_raised():
    only = scores.Evidence(unlearned=small().unlearned, labels=small().labels)
    with pytest.raises(errors.DataError, match="no score could be computed: lira_on needs original, shadows; lira "):
        scores.run(["lira_on", "lira"], only)
    result = scores.run(["confidence", "lira_on"], only)
    assert result["confidence"] is result.scores["confidence"] is result[0]["confidence"]
    with pytest.raises(errors.DataError, match="'lira_on' was not computed: needs original, shadows"):
        result["lira_on"]
    with pytest.raises(errors.ConfigError, match=r"options must be scores.Options\(...\), not dict"):
        scores.run(["confidence"], only, {"gamma": 1.0})


@pytest.mark.parametrize("signal", ["taylor", "taylor_soft_margin", "softmax", "soft_margin", "carlini_logit"])
def test_scores_that_read_the_level_of_logits_are_those_that_say_so(signal):
    options = OPTIONS._replace(rmia_signal=signal)
    names = NAMES if signal == "taylor_soft_margin" else ("rmia_on", "rmia_off", "informia")
    rng = np.random.default_rng(0)

    def shifted(array):
        return array + 2 * rng.normal(size=(*array.shape[:-1], 1)).astype(np.float32)

    logits = {name for name, field in scores.FIELDS.items() if field.kind == "logits"}
    moved = small().replace(**{name: shifted(getattr(small(), name)) for name in logits})
    before, after = (scores.run(names, evidence, options) for evidence in (small(), moved))
    changed = {name for name in names if np.abs(before[name].values - after[name].values).max() > 1e-3}
    assert changed - {"random"} == {name for name in names if scores.SCORES[name].reads_level(options)}
    assert before.notes == after.notes == ()


def test_log_probabilities_are_noticed_where_they_matter():
    logits = small().unlearned
    evidence = scores.Evidence(jax.nn.log_softmax(logits), small().labels)
    (note,) = scores.run(["margin", "confidence"], evidence).notes
    assert "looks like log-probabilities" in note and note.endswith("own outputs: margin")
    assert scores.run(["confidence", "loss"], evidence).notes == ()


def test_arrays_that_only_an_audit_reads_may_be_there():
    names = np.array([f"row {number}" for number in range(60)])
    arrays = audit_case.fields(small()) | {"ids": names, "person": names, "shadow_saw": np.zeros((4, 60), bool)}
    for evidence in (arrays, scores.Evidence(**arrays)):
        actual = scores.run(["lira_off"], evidence, OPTIONS)["lira_off"].values
        np.testing.assert_array_equal(actual, scores.run(["lira_off"], small(), OPTIONS)["lira_off"].values)


def test_records_compare_their_arrays():
    same = small().replace(labels=small().labels.copy())
    assert same == small() and same != small().replace(original=None) and same != 3
    assert same != small().replace(labels=small().labels[::-1].copy())


def test_what_is_missing_can_be_asked_of_a_record_or_of_names():
    lacking = small().replace(original=None, population_in=None)
    assert scores.missing("rmia_on", lacking) == ["original", "population_in"]
    assert scores.missing("rmia_on", {"shadows": True, "original": False}) == [
        "original", "population_unlearned", "population_shadows", "population_in",
    ]  # fmt: skip


def test_a_result_says_how_it_was_made():
    actual = scores.run(("confidence",), small(), OPTIONS).scores["confidence"]
    assert actual.name == "confidence" and dict(actual.parameters)["compat"] == "corrected"
    assert actual.values.dtype == np.float64  # its resolution near 1 is what tells samples apart


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_scores_of_a_test.py").write_text(
        "import numpy as np\n"
        "def rise(measured, options):\n"
        "    return measured.unlearned.log_odds - measured.shadows.log_odds.mean(0)\n"
        "def short(measured, options):\n    return measured.unlearned.log_odds[:-1]\n"
        "def broken(measured, options):\n"
        "    values = np.array(measured.unlearned.log_odds)\n    values[4] = np.nan\n    return values\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_scores_of_a_test"


def test_a_users_own_score_is_computed(own_module):
    name = f"{own_module}:rise"
    result = scores.run((name, "iam_on"), small(), OPTIONS)
    m = measured()
    np.testing.assert_allclose(
        result.scores[name].values, m.unlearned.log_odds - m.shadows.log_odds.mean(0), rtol=1e-6
    )  # fmt: skip
    assert set(result.scores) == {name, "iam_on"}
    assert scores.missing(name, small().replace(shadows=None)) == []


@pytest.mark.parametrize(
    "function, message",
    [("short", r"short .*axis N is 59"), ("broken", r"broken is NaN .* for 1 sample\(s\), first for sample 4\.")],
)
def test_a_users_bad_score_is_refused(own_module, function, message):
    with pytest.raises(errors.UserError, match=message):
        scores.run((f"{own_module}:{function}",), small(), OPTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_the_modes_differ_only_where_they_are_said_to(name):
    options = OPTIONS._replace(constants=scores.published("cifar10"), dataset="cifar10")
    audit_signals = measured(pairs=name == "unleak")
    corrected, faithful = (
        alone(name, audit_signals, options._replace(compat=mode)) for mode in ("corrected", "faithful")
    )
    if name in COMPAT:
        assert np.abs(corrected - faithful).max() > 1e-3
    else:
        np.testing.assert_array_equal(corrected, faithful)


@pytest.mark.parametrize("forget_type", ["set_random", "class"])
def test_only_faithful_lira_looks_at_the_kind_of_forgetting(forget_type):
    faithful = OPTIONS._replace(compat="faithful", forget_type=forget_type)
    actual = scores.compute("lira_off", measured(), faithful).values
    assert (actual.max() <= 1 and actual.min() >= 0) == (forget_type == "class")
    corrected = OPTIONS._replace(forget_type=forget_type)
    np.testing.assert_array_equal(scores.compute("lira_off", measured(), corrected).values,
                                  scores.compute("lira_off", measured(), OPTIONS).values)  # fmt: skip


@pytest.mark.parametrize("family", ["norm", "beta", "kde", "ecdf"])
def test_the_family_of_the_main_score_can_be_chosen(family):
    actual = scores.compute("iam_on", measured(), OPTIONS._replace(family=family)).values
    assert 0 <= actual.min() and actual.max() <= 1
    assert np.abs(actual - scores.compute("iam_on", measured(), OPTIONS).values).max() > 1e-3


@pytest.mark.parametrize("name", ["iam_off", "rmia_off", "lira_on", "emia_r", "update", "iam_beta_off", "random"])
def test_several_audits_together_are_the_audits_one_by_one(name):
    seeds = (1, 2)
    audits = [scores.signals_pass(_same_shadows(seed), OPTIONS, pairs=False) for seed in seeds]
    models = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(scores.single_model(audit) for audit in audits))
    together = scores.compute_models(name, audits[0], models, OPTIONS)
    for values, audit in zip(together, audits, strict=True):
        np.testing.assert_allclose(values, scores.compute(name, audit, OPTIONS).values, rtol=1e-5, atol=1e-5)


def _same_shadows(seed):
    """Evidence that shares all but the audited pair of models with `small`."""
    other = audit_case.make(seed=seed)
    audited = {name: getattr(other, name) for name in scores.AuditedModels._fields[:4]}
    return small().replace(**audited)


def test_chosen_shadows_are_the_evidence_of_those_shadows():
    indices = [2, 0]
    fields = ("shadows", "population_shadows", "shadow_train_logits", "shadow_train_labels", "posterior_pairs_original",
              "posterior_pairs_unlearned", "posterior_pairs_forgotten")  # fmt: skip
    evidence = small().replace(**{name: getattr(small(), name)[indices] for name in fields},
                               shadows_views=small().shadows_views[:, indices])  # fmt: skip
    expected, actual = scores.signals_pass(evidence, OPTIONS), scores.choose_shadows(measured(pairs=True), indices)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), actual, expected)


def test_noise_differs_between_audited_models_and_repeats_for_one():
    first, second = (entries.random(scores.signals_pass(_same_shadows(seed), OPTIONS), OPTIONS) for seed in (1, 2))
    again = entries.random(scores.signals_pass(_same_shadows(1), OPTIONS), OPTIONS)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).min() > 0 and first.min() >= 0 and first.max() < 1
