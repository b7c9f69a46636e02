"""The engine: a member's results depend on its id and its rows only."""

import jax
import jax.numpy as jnp
import numpy as np
import problem
import pytest

from jaxunlearn import keys, population, settings, trees
from jaxunlearn.population import recipe, streams, training


@pytest.fixture(scope="module")
def reference():
    """All 40 members, one after another, on one device."""
    carry, _ = problem.fit(problem.make_job(range(40)), population.make_mapping("map", 1, 1))
    return carry


def test_two_devices_give_the_same_members(reference):
    carry, _ = problem.fit(problem.make_job(range(40)), population.make_mapping("map", 1, 2))
    assert problem.largest_difference(carry.state, reference.state) < 1e-5


def test_two_devices_give_bitwise_the_same_members_where_reductions_leave_no_choice():
    # The compiler may order BatchNorm's sums differently in the two programs; matrix products it does not touch.
    job = problem.make_job(range(10), problem.make_task(norm=False))
    single, _ = problem.fit(job, population.make_mapping("map", 1, 1))
    double, _ = problem.fit(job, population.make_mapping("map", 1, 2))
    problem.assert_identical(single, double)


@pytest.mark.parametrize("mapping, group", [("vmap", 1), ("map", 4), ("loop", 1)])
def test_every_mapping_gives_the_same_members(mapping, group):
    job = problem.make_job(range(5))
    expected, _ = problem.fit(job, population.make_mapping("map", 1, 1), epochs=1)
    carry, _ = problem.fit(job, population.make_mapping(mapping, group), epochs=1)
    assert problem.largest_difference(carry.state, expected.state) < 1e-5


def test_a_member_alone_equals_itself_in_the_population(reference):
    for member in (0, 23):
        carry, _ = problem.fit(problem.make_job([member]), population.make_mapping("map", 1, 1))
        assert problem.largest_difference(carry.state, trees.take(reference.state, slice(member, member + 1))) < 1e-5


def test_chunks_of_seven_equal_the_whole(reference):
    for start in (0, 7, 35):
        ids = np.arange(start, min(start + 7, 40))
        carry, _ = problem.fit(problem.make_job(ids), population.make_mapping("map", 1, 2))
        assert problem.largest_difference(carry.state, trees.take(reference.state, ids)) < 1e-5


def test_the_member_number_decides_and_not_the_position(reference):
    moved, _ = problem.fit(problem.make_job([5, 3], positions=[5, 3]))
    assert problem.largest_difference(moved.state, trees.take(reference.state, np.array([5, 3]))) < 1e-5
    renamed, _ = problem.fit(problem.make_job([6, 3], positions=[5, 3]))  # rows of member 5 under another number
    changed = problem.largest_difference(
        trees.take(renamed.state.params, slice(0, 1)), trees.take(reference.state.params, slice(5, 6))
    )
    assert changed > 1e-2


def test_rows_outside_a_membership_cannot_influence_a_member():
    task = problem.make_task(prepare=problem.plain_prepare, dtype=jnp.float32)
    member = problem.memberships(4)
    job = problem.make_job(range(4), task, member)
    clean = problem.IMAGES.astype(np.float32)
    expected, _ = problem.fit(job, inputs=clean)
    for i in range(4):
        poisoned = clean.copy()
        poisoned[~member[i]] = np.nan
        carry, _ = problem.fit(job, inputs=poisoned)
        problem.assert_identical(trees.take(carry.state, i), trees.take(expected.state, i))
        assert carry.diverged_at[i] == training.NOT_DIVERGED
        # The others read poisoned rows, so the test could have failed.
        assert (np.delete(carry.diverged_at, i) == 0).any()


@pytest.mark.parametrize("mapping", ["map", "vmap"])
def test_a_diverging_member_is_frozen_and_its_neighbours_are_untouched(mapping):
    member_mapping = population.make_mapping(mapping)
    rates = np.full(6, 0.1, np.float32)
    calm, _ = problem.fit(problem.make_job(range(6), rate=rates), member_mapping)
    rates[2] = 1e38
    wild, report = problem.fit(problem.make_job(range(6), rate=rates), member_mapping)
    assert wild.diverged_at[2] >= 0
    assert np.isnan(report.loss[2])
    neighbours = np.array([0, 1, 3, 4, 5])
    problem.assert_identical(trees.take(wild, neighbours), trees.take(calm, neighbours))


def test_parameters_that_overflow_in_the_last_step_are_flagged_too():
    member = np.zeros((1, len(problem.LABELS)), bool)
    member[0, :8] = True  # one step: its loss is finite, its update is not
    task = problem.make_task(prepare=problem.plain_prepare, norm=False)
    job = problem.make_job([0], task, member, rate=np.float32(3e38))
    constants = {**job.constants, "weight_decay": np.full(1, 1e4, np.float32)}
    carry, _ = problem.fit(job._replace(constants=constants), epochs=1)
    assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(carry.state.params))
    assert carry.diverged_at[0] == 0


def test_resuming_from_a_checkpoint_gives_identical_members(reference):
    job = problem.make_job(range(40))
    checkpoint, _ = problem.fit(job, population.make_mapping("map", 1, 1), epochs=2)
    carry, report = problem.fit(job, population.make_mapping("map", 1, 1), carry=checkpoint, done=2)
    assert report.epoch == 3
    problem.assert_identical(carry, reference)


def test_padding_to_a_longer_table_changes_nothing(reference):
    job = problem.make_job(range(3))
    longer = streams.from_membership(problem.memberships()[:3], length=500)
    job = job._replace(streams={"train": longer}, steps=population.steps_per_epoch(longer, 32) + 4)
    carry, _ = problem.fit(job)
    assert problem.largest_difference(carry.state, trees.take(reference.state, slice(0, 3))) < 1e-5


def test_float_memberships_weigh_rows():
    task = problem.make_task(prepare=problem.plain_prepare, norm=False)
    member = problem.memberships(1).astype(np.float32)
    once, _ = problem.fit(problem.make_job([0], task, member))
    twice, _ = problem.fit(problem.make_job([0], task, member * 2))
    assert problem.largest_difference(once.state, twice.state) < 1e-5  # a common factor cancels in the mean
    member[0, np.flatnonzero(member[0])[:20]] = 50.0
    tilted, _ = problem.fit(problem.make_job([0], task, member))
    assert problem.largest_difference(once.state.params, tilted.state.params) > 1e-2


def test_the_best_epoch_is_kept_on_request():
    table = problem.memberships(3)
    held_out = streams.from_membership(~table)
    job = problem.make_job(range(3), rate=0.5, held_out=held_out)
    accuracies, carries = [], []
    for report in population.train(
        job, population.DeviceDataset(problem.IMAGES, problem.LABELS), 6, population.make_mapping("map")
    ):
        carry = population.host(report)
        rows = np.arange(len(problem.LABELS))
        blocks = population.predict(
            job.task, population.variables(carry.state), problem.IMAGES, rows, population.make_mapping("map")
        )
        logits = np.concatenate([block for _, block in blocks], axis=1)
        right = logits.argmax(-1) == problem.LABELS
        accuracies.append([right[i][~table[i]].mean() for i in range(3)])
        carries.append(carry)
    best = np.argmax(accuracies, axis=0)
    np.testing.assert_allclose(carries[-1].best_accuracy, np.max(accuracies, axis=0), atol=1e-6)
    for i in range(3):
        expected = trees.take(population.variables(carries[best[i]].state), i)
        problem.assert_identical(trees.take(training.kept_variables(carries[-1]), i), expected)


def test_the_epoch_program_needs_no_communication_between_devices():
    job = problem.make_job(range(4))
    data = population.DeviceDataset(problem.IMAGES, problem.LABELS)
    program = training.compile_epoch(job, data, population.make_mapping("map", 1, 2))
    text = program.call.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text


def test_statistics_that_overflow_flag_their_member():
    """No loss shows it: training normalises by the batch."""
    job = problem.make_job(range(3))
    initial = jax.vmap(job.task.init)(jax.random.split(keys.root(0), 3))
    is_broken = np.array([False, True, False])[:, None]
    model_state = jax.tree.map(lambda leaf: jnp.where(is_broken, jnp.inf, leaf), initial.model_state)
    carry, report = problem.fit(job._replace(initial=initial._replace(model_state=model_state)), epochs=1)
    assert np.isfinite(report.loss).all()
    assert (carry.diverged_at >= 0).tolist() == [False, True, False]


def test_more_devices_than_present_is_a_clear_error():
    with pytest.raises(Exception, match=r"engine.devices = 99, but this process sees 2 cpu device"):
        population.make_mapping("map", 1, 99)


def reference_sgd(params, batches, rates, decay, momentum):
    """A plain NumPy reference: tanh MLP, softmax cross entropy, L2 added to the gradient, momentum, SGD."""
    velocity = jax.tree.map(np.zeros_like, params)
    for (rows, weights), rate in zip(batches, rates, strict=True):
        batch_rows = rows[weights > 0]
        x = problem.IMAGES[batch_rows].reshape(len(batch_rows), -1).astype(np.float64) / 16
        hidden = np.tanh(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(batch_rows)), problem.LABELS[batch_rows]] -= 1
        delta = p / len(batch_rows)
        back = (delta @ params["Dense_1"]["kernel"].T) * (1 - hidden**2)
        gradient = {
            "Dense_0": {"kernel": x.T @ back, "bias": back.sum(0)},
            "Dense_1": {"kernel": hidden.T @ delta, "bias": delta.sum(0)},
        }
        gradient = jax.tree.map(lambda g, p: g + decay * p, gradient, params)
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
    return params


def test_sgd_with_momentum_decay_and_cosine_equals_a_numpy_reference():
    train = settings.TrainSettings(epochs=4, learning_rate=0.1, schedule_epochs=5)
    task = problem.make_task(train, norm=False, prepare=problem.plain_prepare)
    job = problem.make_job([11], task)
    carry, _ = problem.fit(job, epochs=4)
    start = population.host(
        population.Progress(0, training.init_carry(job, population.make_mapping("map", 1, 1)), None, None, 1)
    )
    params = jax.tree.map(lambda leaf: leaf[0].astype(np.float64), start.state.params)
    stream = trees.take(job.streams["train"], 0)
    batches, rates = [], []
    for epoch in range(4):
        key = keys.at(keys.member(keys.stream(job.key, "train"), 11), epoch)
        rows, weights = streams.epoch_batches(stream, keys.stream(key, "train"), 32, job.steps)
        used = [(np.asarray(r), np.asarray(w)) for r, w in zip(rows, weights, strict=True) if w.sum() > 0]
        batches += used
        rates += [0.1 * (1 + np.cos(np.pi * epoch / 5)) / 2] * len(used)
    expected = reference_sgd(params, batches, rates, 5e-4, 0.9)
    assert problem.largest_difference(trees.take(carry.state.params, 0), expected) < 1e-5


def test_schedules_follow_their_formulas():
    def factor(epoch, fraction=0.0, **kwargs):
        train = settings.TrainSettings(**{"epochs": 10, **kwargs})
        return float(recipe.schedule_factor(train, jnp.int32(epoch), jnp.float32(fraction)))

    assert factor(0) == pytest.approx(1.0)
    assert factor(5) == pytest.approx(0.5)
    assert factor(200, epochs=201, schedule_epochs=200) == pytest.approx(0.0, abs=1e-7)
    assert factor(250, epochs=300, schedule_epochs=200) == pytest.approx((1 + np.cos(np.pi * 1.25)) / 2, abs=1e-6)
    assert factor(5, 0.5) == pytest.approx(0.5)  # per epoch: the fraction plays no part
    assert factor(5, 0.5, schedule_per="step") == pytest.approx((1 + np.cos(np.pi * 0.55)) / 2, abs=1e-6)
    assert factor(7, schedule="step", milestones=(3, 6), decay=0.2) == pytest.approx(0.04)
    assert factor(0, 0.5, schedule="constant", warmup_epochs=2.0) == pytest.approx(0.25)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_learns(optimizer):
    train = settings.TrainSettings(epochs=20, optimizer=optimizer, weight_decay=1e-4)
    task = problem.make_task(train, prepare=problem.plain_prepare)
    _, report = problem.fit(problem.make_job(range(2), task, rate=0.1 if optimizer == "sgd" else 0.01), epochs=20)
    assert (report.accuracy > 0.9).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_l1_penalty_adds_its_gradient_to_that_of_the_loss(optimizer):
    plain = settings.TrainSettings(optimizer=optimizer)
    sparse = settings.TrainSettings(optimizer=optimizer, l1=0.3)
    params = {"a": jnp.asarray([1.5, -2.0, 0.7]), "b": jnp.asarray([[-1e-4]])}
    gradients = {"a": jnp.asarray([0.1, 0.2, 0.3]), "b": jnp.asarray([[0.4]])}

    def penalised(params):
        linear = sum(jnp.sum(g * p) for g, p in zip(*map(jax.tree.leaves, (gradients, params)), strict=True))
        return linear + 0.3 * sum(jnp.sum(jnp.abs(p)) for p in jax.tree.leaves(params))

    states = [recipe.make_optimizer(train, 0.1, 0.01).init(params) for train in (plain, sparse)]
    both_params = [params, params]
    for _ in range(2):  # momentum and moments see the penalty too
        both_gradients = jax.grad(penalised)(both_params[0]), gradients
        for index, train in enumerate((plain, sparse)):
            step = recipe.make_optimizer(train, 0.1, 0.01)
            updates, states[index] = step.update(both_gradients[index], states[index], both_params[index])
            both_params[index] = jax.tree.map(jnp.add, both_params[index], updates)
    for actual, expected in zip(*map(jax.tree.leaves, both_params), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


def test_an_l1_penalty_leaves_a_parameter_of_zero_alone():
    train, zeros = settings.TrainSettings(l1=0.3), jnp.zeros(3)
    step = recipe.make_optimizer(train, 0.1, 0.01)
    updates, _ = step.update(zeros, step.init(zeros), zeros)
    np.testing.assert_array_equal(updates, zeros)


def test_training_with_an_l1_penalty_ends_with_smaller_weights():
    sizes = []
    for l1 in (0.0, 0.02):
        task = problem.make_task(settings.TrainSettings(epochs=3, learning_rate=0.1, l1=l1))
        carry, _ = problem.fit(problem.make_job([0], task))
        sizes.append(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(carry.state.params)))
    assert sizes[1] < 0.9 * sizes[0]
