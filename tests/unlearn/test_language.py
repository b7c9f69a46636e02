"""Losses of unlearning under language models against the published implementation, and what must hold for any of them.

Golden files: open-unlearning (d3d7cf9) run in float64; `*_corrected` from a reference in PyTorch.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.unlearn.base.method import Samples
from jaxunlearn.unlearn.blocks import losses
from jaxunlearn.unlearn.language import language

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "methods_2026"


@functools.cache
def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def next_tokens(labels):
    """The published labels stand at their own tokens, -100 = none; ours at the token before, -1 = none."""
    shifted = np.concatenate([labels[:, 1:], np.full((len(labels), 1), -100)], 1)
    return np.where(shifted == -100, -1, shifted).astype(np.int32)


def batch_of(labels):
    return Samples(None, jnp.asarray(labels), jnp.ones(len(labels)), None, None)


def batches_of(file):
    return {name: batch_of(next_tokens(file[f"{name}_labels"])) for name in ("forget", "retain", "alternate")
            if f"{name}_labels" in file}  # fmt: skip


def retained(logits, batches):
    return losses.cross_entropy(logits["retain"], batches["retain"])


def npo(logits, batches, original, beta=0.1):
    reference = language.row_losses(original["forget"], batches["forget"].labels)
    return language.npo(logits["forget"], reference, batches["forget"], beta)


def dpo(logits, batches, original):
    def change(name):
        labels = batches[name].labels
        return language.row_losses(logits[name], labels) - language.row_losses(original[name], labels)

    return language.dpo(change("forget"), change("alternate"), batches["forget"], 0.1)


def kl(logits, batches, original, faithful):
    return language.divergence(logits["retain"], original["retain"], batches["retain"], faithful)


# name of the golden loss -> (logits, batches, logits of the original) -> loss
LOSSES = {
    "grad_ascent": lambda z, b, o: -losses.cross_entropy(z["forget"], b["forget"]),
    "grad_diff": lambda z, b, o: retained(z, b) - losses.cross_entropy(z["forget"], b["forget"]),
    "grad_diff_kl": lambda z, b, o: 0.7 * kl(z, b, o, True) - losses.cross_entropy(z["forget"], b["forget"]),
    "kl_corrected": lambda z, b, o: kl(z, b, o, False),
    "npo": lambda z, b, o: npo(z, b, o) + retained(z, b),
    "npo_kl": lambda z, b, o: npo(z, b, o, 0.5) + kl(z, b, o, True),
    "simnpo": lambda z, b, o: 0.125 * language.simnpo(z["forget"], b["forget"], 4.5, 0.0) + retained(z, b),
    "simnpo_delta": lambda z, b, o: language.simnpo(z["forget"], b["forget"], 2.5, 0.5),
    "dpo": lambda z, b, o: dpo(z, b, o) + retained(z, b),
    "wga": lambda z, b, o: language.reweighted(z["forget"], b["forget"], 1.0) + retained(z, b),
    "wga_beta5": lambda z, b, o: language.reweighted(z["forget"], b["forget"], 5.0),
    "satimp": lambda z, b, o: 0.1 * language.reweighted(z["forget"], b["forget"], 5.0, 1.0) + retained(z, b),
    "ceu": lambda z, b, o: language.ce_u(z["forget"], b["forget"]),
    "ceu_all": lambda z, b, o: language.ce_u(z["forget"], b["forget"], 0),
    "pdu": lambda z, b, o: language.peakedness(z["forget"], b["forget"], True) + retained(z, b) - 0.3,
    "pdu_corrected_forget": lambda z, b, o: language.peakedness(z["forget"], b["forget"]),
    "undial": lambda z, b, o: language.undial(z["forget"], o["forget"], b["forget"], 10.0, True),
    "undial_corrected": lambda z, b, o: language.undial(z["forget"], o["forget"], b["forget"], 10.0),
}  # fmt: skip
CASES = [("llm_losses", name) for name in LOSSES if name != "undial"] + [
    ("llm_losses_v120", name) for name in ("undial", "undial_corrected")
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("file", "name"), CASES)
def test_losses_and_gradients_equal_the_published_ones(file, name, dtype):
    arrays, atol = golden(file), 1e-5 if dtype == "float32" else 1e-9
    with jax.enable_x64(dtype == "float64"):
        batches = batches_of(arrays)
        logits = {key: jnp.asarray(arrays[f"{key}_logits"], dtype) for key in batches}
        original = {key: jnp.asarray(arrays[f"ref_{key}_logits"], dtype) for key in batches
                    if f"ref_{key}_logits" in arrays}  # fmt: skip
        loss, gradients = jax.value_and_grad(LOSSES[name])(logits, batches, original)
    np.testing.assert_allclose(loss, arrays[f"{name}.loss"], rtol=atol, atol=atol)
    assert f"{name}.grad_forget" in arrays or f"{name}.grad_retain" in arrays
    for key in gradients:
        np.testing.assert_allclose(gradients[key], arrays.get(f"{name}.grad_{key}", 0.0), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["rmu", "rmu_corrected"])
def test_misdirection_equals_the_published_one(name, dtype):
    file, atol = golden("llm_losses"), 1e-5 if dtype == "float32" else 1e-9
    with jax.enable_x64(dtype == "float64"):
        batches = batches_of(file)
        control = language.direction(jnp.asarray(file["rmu.uniform"], dtype)[0, 0], float(file["rmu.coefficient"]))
        np.testing.assert_allclose(control, file["rmu.control"][0, 0], rtol=0, atol=atol)
        original = jnp.asarray(file["rmu.ref_activations_retain"], dtype)

        def loss(forget, retain):
            away = language.misdirection(forget, control, batches["forget"], name == "rmu")
            return away + language.misdirection(retain, original, batches["retain"], name == "rmu")

        activations = [jnp.asarray(file[f"rmu.activations_{stream}"], dtype) for stream in ("forget", "retain")]
        value, gradients = jax.value_and_grad(loss, (0, 1))(*activations)
    np.testing.assert_allclose(value, file[f"{name}.loss"], rtol=0, atol=atol)
    for stream, gradient in zip(("forget", "retain"), gradients, strict=True):
        np.testing.assert_allclose(gradient, file[f"{name}.grad_{stream}"], rtol=0, atol=atol)


def random_case(rows=4, length=6, vocabulary=120, seed=0):
    """Logits, logits of the original, hidden activations, and labels of random answers behind random prompts."""
    rng = np.random.default_rng(seed)
    logits, original = rng.normal(size=(2, rows, length, vocabulary)).astype(np.float32)
    hidden = rng.normal(size=(rows, length, 3)).astype(np.float32)
    labels = rng.integers(0, vocabulary, (rows, length)).astype(np.int32)
    places = np.arange(length)
    start, end = rng.integers(0, 3, (rows, 1)), rng.integers(4, length, (rows, 1))
    return logits, original, hidden, np.where((places >= start) & (places < end), labels, -1)


# name -> (logits, logits of the original, hidden activations, batch, faithful) -> loss
FORMS = {
    "npo": lambda z, o, h, b, f: language.npo(z, language.row_losses(o, b.labels), b, 0.1),
    "simnpo": lambda z, o, h, b, f: language.simnpo(z, b, 4.5, 0.1, f),
    "dpo": lambda z, o, h, b, f: language.dpo(
        language.row_losses(z, b.labels), language.row_losses(o, b.labels), b, 0.1
    ),
    "reweighted": lambda z, o, h, b, f: language.reweighted(z, b, 5.0, 1.0),
    "ce_u": lambda z, o, h, b, f: language.ce_u(z, b),
    "undial": lambda z, o, h, b, f: language.undial(z, o, b, 10.0, f),
    "divergence": lambda z, o, h, b, f: language.divergence(z, o, b, f),
    "spread": lambda z, o, h, b, f: language.peakedness(z, b, f),
    "misdirection": lambda z, o, h, b, f: language.misdirection(h, jnp.ones(3), b, f),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_rows_without_labels_and_rows_of_padding_contribute_nothing(name):
    """A text without labels, and one of weight 0, change neither the loss nor any gradient."""
    logits, original, hidden, labels = random_case()
    is_counted = jnp.array([True, False, True, False])
    weights = jnp.array([1.0, 1.0, 1.0, 0.0])
    labels = jnp.where(jnp.arange(4)[:, None] == 1, -1, labels)
    everything = Samples(None, labels, weights, None, None)
    alone = Samples(None, labels[is_counted], weights[is_counted], None, None)

    def loss(logits, hidden, batch, keep):
        return FORMS[name](logits, original[keep], hidden, batch, False)

    value, gradients = jax.value_and_grad(loss, (0, 1))(logits, hidden, everything, np.arange(4))
    expected, only = jax.value_and_grad(loss, (0, 1))(logits[is_counted], hidden[is_counted], alone, np.array([0, 2]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.abs(only[0]).max() > 0 or np.abs(only[1]).max() > 0
    for actual, gradient in zip(gradients, only, strict=True):
        np.testing.assert_array_equal(actual[~is_counted], 0.0)
        np.testing.assert_allclose(actual[is_counted], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", FORMS)
def test_nothing_to_forget_is_no_loss_and_no_gradient(name):
    logits, original, hidden, labels = random_case()
    batch = batch_of(np.full_like(labels, -1))
    value, gradient = jax.value_and_grad(lambda z: FORMS[name](z, original, hidden, batch, False))(logits)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize(("name", "is_whole"), [("divergence", True), ("undial", True), ("misdirection", False)])
def test_faithful_forms_are_the_corrected_ones_where_the_trap_has_no_effect(name, is_whole):
    """Texts that are answers to their end have no position too many; rows of one length divide alike."""
    logits, original, hidden, labels = random_case()
    labels = np.maximum(labels, 0)
    if name == "undial":
        labels[:, -1] = -1  # the last position is left out of both
    if not is_whole:
        labels[:, :2] = -1
    batch = batch_of(labels)
    actual, expected = (FORMS[name](logits, original, hidden, batch, faithful) for faithful in (True, False))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_faithful_forms_differ_where_a_trap_is():
    """The extra token of a text without prompt, the positions of PDU one too late, prompts and padding."""
    logits, original, hidden, labels = random_case()
    labels[0, 0] = 7  # no prompt
    batch = batch_of(labels)
    for name in ("simnpo", "spread", "divergence", "undial", "misdirection"):
        actual, expected = (float(FORMS[name](logits, original, hidden, batch, faithful)) for faithful in (True, False))
        assert abs(actual - expected) > 1e-4 * abs(expected), name


def test_row_losses_are_sums_of_negative_log_softmax():
    logits, _, _, labels = random_case()
    chances = np.asarray(jax.nn.softmax(logits, -1))
    label_chances = np.take_along_axis(chances, np.maximum(labels, 0)[..., None], -1)[..., 0]
    expected = np.sum(np.where(labels >= 0, -np.log(label_chances), 0.0), -1)
    np.testing.assert_allclose(language.row_losses(logits, labels), expected, rtol=1e-5)
