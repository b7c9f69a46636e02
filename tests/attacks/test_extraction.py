"""Data-free model extraction: published numbers, a naive twin of one iteration, and the engine around it."""

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
    known = golden("dfme")
    images, units = (jnp.asarray(known[name], jnp.float32) for name in ("x", "u_raw"))
    weights = {name: jnp.asarray(array, jnp.float32) for name, array in known.items() if "__fc" in name}

    def answers(who, inputs):
        rows = jnp.tanh(inputs).reshape(len(inputs), -1)
        return rows @ weights[f"{who}__fc.weight"].T + weights[f"{who}__fc.bias"]

    def objective(values):
        shown = jnp.tanh(values)
        victim = jax.nn.log_softmax(answers("victim", shown))
        return -losses.disagreement(answers("clone", shown), victim, loss, correction)

    epsilon = float(known["epsilon"])
    gradient, value = losses.estimate(objective, images, losses.normalised(units), epsilon)
    factor = losses.published_factor(loss, len(images), int(known["num_classes"]))
    np.testing.assert_allclose(gradient * factor, known[f"grad_{loss}_{correction}"], atol=tolerance)
    np.testing.assert_allclose(jnp.mean(value), known[f"lossG_{loss}_{correction}"], rtol=1e-5)
    # Along many directions it is the true gradient.
    many = losses.directions(jax.random.key(0), 3000, images)
    sure, _ = losses.estimate(objective, images, many, epsilon)
    true = jax.grad(lambda values: jnp.sum(objective(values)))(images)
    assert jnp.linalg.norm(sure - true) < 0.25 * jnp.linalg.norm(true)
    np.testing.assert_allclose(jnp.sqrt(jnp.sum(many**2, (2, 3, 4))), 1, rtol=1e-5)


def test_losses_are_as_published():
    known = golden("losses")
    clone, victim = (jnp.asarray(known[name], jnp.float32) for name in ("student_logits", "full_teacher_logits"))
    log_probabilities = jax.nn.log_softmax(victim)
    recovered = losses.recovered_logits(log_probabilities)
    np.testing.assert_allclose(recovered, known["dfme_teacher_recovered"], atol=1e-5)
    apart = losses.disagreement(clone, log_probabilities, "l1")
    np.testing.assert_allclose(jnp.mean(apart), known["dfme_l1_recovered"], rtol=1e-5)
    for correction in options.CORRECTIONS:
        kl = losses.disagreement(clone, log_probabilities, "kl", correction)
        np.testing.assert_allclose(jnp.mean(kl), known["dfme_kl"], rtol=1e-5)


def test_budget_and_rates_are_as_published():
    known = golden("schedules")
    published = extraction.Options(is_faithful=True)
    assert options.queries_per_iteration(published) == known["dfme_cost_per_iteration"]
    assert options.epochs(published) == known["dfme_epochs"]
    recipe = options.clone_recipe(published)
    epochs = jnp.arange(options.epochs(published))
    factors = jax.vmap(lambda epoch: population.recipe.rate(recipe, epoch, jnp.float32(0)))(epochs)
    np.testing.assert_allclose(recipe.learning_rate * factors, known["dfme_student_lr_by_epoch"], rtol=1e-5)


@pytest.mark.parametrize(("budget", "epochs", "iterations"), [(160, 1, 1), (480, 1, 3), (800, 1, 4), (1280, 2, 4)])
def test_a_budget_is_never_exceeded(budget, epochs, iterations):
    chosen = SMALL._replace(budget=budget)
    assert (options.epochs(chosen), options.iterations(chosen)) == (epochs, iterations)
    job = extraction.job(made(chosen), [0], keys.root(0), chosen, victims=weights(1))
    assert job.steps * epochs * options.queries_per_iteration(chosen) <= budget
    faithful = chosen._replace(is_faithful=True)
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
        made(SMALL._replace(**changes))


def made(chosen=SMALL, victim=None):
    """An extraction of a linear victim by a small network."""
    clone = dense.Mlp(CLASSES, (8,))
    return extraction.task(
        clone, generator.build((FEATURES,), chosen.width), victim or linear_victim, (FEATURES,), chosen
    )


def linear_victim(constants, inputs):
    return jax.nn.log_softmax(3 * inputs @ constants["victim"]["kernel"])


def weights(count):
    return {"kernel": np.random.default_rng(0).normal(size=(count, FEATURES, CLASSES)).astype(np.float32)}


def data_of(kernels, rows=60):
    inputs = np.random.default_rng(1).uniform(-1, 1, (rows, FEATURES)).astype(np.float32)
    answers = np.einsum("nf,vfc->vnc", inputs, kernels["kernel"]).argmax(-1)
    return population.DeviceDataset(inputs, np.zeros(rows, np.int32)), answers


def trained(count, chosen=SMALL, ids=None, epochs=0, mapping="map", **resumed):
    kernels = weights(count)
    data, answers = data_of(kernels)
    ids = list(range(count)) if ids is None else ids
    own = jax.tree.map(lambda leaf: leaf[np.asarray(ids)], kernels)
    job = extraction.job(made(chosen), ids, keys.root(3), chosen, victims=own, answers=answers[ids], rows=np.arange(60))
    epochs = epochs or options.epochs(chosen)
    steps = [(seen.epoch, population.host(seen), seen.loss, seen.accuracy)
             for seen in population.train(job, data, epochs, executor.make_mapping(mapping, devices=1), **resumed)
             ]  # fmt: skip
    return steps


def naive_iteration(state, chosen, kernel, key):
    """One iteration, one input, direction and array at a time: no scan, no optax."""
    net, made_by = dense.Mlp(CLASSES, (8,)), generator.build((FEATURES,), chosen.width)
    params, stats = dict(state.params), dict(state.model_state)
    assert chosen.generator_steps == 1 and chosen.loss == "l1"
    own = keys.at(keys.stream(key, "generator"), 0)
    latents = jax.random.normal(keys.stream(own, "latents"), (chosen.batch, chosen.latents))
    units = losses.directions(keys.stream(own, "directions"), chosen.directions, jnp.zeros((chosen.batch, FEATURES)))

    def run(values):
        return made_by.apply({"params": values, **stats["generator"]}, latents, train=True, mutable=["batch_stats"])[0]

    def distance(row):
        shown = np.tanh(row)[None]
        target = np.asarray(jax.nn.log_softmax(3 * shown @ kernel))
        target = target - target.mean()
        return -np.abs(np.asarray(net.apply({"params": params["clone"]}, shown, train=False)) - target).mean()

    raw = np.asarray(run(params["generator"]), np.float32)
    estimated = np.zeros_like(raw)
    for i, row in enumerate(raw):
        for unit in np.asarray(units[i]):
            change = distance(row + np.float32(chosen.step_size) * unit) - distance(row)
            estimated[i] += FEATURES / (chosen.directions * chosen.step_size) * change * unit
    estimated /= chosen.batch * CLASSES
    gradients = jax.grad(lambda values: jnp.sum(run(values) * estimated))(params["generator"])
    _, moved = made_by.apply({"params": params["generator"], **stats["generator"]}, latents, train=True,
                             mutable=["batch_stats"])  # fmt: skip
    params["generator"] = jax.tree.map(
        lambda value, grad: value - chosen.generator_rate * (grad + chosen.weight_decay * value),
        params["generator"], gradients,
    )  # fmt: skip
    stats["generator"] = dict(moved)
    velocity = jax.tree.map(jnp.zeros_like, params["clone"])
    for number in range(chosen.clone_steps):
        own = keys.at(keys.stream(key, "clone"), number)
        latents = jax.random.normal(own, (chosen.batch, chosen.latents))
        shown, moved = made_by.apply({"params": params["generator"], **stats["generator"]}, latents, train=True,
                                     mutable=["batch_stats"])  # fmt: skip
        stats["generator"] = dict(moved)
        shown = jnp.tanh(shown)
        target = jax.nn.log_softmax(3 * shown @ kernel)
        target = target - target.mean(-1, keepdims=True)
        apart = lambda values: jnp.abs(net.apply({"params": values}, shown, train=True) - target).mean()  # noqa: B023, E731
        gradients = jax.tree.map(
            lambda grad, value: grad + chosen.weight_decay * value, jax.grad(apart)(params["clone"]), params["clone"]
        )
        velocity = jax.tree.map(lambda old, grad: chosen.momentum * old + grad, velocity, gradients)
        params["clone"] = jax.tree.map(lambda value, v: value - chosen.clone_rate * v, params["clone"], velocity)
    return params, stats


def test_one_iteration_is_that_of_a_naive_twin():
    chosen = SMALL._replace(directions=2, generator_optimizer="sgd")  # Adam is optax's own
    task, kernel = made(chosen), weights(1)["kernel"][0]
    state = task.init(keys.root(5))
    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    key = keys.root(9)
    found, metrics = jax.jit(lambda state: task.step(state, {}, step_info, key, {"victim": {"kernel": kernel}}))(state)
    params, stats = naive_iteration(state, chosen, kernel, key)
    for mine, wanted, begun in ((found.params, params, state.params), (found.model_state, stats, state.model_state)):
        wanted, begun = dict(trees.named_leaves(wanted)), dict(trees.named_leaves(begun))
        for path, leaf in trees.named_leaves(mine):
            np.testing.assert_allclose(leaf, wanted[path], atol=2e-5, err_msg=path)
            assert not np.array_equal(leaf, begun[path]), path
    assert float(metrics.weight) == 96 and 0 <= float(metrics.correct) <= 96


@pytest.fixture(scope="module")
def three():
    return trained(3)


def test_clones_of_many_victims_are_each_the_clone_alone(three):
    for number in (0, 2):
        alone = trained(3, ids=[number])
        for (_, whole, loss, right), (_, own, own_loss, own_right) in zip(three, alone, strict=True):
            for mine, wanted in zip(jax.tree.leaves(own), jax.tree.leaves(whole), strict=True):
                np.testing.assert_allclose(mine[0], wanted[number], atol=1e-5)
            np.testing.assert_allclose([own_loss[0], own_right[0]], [loss[number], right[number]], atol=1e-5)


def test_side_by_side_is_one_after_another():
    # By SGD: Adam turns the rounding of gradients that are zero (biases before batch norm) into whole steps.
    chosen = SMALL._replace(generator_optimizer="sgd", budget=640)
    together, apart = (trained(3, chosen, mapping=mapping)[-1][1] for mapping in ("vmap", "map"))
    for mine, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-4)


def test_an_interrupted_extraction_goes_on_as_if_nothing_had_happened(three):
    (_, carry, *_) = trained(3, epochs=2)[-1]
    rest = trained(3, carry=carry, done=2)
    assert [step[0] for step in rest] == [3] and len(three) == 3
    for mine, wanted in zip(jax.tree.leaves(rest[-1][1]), jax.tree.leaves(three[-1][1]), strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_the_best_clone_is_kept_and_agrees_with_its_victim():
    chosen = SMALL._replace(budget=160 * 4 * 25)
    steps = trained(2, chosen)
    kernels = weights(2)
    data, answers = data_of(kernels)
    final = steps[-1][1]
    clones = extraction.clones_of(population.kept_variables(final))
    net = dense.Mlp(CLASSES, (8,))
    for number in range(2):
        logits = net.apply(trees.take(clones, number), jnp.asarray(data.inputs), train=False)
        own = extraction.fidelity(logits, np.eye(CLASSES)[answers[number]])
        assert own == pytest.approx(float(final.best_accuracy[number]))
        assert own > 0.8  # two thirds are wrong by chance
    best = np.stack([step[1].best_accuracy for step in steps])
    assert (np.diff(best, axis=0) >= 0).all()


def test_a_victim_outside_jax_is_asked_alike():
    kernel = weights(1)["kernel"][0]
    asked = []

    def answer(inputs):
        asked.append(len(inputs))
        logits = 3 * inputs @ kernel
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    outside, inside = made(victim=victims.host(answer, CLASSES)), made()
    state = outside.init(keys.root(5))
    known = {"victim": {"kernel": kernel}}
    found, _ = jax.jit(lambda state: outside.step(state, {}, step_info, keys.root(1), {}))(state)
    wanted, _ = jax.jit(lambda state: inside.step(state, {}, step_info, keys.root(1), known))(state)
    pairs = zip(*(jax.tree.leaves(one.params["clone"]) for one in (found, wanted)), strict=True)
    for mine, other in pairs:
        np.testing.assert_allclose(mine, other, atol=1e-3)
    assert sum(asked) == options.queries_per_iteration(SMALL)
    with pytest.raises(Exception, match=r"answers with shape \(32, 4\)"):
        wrong = made(victim=victims.host(lambda inputs: np.zeros((len(inputs), 4)), CLASSES))
        jax.block_until_ready(jax.jit(lambda state: wrong.step(state, {}, step_info, keys.root(1), {}))(state))


def test_pictures_and_flax_victims():
    """One iteration on small pictures, the victim a network whose weights come with the member."""
    net, chosen = dense.Mlp(CLASSES, (8,)), SMALL._replace(batch=4, latents=3, width=2)
    shape = (4, 8, 1)
    task = extraction.task(net, generator.build(shape, 2, "cpu"), victims.network(net), shape, chosen)
    weights_of_victim = net.init(keys.root(1), jnp.zeros((1, *shape)))
    state = task.init(keys.root(0))
    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(0))
    found, metrics = jax.jit(lambda s: task.step(s, {}, step_info, keys.root(1), {"victim": weights_of_victim}))(state)
    assert np.isfinite(metrics.loss)
    for path, leaf in trees.named_leaves(found.params["generator"]):
        assert np.isfinite(leaf).all() and not np.array_equal(leaf, dict(trees.named_leaves(state.params["generator"]))[
            path]), path  # fmt: skip


def test_jobs_that_do_not_fit_are_refused():
    extraction_task, key = made(), keys.root(0)
    with pytest.raises(errors.ShapeError, match="expected 3 in front"):
        extraction.job(extraction_task, range(3), key, SMALL, victims=weights(2))
    with pytest.raises(errors.DataError, match="without the victims' answers"):
        extraction.job(extraction_task, range(2), key, SMALL, victims=weights(2), rows=[0, 1])
    with pytest.raises(errors.ShapeError):
        extraction.job(extraction_task, [0], key, SMALL, victims=weights(1), rows=[0], answers=np.zeros((2, 5), int))
