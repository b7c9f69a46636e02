"""Are the p-values behind the verdicts what they claim to be? Worlds of models whose truth is known, on digits.

A world is a forget set, 12 shadows, a model retrained without the set and an original trained with it. Retrained models
and shadows are drawn alike, so p-values must be uniform. All models of all worlds are one population.
"""

import contextlib
import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxunlearn import errors, keys, population, scores, settings
from jaxunlearn.analyses.audit import verdicts
from jaxunlearn.metrics import decision, intervals, uniformity
from jaxunlearn.records import Evidence
from jaxunlearn.runs import experiments

SHADOWS, FORGET, ROWS, POPULATION = 12, 40, 200, 450
RETRAINED, ORIGINAL, LARGE = SHADOWS, SHADOWS + 1, SHADOWS + 2
OPTIONS = scores.Options()


class Worlds(NamedTuple):
    """W worlds: labels [N], forget sets [W, f] and population [p] as rows, member [W, 15, N], logits [W, 15, N, C]."""

    labels: np.ndarray
    forget: np.ndarray
    population: np.ndarray
    member: np.ndarray
    logits: np.ndarray


@contextlib.contextmanager
def optimised():
    """Compiles as users do: hundreds of members of many epochs run for longer than that takes."""
    kept = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", kept)


@functools.cache
@optimised()
def worlds(count, wrong, hidden, epochs, seed=0):
    """Trains `count` worlds on digits, a part `wrong` of whose labels is random (and must be learned by heart)."""
    config = settings.defaults()
    config.update_from_flattened_dict({"model.name": "mlp", "model.hidden": (hidden,), "train.epochs": epochs})
    bench = experiments.prepare(settings.resolve(config))
    draw = np.random.default_rng(seed)
    labels = np.asarray(bench.dataset.labels, np.int32).copy()
    changed = draw.random(len(labels)) < wrong
    labels[changed] = (labels[changed] + draw.integers(1, 10, changed.sum())) % 10
    bench = bench._replace(dataset=bench.dataset.replace(labels=labels))
    order = draw.permutation(len(labels))
    never, rest = order[:POPULATION], order[POPULATION:]
    forget = rest[: count * FORGET].reshape(count, FORGET)

    def rows(size, others, extra=()):
        found = np.zeros(len(labels), bool)
        found[draw.choice(others, size, replace=False)] = True
        found[np.asarray(extra, int)] = True
        return found

    member = []
    for asked in forget:
        others = np.setdiff1d(rest, asked)
        member += [rows(ROWS, others) for _ in range(SHADOWS + 1)]
        member += [rows(ROWS, others, asked), rows(2 * ROWS, others)]
    stream = population.from_membership(np.stack(member))
    ids = np.arange(len(member), dtype=np.int32)
    constants = {
        "learning_rate": np.full(len(ids), 0.1, np.float32),
        "weight_decay": np.full(len(ids), 5e-4, np.float32),
    }
    job = population.Job(
        bench.task, {"train": stream}, {"train": 50}, ids, keys.root(seed), constants,
        population.steps_per_epoch(stream, 50),
    )  # fmt: skip
    lifting, resident = experiments.lifting(bench, len(ids)), experiments.resident(bench)
    for latest in population.train(job, resident, epochs, lifting):
        carry = latest
    variables = population.kept_variables(population.host(carry))
    blocks = population.predict(bench.task, variables, resident.inputs, np.arange(len(labels)), lifting)
    logits = np.concatenate([block for _, block in blocks], axis=1)
    return Worlds(
        labels, forget, never, np.stack(member).reshape(count, -1, len(labels)),
        logits.reshape(count, -1, *logits.shape[1:]),
    )  # fmt: skip


def by_heart():
    """Most labels are random: whoever trained on a sample knows it, whoever did not cannot."""
    return worlds(24, 0.6, 128, 40)


def clean():
    """Honest labels: models with more rows are surer of samples they never saw."""
    return worlds(16, 0.0, 32, 20)


@functools.cache
def measured(make, world, audited):
    """The pass over one world, with model number `audited` in the unlearned model's place."""
    made = make()
    logits, asked, never = made.logits[world], made.forget[world], made.population
    own = [np.flatnonzero(member) for member in made.member[world][:SHADOWS]]
    return scores.measure(
        Evidence(
            unlearned=logits[audited][asked],
            labels=made.labels[asked],
            original=logits[ORIGINAL][asked],
            shadows=logits[:SHADOWS, asked],
            population_unlearned=logits[audited][never],
            population_original=logits[ORIGINAL][never],
            population_shadows=logits[:SHADOWS, never],
            population_labels=made.labels[never],
            shadow_train_logits=np.stack([logits[shadow][rows] for shadow, rows in enumerate(own)]),
            shadow_train_labels=np.stack([made.labels[rows] for rows in own]),
        ),
        OPTIONS,
        pairs=False,
    )


@functools.cache
def null(name, make, world, audited, calibration):
    found = measured(make, world, audited)
    return verdicts.nulls(name, found, scores.one_case(found), OPTIONS, calibration)[0]


@functools.cache
def p_out(name, make, audited, calibration="shadows"):
    """[W, f] p-values of the forget sets."""
    lines = []
    for world in range(len(make().forget)):
        # The shadows' null is the same whoever is audited.
        of = RETRAINED if calibration == "shadows" else audited
        values = scores.compute(name, measured(make, world, audited), OPTIONS).values
        lines.append(decision.p_values(values, null(name, make, world, of, calibration), seed=world))
    return np.stack(lines)


def uniform(p, level=0.05):
    """The uniformity test over forget sets, with a 99 % interval."""
    sets = np.repeat(np.arange(len(p)), p.shape[1])
    return uniformity.uniformity(p.reshape(-1), sets, alpha=level, level=0.99)


@pytest.mark.parametrize(
    "name", ["lira_off", *(pytest.param(name, marks=pytest.mark.slow) for name in ("iam_off", "iam_on"))]
)
def test_p_values_of_truly_forgotten_samples_are_uniform(name):
    found = uniform(p_out(name, by_heart, RETRAINED))
    assert found.p_value > 0.01 and found.distance < 0.08
    assert found.rate.low <= 0.05 <= found.rate.high
    assert found.rate.high < 0.10  # the interval says something


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2, 0.5])
def test_emia_p_values_of_truly_forgotten_samples_keep_every_level_that_matters(level):
    # Near p = 1 they cannot be uniform: EMIA's lowest value is 1 / (S + 1), and the null has one shadow less.
    found = uniform(p_out("emia_r", by_heart, RETRAINED), level)
    assert found.rate.low <= level <= found.rate.high


@pytest.mark.parametrize("name, least", [("lira_off", 0.25), ("emia_r", 0.25), ("iam_on", 0.3), ("iam_off", 0.05)])
def test_samples_that_were_never_unlearned_are_found_and_forgotten_ones_are_left_alone(name, least):
    """Measured (24 forget sets of 40): 0.52, 0.31, 0.32, 0.08 of the samples in the original, at most 0.002 after."""

    def caught(audited):
        lines = p_out(name, by_heart, audited)
        return [np.mean(decision.verdicts(line, None, 0.05) == verdicts.NOT_FORGOTTEN) for line in lines]

    remembered, forgotten = caught(ORIGINAL), caught(RETRAINED)
    assert np.mean(remembered) > least
    assert np.mean(forgotten) < 0.01
    # The truth of every rejection in a world of forgotten samples is "false": its chance is the level itself.
    worlds_with_any = int((np.asarray(forgotten) > 0).sum())
    assert intervals.clopper_pearson(worlds_with_any, len(forgotten), 0.99).low <= 0.05


@pytest.mark.parametrize("name", ["lira_off", pytest.param("iam_off", marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [by_heart, clean])
@pytest.mark.parametrize("audited", [RETRAINED, LARGE], ids=["of shadow size", "of twice the rows"])
def test_population_samples_calibrate_whatever_the_shadows_were_trained_on(name, make, audited):
    found = uniform(p_out(name, make, audited, "population"))
    assert found.p_value > 0.01
    assert found.rate.low <= 0.05 <= found.rate.high


@pytest.mark.parametrize("name", ["lira_off", "iam_off"])
def test_shadows_of_half_the_rows_are_too_eager_a_null(name):
    equal, double = (uniform(p_out(name, clean, audited)) for audited in (RETRAINED, LARGE))
    assert equal.rate.low <= 0.05 < double.rate.low
    assert equal.p_value > 0.01 > double.p_value


def chosen(make, world, audited, wanted="auto", name="iam_off", level=0.05):
    found = measured(make, world, audited)
    return verdicts.null_of(name, found, scores.one_case(found), OPTIONS, wanted, level)


def test_auto_takes_the_population_where_the_shadows_are_measured_to_be_too_eager():
    picked = [chosen(clean, world, LARGE) for world in range(8)]
    switched = [one.calibration == "population" for one in picked]
    assert np.mean(switched) >= 0.75
    for world, one in enumerate(picked):
        assert (one.drift.rate.low > 0.05) == (one.calibration == "population")
        expected = null("iam_off", clean, world, LARGE, one.calibration)
        np.testing.assert_allclose(one.values[0], expected, atol=1e-6)
    # What is asked for by name is taken, and the drift is still told where the shadows are the null.
    assert chosen(clean, 0, LARGE, "shadows").calibration == "shadows"
    assert chosen(clean, 0, LARGE, "shadows").drift is not None
    assert chosen(clean, 0, LARGE, "population").drift is None


def test_the_measured_drift_is_the_rate_over_population_samples():
    drift = chosen(clean, 0, LARGE, "shadows").drift
    found = measured(clean, 0, LARGE)
    values = scores.population_scores("iam_off", found, scores.one_case(found), OPTIONS)[0]
    expected = decision.p_values(values, null("iam_off", clean, 0, LARGE, "shadows"), seed=0)
    np.testing.assert_allclose(np.sort(drift.p_out), np.sort(expected), atol=2e-3)
    assert drift.rate.value == pytest.approx((drift.p_out <= 0.05).mean())
    assert drift.rate.n == POPULATION


def test_scores_that_read_the_original_are_never_calibrated_on_a_drift():
    one = chosen(clean, 0, LARGE, name="iam_on")
    assert one.calibration == "shadows" and one.drift is None


def fewer(shadows, **changed):
    found = measured(clean, 0, RETRAINED)
    return scores.choose_shadows(found, np.arange(shadows))._replace(**changed)


def test_one_shadow_falls_back_to_the_population_and_without_any_there_is_a_reason():
    alone = fewer(1)
    one = verdicts.null_of("iam_off", alone, scores.one_case(alone), OPTIONS, "auto", 0.05)
    assert one.calibration == "population" and len(one.values[0]) == POPULATION
    bare = fewer(1, population_unlearned=None, population_shadows=None)
    with pytest.raises(errors.DataError, match="at least 2 shadow models, not 1"):
        verdicts.null_of("iam_off", bare, scores.one_case(bare), OPTIONS, "auto", 0.05)
    with pytest.raises(errors.DataError, match="needs population_unlearned, population_shadows"):
        verdicts.null_of("iam_off", bare, scores.one_case(bare), OPTIONS, "population", 0.05)


def made_up(high=3.0):
    """Two audited models of 200 samples: 0..39 asked for, of which 0..9 are remembered; normal scores."""
    draw = np.random.default_rng(0)
    requested = np.tile(np.arange(200) < 40, (2, 1))
    values = np.where(requested, draw.normal(size=(2, 200)), draw.normal(size=(2, 200)) + 6)
    values[:, :10] = high + 3 + draw.normal(size=(2, 10)) * 0.1
    return values, requested, verdicts.Null("shadows", [draw.normal(size=4000)] * 2, None)


def test_verdicts_name_the_remembered_and_the_forgotten_and_leave_the_others_alone():
    values, requested, given = made_up()
    found = verdicts.decide("iam_off", values, given, requested, 0.05)
    assert (found.codes[:, :10] == verdicts.NOT_FORGOTTEN).all()
    assert (found.codes[:, 10:40] == verdicts.FORGOTTEN).mean() > 0.9
    assert (found.codes[:, 40:] == -1).all()
    assert found.counts.sum() == requested.sum()
    assert [(found.codes == code).sum() for code in (2, 1, 0)] == found.counts.tolist()
    assert (found.p_out[:, :10] < 0.001).all() and (found.p_in[:, 10:40] < 0.02).mean() > 0.9
    told = verdicts.calibration(found, requested, 0.05, seed=0)
    assert told.rate.n == 80 and told.rate.value == pytest.approx((found.p_out[requested] <= 0.05).mean(), abs=0.02)


def test_without_requests_all_are_judged_and_nobody_is_called_forgotten():
    values, _, given = made_up()
    found = verdicts.decide("iam_off", values, given, None, 0.05)
    assert found.p_in is None and not (found.codes == verdicts.FORGOTTEN).any() and (found.codes >= 0).all()
    assert found.counts[2] == 0 and (found.codes[:, 40:] == verdicts.NOT_FORGOTTEN).mean() > 0.9


def test_the_retrained_null_of_a_set_leaves_out_its_own_retrained_model():
    values = np.arange(12.0).reshape(3, 4)
    forgotten = np.array([[True, False, False, True], [False, True, False, False], [False, False, True, True]])
    found = verdicts.retrained_null(values, forgotten, None)
    assert found.calibration == "retrained"
    assert [line.tolist() for line in found.values] == [[5, 10, 11], [0, 3, 10, 11], [0, 3, 5]]


def test_verdicts_do_not_hang_on_ties_but_the_calibration_breaks_them_by_its_seed():
    values, requested, given = made_up()
    values = np.round(values)
    given = given._replace(values=[np.round(line) for line in given.values])
    found = verdicts.decide("iam_off", values, given, requested, 0.05)
    counted = (1 + (given.values[0] >= values[0, 20]).sum()) / (1 + len(given.values[0]))
    assert found.p_out[0, 20] == pytest.approx(counted)
    one, same, other = (verdicts.calibration(found, requested, 0.05, seed).p_out for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any() and (one <= found.p_out[requested] + 1e-12).all()


@pytest.mark.parametrize(
    "wanted, there, name, why",
    [
        ("auto", {"shadows": True, "shadow_train_logits": True}, "iam_off", ""),
        ("auto", {"shadows": True}, "lira_off", ""),
        ("auto", {}, "", "The score lira_off needs shadows."),
        ("iam_on", {"shadows": True}, "", "The score iam_on needs original."),
        ("iam_on", {"shadows": True, "original": True}, "iam_on", ""),
        ("none", {"shadows": True}, "", "switched off"),
        ("unleak", {"shadows": True}, "", "has no null"),
        ("lira_on_views", {"shadows": True}, "", "has no null"),
    ],
)
def test_the_decision_score_is_the_first_whose_arrays_are_there(wanted, there, name, why):
    found, said = verdicts.choose_score(wanted, there)
    assert found == name and why in said and bool(said) == (not name)
