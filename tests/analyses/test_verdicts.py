"""Verdicts on trained models whose truth is known: digits, most labels learned by heart, or honest ones.

A world is a forget set, 12 shadows, a model retrained without the set, one trained with it, and one of twice the rows.
All models of all worlds are one population.
"""

import functools
from typing import NamedTuple

import numpy as np
import pytest

from jaxunlearn import keys, population, settings
from jaxunlearn.metrics.inference import calibration_test
from jaxunlearn.metrics.verdict import judge, out_model
from jaxunlearn.metrics.verdict.rows import FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED
from jaxunlearn.runs import experiments
from tests.compiling import optimised

SHADOWS, FORGET, ROWS, POPULATION = 12, 40, 200, 450
RETRAINED, ORIGINAL, LARGE = SHADOWS, SHADOWS + 1, SHADOWS + 2


class Worlds(NamedTuple):
    """W worlds: labels [N], forget sets [W, f] and population [p] as rows, member [W, 15, N], logits [W, 15, N, C]."""

    labels: np.ndarray
    forget: np.ndarray
    population: np.ndarray
    member: np.ndarray
    logits: np.ndarray


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
        result = np.zeros(len(labels), bool)
        result[draw.choice(others, size, replace=False)] = True
        result[np.asarray(extra, int)] = True
        return result

    member = []
    for forget_rows in forget:
        others = np.setdiff1d(rest, forget_rows)
        member += [rows(ROWS, others) for _ in range(SHADOWS + 1)]
        member += [rows(ROWS, others, forget_rows), rows(2 * ROWS, others)]
    stream = population.from_membership(np.stack(member))
    ids = np.arange(len(member), dtype=np.int32)
    constants = {
        "learning_rate": np.full(len(ids), 0.1, np.float32),
        "weight_decay": np.full(len(ids), 5e-4, np.float32),
    }
    job = population.TrainingJob(
        bench.task, {"train": stream}, {"train": 50}, ids, keys.root(seed), constants,
        population.steps_per_epoch(stream, 50),
    )  # fmt: skip
    mapping, resident = experiments.member_mapping(bench, len(ids)), experiments.device_dataset(bench)
    for latest in population.train(job, resident, epochs, mapping):
        carry = latest
    variables = population.kept_variables(population.host(carry))
    blocks = population.predict(bench.task, variables, resident.inputs, np.arange(len(labels)), mapping)
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
def judged(make, world, audited, shadows=SHADOWS):
    """The verdict on one world with model `audited` in the unlearned model's place; its own rows are retained."""
    trained_worlds = make()
    forget_rows = trained_worlds.forget[world]
    retained = np.setdiff1d(np.flatnonzero(trained_worlds.member[world][audited]), forget_rows)
    rows = np.concatenate([forget_rows, retained])
    odds = out_model.log_odds(trained_worlds.logits[world], trained_worlds.labels)
    return judge.judge(judge.Answers(
        unlearned=odds[audited][rows], requested=np.arange(len(rows)) < len(forget_rows), shadows=odds[:shadows, rows],
        population=odds[audited][trained_worlds.population],
        population_shadows=odds[:shadows, trained_worlds.population],
        shadow_saw=trained_worlds.member[world][:shadows][:, rows],
    ))  # fmt: skip


def all_judged(make, audited, **more):
    return [judged(make, world, audited, **more) for world in range(len(make().forget))]


@pytest.mark.parametrize("make", [by_heart, clean])
@pytest.mark.parametrize("audited", [RETRAINED, LARGE], ids=["of shadow size", "of twice the rows"])
def test_p_values_of_rows_that_were_never_seen_keep_their_promise(make, audited):
    p = np.stack([judgement.tests.p_high for judgement in all_judged(make, audited)])
    result = calibration_test.calibration_test(
        p.reshape(-1), np.repeat(np.arange(len(p)), p.shape[1]), alpha=0.05, confidence_level=0.99
    )
    assert result.rate.low <= 0.05 and result.rate.value < 0.09
    low = np.stack([judgement.tests.p_low for judgement in all_judged(make, audited)])
    assert np.mean(low <= 0.05) < 0.05


def test_rows_that_are_still_trained_on_are_found_and_forgotten_ones_are_confirmed():
    roles = (ORIGINAL, RETRAINED)
    trained, retrained = (
        np.concatenate([judgement.codes for judgement in all_judged(by_heart, role)]) for role in roles
    )
    assert np.mean(trained == NOT_FORGOTTEN) > 0.3 and not (trained == FORGOTTEN).any()
    assert np.mean(retrained == FORGOTTEN) > 0.3 and np.mean(retrained == NOT_FORGOTTEN) < 0.01
    assert not np.isin(retrained, [SUPPRESSED]).any()


def test_requests_as_a_whole_are_told_apart():
    trained, retrained = (
        [judgement.group for judgement in all_judged(by_heart, name)] for name in (ORIGINAL, RETRAINED)
    )
    assert np.mean([judgement.p_high <= 0.05 for judgement in trained]) > 0.9
    assert np.mean([judgement.p_high <= 0.05 for judgement in retrained]) <= 0.1
    assert np.mean([judgement.p_in <= 0.05 for judgement in retrained]) > 0.9
    assert not any(judgement.is_suppressed for judgement in retrained)
    assert np.median([judgement.trace_left[0] for judgement in trained]) == pytest.approx(1, abs=0.2)
    assert np.median([judgement.trace_left[0] for judgement in retrained]) == pytest.approx(0, abs=0.1)


def test_two_shadows_are_enough_for_rows_and_one_gives_no_word_on_the_request():
    two = all_judged(by_heart, RETRAINED, shadows=2)
    codes = np.concatenate([judgement.codes for judgement in two])
    assert np.mean(codes == FORGOTTEN) > 0.2 and np.mean(codes == NOT_FORGOTTEN) < 0.02
    trained = np.concatenate([judgement.codes for judgement in all_judged(by_heart, ORIGINAL, shadows=2)])
    assert np.mean(trained == NOT_FORGOTTEN) > 0.03 and not (trained == FORGOTTEN).any()
    alone = judged(by_heart, 0, RETRAINED, shadows=1)
    assert alone.group.models <= 1 and alone.group.p_high == 1
