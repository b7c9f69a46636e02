"""The conformal-guided loss: golden arrays of the published code, equivalences, gradients, refusals."""

import dataclasses
import inspect
from pathlib import Path

import common_checks
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, keys, trees
from jaxunlearn.metrics.conformal import conformal as prediction
from jaxunlearn.population import Batch, StepInfo
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import entries, network
from jaxunlearn.unlearn.base.method import Method, Samples
from jaxunlearn.unlearn.blocks import losses
from jaxunlearn.unlearn.engine import costs, jobs, running, tasks
from jaxunlearn.unlearn.methods import descent
from jaxunlearn.unlearn.wrappers import conformal, wrappers

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "conformal"


def samples(labels, is_forget, weights=None):
    labels = np.asarray(labels, np.int32)
    weights = np.ones(len(labels), np.float32) if weights is None else np.asarray(weights, np.float32)
    return Samples(jnp.zeros((len(labels), 1)), jnp.asarray(labels), jnp.asarray(weights),
                   jnp.arange(len(labels)), jnp.asarray(is_forget, bool))  # fmt: skip


@pytest.mark.parametrize("case", ["c0_", "c1_", "c2_"])
@pytest.mark.parametrize("pairwise", [True, False])
def test_the_loss_equals_the_published_code(case, pairwise):
    with np.load(GOLDEN / "cpu_loss.npz") as loaded:
        file = {name.removeprefix(case): array for name, array in loaded.items() if name.startswith(case)}
    flagged = np.asarray(file["is_forget"], bool)
    q_hat, delta, lam = (float(file[name]) for name in ("qhat", "delta", "lamda"))
    base, forget = (samples(file["labels"], flagged, weights) for weights in (~flagged, flagged))

    def hinge(logits):
        return conformal.hinge(logits, forget, q_hat, delta, pairwise)

    def loss(logits):
        return losses.cross_entropy(logits, base) + lam * hinge(logits)

    @jax.jit
    def evaluate(logits):
        return *jax.value_and_grad(loss)(logits), *jax.value_and_grad(hinge)(logits)

    prefix = "" if pairwise else "corrected_"
    value, gradient, pushed, single = evaluate(jnp.asarray(file["logits"]))
    np.testing.assert_allclose(pushed, file[f"{prefix}forget_loss"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(value, file[f"{prefix}loss"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, file[f"{prefix}grad"], rtol=0, atol=1e-6)
    if pairwise:
        np.testing.assert_allclose(single[flagged], file["forget_grad"], rtol=0, atol=1e-6)


def recorded(kind, name):
    """Steps through the published run's own batches; variables and thresholds of every epoch."""
    file = np.load(GOLDEN / "cpu_train.npz")
    names = {torch: flax for torch, flax in nets.LAYERS["conformal"].items() if kind == "bn" or torch != "bn"}
    width, hidden, classes = (int(size) for size in file["dims"])
    net = nets.network(nets.Tiny(classes, hidden, kind == "bn"), (width,))
    start = nets.variables(file, f"{kind}_init", names)
    lr, epochs, delta, alpha, lam = (float(value) for value in file["hyper_lr_epochs_delta_alpha_lamda"])
    parts = [(file[f"x_{part}"], file[f"y_{part}"]) for part in ("retain", "forget", "cal")]
    retain, forget = len(parts[0][1]), len(parts[1][1])
    base = descent.finetune(lr, int(epochs)) if name == "finetune" else registry.METHODS["random_label"].build(
        lr, int(epochs))  # fmt: skip
    if name == "RL":
        labels = np.concatenate([parts[0][1], file[f"{kind}_RL_labels"]]).astype(np.int32)
        (phase,) = base.phases
        reads = {
            "both": phase.stream_specs["both"]._replace(
                labels=lambda key, batch, count: jnp.asarray(labels)[batch.rows]
            )
        }
        base = dataclasses.replace(base, phases=(dataclasses.replace(phase, stream_specs=reads),))
    size = int(file["batch_size"])
    method = conformal.conformal(base, lam, delta, alpha, pairwise=True, batch=size)
    job = nets.make_job(net, method, start, parts[0], parts[1], validation=parts[2], bn="frozen", batch=size)
    # Published: one stream of flagged samples to forget, then the base method's.
    forget_rows = np.arange(retain, retain + forget)
    stream = np.concatenate(
        [forget_rows, np.arange(retain) if name == "finetune" else np.append(forget_rows, np.arange(retain))]
    )
    perm = file[f"perm_{name}"]
    return file, names, job, stream, forget, [perm] * int(epochs)


@pytest.mark.parametrize("kind", ["mlp", "bn"])
@pytest.mark.parametrize("name", ["finetune", "RL"])
def test_training_equals_the_published_code(kind, name):
    file, names, job, stream, forget, perms = recorded(kind, name)
    stage = jobs.traced_phase(job, 0)
    phase = jobs.template(job).phases[0]
    driver, size = next(iter(phase.stream_specs)), job.batch
    constants = trees.take(jax.tree.map(np.asarray, jobs.constants_of(job, 0, {}, {})), 0)
    params, model_state = trees.split_variables(trees.take(job.originals, 0))
    state = tasks.State(params, model_state, phase.transform.init(params))
    data = jax.tree.map(jnp.asarray, job.data)
    on_epoch_start = jax.jit(running._on_epoch_start(stage, phase))
    step = jax.jit(tasks.task(stage).step)
    thresholds, count = [], 0
    for epoch, perm in enumerate(perms):
        context = {**constants, **on_epoch_start(state, data, constants, keys.root(0))}
        thresholds.append(float(context["estimates"][conformal.THRESHOLD]))
        length = -(-len(perm) // size)
        for k in range(length):
            batch_rows = perm[k * size : (k + 1) * size]
            batches = {
                part: batch_of(job, stream[batch_rows[flag]], size)
                for part, flag in ((conformal.STREAM, batch_rows < forget), (driver, batch_rows >= forget))
            }
            step_info = StepInfo(jnp.int32(epoch), jnp.float32(k / length), jnp.int32(count), jnp.int32(length))
            state, _ = step(state, batches, step_info, keys.root(1), context)
            count += 1
    np.testing.assert_allclose(thresholds, file[f"{kind}_{name}_qhat_per_epoch"], rtol=1e-5)
    actual = trees.join_variables(state.params, state.model_state)
    nets.assert_close(actual, nets.variables(file, f"{kind}_{name}_final", names), 1e-5)


def batch_of(job, rows, size):
    padded = np.concatenate([rows, np.zeros(size - len(rows), np.int64)]).astype(np.int32)
    weights = (np.arange(size) < len(rows)).astype(np.float32)
    return Batch(job.data.inputs[padded], job.data.labels[padded], weights, padded)


def test_the_threshold_is_that_of_the_metrics_for_each_members_classes():
    """Rows are padded and passed over in batches; a class that is forgotten wholly does not calibrate."""
    method = conformal.conformal(descent.finetune(0.0, 1), alpha=0.2)
    whole = np.flatnonzero(common_checks.LABELS[:60] == 1)
    job = common_checks.make_job(method, forget=[common_checks.FORGET[0], whole])
    stage, constants = jobs.traced_phase(job, 0), jobs.constants_of(job, 0, {}, {})
    data = jax.tree.map(jnp.asarray, job.data)
    on_epoch_start = jax.jit(running._on_epoch_start(stage, jobs.template(job).phases[0]))
    for member in range(2):
        variables = trees.take(job.originals, member)
        params, model_state = variables["params"], {"batch_stats": variables["batch_stats"]}
        member_constants = trees.take(jax.tree.map(np.asarray, constants), member)
        actual = on_epoch_start(tasks.State(params, model_state, ()), data, member_constants, keys.root(0))
        rows = (
            common_checks.VALIDATION
            if member == 0
            else common_checks.VALIDATION[common_checks.LABELS[common_checks.VALIDATION] != 1]
        )
        logits, _ = network.forward(common_checks.DENSE, params, model_state, common_checks.IMAGES[rows])
        expected = prediction.calibrate(logits, common_checks.LABELS[rows], [0.2])
        np.testing.assert_allclose(actual["estimates"][conformal.THRESHOLD], expected[0], rtol=1e-6)


# Descent and ascent, teachers, gradient masks, two phases, a fresh network.
SOME = ("negrad_plus", "scrub", "salun", "hybrid", "retrain")


@pytest.mark.parametrize("name", SOME)
def test_weight_zero_is_the_method_itself_and_more_pushes_labels_out(name):
    entry, wrapped = registry.METHODS[name], registry.lookup(f"{name}+conformal")
    small = common_checks.small_hyperparameters(name)
    plain = common_checks.outcome(common_checks.make_job(entry.build(**small), name=name)).variables
    values = {**small, "conformal_alpha": 0.2, "conformal_batch": 8}

    def build(hyper):
        return wrapped.build(**values, **hyper)

    # Both weights as members of one population.
    job = common_checks.make_job(build({}), forget=common_checks.FORGET * 2, member_ids=[0, 1, 2] * 2, name=name)
    lam = np.repeat([0.0, 3.0], 3)
    actual = common_checks.outcome(job._replace(build=build, hyper={"conformal_lam": lam})).variables
    common_checks.assert_close(trees.take(actual, slice(0, 3)), plain, 1e-5)
    assert true_label(trees.take(actual, slice(3, 6))) < true_label(plain) - 0.005


def true_label(variables):
    """Mean probability of the true labels of what is to be forgotten."""
    actual = []
    for member, rows in enumerate(common_checks.FORGET):
        model = trees.take(variables, member)
        logits, _ = network.forward(
            common_checks.DENSE, model["params"], {"batch_stats": model["batch_stats"]}, common_checks.IMAGES[rows]
        )
        actual.append(
            float(jnp.take_along_axis(jax.nn.softmax(logits), common_checks.LABELS[rows][:, None], -1).mean())
        )
    return np.mean(actual)


def test_a_batch_without_rows_has_no_loss_and_no_gradient_and_the_boundary_is_active():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    empty = samples([0, 1, 2, 0], [True] * 4, np.zeros(4))
    for pairwise in (False, True):
        actual = jax.jit(jax.value_and_grad(lambda logits, p=pairwise: conformal.hinge(logits, empty, 0.3, 0.01, p)))
        value, gradient = actual(logits)
        assert value == 0 and (gradient == 0).all()
    single = samples([0], [True])
    flat = jnp.zeros((1, 2))
    value, gradient = jax.jit(jax.value_and_grad(lambda z: conformal.hinge(z, single, 0.5, 0.0)))(
        flat
    )  # 0.5 - (1 - 0.5)
    assert value == 0 and gradient[0, 0] == pytest.approx(0.25)


@pytest.mark.parametrize("same", [True, False])
def test_pairs_are_single_samples_where_all_labels_are_the_same(same):
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    batch = samples([2] * 6 if same else [0, 1, 2, 3, 0, 1], [True] * 6, [1, 1, 1, 1, 0, 1])
    pairs, single = jax.jit(lambda z: [conformal.hinge(z, batch, 0.8, 0.01, pairwise) for pairwise in (True, False)])(
        logits
    )
    pairs, single = float(pairs), float(single)
    assert (pairs == pytest.approx(single, rel=1e-6)) == same


def test_every_method_is_wrapped_or_refused():
    refused = set()
    for name in common_checks.ALL:
        if not entries.fits(registry.lookup(f"{name}+conformal"), 0):
            continue  # for texts: refused before anything is built
        values = {**common_checks.small_hyperparameters(name), "conformal_alpha": 0.2}
        try:
            method = registry.lookup(f"{name}+conformal").build(**values)
        except errors.ConfigError:
            refused.add(name)
            continue
        running.trace(common_checks.make_job(method, forget=common_checks.FORGET[:1], name=name))
    edits = {"ssd", "lfssd", "fisher", "influence", "ntk", "random_perturb", "l_codec"}
    assert refused == edits | {"deltagrad"}


def test_probes_whose_network_is_thrown_away_are_not_guided():
    """The overfitted copies of prune_complex only tell which weights to reset; the fine-tuning is what remains."""
    phases = registry.lookup("prune_complex+conformal").build().phases
    followed = [*(phase.start for phase in phases[1:]), "current"]
    guided = [conformal.STREAM in phase.stream_specs for phase in phases]
    assert guided == [
        bool(phase.gradient_steps) and start == "current" for phase, start in zip(phases, followed, strict=True)
    ]
    assert any(guided) and any(phase.gradient_steps and not flag for phase, flag in zip(phases, guided, strict=True))


def test_the_threshold_can_be_taken_on_test_rows_and_leaves_out_subclasses():
    method = conformal.conformal(descent.finetune(0.0, 1), alpha=0.2, calibration=10)
    rows = conformal.calibration_rows(0.2, 10).rows
    job = common_checks.make_job(method)._replace(test=np.arange(26, 60), kinds=common_checks.LABELS)
    rows_of_member = jobs.member_rows(job, 0, 0, "x")
    actual = rows(rows_of_member)
    assert len(set(actual.tolist())) == 10 and set(actual.tolist()) <= set(range(26, 60))
    again = rows(jobs.member_rows(job, 0, 0, "x"))
    np.testing.assert_array_equal(actual, again)
    with pytest.raises(errors.ConfigError, match="but there are 34 test rows"):
        conformal.calibration_rows(0.2, 100).rows(rows_of_member)
    # A subclass: rows 60.. 69 are of a kind that is forgotten wholly, whatever their label.
    kinds = np.where(np.isin(np.arange(80), np.r_[common_checks.FORGET[0], 60:70]), 7, 0).astype(np.int32)
    of_subclass = jobs.member_rows(common_checks.make_job(method)._replace(kinds=kinds), 0, 0, "x")
    np.testing.assert_array_equal(conformal.calibration_rows(0.2).rows(of_subclass), np.arange(70, 80))


def test_in_evaluation_mode_statistics_do_not_move_even_where_the_method_trains():
    method = conformal.conformal(registry.METHODS["retrain"].build(epochs=1), alpha=0.2, eval_mode=True)
    fresh = common_checks.outcome(common_checks.make_job(method, forget=common_checks.FORGET[:1])).variables[
        "batch_stats"
    ]["BatchNorm_0"]
    assert (fresh["mean"] == 0).all() and (fresh["var"] == 1).all()


def test_what_cannot_be_wrapped_says_so():
    with pytest.raises(errors.ConfigError, match="takes no gradient steps"):
        registry.lookup("ssd+conformal").build()
    with pytest.raises(errors.ConfigError, match="follow a recorded training"):
        registry.lookup("deltagrad+conformal").build()
    with pytest.raises(errors.ConfigError, match="twice"):
        registry.lookup("finetune+conformal+conformal")
    with pytest.raises(errors.ConfigError, match="Did you mean 'conformal'"):
        registry.lookup("finetune+conformall")
    with pytest.raises(errors.ConfigError, match="alpha = 1.5"):
        conformal.conformal(descent.finetune(), alpha=1.5)
    few = common_checks.make_job(conformal.conformal(descent.finetune(0.1, 1), alpha=0.02))
    with pytest.raises(errors.ConfigError, match="at least 49 calibration rows of retained classes; there are 20"):
        running.trace(few)

    def build(hyper):
        return conformal.conformal(descent.finetune(0.05, 1), **hyper)

    swept = common_checks.make_job(build({}), forget=common_checks.FORGET[:2])._replace(
        build=build, hyper={"alpha": np.asarray([0.1, 0.2])}
    )
    with pytest.raises(errors.ConfigError, match="cannot be swept"):
        running.trace(swept)


def test_a_wrapped_builder_has_the_arguments_of_both_and_costs_more():
    entry = registry.lookup("finetune+conformal")
    values = registry.hyperparameters(entry)
    assert set(inspect.signature(descent.finetune).parameters) < set(values)
    assert values["conformal_lam"] == 0.085 and values["conformal_pairwise"] is False
    assert wrappers.base_builder(entry.build) is descent.finetune
    sizes = costs.Sizes(100, 900, 10, 64)
    plain, wrapped = (costs.retain_epochs(method, sizes) for method in (descent.finetune(), entry.build()))
    # 16 rows beside 64 at every step, and forward passes over the (stand-in) calibration rows
    assert plain * 1.2 < wrapped < plain * 1.35
    assert isinstance(entry.build(), Method)
