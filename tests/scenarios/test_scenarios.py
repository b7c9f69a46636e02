"""The verdict procedure on models whose truth is known: a part of the study of docs/verdict.md, with bounds.

Each measured fault of earlier procedures is a scenario of its own. Where the document says that the procedure fails,
what it says is asserted, so that nobody overlooks a change.
"""

import functools
import os

import numpy as np
import pytest
from scipy import stats

from jaxunlearn.metrics.verdict import judge
from tests.scenarios import location, models, study, worlds
from tests.scenarios.study import Line

pytestmark = pytest.mark.slow
REQUESTS = {"net": 24, "forest": 10}
KINDS = {"net": ("random", "easy", "hard", "remembered"), "forest": ("random", "easy")}
EXTRAS = {"net": ("own",), "forest": ()}
BASIC = ("untouched", "again", "retrained", "half")


@functools.cache
def made(name):
    return models.prepare(worlds.FAMILIES[name], REQUESTS[name], KINDS[name], EXTRAS[name])


@functools.cache
def measured(name, line, only=BASIC):
    return study.run(worlds.FAMILIES[name], made(name), line, only)


def max_wrong(trials, level=0.05):
    """Returns a bound on the number of errors in some audits, exceeded once in a thousand times at the level."""
    return stats.binom.ppf(0.999, trials, level)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in KINDS.items() for kind in kinds])
def test_contained_rows_are_not_called_forgotten(name, kind):
    for model in ("untouched", "again"):
        assert measured(name, Line(kind))[model].forgotten.sum() == 0
    half = measured(name, Line(kind))["half"]
    assert half.wrongly_forgotten.sum() <= max_wrong(half.forgotten.sum())


@pytest.mark.parametrize(("name", "kind"), [("net", "random"), ("net", "easy"), ("net", "hard"), ("forest", "random")])
def test_forgotten_rows_are_not_called_not_forgotten(name, kind):
    facts = measured(name, Line(kind))
    retrained, half = facts["retrained"], facts["half"]
    assert (retrained.not_ > 0).sum() <= max_wrong(len(retrained.not_))
    assert half.wrongly_not.sum() <= max_wrong(half.not_.sum())
    assert np.mean(retrained.high) <= 0.08 and retrained.suppressed.sum() == 0


def test_the_thirty_easiest_rows_of_an_untouched_model_are_never_called_forgotten():
    """Earlier, 3.4 of 30 were, of a second training on everything."""
    for name in REQUESTS:
        facts = measured(name, Line("easy"))
        assert facts["again"].forgotten.max() == facts["untouched"].forgotten.max() == 0
        assert len(facts["again"].forgotten) == REQUESTS[name]


def test_power_is_what_was_measured():
    random, hard = (measured("net", Line(kind)) for kind in ("random", "hard"))
    assert random["retrained"].forgotten.mean() >= 15 and hard["retrained"].forgotten.mean() >= 28
    assert hard["again"].not_.mean() >= 28 and random["untouched"].not_.mean() >= 0.5
    forest = measured("forest", Line("random"))
    assert forest["retrained"].forgotten.mean() >= 18 and forest["untouched"].not_.mean() >= 15
    for facts in (random, hard, forest):
        assert facts["retrained"].power_forgotten.mean() == pytest.approx(facts["retrained"].forgotten.mean(), rel=0.2)
        np.testing.assert_allclose(facts["untouched"].power_not, facts["untouched"].not_, atol=1)


def test_requests_as_a_whole_are_told_apart():
    for kind in ("random", "hard"):
        facts = measured("net", Line(kind))
        again, retrained = facts["again"], facts["retrained"]
        assert again.g_high.mean() >= 0.8 and again.g_in.sum() == 0
        assert retrained.g_high.sum() <= 1 and retrained.g_in.mean() >= 0.7
        assert np.nanmean(retrained.kept[:, 0]) == pytest.approx(0, abs=0.1)
        assert np.nanmean(again.kept[:, 0]) == pytest.approx(1, abs=0.15)
        assert study.covered(retrained, 0.0).mean() >= 0.75 and not retrained.group_suppressed.any()


def test_few_shadows_keep_the_promise_of_rows():
    facts = measured("net", Line("random", 2))
    assert facts["retrained"].forgotten.mean() >= 13 and facts["again"].forgotten.sum() == 0
    assert (facts["retrained"].not_ > 0).sum() <= max_wrong(48)
    assert facts["retrained"].g_high.sum() <= max_wrong(48)


def test_edits_of_the_requested_answers_are_suppressed_always():
    facts = measured("net", Line("random", edits=True), ("identical", *study.OPEN, *study.HIDDEN))
    assert facts["identical"].is_identical.all() and (facts["identical"].not_ == 30).all()
    for how in study.OPEN:
        assert (facts[how].suppressed == 30).all() and facts[how].is_edited.all(), how
    assert facts["logit -40, hidden"].suppressed.mean() >= 27
    # Not solved: what stays within the answers of models that never saw the rows is called forgotten.
    assert facts["confidence x .1, hidden"].suppressed.mean() <= 10
    assert not any(facts[how].is_edited.any() for how in study.HIDDEN)


def test_requests_chosen_by_the_answers_of_the_original_are_a_little_high():
    """Documented: retrains share their other rows with the original; the group as a whole is not wrong in networks."""
    facts = measured("net", Line("remembered"))
    assert 0.04 <= facts["retrained"].high.mean() <= 0.16
    assert facts["half"].wrongly_not.sum() / facts["half"].not_.sum() <= 0.15
    assert facts["retrained"].g_high.sum() <= max_wrong(48)


@pytest.mark.parametrize("name", ["net", "forest"])
def test_strict_confirms_fewer_rows_and_is_wrong_less_often(name):
    usual, strict = measured(name, Line("random")), measured(name, Line("random", is_strict=True))
    assert 0 < strict["retrained"].forgotten.mean() < usual["retrained"].forgotten.mean()
    assert all(strict[model].forgotten.sum() == 0 for model in ("untouched", "again"))
    assert strict["half"].wrongly_forgotten.sum() <= max_wrong(strict["half"].forgotten.sum(), 0.02)


def judged(world, rows=None, role="random/retrained"):
    """Judges one request of the network, with some of its rows in some order."""
    family, arrays = worlds.FAMILIES["net"], made("net")
    request_answers = study.answers_of(
        family, arrays, world, Line("random"), arrays[role][world, 0], arrays["original"][world, 0]
    )
    if rows is not None:
        request_answers = request_answers._replace(**{
            name: getattr(request_answers, name)[..., rows]
            for name in ("unlearned", "requested", "shadows", "original")
        })  # fmt: skip
    return judge.judge(request_answers)


@pytest.mark.parametrize("role", ["random/retrained", "again"])
def test_no_p_value_depends_on_the_call(role):
    """Not on the order of rows, not on which others are asked about, not on another model that was audited before."""
    draws = np.random.default_rng(0)
    for world in range(3):
        judgement = judged(world, role=role)
        order = draws.permutation(600)
        requested = order[order < 30]
        shuffled, fewer = (
            judged(world, order, role),
            judged(world, np.concatenate([np.arange(8), np.arange(30, 600)]), role),
        )
        for name in ("p_high", "p_low", "p_in", "z"):
            values = getattr(judgement.tests, name)
            np.testing.assert_allclose(getattr(shuffled.tests, name), values[requested], rtol=0, atol=1e-12)
            np.testing.assert_array_equal(getattr(fewer.tests, name), values[:8])
        np.testing.assert_array_equal(shuffled.codes, judgement.codes[requested])
        again = judged(world, role=role)
        np.testing.assert_array_equal(again.codes, judgement.codes)


def test_shadows_of_the_own_retained_rows_say_the_same_whichever_rows_are_given():
    """NOT FORGOTTEN rests on rows that no model saw; FORGOTTEN on like retained rows, so it needs enough of them."""
    lines = [Line("random", source="random/own", retained=retained) for retained in (0, 300)]
    with_all, with_some = (measured("net", line, ("again", "retrained")) for line in lines)
    for model in ("again", "retrained"):
        np.testing.assert_array_equal(with_all[model].not_, with_some[model].not_)
        np.testing.assert_array_equal(with_all[model].g_high, with_some[model].g_high)
    for facts in (with_all, with_some):
        assert facts["again"].forgotten.sum() == 0 and facts["retrained"].forgotten.mean() >= 12
        assert (facts["retrained"].not_ > 0).sum() <= max_wrong(48)


@pytest.fixture(scope="module")
def real():
    data = os.environ.get(location.DATA, "")
    if not os.path.exists(data):
        pytest.skip(f"{location.DATA} names no file location30.npz: real data are no part of the repository")
    return location.trained(data)


def test_location_30(real):
    retrained, untouched = (location.audited(real, role) for role in ("retrained", "untouched"))
    assert retrained.not_.sum() <= 5 and retrained.forgotten.sum() >= 600
    assert untouched.forgotten.sum() == 0 and untouched.g_high.all() and not untouched.g_in.any()
    assert retrained.g_in.all() and not retrained.g_high.any()
    for how in models.EDITS:
        assert location.audited(real, how).suppressed.sum() == 1000
    easy = location.audited(real, "untouched", "easy")
    assert easy.forgotten.sum() == 0 and not easy.g_high.any()
