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
            case, _, rest = key.partition("/")
            cases.setdefault(case, {})[rest] = file[key]
    return cases


def pick(name, *cases):
    found = load(name)
    assert set(found) == set(cases), f"{name}.npz holds {sorted(found)}"
    return pytest.mark.parametrize("given", [found[case] for case in cases], ids=list(cases))


SIGNALS = pick("signals", "c10", "c100", "c2", "wide")


@SIGNALS
def test_signals_of_published_logits(given):
    logits, labels = given["logits"], given["labels"]
    np.testing.assert_allclose(signals.carlini_logit(logits, labels), given["carlini_logit"], atol=5e-6)
    np.testing.assert_allclose(signals.confidence(logits, labels), given["confidence"], atol=2e-6)
    np.testing.assert_allclose(signals.cross_entropy(logits, labels), given["ce_loss"], atol=5e-6)
    # "logit scaling" of a float32 probability is the log-odds where the probability has not lost them yet.
    usable = given["confidence"] < 0.99
    odds = np.asarray(signals.log_odds(logits, labels))
    np.testing.assert_allclose(odds[usable], given["logit_scaling_of_confidence"][usable], rtol=1e-4, atol=1e-6)
    assert usable.sum() > len(labels) / 10
    np.testing.assert_array_equal(logits.argmax(-1) == labels, given["correct"].astype(bool))


@SIGNALS
@pytest.mark.parametrize("e1, e2", [("0.01", "1e-05"), ("0.1", "1e-05"), ("0.1", "1e-06"), ("0.001", "1e-05")])
def test_log_log_signals_of_published_logits(given, e1, e2):
    odds = signals.log_odds(given["logits"], given["labels"])
    atol = 2e-4 if e1 == "0.001" else 3e-5
    found = signals.log_log_normalised(odds, float(e1), float(e2))
    np.testing.assert_allclose(found, given[f"logloss_norm_{e1}_{e2}"], atol=atol)
    np.testing.assert_allclose(
        signals.log_log(odds, float(e1), float(e2)), given[f"logloss_raw_{e1}_{e2}"], atol=8 * atol
    )


@SIGNALS
def test_the_published_mixture_of_log_log_constants(given):
    odds = signals.log_odds(given["logits"], given["labels"])
    low, high = signals.log_log_limits(1e-2, 1e-5)
    found = (signals.log_log(odds, 0.1, 1e-6) - low) / (high - low)
    np.testing.assert_allclose(found, given["logloss_mixed_purchase_offline"], atol=1e-5)


@SIGNALS
@pytest.mark.parametrize("temperature", [1, 2])
@pytest.mark.parametrize("name", PUBLISHED_SIGNALS)
def test_rmia_signals_of_published_logits(given, name, temperature):
    expected = given[f"{PUBLISHED_SIGNALS[name]}_T{temperature}"]
    found = signals.PUBLISHED_RMIA_SIGNALS[name](given["logits"], given["labels"], float(temperature))
    # Log-odds near 0 are differences of larger numbers; the others are positive or ratios.
    atol = 5e-6 if name == "carlini_logit" else 1e-30
    np.testing.assert_allclose(found, expected, rtol=1e-4 if "taylor" in name else 1e-5, atol=atol)


@pick("iam", "s1_n60_i100", "s2_n80_i100", "s10_n100_i100", "s128_n60_i100", "s10_n60_i2", "s10_n60_i10",
      "unbounded", "mixed_scales")  # fmt: skip
@pytest.mark.parametrize("spread", iam.STDS)
@pytest.mark.parametrize("family", iam.FAMILIES)
def test_iam_of_published_signals(given, family, spread):
    key = f"{family}_fix{int(spread == 'pooled')}"
    if key not in given:
        pytest.skip("not in the golden file")
    found = iam.interpolate(
        given["ori"],
        given["unl"],
        given["shadow"],
        interpolation_steps=int(given["inter"]),
        family=family,
        std=spread,
    )
    apart = np.abs(1 - np.asarray(found) - given[key])
    if family == "ecdf":  # a comparison of equal numbers may differ by one level
        assert np.mean(apart > 1e-6) <= 0.01
    else:
        assert apart.max() <= (1e-5 if family == "beta" else 2e-6)


def test_iam_levels_beyond_the_published_128_shadows_count():
    given = load("iam")["s128_n60_i100"]
    twice = np.concatenate([given["shadow"], given["shadow"]])  # the published code would ignore the second half
    found = iam.interpolate(given["ori"], given["unl"], twice)
    np.testing.assert_allclose(1 - np.asarray(found), given["gumbel_fix1"], atol=2e-6)
    moved = iam.interpolate(given["ori"], given["unl"], np.concatenate([given["shadow"], given["shadow"] + 1]))
    assert np.abs(1 - np.asarray(moved) - given["gumbel_fix1"]).max() > 0.01


@pick("lira", "s1_n80", "s2_n80", "s10_n200", "s128_n60")
def test_faithful_lira_and_update_attack(given):
    u, o, s = given["unl"], given["ori"], given["shadow"]
    np.testing.assert_allclose(-lira.faithful_offline(u, s, "set_random"), given["offline_set_random"], rtol=1e-4)
    np.testing.assert_allclose(-lira.faithful_offline(u, s, "class"), given["offline_class"], atol=1e-6)
    np.testing.assert_allclose(-lira.faithful_online(u, o, s), given["online"], rtol=1e-3)
    np.testing.assert_allclose(-lira.faithful_update(u, o, s), given["update"], atol=1e-6)


@pick("emia", "s1", "s2", "s10", "s128")
def test_emia_of_published_losses(given):
    np.testing.assert_allclose(np.logaddexp(0, -given["unl_logit_y"]), given["loss_unl"], atol=2e-6)
    found = emia.reference(given["unl_logit_y"], given["shadow_logit_y"])
    np.testing.assert_allclose(1 - np.asarray(found), given["emia_r"], atol=2e-6)
    found = emia.population(given["unl_logit_y"], given["pop_logit_y"])
    np.testing.assert_allclose(1 - np.asarray(found), given["emia_p"], atol=2e-6)


@pick("rmia", "c10_s1", "c10_s2", "c10_s10", "c100_s4", "c10_s128")
def test_rmia_of_published_logits(given):
    outputs = [key for key in given if key.endswith(("/offline", "/online"))]
    assert outputs
    for key in outputs:
        dataset, published, side = key.split("/")
        name = {theirs: ours for ours, theirs in PUBLISHED_SIGNALS.items()}[published]
        constants = scores.published(dataset)

        def of(part, models, name=name, temperature=constants.temperature):
            """Signals [2 + S, n] of two models and the shadows on target or population samples."""
            two = [given[f"{part}_{model}_logits"] for model in models]
            values = np.concatenate([np.stack(two), np.swapaxes(given[f"{part}_shadow_logits"], 0, 1)])
            return np.asarray(signals.PUBLISHED_RMIA_SIGNALS[name](values, given[f"{part}_labels"], temperature))

        unlearned, original, *shadows = of("target", ("unl", "ori"))
        population, inside, *population_shadows = of("ref", ("unl", "popin"))
        shadows, population_shadows = np.stack(shadows), np.stack(population_shadows)
        if side == "offline":
            found = rmia.offline(unlearned, shadows, population, population_shadows, constants.offline_a)
        else:
            found = rmia.online(unlearned, original, shadows, population, inside, population_shadows)
        apart = np.abs(np.asarray(found) - given[key]) * len(population)
        assert apart.max() < 1.001 and np.mean(apart > 1e-3) <= 0.02, key


@pick("unleak_features", "c10", "c100")
def test_unleak_features_of_published_logits(given):
    found = np.asarray(unleak.features(given["ori_logits"], given["unl_logits"]))
    expected = given["feature_used"]
    np.testing.assert_allclose(found[:, -3:], expected[:, -3:], atol=2e-6)
    # The order of the flattened classes is arbitrary.
    np.testing.assert_allclose(np.sort(found[:, :-3]), np.sort(expected[:, :-3]), atol=2e-6)
