"""Data-free model extraction: published numbers, a naive reference of one iteration, and the engine around it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, keys, population, trees
from jaxunlearn.attacks import extraction
from jaxunlearn.attacks.extraction import losses, options, victims
from jaxunlearn.models.architectures import dense, generator
from jaxunlearn.population import executor

GOLDEN = Path(__file__).parents[1] / "golden" / "our"
FEATURES, CLASSES = 6, 3
SMALL = extraction.Options(
    budget=3 * 4 * 32 * 5, batch=32, iterations=4, clone_steps=3, latents=8, width=4, clone_rate=0.1,
    generator_rate=1e-2, schedule="constant",
)  # fmt: skip


def golden(name):
    return dict(np.load(GOLDEN / f"{name}.npz"))


@pytest.mark.parametrize(
    ("loss", "correction", "tolerance"), [("l1", "mean", 1e-3), ("l1", "none", 1e-3), ("kl", "mean", 2e-2)]
)
def test_the_estimated_gradient_is_as_published(loss, correction, tolerance):
    published = golden("dfme")
    images, units = (jnp.asarray(published[name], jnp.float32) for name in ("x", "u_raw"))
    weights = {name: jnp.asarray(array, jnp.float32) for name, array in published.items() if "__fc" in name}

    def answers(role, inputs):
        rows = jnp.tanh(inputs).reshape(len(inputs), -1)
        return rows @ weights[f"{role}__fc.weight"].T + weights[f"{role}__fc.bias"]

    def objective(values):
        inputs = jnp.tanh(values)
        victim = jax.nn.log_softmax(answers("victim", inputs))
        return -losses.disagreement(answers("clone", inputs), victim, loss, correction)

    epsilon = float(published["epsilon"])
    gradient, value = losses.estimate(objective, images, losses.normalised(units), epsilon)
    factor = losses.published_factor(loss, len(images), int(published["num_classes"]))
    np.testing.assert_allclose(gradient * factor, published[f"grad_{loss}_{correction}"], atol=tolerance)
    np.testing.assert_allclose(jnp.mean(value), published[f"lossG_{loss}_{correction}"], rtol=1e-5)
    # Along many directions it is the true gradient.
    directions = losses.directions(jax.random.key(0), 3000, images)
    estimate, _ = losses.estimate(objective, images, directions, epsilon)
    true = jax.grad(lambda values: jnp.sum(objective(values)))(images)
    assert jnp.linalg.norm(estimate - true) < 0.25 * jnp.linalg.norm(true)
    np.testing.assert_allclose(jnp.sqrt(jnp.sum(directions**2, (2, 3, 4))), 1, rtol=1e-5)


def test_losses_are_as_published():
    published = golden("losses")
    clone, victim = (jnp.asarray(published[name], jnp.float32) for name in ("student_logits", "full_teacher_logits"))
    log_probabilities = jax.nn.log_softmax(victim)
    recovered = losses.recovered_logits(log_probabilities)
    np.testing.assert_allclose(recovered, published["dfme_teacher_recovered"], atol=1e-5)
    distances = losses.disagreement(clone, log_probabilities, "l1")
    np.testing.assert_allclose(jnp.mean(distances), published["dfme_l1_recovered"], rtol=1e-5)
    for correction in options.CORRECTIONS:
        kl = losses.disagreement(clone, log_probabilities, "kl", correction)
        np.testing.assert_allclose(jnp.mean(kl), published["dfme_kl"], rtol=1e-5)


def test_budget_and_rates_are_as_published():
    golden_rates = golden("schedules")
    published = extraction.Options(is_faithful=True)
    assert options.queries_per_iteration(published) == golden_rates["dfme_cost_per_iteration"]
    assert options.epochs(published) == golden_rates["dfme_epochs"]
    recipe = options.clone_recipe(published)
    epochs = jnp.arange(options.epochs(published))
    factors = jax.vmap(lambda epoch: population.recipe.schedule_factor(recipe, epoch, jnp.float32(0)))(epochs)
    np.testing.assert_allclose(recipe.learning_rate * factors, golden_rates["dfme_student_lr_by_epoch"], rtol=1e-5)


@pytest.mark.parametrize(("budget", "epochs", "iterations"), [(160, 1, 1), (480, 1, 3), (800, 1, 4), (1280, 2, 4)])
def test_a_budget_is_never_exceeded(budget, epochs, iterations):
    run_options = SMALL._replace(budget=budget)
    assert (options.epochs(run_options), options.iterations(run_options)) == (epochs, iterations)
    job = extraction.job(make_extraction(run_options), [0], keys.root(0), run_options, victims=weights(1))
    assert job.steps * epochs * options.queries_per_iteration(run_options) <= budget
    faithful = run_options._replace(is_faithful=True)
    assert options.epochs(faithful) == budget // 640 + 1 and options.iterations(faithful) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 159}, "budget = 159 queries do not pay for one iteration, which takes 160"),
        ({"loss": "l2"}, "l2"),
        ({"directions": 0}, "directions"),
        ({"step_size": 0.0}, "step_size"),
        ({"batch": 1}, "batch"),
    ],
)
def test_impossible_extractions_are_refused(changes, message):
    with pytest.raises(errors.ConfigError, match=message):
        make_extraction(SMALL._replace(**changes))


def make_extraction(run_options=SMALL, victim=None):
    """An extraction of a linear victim by a small network."""
    clone = dense.Mlp(CLASSES, (8,))
    return extraction.task(
        clone, generator.build((FEATURES,), run_options.width), victim or linear_victim, (FEATURES,), run_options
    )


def linear_victim(constants, inputs):
    return jax.nn.log_softmax(3 * inputs @ constants["victim"]["kernel"])


def weights(count):
    return {"kernel": np.random.default_rng(0).normal(size=(count, FEATURES, CLASSES)).astype(np.float32)}


def data_of(kernels, rows=60):
    inputs = np.random.default_rng(1).uniform(-1, 1, (rows, FEATURES)).astype(np.float32)
    answers = np.einsum("nf,vfc->vnc", inputs, kernels["kernel"]).argmax(-1)
    return population.DeviceDataset(inputs, np.zeros(rows, np.int32)), answers


def trained(count, run_options=SMALL, ids=None, epochs=0, mapping="map", **resumed):
    kernels = weights(count)
    data, answers = data_of(kernels)
    ids = list(range(count)) if ids is None else ids
    member_kernels = jax.tree.map(lambda leaf: leaf[np.asarray(ids)], kernels)
    job = extraction.job(
        make_extraction(run_options),
        ids,
        keys.root(3),
        run_options,
        victims=member_kernels,
        answers=answers[ids],
        rows=np.arange(60),
    )
    epochs = epochs or options.epochs(run_options)
    steps = [(progress.epoch, population.host(progress), progress.loss, progress.accuracy)
             for progress in population.train(job, data, epochs, executor.make_mapping(mapping, devices=1), **resumed)
             ]  # fmt: skip
    return steps


def naive_iteration(state, run_options, kernel, key):
    """One iteration, one input, direction and array at a time: no scan, no optax."""
    net, made_by = dense.Mlp(CLASSES, (8,)), generator.build((FEATURES,), run_options.width)
    params, stats = dict(state.params), dict(state.model_state)
    assert run_options.generator_steps == 1 and run_options.loss == "l1"
    step_key = keys.at(keys.stream(key, "generator"), 0)
    latents = jax.random.normal(keys.stream(step_key, "latents"), (run_options.batch, run_options.latents))
    units = losses.directions(
        keys.stream(step_key, "directions"), run_options.directions, jnp.zeros((run_options.batch, FEATURES))
    )

    def run(values):
        return made_by.apply({"params": values, **stats["generator"]}, latents, train=True, mutable=["batch_stats"])[0]

    def distance(row):
        inputs = np.tanh(row)[None]
        target = np.asarray(jax.nn.log_softmax(3 * inputs @ kernel))
        target = target - target.mean()
        return -np.abs(np.asarray(net.apply({"params": params["clone"]}, inputs, train=False)) - target).mean()

    raw = np.asarray(run(params["generator"]), np.float32)
    estimated = np.zeros_like(raw)
    for i, row in enumerate(raw):
        for unit in np.asarray(units[i]):
            change = distance(row + np.float32(run_options.step_size) * unit) - distance(row)
            estimated[i] += FEATURES / (run_options.directions * run_options.step_size) * change * unit
    estimated /= run_options.batch * CLASSES
    gradients = jax.grad(lambda values: jnp.sum(run(values) * estimated))(params["generator"])
    _, moved = made_by.apply({"params": params["generator"], **stats["generator"]}, latents, train=True,
                             mutable=["batch_stats"])  # fmt: skip
    params["generator"] = jax.tree.map(
        lambda value, grad: value - run_options.generator_rate * (grad + run_options.weight_decay * value),
        params["generator"], gradients,
    )  # fmt: skip
    stats["generator"] = dict(moved)
    velocity = jax.tree.map(jnp.zeros_like, params["clone"])
    for step in range(run_options.clone_steps):
        step_key = keys.at(keys.stream(key, "clone"), step)
        latents = jax.random.normal(step_key, (run_options.batch, run_options.latents))
        inputs, moved = made_by.apply({"params": params["generator"], **stats["generator"]}, latents, train=True,
                                     mutable=["batch_stats"])  # fmt: skip
        stats["generator"] = dict(moved)
        inputs = jnp.tanh(inputs)
        target = jax.nn.log_softmax(3 * inputs @ kernel)
        target = target - target.mean(-1, keepdims=True)
        distance_of = lambda values: jnp.abs(net.apply({"params": values}, inputs, train=True) - target).mean()  # noqa: B023, E731
        gradients = jax.tree.map(
            lambda grad, value: grad + run_options.weight_decay * value,
            jax.grad(distance_of)(params["clone"]),
            params["clone"],
        )
        velocity = jax.tree.map(lambda old, grad: run_options.momentum * old + grad, velocity, gradients)
        params["clone"] = jax.tree.map(lambda value, v: value - run_options.clone_rate * v, params["clone"], velocity)
    return params, stats


def test_one_iteration_is_that_of_a_naive_reference():
    run_options = SMALL._replace(directions=2, generator_optimizer="sgd")  # Adam is optax's own
    task, kernel = make_extraction(run_options), weights(1)["kernel"][0]
    state = task.init(keys.root(5))
    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    key = keys.root(9)
    actual, metrics = jax.jit(lambda state: task.step(state, {}, step_info, key, {"victim": {"kernel": kernel}}))(state)
    params, stats = naive_iteration(state, run_options, kernel, key)
    for mine, expected, begun in (
        (actual.params, params, state.params),
        (actual.model_state, stats, state.model_state),
    ):
        expected, begun = dict(trees.named_leaves(expected)), dict(trees.named_leaves(begun))
        for path, leaf in trees.named_leaves(mine):
            np.testing.assert_allclose(leaf, expected[path], atol=2e-5, err_msg=path)
            assert not np.array_equal(leaf, begun[path]), path
    assert float(metrics.weight) == 96 and 0 <= float(metrics.correct) <= 96


@pytest.fixture(scope="module")
def three():
    return trained(3)


def test_clones_of_many_victims_are_each_the_clone_alone(three):
    for clone in (0, 2):
        alone = trained(3, ids=[clone])
        for (_, whole, loss, right), (_, own, own_loss, own_right) in zip(three, alone, strict=True):
            for mine, expected in zip(jax.tree.leaves(own), jax.tree.leaves(whole), strict=True):
                np.testing.assert_allclose(mine[0], expected[clone], atol=1e-5)
            np.testing.assert_allclose([own_loss[0], own_right[0]], [loss[clone], right[clone]], atol=1e-5)


def test_side_by_side_is_one_after_another():
    # By SGD: Adam turns the rounding of gradients that are zero (biases before batch norm) into whole steps.
    run_options = SMALL._replace(generator_optimizer="sgd", budget=640)
    together, sequential = (trained(3, run_options, mapping=mapping)[-1][1] for mapping in ("vmap", "map"))
    for mine, expected in zip(jax.tree.leaves(together), jax.tree.leaves(sequential), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-4)


def test_an_interrupted_extraction_goes_on_as_if_nothing_had_happened(three):
    (_, carry, *_) = trained(3, epochs=2)[-1]
    rest = trained(3, carry=carry, done=2)
    assert [step[0] for step in rest] == [3] and len(three) == 3
    for mine, expected in zip(jax.tree.leaves(rest[-1][1]), jax.tree.leaves(three[-1][1]), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_the_best_clone_is_kept_and_agrees_with_its_victim():
    run_options = SMALL._replace(budget=160 * 4 * 25)
    steps = trained(2, run_options)
    kernels = weights(2)
    data, answers = data_of(kernels)
    final = steps[-1][1]
    clones = extraction.clones_of(population.kept_variables(final))
    net = dense.Mlp(CLASSES, (8,))
    for clone in range(2):
        logits = net.apply(trees.take(clones, clone), jnp.asarray(data.inputs), train=False)
        fidelity = extraction.fidelity(logits, np.eye(CLASSES)[answers[clone]])
        assert fidelity == pytest.approx(float(final.best_accuracy[clone]))
        assert fidelity > 0.8  # two thirds are wrong by chance
    best = np.stack([step[1].best_accuracy for step in steps])
    assert (np.diff(best, axis=0) >= 0).all()


def test_a_victim_outside_jax_is_asked_alike():
    kernel = weights(1)["kernel"][0]
    queries = []

    def answer(inputs):
        queries.append(len(inputs))
        logits = 3 * inputs @ kernel
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    outside, inside = make_extraction(victim=victims.host(answer, CLASSES)), make_extraction()
    state = outside.init(keys.root(5))
    constants = {"victim": {"kernel": kernel}}
    actual, _ = jax.jit(lambda state: outside.step(state, {}, step_info, keys.root(1), {}))(state)
    expected, _ = jax.jit(lambda state: inside.step(state, {}, step_info, keys.root(1), constants))(state)
    pairs = zip(*(jax.tree.leaves(state.params["clone"]) for state in (actual, expected)), strict=True)
    for mine, other in pairs:
        np.testing.assert_allclose(mine, other, atol=1e-3)
    assert sum(queries) == options.queries_per_iteration(SMALL)
    with pytest.raises(Exception, match=r"answers with shape \(32, 4\)"):
        wrong = make_extraction(victim=victims.host(lambda inputs: np.zeros((len(inputs), 4)), CLASSES))
        jax.block_until_ready(jax.jit(lambda state: wrong.step(state, {}, step_info, keys.root(1), {}))(state))


def test_pictures_and_flax_victims():
    """One iteration on small pictures, the victim a network whose weights come with the member."""
    net, run_options = dense.Mlp(CLASSES, (8,)), SMALL._replace(batch=4, latents=3, width=2)
    shape = (4, 8, 1)
    task = extraction.task(net, generator.build(shape, 2, "cpu"), victims.network(net), shape, run_options)
    weights_of_victim = net.init(keys.root(1), jnp.zeros((1, *shape)))
    state = task.init(keys.root(0))
    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    actual, metrics = jax.jit(lambda s: task.step(s, {}, step_info, keys.root(1), {"victim": weights_of_victim}))(state)
    assert np.isfinite(metrics.loss)
    for path, leaf in trees.named_leaves(actual.params["generator"]):
        assert np.isfinite(leaf).all() and not np.array_equal(leaf, dict(trees.named_leaves(state.params["generator"]))[
            path]), path  # fmt: skip


def test_jobs_that_do_not_fit_are_refused():
    extraction_task, key = make_extraction(), keys.root(0)
    with pytest.raises(errors.ShapeError, match=r"expected \[3, ...\]"):
        extraction.job(extraction_task, range(3), key, SMALL, victims=weights(2))
    with pytest.raises(errors.DataError, match="without the victims' answers"):
        extraction.job(extraction_task, range(2), key, SMALL, victims=weights(2), rows=[0, 1])
    with pytest.raises(errors.ShapeError):
        extraction.job(extraction_task, [0], key, SMALL, victims=weights(1), rows=[0], answers=np.zeros((2, 5), int))
