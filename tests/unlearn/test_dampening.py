"""Selective synaptic dampening against the published implementations."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn.unlearn.methods.importance import dampening

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}


def golden(topic, name):
    return np.load(GOLDEN / topic / f"{name}.npz")


def iam(kind):
    """(file, names, network, variables, (retain, forget)) of a file of the IAM seed; the others alike."""
    file, names = golden("iam_methods", f"ssd_{kind}"), nets.LAYERS[f"iam_{kind}"]
    start = nets.variables(file, "init", names)
    hidden, classes = start["params"]["Dense_0"]["bias"].shape[0], start["params"]["Dense_1"]["bias"].shape[0]
    activation = {"mlp": "tanh", "bn": "relu"}[kind]
    net = nets.network(nets.Tiny(classes, hidden, kind == "bn", activation), file["retain_x"].shape[1:])
    return file, names, net, start, [(file[f"{name}_x"], file[f"{name}_y"]) for name in ("retain", "forget")]


def conformal(kind):
    file, names = golden("conformal", "ssd"), nets.LAYERS["conformal"] if kind == "bn" else DENSE
    width, hidden, classes = (int(size) for size in file["dims"])
    net = nets.network(nets.Tiny(classes, hidden, kind == "bn"), (width,))
    data = [(file[f"x_{name}"], file[f"y_{name}"]) for name in ("retain", "forget")]
    return file, names, net, nets.variables(file, f"{kind}_init", names), data


def our():
    file, net = golden("our", "ssd"), nets.network(nets.Tiny(4, 5, activation="tanh"), (6,))
    data = [(file[f"X_{name}"], file[f"y_{name}"]) for name in ("retain", "forget")]
    return file, DENSE, net, nets.variables(file, "init", DENSE, "__"), data


def assert_importances(job, file, prefix, names, separator="."):
    """Estimates the importances for the forget set and for all data, compares both, and returns them."""
    actual = nets.estimated(job)
    for name, key in (("forget", "imp_forget"), ("all", "imp_full")):
        expected = nets.variables(file, f"{prefix}{key}", names, separator)["params"]
        nets.assert_close({"params": actual[name]}, {"params": expected}, 1e-6, ("params",))
    return actual


@pytest.mark.parametrize("kind", ["mlp", "bn"])
def test_ssd_equals_the_iam_seed(kind):
    file, names, net, start, data = iam(kind)
    alpha, lam = float(file["alpha"]), float(file["lambda"])
    method = dampening.ssd(alpha, lam, batch=int(file["batch_size"]), compat="faithful")
    job = nets.make_job(net, method, start, *data, bn="faithful")
    importances = assert_importances(job, file, "", names)
    actual, expected = nets.outcome(job), nets.variables(file, "after", names)
    if kind == "bn":
        # A bias in front of BatchNorm has gradient 0 in training mode: rounding decides whether it is chosen. So the
        # rule is checked on the published roundings, and ours must be as small.
        theta, forget, full, bias = (jnp.asarray(file[f"{key}.fc1.bias"], jnp.float32)
                                     for key in ("init", "imp_forget", "imp_full", "after"))  # fmt: skip
        np.testing.assert_allclose(dampening.dampen(theta, forget, full, alpha, lam), bias, rtol=0, atol=1e-6)
        sizes = (forget, full, *(importances[name]["Dense_0"]["bias"] for name in ("forget", "all")))
        assert max(float(distance.max()) for distance in sizes) < 1e-12
        head, published = (variables["params"].pop("Dense_0") for variables in (actual, expected))
        # Batches of 5 end in one of 2 rows, where float32 BatchNorm rounds most; float64 agrees with the file to 2e-7.
        np.testing.assert_allclose(head["kernel"], published["kernel"], rtol=0, atol=3e-6)
    nets.assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize("setting", ["a10_l1", "a1_l1", "a0.5_l0.3"])
@pytest.mark.parametrize("kind", ["mlp", "bn"])
def test_ssd_equals_the_ssd_repository(kind, setting):
    file, names, net, start, data = conformal(kind)
    alpha, lam = (float(part[1:]) for part in setting.split("_"))
    method = dampening.ssd(alpha=alpha, lam=lam, batch=int(file["batch_size"]))
    actual = nets.outcome(nets.make_job(net, method, start, *data))
    expected = nets.variables(file, f"{kind}_{setting}_final", names)
    nets.assert_close(actual, expected, 1e-5, ("params",))
    for name, leaf in start.get("batch_stats", {}).get("BatchNorm_0", {}).items():
        np.testing.assert_array_equal(actual["batch_stats"]["BatchNorm_0"][name], leaf)


@pytest.mark.parametrize("kind", ["mlp", "bn"])
def test_importances_equal_those_of_the_ssd_repository(kind):
    file, names, net, start, data = conformal(kind)
    job = nets.make_job(net, dampening.ssd(batch=int(file["batch_size"])), start, *data)
    assert_importances(job, file, f"{kind}_", names)


def test_ssd_equals_over_unlearning_and_replay():
    file, names, net, start, data = our()
    hyper = {name: np.float32(file[name]) for name in ("alpha", "lam")}
    job = nets.make_job(
        net, lambda values: dampening.ssd(**values, batch=int(file["batch"])), start, *data, hyper=hyper, members=3
    )
    assert_importances(job, file, "", names, "__")
    *_, last = nets.running.run(job)
    for number in range(3):
        actual = nets.trees.take(last.outcome.variables, number)
        nets.assert_close(actual, nets.variables(file, f"after{number}", names, "__"), 5e-6)


def rules():
    """(parameters, importance of the forget set and of all, alpha, lambda, wanted) of all rule tests in the files."""
    for name in ("ssd_modify", "ssd_modify_l05"):
        file = golden("iam_methods", name)
        for i in range(int(file["n"])):
            yield (file[f"theta{i}"], file[f"imp_forget{i}"], file[f"imp_full{i}"], float(file["alpha"]),
                   float(file["lambda"]), file[f"after{i}"])  # fmt: skip
    file = golden("conformal", "ssd")
    yield (
        file["arr_w"],
        file["arr_imp_forget"],
        file["arr_imp_full"],
        *file["arr_alpha_lambda"].tolist(),
        file["arr_out"],
    )
    file = golden("our", "ssd")
    for i in range(3):
        yield (file["arr_theta"], file["arr_imp_forget"], file["arr_imp_full"], float(file["alpha"][i]),
               float(file["lam"][i]), file[f"arr_after{i}"])  # fmt: skip


@pytest.mark.parametrize("case", list(rules()))
def test_the_rule_equals_all_published_ones(case):
    *arrays, alpha, lam, expected = case
    theta, forget, full = (jnp.asarray(array, jnp.float32) for array in arrays)
    actual = dampening.dampen(theta, forget, full, alpha, lam)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    kept = np.asarray(forget <= alpha * full)
    np.testing.assert_array_equal(np.asarray(actual)[kept], np.asarray(theta)[kept])


def test_the_exponent_applies_before_the_bound():
    theta, forget, full = jnp.ones(3), jnp.array([1.0, 1.0, 1.0]), jnp.array([0.25, 0.9, 2.0])
    actual = dampening.dampen(theta, forget, full, 0.5, 2.0, 2.0)
    np.testing.assert_allclose(actual, [0.25, 1.0, 1.0])


def digits(classes=3, rows=12, seed=0):
    """A tiny dense net with data: (network, variables, retain, forget)."""
    rng = np.random.default_rng(seed)
    net = nets.network(nets.Tiny(classes, 5), (4,))
    x, y = rng.normal(size=(rows, 4)).astype(np.float32), rng.integers(0, classes, rows).astype(np.int32)
    params = net.module.init(jax.random.key(seed), x[:1])["params"]
    return net, {"params": params}, (x[4:], y[4:]), (x[:4], y[:4])


def test_importances_without_labels_equal_a_loop():
    net, start, retain, forget = digits()

    def importance(x):
        batches = [x[i : i + 3] for i in range(0, len(x), 3)]

        def loss(params, batch):
            return jnp.mean(jnp.sum(net.module.apply({"params": params}, batch) ** 2, -1))

        actual = [jax.tree.map(jnp.abs, jax.grad(loss)(start["params"], batch)) for batch in batches]
        return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *actual)

    expected = dampening.dampen(
        start["params"], importance(forget[0]), importance(np.concatenate([retain[0], forget[0]])), 1.0, 0.7
    )
    other = (retain[0], (retain[1] + 1) % 3)
    method = dampening.lfssd(1.0, 0.7, batch=3)
    for labelled in (retain, other):
        actual = nets.outcome(nets.make_job(net, method, start, labelled, forget))
        nets.assert_close(actual, {"params": expected}, 1e-6)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(start["params"]), strict=True))


@pytest.mark.parametrize("build", [dampening.ssd, dampening.lfssd])
def test_one_forget_sample_and_an_empty_retain_set_are_harmless(build):
    net, start, retain, forget = digits()
    job = nets.make_job(net, build(alpha=0.5), start, retain, forget, members=2)
    job = job._replace(retain=[np.arange(0), np.arange(8)], forget=[np.arange(12), np.arange(8, 9)])
    *_, last = nets.running.run(job)
    assert (last.outcome.diverged_at == nets.running.NOT_DIVERGED).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last.outcome.variables))


def test_thresholds_and_clipping_may_differ_between_members():
    net, start, retain, forget = digits()
    hyper = {"alpha": np.asarray([0.5, 3.0], np.float32), "clip": np.asarray([0.0, 0.1], np.float32)}
    job = nets.make_job(net, lambda hyper: dampening.ssd(**hyper), start, retain, forget, hyper=hyper, members=2)
    *_, last = nets.running.run(job)
    for member, (alpha, clip) in enumerate([(0.5, 0.0), (3.0, 0.1)]):
        alone = nets.outcome(nets.make_job(net, dampening.ssd(alpha, clip=clip), start, retain, forget))
        nets.assert_close(nets.trees.take(last.outcome.variables, member), alone, 1e-6)
