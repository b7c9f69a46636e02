"""Fisher forgetting against the published implementations, with their noise given."""

import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxunlearn import errors
from jaxunlearn.models.layers import blocks
from jaxunlearn.unlearn.methods.importance import fisher

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}


class Small(nn.Module):
    """Convolution without bias or padding - BatchNorm - ReLU - mean - dense: the conformal golden file's network."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        maps = blocks.Conv(4, padding=0, use_bias=False)(blocks.hide(inputs, mask))
        maps = nn.relu(blocks.BatchNorm()(maps, train, mask))
        return blocks.Dense(self.num_classes)(maps.mean((1, 2)))


SMALL = {"conv": "Conv_0", "bn": "BatchNorm_0", "fc": "Dense_0"}


def golden(topic, name):
    return np.load(GOLDEN / topic / f"{name}.npz")


def given(monkeypatch, draws, gone=None):
    """The normal draws are these; the removed class is this one, as files count its rows among the retained ones."""
    monkeypatch.setattr(optax.tree, "random_like", lambda key, params: jax.tree.map(jnp.asarray, draws))
    if gone is not None:
        monkeypatch.setattr(fisher, "removed_classes", lambda member: jnp.arange(member.network.num_classes) == gone)


def assert_relative(actual, expected, rtol, atol=1e-12):
    for (path, a), (_, b) in zip(nets.trees.named_leaves(actual), nets.trees.named_leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=path)


@pytest.mark.parametrize("suffix", ["", "_forget_class"])
def test_the_iam_seed(suffix, monkeypatch):
    file = golden("iam_methods", f"fisher_mlp{suffix}")
    names = nets.LAYERS["iam_mlp"]
    start = nets.variables(file, "init", names)
    net = nets.network(nets.Tiny(5, 6, activation="tanh"), (8,))
    retain = (file["x"], file["y"])
    gone = int(file["forget_class"])
    forget = (file["x"][:1], file["y"][:1] if gone < 0 else np.asarray([gone]))
    assert gone not in file["y"]
    given(monkeypatch, nets.variables(file, "noise", names)["params"])
    for kind, tag in (("empirical", "ewc"), ("expected", "expected")):
        method = fisher.fisher(float(file["alpha"]), kind, batch=4, compat="faithful")
        after, actual = nets.begun(nets.make_job(net, method, start, retain, forget))
        assert_relative(actual["information"], nets.variables(file, f"fisher_{tag}", names)["params"], 1e-5)
        mean, variance = actual["noise"]
        assert_relative(mean, nets.variables(file, f"mu_{tag}", names)["params"], 0)
        assert_relative(variance, nets.variables(file, f"var_{tag}", names)["params"], 1e-5)
        if kind == "empirical":
            nets.assert_close(after, nets.variables(file, "after", names), 1e-6)


def flax_layout(array):
    return jnp.asarray(
        {4: lambda a: a.transpose(2, 3, 1, 0), 2: lambda a: a.T, 1: lambda a: a}[array.ndim](array), jnp.float32
    )


@pytest.mark.parametrize("suffix", ["", "_class"])
def test_the_rule_on_tensors_of_every_rank(suffix):
    file = golden("iam_methods", f"fisher_mean_var{suffix}")
    classes, gone = int(file["num_classes"]), int(file["forget_class"])
    theta, information = (
        [flax_layout(file[f"{name}{i}"]) for i in range(int(file["n"]))] for name in ("theta", "fisher")
    )
    net = types.SimpleNamespace(num_classes=classes)
    is_head = fisher.heads(types.SimpleNamespace(network=net, params=theta), "golatkar", "faithful")
    for i, tensor in enumerate(theta):
        removed = jnp.arange(classes) == gone
        mean, variance = fisher.noise_of(tensor, information[i], is_head[i], removed, float(file["alpha"]))
        np.testing.assert_array_equal(mean, flax_layout(file[f"mu{i}"]))
        np.testing.assert_allclose(variance, flax_layout(file[f"var{i}"]), rtol=1e-5)


@pytest.mark.parametrize("split", ["random", "class"])
def test_the_conformal_unlearning_code(split, monkeypatch):
    file = golden("conformal", "fisher_forgetting")
    start = nets.variables(file, f"{split}_init", SMALL)
    net = nets.network(Small(), (5, 5, 3))
    x, y = file[f"{split}_x"].transpose(0, 2, 3, 1), file[f"{split}_y"]
    given(monkeypatch, nets.variables(file, f"{split}_eps", SMALL)["params"], 1 if split == "class" else None)
    method = fisher.fisher(1e-6, variant="conformal", batch=4)
    after, actual = nets.begun(nets.make_job(net, method, start, (x, y), (x[:1], y[:1])))
    assert_relative(actual["information"], nets.variables(file, f"{split}_grad2", SMALL)["params"], 1e-5, 1e-6)
    nets.assert_close(after, nets.variables(file, f"{split}_final", SMALL), 1e-5, ("params",))
    nets.assert_close(after, start, 0.0, ("batch_stats",))


@pytest.mark.parametrize("split", ["classwise", "samplewise"])
def test_over_unlearning_and_replay(split, monkeypatch):
    file = golden("our", "fisher")
    start, net = nets.variables(file, "init", DENSE, "__"), nets.network(nets.Tiny(4, 3, activation="tanh"), (4,))
    retain, forget = ((file[f"X_{name}"], file[f"y_{name}"]) for name in ("retain", "forget"))
    gone = int(file["forget_class"]) if split == "classwise" else None
    given(monkeypatch, nets.variables(file, "noise", DENSE, "__")["params"], gone)
    method = fisher.fisher(float(file["fisher_alpha"]), variant="conformal", batch=2)
    after, actual = nets.begun(nets.make_job(net, method, start, retain, forget))
    # The file's fisher_gradacc, the gradients themselves summed up, is of no method here.
    assert_relative(actual["information"], nets.variables(file, "fisher_diag", DENSE, "__")["params"], 0, 1e-5)
    nets.assert_close(after, nets.variables(file, f"fisher_{split}", DENSE, "__"), 1e-5)


def test_optml(monkeypatch):
    file = golden("conformal", "optml_methods")
    start, net = nets.variables(file, "init", DENSE), nets.network(nets.Tiny(4, 8), (6,))
    retain, forget = ((file[f"x_{name}"], file[f"y_{name}"]) for name in ("retain", "forget"))
    given(monkeypatch, nets.variables(file, "fisher_eps", DENSE)["params"])
    faithful, corrected = (
        nets.begun(nets.make_job(net, fisher.fisher(1e-9, "empirical", "optml", compat=compat), start, retain, forget))
        for compat in ("faithful", "corrected")
    )
    assert_relative(faithful[1]["information"], nets.variables(file, "fisher_info", DENSE)["params"], 1e-5, 1e-6)
    nets.assert_close(faithful[0], nets.variables(file, "fisher_final", DENSE), 1e-6)
    # Faithful asks for a last axis (PyTorch's order) of length 10; corrected for the head.
    (_, variance), (_, as_published) = (actual["noise"] for _, actual in (corrected, faithful))
    np.testing.assert_allclose(variance["Dense_1"]["kernel"], 100 * as_published["Dense_1"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(variance["Dense_0"]["kernel"], as_published["Dense_0"]["kernel"])


def problem(classes=3, rows=11, seed=0):
    """A tiny dense net with data: (network, variables, x, y)."""
    rng = np.random.default_rng(seed)
    net = nets.network(nets.Tiny(classes, 5), (4,))
    x, y = rng.normal(size=(rows, 4)).astype(np.float32), (np.arange(rows) % classes).astype(np.int32)
    return net, {"params": net.module.init(jax.random.key(seed), x[:1])["params"]}, x, y


def test_information_by_batches_equals_a_loop():
    net, start, x, y = problem()
    total, batches = None, [x[0:4], x[4:8]]
    for batch in batches:
        for c in range(3):

            def value(params, batch=batch, c=c):
                return jnp.mean(jax.nn.log_softmax(net.module.apply({"params": params}, batch))[:, c])

            weight = jnp.mean(jax.nn.softmax(net.module.apply(start, batch))[:, c])
            squares = jax.tree.map(lambda g, weight=weight: weight * g**2 / 2, jax.grad(value)(start["params"]))
            total = squares if total is None else jax.tree.map(jnp.add, total, squares)
    method = fisher.fisher(kind="batch", batch=4)
    job = nets.make_job(net, method, start, (x[:8], y[:8]), (x[8:], y[8:]))
    assert_relative(nets.estimated(job)["information"], total, 1e-4)


def test_information_does_not_depend_on_batches_nor_on_their_cuts(monkeypatch):
    net, start, x, y = problem()
    actual = []
    for batch, at_once in ((5, 5), (64, 3)):
        monkeypatch.setattr(fisher, "rows_at_once", lambda params, size, at_once=at_once: at_once)
        method = fisher.fisher(batch=batch)
        actual.append(nets.estimated(nets.make_job(net, method, start, (x[3:], y[3:]), (x[:3], y[:3])))["information"])
    assert_relative(actual[1], actual[0], 1e-5)


def test_the_memory_of_gradients_per_row_is_bounded():
    tree = lambda size: {"kernel": jax.ShapeDtypeStruct((size,), jnp.float32)}  # noqa: E731
    assert fisher.rows_at_once(tree(100), 64) == 64
    assert fisher.rows_at_once(tree(2**16), 64) == 16
    assert fisher.rows_at_once(tree(11_000_000), 64) == 8
    assert fisher.rows_at_once(tree(2**28), 64) == 1


def moved_heads(wipe):
    """Head kernels, |after - before|, of two members: all rows of class 1 forgotten, and six rows of all classes."""
    net, start, x, y = problem(rows=60)
    gone, few = np.flatnonzero(y == 1), np.arange(6)
    job = nets.make_job(
        net, fisher.fisher(1e-9, wipe_removed_class=wipe), start, (x[1:], y[1:]), (x[:1], y[:1]), members=2
    )
    data = job.data._replace(inputs=x, labels=y)
    kept = [np.setdiff1d(np.arange(60), rows) for rows in (gone, few)]
    *_, last = nets.running.run(job._replace(data=data, forget=[gone, few], retain=kept))
    before = start["params"]["Dense_1"]["kernel"]
    after = last.outcome.variables["params"]["Dense_1"]["kernel"]
    return before, after, np.abs(after - before)


def test_the_outputs_of_a_class_without_retained_rows_are_wiped_and_no_others():
    before, after, moved = moved_heads(True)
    assert np.abs(before[:, 1]).max() > 6 * 0.032
    assert np.abs(after[0][:, 1]).max() < 6 * 0.032
    assert moved[0][:, [0, 2]].max() < 6e-3
    assert 0 < moved[1].max() < 6e-3


def test_nothing_is_wiped_when_that_is_switched_off():
    *_, moved = moved_heads(False)
    assert 0 < moved.max() < 6e-3


def test_a_hidden_layer_as_wide_as_the_head_counts_as_head_only_when_faithful():
    net, start, *_ = problem(classes=5)
    member = types.SimpleNamespace(network=net, params=start["params"])
    corrected, faithful = (fisher.heads(member, "golatkar", compat) for compat in ("corrected", "faithful"))
    assert corrected == {"Dense_0": {"kernel": False, "bias": False}, "Dense_1": {"kernel": True, "bias": True}}
    assert all(jax.tree.leaves(faithful))


@pytest.mark.parametrize("kind, variant", list(zip(fisher.KINDS, fisher.VARIANTS, strict=True)))
def test_an_empty_retain_set_and_one_forget_sample_are_finite(kind, variant):
    net, start, x, y = problem()
    method = fisher.fisher(kind=kind, variant=variant)
    job = nets.make_job(net, method, start, (x[1:], y[1:]), (x[:1], y[:1]), members=2)
    job = job._replace(retain=[np.arange(0), np.arange(10)], forget=[np.arange(11), np.arange(10, 11)])
    *_, last = nets.running.run(job)
    assert (last.outcome.diverged_at == nets.running.NOT_DIVERGED).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last.outcome.variables))


def test_noise_differs_between_members_and_grows_with_alpha():
    net, start, x, y = problem()
    build = lambda hyper: fisher.fisher(**hyper)  # noqa: E731
    hyper = {"alpha": np.asarray([1e-9, 1e-9, 1e-5], np.float32)}
    job = nets.make_job(net, build, start, (x[3:], y[3:]), (x[:3], y[:3]), hyper=hyper, members=3)
    *_, last = nets.running.run(job)
    kernel = last.outcome.variables["params"]["Dense_0"]["kernel"]
    moved = np.abs(kernel - start["params"]["Dense_0"]["kernel"]).mean((1, 2))
    assert np.all(kernel[0] != kernel[1])
    assert moved[2] > 30 * moved[:2].max()


@pytest.mark.parametrize("wrong", [{"kind": "expexted"}, {"variant": "golatkin"}])
def test_misspelt_options_are_refused(wrong):
    with pytest.raises(errors.ConfigError):
        fisher.fisher(**wrong)
