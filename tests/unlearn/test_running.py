"""The runner of phases: checkpoints, divergence, BatchNorm policies, augmentation, memory, early refusals."""

import dataclasses

import jax
import numpy as np
import pytest
from common_checks import CONVOLVED, DENSE, FORGET, IMAGES, LABELS, assert_close, build, make_job, outcome

from jaxunlearn import errors, keys, trees, unlearn
from jaxunlearn.population import capacity
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.blocks import transforms
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import boundary, pruning, replay, saliency
from jaxunlearn.unlearn.methods.importance import dampening, fisher


def test_a_checkpoint_in_any_phase_leads_to_the_same_end():
    method = unlearn.lookup("finetune").build(epochs=3, batch=16)
    longer = dataclasses.replace(
        method, phases=(dataclasses.replace(method.phases[0], save_as="first"), *method.phases)
    )
    job = make_job(longer)
    kept, straight = [], None
    for number, event in enumerate(running.run(job)):
        straight = event.outcome
        if number in (1, 4):
            kept.append((event, jax.tree.map(np.asarray, event.checkpoint())))
    for event, tree in kept:
        shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        expected = running.templates(job, event.phase)
        assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), expected)
        *_, last = running.run(job, running.PhaseCheckpoint(event.phase, event.epoch, tree))
        actual, expected = jax.tree.leaves(last.outcome.variables), jax.tree.leaves(straight.variables)
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_recalibrated_statistics_are_means_over_the_retained_rows():
    method = build("finetune")
    job = make_job(method, name="activation_reset")._replace(bn="recalibrate", batch=64)
    actual = trees.take(outcome(job).variables, 0)
    retained = job.retain[0]

    @jax.jit
    def maps(params, model_state):
        return networks.activations(CONVOLVED, params, model_state, IMAGES[retained], None)[0][("Conv_0",)]

    convolved = np.asarray(maps(actual["params"], {"batch_stats": actual["batch_stats"]}))
    statistics = actual["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"], convolved.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(statistics["var"], convolved.var((0, 1, 2), ddof=1), rtol=1e-4)


def test_layers_come_in_the_order_of_calls():
    actual = [(layer.path[-1], layer.kind) for layer in networks.layers(CONVOLVED)]
    assert actual == [("Conv_0", "conv"), ("BatchNorm_0", "norm"), ("Dense_0", "dense")]
    assert networks.head(CONVOLVED).path == ("Dense_0",)


def test_a_wider_network_answers_as_before_on_the_old_classes():
    params, model_state = networks.init(DENSE, keys.root(0))
    wide = networks.widen(DENSE, params, keys.root(1))
    narrow, _ = networks.forward(DENSE, params, model_state, IMAGES[:5])
    wider, _ = networks.forward(networks.widened(DENSE), wide, model_state, IMAGES[:5])
    assert wider.shape == (5, 5)
    np.testing.assert_allclose(wider[:, :4], narrow, atol=1e-6)
    for a, b in zip(jax.tree.leaves(networks.narrow(DENSE, wide)), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_rows_are_refused():
    method = build("finetune")
    broken = dataclasses.replace(method.phases[0], stream_specs={"retain": unlearn.StreamSpec("retian")})
    with pytest.raises(errors.ConfigError, match="retain"):
        outcome(make_job(dataclasses.replace(method, phases=(broken,))))


def cut_off(job, indices):
    """The outcome of a run, and those of runs that go on from its events at these places."""
    kept, straight = [], None
    for index, event in enumerate(running.run(job)):
        straight = event.outcome
        if index in indices:
            kept.append(running.PhaseCheckpoint(event.phase, event.epoch, jax.tree.map(np.asarray, event.checkpoint())))
    assert len(kept) == len(indices)
    return straight, [outcome_of(running.run(job, checkpoint)) for checkpoint in kept]


def outcome_of(events):
    *_, last = events
    return last.outcome


def test_a_member_that_diverges_is_frozen_alone_and_stays_flagged_wherever_the_run_is_cut_off():
    build_one = unlearn.lookup("hybrid").build
    hyper = {"lr": np.asarray([0.01, 1e20, 0.01], np.float32)}
    job = make_job(build_one())._replace(build=lambda hyper: build_one(epochs=2, batch=16, **hyper), hyper=hyper)
    straight, cut = cut_off(job, (0, 1, 2))
    for actual in (straight, *cut):
        assert (actual.diverged_at >= 0).tolist() == [False, True, False]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trees.take(actual.variables, np.array([0, 2]))))


@pytest.mark.parametrize("kind", ["training", "fresh", "edit"])
def test_a_member_that_an_earlier_phase_froze_is_not_changed_by_later_ones(kind):
    first = unlearn.lookup("finetune").build(epochs=1, batch=16).phases[0]
    second = unlearn.lookup("ascent").build(epochs=1, batch=16, lr=0.01).phases[0]  # reads other rows
    if kind == "fresh":
        second = dataclasses.replace(second, start="fresh")
    elif kind == "edit":
        change = transforms.one_shot(lambda params, **extras: jax.tree.map(lambda leaf: 2 * leaf, params))
        second = unlearn.Phase(change)
    retain = [np.arange(26, 59), np.arange(26, 60), np.arange(27, 59)]
    job = make_job(unlearn.Method((first, second)), retain=retain)._replace(bn="frozen")
    broken = np.where(np.arange(len(IMAGES))[:, None, None, None] == 59, np.nan, IMAGES)
    job = job._replace(data=job.data._replace(inputs=broken))
    event, *_ = running.run(job)
    after_first = jax.tree.map(np.asarray, event.checkpoint())["carry"]
    actual = outcome(job)
    frozen_at = after_first.diverged_at[1]
    assert actual.diverged_at.tolist() == after_first.diverged_at.tolist() == [-1, frozen_at, -1] and frozen_at >= 0
    changed = [
        differ(trees.take(actual.variables["params"], i), trees.take(after_first.state.params, i)) for i in range(3)
    ]
    assert changed == [True, False, True]


def test_a_phase_that_stops_early_goes_on_from_its_last_epoch():
    job = make_job(saliency.sfron(epochs=5, iterations=4, batch=16), FORGET[:1])
    assert running.epochs_of(job, 0) == 1
    straight, (cut,) = cut_off(job, (0,))
    for a, b in zip(jax.tree.leaves(straight.variables), jax.tree.leaves(cut.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def model_state(job):
    return trees.take(outcome(job).variables["batch_stats"], 0)


def beside_other_forget_rows(method, policy):
    """Both members of a population that differ in the pictures of the rows to forget, and in nothing else."""
    job = make_job(method, FORGET[:1] * 2, member_ids=[0, 0])._replace(bn=policy)
    images = np.concatenate([IMAGES, IMAGES[FORGET[0]][:, ::-1] + 1.0])
    data = job.data._replace(inputs=images, labels=np.append(LABELS, LABELS[FORGET[0]]))
    forget = [FORGET[0], np.arange(len(IMAGES), len(images))]
    actual = outcome(job._replace(data=data, forget=forget)).variables
    return trees.take(actual, 0), trees.take(actual, 1)


def differ(first, second):
    return any((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def test_recalibrated_edits_forget_what_their_passes_did_to_the_statistics():
    for policy, leaks in (("faithful", True), ("recalibrate", False)):
        first, second = beside_other_forget_rows(dampening.ssd(alpha=1e9, batch=16), policy)
        assert differ(first["batch_stats"], second["batch_stats"]) == leaks


def test_training_mode_in_the_first_epoch_alone():
    def after(epochs, policy):
        method = unlearn.lookup("finetune").build(epochs=epochs, batch=16)
        return outcome(make_job(method, FORGET[:1])._replace(bn=policy)).variables

    single_epoch, three_epochs = after(1, "faithful"), after(3, "first_epoch")
    assert_close(three_epochs["batch_stats"], single_epoch["batch_stats"], 1e-5)
    assert differ(single_epoch["params"], three_epochs["params"])


def test_edits_keep_their_own_mode_under_the_policy_of_the_first_epoch():
    method = unlearn.lookup("influence").build(iterations=3, samples=8)
    frozen, first = (
        outcome(make_job(method, FORGET[:1])._replace(bn=bn)).variables for bn in ("frozen", "first_epoch")
    )
    assert not differ(frozen, first)


@pytest.mark.parametrize("method", [fisher.fisher(kind="batch"), boundary.boundary_expand(epochs=1, batch=16)])
def test_models_left_in_training_mode_take_in_the_forget_rows_only_where_published_code_does(method):
    job = make_job(method, FORGET[:1])
    assert method.left_training and not differ(model_state(job), trees.take(job.originals["batch_stats"], 0))
    first, second = beside_other_forget_rows(method, "faithful")
    assert differ(first["batch_stats"], second["batch_stats"])


def test_a_replay_of_exact_steps_never_sees_the_forget_rows():
    first, second = beside_other_forget_rows(replay.deltagrad(epochs=2, period=1, batch=16), "auto")
    assert_close(second, first, 1e-5)


def jittered(inputs, key, is_train):
    return inputs + 0.5 * is_train * jax.random.uniform(key, inputs.shape)


def test_estimates_are_of_the_rows_as_they_are_unless_published_otherwise():
    def after(compat, augment):
        net = DENSE._replace(prepare=jittered)
        job = make_job(dampening.ssd(alpha=1.0, batch=16, compat=compat), FORGET[:1])
        return outcome(job._replace(network=net, augment=augment)).variables["params"]

    assert not differ(after("corrected", True), after("corrected", False))
    assert differ(after("faithful", True), after("faithful", False))


def test_methods_published_without_augmentation_train_without():
    def after(name, augment):
        net = DENSE._replace(prepare=jittered)
        job = make_job(unlearn.lookup(name).build(epochs=1, batch=16), FORGET[:1])._replace(network=net, bn="frozen")
        return outcome(job._replace(augment=augment)).variables["params"]

    assert not differ(after("poison", True), after("poison", False))
    assert differ(after("finetune", True), after("finetune", False))


def test_a_program_that_does_not_fit_is_not_run():
    with pytest.raises(capacity.DoesNotFit, match="needs .* per device"):
        outcome(make_job(build("finetune"))._replace(budget=1000))
    with pytest.raises(capacity.DoesNotFit):
        outcome(make_job(build("ssd"))._replace(budget=1000))


@pytest.mark.parametrize("kind", ["map", "vmap", "loop"])
def test_optimizers_of_a_phase_start_on_the_devices_of_the_job_within_its_budget(kind):
    phase = build("finetune").phases[0]
    job, blank = (
        make_job(unlearn.Method((dataclasses.replace(phase, transform=transform),)), mapping=kind)
        for transform in (transforms.adamw(1e-3), transforms.sgd(1e-3))
    )
    originals = trees.to_host(job.originals)
    state = running.State(originals["params"], {}, ())
    actual = running._plain_start(job, 0, state).optimizer
    expected = jax.vmap(transforms.adamw(1e-3).init)(originals["params"])
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(actual))
    with pytest.raises(capacity.DoesNotFit):
        running._plain_start(job._replace(budget=100), 0, state)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(running._plain_start(blank, 0, state).optimizer))


def test_tracing_finds_what_a_network_lacks_and_what_a_method_gets_wrong():
    running.trace(make_job(build("salun")))
    with pytest.raises(errors.ConfigError, match="no convolution"):
        running.trace(make_job(pruning.activation_reset(reset_mlp=False)))
    phase = build("finetune").phases[0]
    wrong = dataclasses.replace(
        phase, gradient_steps=(unlearn.GradientStep(lambda outputs, batches, context: outputs["forget"]),)
    )
    with pytest.raises(KeyError):
        running.trace(make_job(unlearn.Method((wrong,))))


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("ssd", {"compat": "faithfull"}, "Did you mean 'faithful'"),
        ("finetune", {"epochs": -1}, "epochs = -1: must be between 0 and 100000"),
        ("finetune", {"lr": float("nan")}, "lr = nan: expected a finite number"),
        ("salun", {"fraction": 2.0}, "fraction = 2.0: must be between 0 and 1"),
        ("finetune", {"batch": -5}, "batch = -5"),
    ],
)
def test_impossible_hyperparameters_are_refused(name, given, message):
    entry = registry.METHODS[name]
    with pytest.raises(errors.ConfigError, match=message):
        registry.bind_hyperparameters(entry, {**registry.hyperparameters(entry), **given})


def test_a_users_method_may_have_numbers_below_zero_but_no_steps_below_zero():
    def mine(strength: float = -1.0, epochs: int = 1):
        method = build("finetune")
        return dataclasses.replace(method, phases=(dataclasses.replace(method.phases[0], epochs=epochs),))

    entry = registry.MethodEntry(mine, "", "", ())
    assert registry.bind_hyperparameters(entry, {"strength": -1.0, "epochs": 1})({}).phases[0].epochs == 1
    with pytest.raises(errors.ConfigError, match="epochs = -1"):
        registry.bind_hyperparameters(entry, {"strength": 1.0, "epochs": -1})
    with pytest.raises(errors.ConfigError, match="has the default None"):
        registry.hyperparameters(registry.MethodEntry(lambda rate=None: None, "", "", ()))
