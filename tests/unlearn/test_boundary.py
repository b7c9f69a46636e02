"""Boundary shrinking and expanding against the published implementations."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, keys, population, trees
from jaxunlearn.population import DeviceDataset
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import EstimateContext, Samples, StreamSpec
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import boundary

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}
# As the published code has them, the typo in the third mean included.
MEAN, STD = (0.4914, 0.4822, 0.2265), (0.2023, 0.1994, 0.2010)


def last_channel(pictures):
    return np.asarray(pictures, np.float32).transpose(0, 2, 3, 1)


def our():
    """The golden file with pictures of channels last, and rows of the first kernel reordered with them."""
    file = dict(np.load(GOLDEN / "our" / "boundary.npz"))
    for name in ("init__fc1.weight", "delta__fc1.weight"):
        weight = file[name]
        file[name] = last_channel(weight.reshape(-1, 3, 4, 4)).reshape(weight.shape)
    net = nets.network(nets.Tiny(4, 5, activation="tanh"), (4, 4, 3))
    return file, net, nets.variables(file, "init", DENSE, "__"), (last_channel(file["X"]), file["y"])


def optml():
    file = np.load(GOLDEN / "conformal" / "optml_methods.npz")
    net = nets.network(nets.Tiny(4, 8), (6,))
    member_rows = [(file[f"x_{name}"], file[f"y_{name}"]) for name in ("retain", "forget")]
    return file, net, nets.variables(file, "init", DENSE), *member_rows


def samples(pool):
    x, y = (jnp.asarray(part) for part in pool)
    rows = jnp.arange(len(y))
    return Samples(x.astype(jnp.float32), y.astype(jnp.int32), jnp.ones(len(y)), rows, rows >= 0)


def member(net, variables, pool, batch=3):
    """One member outside a run; all rows are to be forgotten."""
    batch_samples = samples(pool)
    stream = trees.take(population.from_rows([[np.arange(len(batch_samples.labels))]], batch), 0)
    variables = jax.tree.map(jnp.asarray, variables)
    data, reads = (
        DeviceDataset(batch_samples.inputs, batch_samples.labels),
        {"forget": StreamSpec("forget", batch, shuffle=False)},
    )
    key = keys.root(0)
    return EstimateContext(net, variables["params"], {}, variables, {}, {}, data, {"forget": stream}, reads,
                           batch_samples.is_forget, "eval", key, key, False)  # fmt: skip


def fresh_pool(rows=5, classes=4):
    rng = np.random.default_rng(2)
    return rng.normal(size=(rows, 6)).astype(np.float32), rng.integers(0, classes, rows).astype(np.int32)


def fresh(net):
    return net.module.init(jax.random.key(0), jnp.zeros((1, 6)))


def test_adversarial_pictures_and_nearest_labels_equal_those_of_orthogonal_unlearning():
    file, net, start, forget = our()
    context = member(net, start, forget)
    actual = boundary.adversarial(context, samples(forget), float(file["bound"]), MEAN, STD)
    np.testing.assert_allclose(actual, last_channel(file["x_adv"]), rtol=0, atol=2e-6)
    np.testing.assert_allclose(
        actual * np.array(STD) + np.array(MEAN), last_channel(file["pixel_adv"]), rtol=0, atol=1e-6
    )
    table, _ = boundary.nearest(float(file["bound"]), MEAN, STD).compute(context)
    np.testing.assert_array_equal(table, file["nearest_label"])


def test_adversarial_rows_and_nearest_labels_equal_those_of_the_saliency_code():
    file, net, start, _, forget = optml()
    context = member(net, start, forget)
    # Its inputs lie in [0, 1] and are not normalised.
    actual = boundary.adversarial(context, samples(forget), 0.1, (0.0,), (1.0,))
    np.testing.assert_allclose(actual, file["fgsm_adv"], rtol=0, atol=1e-6)
    table, _ = boundary.nearest(0.1, (0.0,), (1.0,)).compute(context)
    np.testing.assert_array_equal(table, file["fgsm_label"])


def test_without_constants_the_step_is_in_input_units_and_unclipped():
    net = nets.network(nets.Tiny(4, 8), (6,))
    x, y = fresh_pool()
    actual = boundary.adversarial(member(net, fresh(net), (x, y)), samples((x, y)), 3.0)
    moved = np.abs(np.asarray(actual) - x)
    np.testing.assert_allclose(moved[moved > 0], 3.0, rtol=1e-5)
    assert (moved > 0).mean() > 0.9


def test_the_nearest_label_is_a_wrong_one_unless_asked_otherwise():
    net = nets.network(nets.Tiny(4, 8), (6,))
    start = fresh(net)
    x, _ = fresh_pool(9)
    answers = np.argmax(net.module.apply(start, x), -1)
    context = member(net, start, (x, answers), batch=4)
    np.testing.assert_array_equal(boundary.nearest(0.0, only_wrong=False).compute(context)[0], answers)
    logits = np.array(net.module.apply(start, x))
    logits[np.arange(9), answers] = -np.inf
    np.testing.assert_array_equal(boundary.nearest(0.0).compute(context)[0], np.argmax(logits, -1))


def test_shrinking_equals_orthogonal_unlearning():
    file, net, start, forget = our()
    method = boundary.boundary_shrink(1e-5, int(file["epochs"]), float(file["bound"]), mean=MEAN, std=STD, batch=3)
    actual = nets.outcome(nets.make_job(net, nets.in_order(method), start, (forget[0][:1], forget[1][:1]), forget))
    expected = nets.variables(file, "delta", DENSE, "__")["params"]
    steps = int(file["epochs"]) * 2

    def compare(new, old, change):
        # Changes are about 3e-6: beside the file's tolerance, each of the steps rounds to what a float32 can resolve.
        bound = 2e-2 * np.abs(change) + steps * np.spacing(np.abs(old)) / 2
        assert (np.abs(np.float64(new) - np.float64(old) - change) <= bound).all()

    jax.tree.map(compare, actual["params"], start["params"], expected)


def test_shrinking_equals_the_saliency_code():
    file, net, start, retain, forget = optml()
    space = {"mean": (0.0,), "std": (1.0,), "compat": "faithful"}
    method = boundary.boundary_shrink(0.05, 2, 0.1, weight_decay=5e-4, batch=8, **space)
    actual = nets.outcome(nets.make_job(net, nets.in_order(method), start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "BS_final", DENSE), 1e-5)


def given_row(monkeypatch, kernel, bias):
    """The additional output gets these weights instead of random ones."""
    draw = network.widen

    def widen(net, params, key):
        path = network.head(net).path
        wide = draw(net, params, key)
        head = network.leaf_at(wide, path)
        new = {"kernel": head["kernel"].at[:, -1].set(kernel), "bias": head["bias"].at[-1].set(bias)}
        return network.replace_at(wide, path, new)

    monkeypatch.setattr(network, "widen", widen)


def without_last_output(variables):
    params = variables["params"]
    return {"params": {**params, "Dense_1": jax.tree.map(lambda leaf: leaf[..., :-1], params["Dense_1"])}}


def test_expanding_equals_the_saliency_code(monkeypatch):
    file, net, start, retain, forget = optml()
    given_row(monkeypatch, file["BE_init.fc2.weight"][-1], file["BE_init.fc2.bias"][-1])
    method = nets.in_order(boundary.boundary_expand(0.05, 2, batch=8))
    *epochs, last = running.run(nets.make_job(net, method, start, retain, forget))
    expected = nets.variables(file, "BE_final", DENSE)
    nets.assert_close(nets.after(epochs[-1]), expected, 1e-5)
    # The published code keeps the additional class; here it is dropped in the end.
    nets.assert_close(trees.take(last.outcome.variables, 0), without_last_output(expected), 1e-5)


@pytest.mark.parametrize("keep_backbone", [True, False])
@pytest.mark.parametrize("name", ["boundary_mlp", "boundary_mlp_default_lr"])
def test_expanding_equals_the_iam_seed(name, keep_backbone, monkeypatch):
    file, names = np.load(GOLDEN / "iam_methods" / f"{name}.npz"), nets.LAYERS["iam_mlp"]
    start = nets.variables(file, "init", names)
    net = nets.network(nets.Tiny(5, 6, activation="tanh"), (8,))
    forget = tuple(np.concatenate([file[f"forget{i}_{part}"] for i in range(2)]) for part in "xy")
    given_row(monkeypatch, file["extra_w"], file["extra_b"])
    method = boundary.boundary_expand(float(file["lr"]), int(file["epochs"]), keep_backbone=keep_backbone, batch=3)
    job = nets.make_job(net, nets.in_order(method), start, (forget[0][:1], forget[1][:1]), forget)
    *epochs, last = running.run(job)
    actual, wide = trees.take(last.outcome.variables, 0), nets.variables(file, "wide_after", names)
    nets.assert_close(nets.after(epochs[-1]), wide, 1e-6)
    expected = without_last_output(wide) if keep_backbone else nets.variables(file, "after", names)
    nets.assert_close(actual, expected, 1e-6)
    if not keep_backbone:
        jax.tree.map(np.testing.assert_array_equal, actual["params"]["Dense_0"], start["params"]["Dense_0"])


@pytest.mark.parametrize("build", [boundary.boundary_shrink, boundary.boundary_expand])
def test_one_forget_row_and_no_retained_ones(build):
    net = nets.network(nets.Tiny(4, 8), (6,))
    start, nobody = fresh(net), (np.zeros((0, 6), np.float32), np.zeros(0, np.int32))
    x, _ = fresh_pool(1)
    y = np.argmax(net.module.apply(start, x), -1)
    actual = nets.outcome(nets.make_job(net, build(lr=0.5, epochs=8), start, nobody, (x, y)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(actual))
    assert [leaf.shape for leaf in jax.tree.leaves(actual)] == [leaf.shape for leaf in jax.tree.leaves(start)]
    before, after = (jax.nn.softmax(net.module.apply(variables, x))[0, y[0]] for variables in (start, actual))
    assert after < before - 0.05


def test_zero_epochs_change_nothing():
    net = nets.network(nets.Tiny(4, 8), (6,))
    start, pool = fresh(net), fresh_pool()
    actual = nets.outcome(
        nets.make_job(net, boundary.boundary_expand(epochs=0, keep_backbone=False), start, pool, pool)
    )
    jax.tree.map(np.testing.assert_array_equal, actual["params"], jax.tree.map(np.asarray, start["params"]))


def test_half_of_the_constants_of_normalisation_is_an_error():
    with pytest.raises(errors.ConfigError, match="both mean and std"):
        boundary.boundary_shrink(mean=(0.5,))


def test_only_the_head_is_flagged_as_head():
    net = nets.network(nets.Tiny(4, 8), (6,))
    actual, _ = boundary.in_head(member(net, fresh(net), fresh_pool()))
    assert actual["Dense_1"]["kernel"].shape == (8, 4)
    assert all(leaf.all() for leaf in jax.tree.leaves(actual["Dense_1"]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(actual["Dense_0"]))
