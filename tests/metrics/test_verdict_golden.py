"""The verdict of the reference implementation, file by file, number by number."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import judge, out_model, rows
from tests.scenarios import worlds

GOLDEN = Path(__file__).parents[1] / "golden" / "verdict"
FILES = sorted(path.stem for path in GOLDEN.glob("*.npz") if path.stem != "signals")
INPUTS = {"population_unlearned": "population", "shadow_saw": "shadow_saw", "person": "person"}


def answers(file):
    names = ("unlearned", "requested", "shadows", "population_shadows", "original", "population_original", *INPUTS)
    return judge.Answers(**{INPUTS.get(name, name): file[name] for name in names if name in file})


def flat(result):
    """Everything under the names of the files."""
    tests, group, model, assumptions = result.tests, result.group, result.model, result.checks
    values = {
        "p_high": tests.p_high, "p_low": tests.p_low, "p_in": tests.p_in, "z": tests.z,
        "trace": np.nan_to_num(tests.trace), "nearer": tests.nearer, "codes": result.codes,
        "g_high": group.p_high, "g_low": group.p_low, "g_narrow": group.p_narrow, "g_in": group.p_in,
        "g_mean": group.mean, "g_se": group.error, "kept": group.trace_left, "group_suppressed": group.is_suppressed,
        "slope": model.raw_slope, "offset": model.offset, "correlation": model.correlation,
        "retained_auc": assumptions.retained_rank, "chosen_place": assumptions.selection_rank,
        "refused": [bool(assumptions.refusal), bool(assumptions.forgotten_refusal)], "identical": result.is_identical,
        "edited": result.is_edited, "power_not": result.power_not, "power_forgotten": result.power_forgotten,
    }  # fmt: skip
    if result.persons:
        values["person_high"] = [tests_of_person.p_high for tests_of_person, _ in result.persons.values()]
        values["person_not"] = [is_in for _, is_in in result.persons.values()]
    return values


@pytest.mark.parametrize("name", FILES)
def test_every_number_of_the_reference(name):
    file = dict(np.load(GOLDEN / f"{name}.npz"))
    values = flat(judge.judge(answers(file)))
    compared = 0
    for key, expected in file.items():
        if not key.startswith("out_"):
            continue
        value = np.asarray(values[key[4:]], np.float64)
        if key == "out_power_forgotten":  # the reference's exact rule is not known
            assert abs(value - expected) <= 0.5
        else:
            np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9, err_msg=key)
        compared += 1
    assert compared >= 18
    absent = {key for key, value in values.items() if f"out_{key}" not in file and value is not None}
    assert all(np.isnan(np.asarray(values[key], float)).all() for key in absent), absent


def logits_of(log_odds):
    """Returns float32 logits [..., 4] of label 0 with these log-odds; equal log-odds stay equal."""
    others = np.array([1.3, -0.4, 2.2])
    true_logits = np.asarray(log_odds, np.float64) + np.logaddexp.reduce(others)
    return np.concatenate([true_logits[..., None], np.broadcast_to(others, (*true_logits.shape, 3))], -1).astype(
        np.float32
    )


def test_inputs_computed_in_float32_give_the_same_verdicts():
    """On an accelerator, log-odds come from logits in float32: p-values within two ranks, 99 % of verdicts equal."""

    @jax.jit
    def in_float32(logits):
        return logits[..., 0] - jax.nn.logsumexp(logits[..., 1:], axis=-1)

    names = ("unlearned", "shadows", "population", "population_shadows", "original", "population_original")
    equal = []
    for name in FILES:
        world = answers(dict(np.load(GOLDEN / f"{name}.npz")))
        logits = {key: logits_of(getattr(world, key)) for key in names if getattr(world, key) is not None}
        exact = {key: out_model.log_odds(z, np.zeros(z.shape[-2], int)) for key, z in logits.items()}
        rounded = {key: np.asarray(in_float32(jnp.asarray(z))) for key, z in logits.items()}
        assert all(values.dtype == np.float32 for values in rounded.values())
        assert any((rounded[key] != exact[key]).any() for key in rounded)
        expected, result = (judge.judge(world._replace(**values)) for values in (exact, rounded))
        _, population, retained = expected.checks.sizes
        compared = {"p_high": population, "p_low": min(population, int(np.clip(population // 4, *rows.NEAR_OUT))),
                    "p_in": rows.number_of_neighbours(retained)}  # fmt: skip
        for key, size in compared.items():
            difference = np.abs(getattr(result.tests, key) - getattr(expected.tests, key))
            assert difference.max() <= 2 / (size + 1), (name, key)
        equal.append(result.codes == expected.codes)
    assert np.mean(np.concatenate(equal)) >= 0.99


def test_signals_of_the_reference():
    file = np.load(GOLDEN / "signals.npz")
    log_odds = out_model.log_odds(file["logits"], file["labels"])
    np.testing.assert_allclose(log_odds, file["out_log_odds"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(out_model.soft(log_odds), file["out_soft"], rtol=0, atol=1e-9)
    by_probability = worlds.log_odds_of_probabilities(file["probabilities"], file["labels"])
    np.testing.assert_allclose(by_probability, file["out_log_odds_of_probabilities"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(decision.benjamini_hochberg(file["p"].astype(float)).rejected, file["out_bh"])
