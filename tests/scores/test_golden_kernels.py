"""Signals and score kernels against arrays that the published implementation computed (tests/golden/iam)."""

from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import scores
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import emia, iam, lira, rmia, unleak

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "iam"
PUBLISHED_SIGNALS = {
    "softmax": "softmax",
    "taylor": "taylor",
    "soft_margin": "soft-margin",
    "taylor_soft_margin": "taylor-soft-margin",
    "carlini_logit": "log-logit-scaling",
}


def load(name):
    """case -> array name -> array."""
    cases = {}
    with np.load(GOLDEN / f"{name}.npz") as file:
        for key in file.files:
            case, _, array_name = key.partition("/")
            cases.setdefault(case, {})[array_name] = file[key]
    return cases


def pick(name, *cases):
    arrays = load(name)
    assert set(arrays) == set(cases), f"{name}.npz contains {sorted(arrays)}"
    return pytest.mark.parametrize("golden", [arrays[case] for case in cases], ids=list(cases))


SIGNALS = pick("signals", "c10", "c100", "c2", "wide")


@SIGNALS
def test_signals_of_published_logits(golden):
    logits, labels = golden["logits"], golden["labels"]
    np.testing.assert_allclose(signals.carlini_logit(logits, labels), golden["carlini_logit"], atol=5e-6)
    odds = np.asarray(signals.log_odds(logits, labels))
    np.testing.assert_allclose(signals.log_odds_confidence(odds), golden["confidence"], atol=2e-6)
    np.testing.assert_allclose(signals.log_odds_cross_entropy(odds), golden["ce_loss"], atol=5e-6)
    # "logit scaling" of a float32 probability is the log-odds where the probability has not lost them yet.
    usable = golden["confidence"] < 0.99
    np.testing.assert_allclose(odds[usable], golden["logit_scaling_of_confidence"][usable], rtol=1e-4, atol=1e-6)
    assert usable.sum() > len(labels) / 10
    np.testing.assert_array_equal(logits.argmax(-1) == labels, golden["correct"].astype(bool))


@SIGNALS
@pytest.mark.parametrize("e1, e2", [("0.01", "1e-05"), ("0.1", "1e-05"), ("0.1", "1e-06"), ("0.001", "1e-05")])
def test_log_log_signals_of_published_logits(golden, e1, e2):
    odds = signals.log_odds(golden["logits"], golden["labels"])
    atol = 2e-4 if e1 == "0.001" else 3e-5
    actual = signals.log_log_normalised(odds, float(e1), float(e2))
    np.testing.assert_allclose(actual, golden[f"logloss_norm_{e1}_{e2}"], atol=atol)
    np.testing.assert_allclose(
        signals.log_log(odds, float(e1), float(e2)), golden[f"logloss_raw_{e1}_{e2}"], atol=8 * atol
    )


@SIGNALS
def test_the_published_mixture_of_log_log_constants(golden):
    odds = signals.log_odds(golden["logits"], golden["labels"])
    low, high = signals.log_log_limits(1e-2, 1e-5)
    actual = (signals.log_log(odds, 0.1, 1e-6) - low) / (high - low)
    np.testing.assert_allclose(actual, golden["logloss_mixed_purchase_offline"], atol=1e-5)


@SIGNALS
@pytest.mark.parametrize("temperature", [1, 2])
@pytest.mark.parametrize("name", PUBLISHED_SIGNALS)
def test_rmia_signals_of_published_logits(golden, name, temperature):
    expected = golden[f"{PUBLISHED_SIGNALS[name]}_T{temperature}"]
    actual = signals.PUBLISHED_RMIA_SIGNALS[name](golden["logits"], golden["labels"], float(temperature))
    # Log-odds near 0 are differences of larger numbers; the others are positive or ratios.
    atol = 5e-6 if name == "carlini_logit" else 1e-30
    np.testing.assert_allclose(actual, expected, rtol=1e-4 if "taylor" in name else 1e-5, atol=atol)


@pick("iam", "s1_n60_i100", "s2_n80_i100", "s10_n100_i100", "s128_n60_i100", "s10_n60_i2", "s10_n60_i10",
      "unbounded", "mixed_scales")  # fmt: skip
@pytest.mark.parametrize("spread", iam.STDS)
@pytest.mark.parametrize("family", iam.FAMILIES)
def test_iam_of_published_signals(golden, family, spread):
    key = f"{family}_fix{int(spread == 'pooled')}"
    if key not in golden:
        pytest.skip("not in the golden file")
    actual = iam.interpolate(
        golden["ori"],
        golden["unl"],
        golden["shadow"],
        interpolation_steps=int(golden["inter"]),
        family=family,
        std=spread,
    )
    differences = np.abs(1 - np.asarray(actual) - golden[key])
    if family == "ecdf":  # a comparison of equal numbers may differ by one level
        assert np.mean(differences > 1e-6) <= 0.01
    else:
        assert differences.max() <= (1e-5 if family == "beta" else 2e-6)


def test_iam_levels_beyond_the_published_128_shadows_count():
    golden = load("iam")["s128_n60_i100"]
    twice = np.concatenate([golden["shadow"], golden["shadow"]])  # the published code would ignore the second half
    actual = iam.interpolate(golden["ori"], golden["unl"], twice)
    np.testing.assert_allclose(1 - np.asarray(actual), golden["gumbel_fix1"], atol=2e-6)
    moved = iam.interpolate(golden["ori"], golden["unl"], np.concatenate([golden["shadow"], golden["shadow"] + 1]))
    assert np.abs(1 - np.asarray(moved) - golden["gumbel_fix1"]).max() > 0.01


@pick("lira", "s1_n80", "s2_n80", "s10_n200", "s128_n60")
def test_faithful_lira_and_update_attack(golden):
    u, o, s = golden["unl"], golden["ori"], golden["shadow"]
    np.testing.assert_allclose(-lira.faithful_offline(u, s, "set_random"), golden["offline_set_random"], rtol=1e-4)
    np.testing.assert_allclose(-lira.faithful_offline(u, s, "class"), golden["offline_class"], atol=1e-6)
    np.testing.assert_allclose(-lira.faithful_online(u, o, s), golden["online"], rtol=1e-3)
    np.testing.assert_allclose(-lira.faithful_update(u, o, s), golden["update"], atol=1e-6)


@pick("emia", "s1", "s2", "s10", "s128")
def test_emia_of_published_losses(golden):
    np.testing.assert_allclose(np.logaddexp(0, -golden["unl_logit_y"]), golden["loss_unl"], atol=2e-6)
    actual = emia.reference(golden["unl_logit_y"], golden["shadow_logit_y"])
    np.testing.assert_allclose(1 - np.asarray(actual), golden["emia_r"], atol=2e-6)
    actual = emia.population(golden["unl_logit_y"], golden["pop_logit_y"])
    np.testing.assert_allclose(1 - np.asarray(actual), golden["emia_p"], atol=2e-6)


@pick("rmia", "c10_s1", "c10_s2", "c10_s10", "c100_s4", "c10_s128")
def test_rmia_of_published_logits(golden):
    outputs = [key for key in golden if key.endswith(("/offline", "/online"))]
    assert outputs
    for key in outputs:
        dataset, published, side = key.split("/")
        name = {theirs: ours for ours, theirs in PUBLISHED_SIGNALS.items()}[published]
        constants = scores.published(dataset)

        def signal_of(group, models, name=name, temperature=constants.temperature):
            """Signals [2 + S, n] of two models and the shadows on target or population samples."""
            two = [golden[f"{group}_{model}_logits"] for model in models]
            values = np.concatenate([np.stack(two), np.swapaxes(golden[f"{group}_shadow_logits"], 0, 1)])
            return np.asarray(signals.PUBLISHED_RMIA_SIGNALS[name](values, golden[f"{group}_labels"], temperature))

        unlearned, original, *shadows = signal_of("target", ("unl", "ori"))
        population, inside, *population_shadows = signal_of("ref", ("unl", "popin"))
        shadows, population_shadows = np.stack(shadows), np.stack(population_shadows)
        if side == "offline":
            actual = rmia.offline(unlearned, shadows, population, population_shadows, constants.offline_a)
        else:
            actual = rmia.online(unlearned, original, shadows, population, inside, population_shadows)
        differences = np.abs(np.asarray(actual) - golden[key]) * len(population)
        assert differences.max() < 1.001 and np.mean(differences > 1e-3) <= 0.02, key


@pick("unleak_features", "c10", "c100")
def test_unleak_features_of_published_logits(golden):
    actual = np.asarray(unleak.features(golden["ori_logits"], golden["unl_logits"]))
    expected = golden["feature_used"]
    np.testing.assert_allclose(actual[:, -3:], expected[:, -3:], atol=2e-6)
    # The order of the flattened classes is arbitrary.
    np.testing.assert_allclose(np.sort(actual[:, :-3]), np.sort(expected[:, :-3]), atol=2e-6)
