"""UnLeak end to end, its features, and the choice of RMIA's offline_a."""

import audit_case
import naive
import numpy as np
import pytest

from jaxunlearn import errors, scores
from jaxunlearn.metrics import roc
from jaxunlearn.scores.families import rmia, unleak

OPTIONS = scores.Options()


def leaking(seed=0):
    return audit_case.make(seed=seed, samples=200, shadows=3, classes=8, pairs=120)


def flat(evidence):
    """The same where forgetting leaves a flat posterior: forgotten answers shrunk to a fifth of the original ones."""
    return evidence.replace(
        unlearned=np.where(evidence.forgotten[:, None], evidence.original / 5, evidence.original),
        posterior_pairs_unlearned=np.where(
            evidence.posterior_pairs_forgotten[..., None],
            evidence.posterior_pairs_original / 5,
            evidence.posterior_pairs_original,
        ),
    )


def test_flattened_posteriors_give_the_forgotten_away():
    evidence = flat(leaking())
    actual = scores.run(("unleak",), evidence).scores["unleak"].values
    assert roc.auc(actual, ~evidence.forgotten) > 0.9
    assert actual.min() >= 0 and actual.max() <= 1


def test_unleak_depends_on_its_seed_alone():
    evidence = leaking()
    runs = [
        scores.run(("unleak",), evidence, OPTIONS._replace(seed=seed)).scores["unleak"].values for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3


def test_features_are_those_of_the_loop_over_samples():
    draw = np.random.default_rng(0)
    original, unlearned = draw.normal(scale=3, size=(2, 30, 9)).astype(np.float32)
    actual, expected = np.asarray(unleak.features(original, unlearned)), naive.unleak_features(original, unlearned)
    np.testing.assert_allclose(actual[:, -3:], expected[:, -3:], atol=2e-6)
    # Flattened classes are equal: their order is arbitrary.
    np.testing.assert_allclose(np.sort(actual[:, :-3]), np.sort(expected[:, :-3]), atol=2e-6)
    np.testing.assert_allclose(actual.sum(-1), 0, atol=2e-6)


def test_three_classes_are_refused():
    with pytest.raises(errors.DataError, match=r"more than 3 classes .* not 3"):
        unleak.check_classes(3)
    unleak.check_classes(4)


@pytest.mark.parametrize(
    "forgotten, message",
    [
        (np.zeros(30, bool), "0 forgotten and 30 retained"),
        (np.ones(30, bool), "30 forgotten and 0 retained"),
        (np.arange(19) % 2 == 0, "10 forgotten and 9 retained"),
    ],
)
def test_too_few_pairs_are_refused(forgotten, message):
    with pytest.raises(errors.DataError, match=message):
        unleak.fit_and_score(np.zeros((len(forgotten), 5)), forgotten, np.zeros((4, 5)))


def test_several_audited_models_share_one_classifier():
    first, second = leaking(0), leaking(1)
    measured = [scores.signals_pass(evidence, OPTIONS) for evidence in (first, second)]
    both = scores.AuditedModels(
        *(scores.Signals(*(np.stack(pair) for pair in zip(*(getattr(audit, name) for audit in measured), strict=True)))
          for name in scores.AuditedModels._fields[:4]),
        posterior_pairs=np.stack([audit.posterior_pairs for audit in measured]),
    )  # fmt: skip
    actual = scores.compute_models("unleak", measured[0], both, OPTIONS)
    for values, audit in zip(actual, measured, strict=True):
        alone = scores.compute("unleak", measured[0]._replace(posterior_pairs=audit.posterior_pairs), OPTIONS).values
        np.testing.assert_allclose(values, alone, atol=1e-6)


def pool(a, seed=0, models=6, rows=400, population=200):
    """Signals whose guessed reference, (1 + a) / 2 v + (1 - a) / 2 of the OUT level v, is right at one a only.

    Members of the audited model answer three times that reference and its other rows one and a half times, whatever
    v is; under another a the level v blurs the two.
    """
    draw = np.random.default_rng(seed)
    member = draw.random((models, rows)) < 0.5
    outside = np.exp(draw.uniform(np.log(1e-3), np.log(0.9), rows))
    reference = (1 + a) / 2 * outside + (1 - a) / 2
    signals = np.where(member, 3 * reference, outside)
    # What only the audited model shows of non-members: just above their reference, at every level alike.
    signals[0] = np.where(member[0], 3 * reference, 1.5 * reference) * np.exp(draw.normal(0, 0.02, rows))
    levels = np.exp(draw.uniform(np.log(1e-3), np.log(0.9), population))
    others = np.broadcast_to(levels, (models, population)).copy()
    others[0] = ((1 + a) / 2 * levels + (1 - a) / 2) * np.exp(draw.normal(0, 0.3, population))
    return signals, member, others


@pytest.mark.parametrize("a", [0.0, 1.0])
def test_the_slope_that_fits_is_chosen(a):
    assert abs(rmia.tune_offline_a(*pool(a)) - a) <= 0.2


def test_tuning_needs_rows_of_both_kinds_that_another_shadow_left_out():
    signals, member, population = pool(0.0)
    for impossible in (np.ones_like(member), np.zeros_like(member), np.where(np.arange(6)[:, None] == 0, member, True)):
        assert np.isnan(rmia.tune_offline_a(signals, impossible, population))
    unusable = np.full_like(signals, np.nan)
    assert np.isnan(rmia.tune_offline_a(unusable, member, population))


def test_tuning_ignores_rows_with_impossible_signals():
    signals, member, population = pool(0.0)
    broken = signals.copy()
    broken[3, :50] = np.nan
    expected = rmia.tune_offline_a(signals[:, 50:], member[:, 50:], population)
    assert rmia.tune_offline_a(broken, member, population) == expected


def test_the_smallest_slope_wins_a_tie():
    signals = np.array([[0.9, 0.1], [0.1, 0.1]])
    member = np.array([[True, False], [False, False]])
    assert rmia.tune_offline_a(signals, member, np.full((2, 5), 0.2)) == 0.0
