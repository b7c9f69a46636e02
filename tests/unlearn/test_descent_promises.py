"""Fine-tuning, last layers, ascent, NegGrad+, L1 and pruning: what each of them promises."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxunlearn import errors, models, trees
from jaxunlearn.models.layers import blocks
from jaxunlearn.population import StepInfo
from jaxunlearn.settings import ModelSettings
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import Samples, StepContext
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import descent, sparsity

NOW = StepContext(None, None, None, {}, {}, {}, None, None)


def plain_batch(labels):
    return Samples(None, labels, np.ones(len(labels), np.float32), None, None)


def outcomes(job):
    """Variables of all members."""
    *_, last = running.run(job)
    return [trees.take(last.outcome.variables, member) for member in range(len(job.member_ids))]


def leaves_equal(actual, expected):
    return [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True)]


# Objectives


def test_paired_and_mixed_objectives_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 3, 7)
    is_forget = np.array([1, 0, 0, 1, 0, 1, 0], bool)
    rows = np.log(np.exp(z).sum(1)) - z[np.arange(7), y]
    outputs = {"retain": z[:4], "forget": z[4:], "all": z}
    batch = {"retain": plain_batch(y[:4]), "forget": plain_batch(y[4:]),
             "all": plain_batch(y)._replace(is_forget=is_forget)}  # fmt: skip
    actual = jax.jit(lambda z, b: (descent.paired(0.7)(z, b, NOW), descent.mixed(0.2)(z, b, NOW)))
    pair, mix = actual(outputs, batch)
    np.testing.assert_allclose(pair, 0.7 * rows[:4].mean() - 0.3 * rows[4:].mean(), rtol=1e-5)
    np.testing.assert_allclose(mix, rows[~is_forget].mean() - 0.2 * rows[is_forget].mean(), rtol=1e-5)
    for flag, expected in ((True, -0.2 * rows.mean()), (False, rows.mean())):
        batch["all"] = batch["all"]._replace(is_forget=np.full(7, flag))
        np.testing.assert_allclose(actual(outputs, batch)[1], expected, rtol=1e-5)


# What the methods promise, on a network with normalisation


def blobs(classes=4, rows=24):
    """Rows of overlapping classes: (x [rows, 6], y)."""
    rng = np.random.default_rng(0)
    y = np.arange(rows) % classes
    return (2.0 * np.eye(classes, 6)[y] + rng.normal(size=(rows, 6))).astype(np.float32), y.astype(np.int32)


NET = nets.network(nets.Tiny(4, 8, norm=True), (6,))
RETAIN, FORGET = slice(6, None), slice(0, 6)


def make_job(method, start, **also):
    x, y = blobs()
    return nets.make_job(NET, method, start, (x[RETAIN], y[RETAIN]), (x[FORGET], y[FORGET]), batch=8, **also)


@functools.cache
def trained():
    """A network trained on all rows, as flax variables."""
    params, rest = network.init(NET, jax.random.key(1))
    everything = make_job(descent.finetune(0.1, 20), {"params": params, **rest})
    return nets.outcome(everything._replace(retain=[np.arange(24)]))


ALL = {
    "finetune": descent.finetune,
    "cf_k": functools.partial(descent.cf_k, k=1),
    "eu_k": functools.partial(descent.eu_k, k=1),
    "ascent": functools.partial(descent.ascent, lr=0.03),
    "ascent_fresh": functools.partial(descent.ascent, source="fresh", lr=0.03),
    "negrad_paired": functools.partial(descent.negrad_plus, alpha=0.8),
    "negrad_mixed": functools.partial(descent.negrad_plus, form="mixed", lam=0.1),
    "l1_sparse": sparsity.l1_sparse,
    "ft_prune": functools.partial(sparsity.ft_prune, sparsity=0.4, warmup=2),
}
CASES = ("plain", "one_forget_sample", "nothing_retained")


@functools.cache
def unlearned(name):
    """Case -> variables after a method of ALL, from the trained network; the cases are members of one population."""
    job = make_job(ALL[name](epochs=5), trained(), members=3)
    retain, forget = job.retain[0], job.forget[0]
    job = job._replace(retain=[retain, np.arange(23), retain[:0]], forget=[forget, np.array([23]), forget])
    return dict(zip(CASES, outcomes(job), strict=True))


@jax.jit
def row_losses(variables):
    x, y = blobs()
    logits, _ = network.forward(NET, variables["params"], {"batch_stats": variables["batch_stats"]}, jnp.asarray(x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


def loss_on(variables, part):
    return float(np.mean(row_losses(variables)[{"retain": RETAIN, "forget": FORGET}[part]]))


@pytest.mark.parametrize("name", ALL)
def test_every_method_moves_and_survives_small_sets(name):
    actual = unlearned(name)
    for case in CASES:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual[case])), case
    for case in CASES[:2]:
        assert not all(leaves_equal(actual[case]["params"], trained()["params"])), case
    if not (name.startswith("ascent") or name in ("negrad_mixed", "eu_k", "ft_prune")):
        assert all(leaves_equal(actual["nothing_retained"], trained()))


@pytest.mark.parametrize("name", ["finetune", "cf_k", "ascent_fresh", "negrad_mixed"])
def test_no_epochs_change_nothing(name):
    assert all(leaves_equal(nets.outcome(make_job(ALL[name](epochs=0), trained())), trained()))


def test_no_epochs_and_no_sparsity_change_nothing():
    assert all(leaves_equal(nets.outcome(make_job(sparsity.ft_prune(epochs=0), trained())), trained()))


@pytest.mark.parametrize("name", ALL)
def test_builders_take_traced_hyperparameters(name):
    arguments = inspect.signature(ALL[name]).parameters.items()
    floats = {name: float(parameter.default) for name, parameter in arguments if isinstance(parameter.default, float)}
    assert {"lr", "weight_decay", "momentum"} <= floats.keys()
    params = trained()["params"]

    def change(hyper):
        *_, phase = (phase for phase in ALL[name](**hyper).phases if phase.gradient_steps)
        step_info = StepInfo(jnp.int32(0), jnp.float32(0.0), jnp.int32(0), jnp.int32(1))
        mask = jax.tree.map(jnp.ones_like, params)
        state = phase.transform.init(params)
        return phase.transform.update(params, state, params, step_info=step_info, reference_params=params, mask=mask)[0]

    for actual, leaf in zip(jax.tree.leaves(jax.eval_shape(change, floats)), jax.tree.leaves(params), strict=True):
        assert actual.shape == leaf.shape


def test_ascent_forgets_the_unrelated_one_hardly_and_finetuning_keeps():
    before = {part: loss_on(trained(), part) for part in ("retain", "forget")}
    rise = {
        name: {part: loss_on(unlearned(name)["plain"], part) - before[part] for part in before}
        for name in ("finetune", "ascent", "ascent_fresh")
    }
    assert rise["ascent"]["forget"] > 0.1 * before["forget"]
    assert abs(rise["ascent_fresh"]["forget"]) < rise["ascent"]["forget"]
    assert rise["finetune"]["retain"] < 0


def test_negrad_forgets_more_with_a_smaller_alpha_and_keeps_the_rest():
    # Batches of six rows are too few for statistics of their own: the running ones are used.
    job = make_job(
        lambda hyper: descent.negrad_plus(**hyper), trained(), bn="frozen", members=2,
        hyper={"alpha": np.float32([0.95, 0.5])},
    )  # fmt: skip
    mild, strong = ({part: loss_on(variables, part) for part in ("retain", "forget")} for variables in outcomes(job))
    assert loss_on(trained(), "forget") < mild["forget"] < strong["forget"]
    assert max(mild["retain"], strong["retain"]) < loss_on(trained(), "retain")


def test_the_unrelated_ascent_leaves_the_statistics():
    assert all(leaves_equal(unlearned("ascent_fresh")["plain"]["batch_stats"], trained()["batch_stats"]))


# Last layers


@pytest.mark.parametrize("name", ["cf_k", "eu_k"])
def test_only_the_last_layer_moves(name):
    for case in CASES[:2]:
        actual = unlearned(name)[case]["params"]
        for layer in ("Dense_0", "BatchNorm_0"):
            assert all(leaves_equal(actual[layer], trained()["params"][layer]))
        assert not any(leaves_equal(actual["Dense_1"], trained()["params"]["Dense_1"]))


def test_eu_k_draws_the_last_layers_with_their_statistics():
    start = trained()
    head, everything = (nets.outcome(make_job(descent.eu_k(epochs=0, k=k), start, bn="frozen")) for k in (1, 2))
    kernel, old = head["params"]["Dense_1"]["kernel"], trained()["params"]["Dense_1"]["kernel"]
    assert np.abs(kernel).max() <= 8**-0.5 and not np.isclose(kernel, old).any()
    assert all(leaves_equal(head["batch_stats"], trained()["batch_stats"]))
    assert not np.all(trained()["batch_stats"]["BatchNorm_0"]["mean"] == 0)
    assert np.all(everything["batch_stats"]["BatchNorm_0"]["mean"] == 0)
    np.testing.assert_allclose(everything["params"]["BatchNorm_0"]["scale"], 1.0, atol=1e-6)
    assert loss_on(unlearned("eu_k")["plain"], "retain") < 0.7 * loss_on(head, "retain")


@pytest.mark.parametrize("name, shape, k, expected, leaves", [
    ("cnn", (8, 8, 1), 2, [("Dense_0",), ("Dense_1",)], 4),
    ("resnet18", (32, 32, 3), 1, [("head",)], 2),
    ("vit", (32, 32, 3), 1, [("head",)], 2),
])  # fmt: skip
def test_last_layers_are_those_called_last(name, shape, k, expected, leaves):
    net = nets.network(models.build(ModelSettings(name=name, width=0 if name == "vit" else 4), 10), shape)
    assert list(descent.last_layers(net, k)) == expected
    params = jax.eval_shape(lambda: network.init(net, jax.random.key(0))[0])
    assert len(descent.all_but_last(net, k)) == len(jax.tree.leaves(params)) - leaves
    assert descent.all_but_last(net, 99) == ()


class Chain(nn.Module):
    """Three dense layers with normalisations between them."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        for width in (5, 4):
            inputs = nn.relu(blocks.BatchNorm()(blocks.Dense(width)(inputs), train, mask))
        return blocks.Dense(self.num_classes)(inputs)


def test_a_normalisation_goes_with_the_layer_before_it():
    net = nets.network(Chain(), (6,))
    assert descent.last_layers(net, 1) == (("Dense_2",),)
    assert descent.last_layers(net, 2) == (("Dense_1",), ("BatchNorm_1",), ("Dense_2",))
    assert descent.last_layers(net, 3) == descent.last_layers(net, 9) == ((),)


@pytest.mark.parametrize("build, wrong, message", [
    (descent.cf_k, {"k": 0}, "k = 0: must be at least 1"), (descent.eu_k, {"k": 0}, "k = 0: must be at least 1"),
    (descent.finetune, {"schedule": "cosin"}, "Did you mean 'cosine'"),
    (descent.finetune, {"optimizer": "sdg"}, "Did you mean 'sgd'"),
    (descent.negrad_plus, {"form": "pair"}, "Did you mean 'paired'"),
    (descent.ascent, {"source": "selves"}, "Did you mean 'self'"),
    (descent.ascent, {"compat": "faithfull"}, "Did you mean 'faithful'"),
])  # fmt: skip
def test_wrong_settings_are_refused(build, wrong, message):
    with pytest.raises(errors.ConfigError, match=message):
        build(**wrong)


# Sparsity


def kernels(params):
    return np.concatenate([np.ravel(leaf) for path, leaf in trees.named_leaves(params) if path.endswith("kernel")])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pruning_takes_the_smallest_entries_of_all_kernels_together(share):
    params = trained()["params"]
    prune, keep = jax.jit(sparsity.set_smallest_to_zero), jax.jit(sparsity.prune_mask)
    actual = prune(params, share)
    before, after = kernels(params), kernels(actual)
    order, count = np.argsort(np.abs(before)), round(share * len(before))
    assert np.all(after[order[:count]] == 0) and np.array_equal(after[order[count:]], before[order[count:]])
    for layer, name in (("Dense_0", "bias"), ("BatchNorm_0", "scale"), ("BatchNorm_0", "bias")):
        np.testing.assert_array_equal(actual[layer][name], params[layer][name])
    assert all(leaves_equal(keep(actual, share), keep(params, share)))


def test_pruned_entries_stay_zero_while_the_others_are_trained():
    after, cut = (
        kernels(unlearned("ft_prune")["plain"]["params"]),
        kernels(sparsity.set_smallest_to_zero(trained()["params"], 0.4)),
    )
    np.testing.assert_array_equal(after == 0, cut == 0)
    assert np.sum(cut == 0) == round(0.4 * len(cut))
    assert not np.any(after[cut != 0] == cut[cut != 0])


def test_the_l1_penalty_falls_and_ends_where_it_is_told_to():
    params = trained()["params"]

    def change(epoch, no_l1_epochs):
        (phase,) = sparsity.l1_sparse(1.0, 4, 0.5, no_l1_epochs, 0.0, 0.0).phases
        step_info = StepInfo(jnp.int32(epoch), jnp.float32(0.0), jnp.int32(0), jnp.int32(1))
        nothing = jax.tree.map(jnp.zeros_like, params)
        return phase.transform.update(nothing, phase.transform.init(params), params, step_info=step_info)[0]

    for no_l1_epochs, expected in ((0, (0.5, 0.375, 0.25, 0.125)), (2, (0.5, 0.25, 0.0, 0.0)), (4, (0.0,) * 4)):
        for epoch, coefficient in enumerate(expected):
            for leaf, old in zip(*map(jax.tree.leaves, (change(epoch, no_l1_epochs), params)), strict=True):
                np.testing.assert_allclose(leaf, -coefficient * np.sign(old), atol=1e-6)
