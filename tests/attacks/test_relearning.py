"""The reminiscence attack against the published code, a plain loop, and what a decision may look at."""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxunlearn import errors, keys, population, trees
from jaxunlearn.attacks import relearning
from jaxunlearn.attacks.relearning import reminiscence, running
from jaxunlearn.metrics import roc
from jaxunlearn.models.architectures import dense
from jaxunlearn.models.layers import blocks
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import lira

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "our"
ALL = population.make_mapping("vmap", devices=1)


@functools.cache
def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def plain(inputs, key, is_train):
    return inputs


class Normed(nn.Module):
    """A network with BatchNorm."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        rows = blocks.Dense(6)(inputs)
        return blocks.Dense(self.num_classes)(nn.relu(blocks.BatchNorm()(rows, train, mask)))


# The published code


@functools.cache
def published():
    """(module, victims, data, trials) of the file: one forget trial and two of unseen classes."""
    file = golden("rea_relearn")
    names = {"fc1": "Dense_0", "fc2": "Dense_1"}
    params = {
        flax: {
            "kernel": np.float32(file[f"init__{torch}.weight"].T[None]),
            "bias": np.float32(file[f"init__{torch}.bias"][None]),
        }
        for torch, flax in names.items()
    }
    inputs = np.concatenate([file[f"X_{name}"] for name in ("forget", "ood0", "ood1", "rest")]).astype(np.float32)
    labels = np.concatenate([np.zeros(60), file["y_rest"]]).astype(np.int32)
    probes = np.arange(60, dtype=np.int32).reshape(3, 20)
    # Batches of 6 of 40 rows: the seventh has 4, then the stream starts again.
    stream = np.resize(np.append(np.arange(60, 100), [-1, -1]), (20, int(file["rest_batch"]))).astype(np.int32)
    trials = relearning.TrialPlan(
        np.zeros(3, int), probes, probes, np.full(3, file["label"], np.int32), np.repeat(stream[None], 3, 0),
        np.full(3, file["relearn_lr"], np.float32), np.array([True, False, False]), np.arange(3), np.zeros(3, int),
    )  # fmt: skip
    return dense.Mlp(4, (8,), "tanh"), {"params": params}, population.DeviceDataset(inputs, labels), trials


def test_trajectories_with_fresh_optimizers_equal_the_corrected_published_ones():
    file, (module, victims, data, trials) = golden("rea_relearn"), published()
    actual = running.relearn(module, plain, victims, data, trials, ALL, key=keys.root(0))
    names = ("v2_traj_forget", "traj_ood0_fresh_optimizer", "traj_ood1_fresh_optimizer")
    for accuracy, name in zip(actual.accuracy, names, strict=True):
        np.testing.assert_allclose(accuracy, file[name], rtol=0, atol=1e-6)
    steps = relearning.first_steps(actual.accuracy, never=relearning.scoring.NOT_REACHED)
    expected = [file[name] for name in ("v2_index_forget", "index_ood0_fresh_optimizer", "index_ood1_fresh_optimizer")]
    np.testing.assert_array_equal(steps, expected)


def test_carried_state_equals_both_published_versions():
    file, (module, victims, data, trials) = golden("rea_relearn"), published()
    actual = {
        carried: running.relearn_carried(module, plain, victims, data, trials, ALL, key=keys.root(0), carried=carried)
        for carried in ("optimizer", "everything")
    }
    for index in (0, 1):
        expected = file[f"v2_traj_ood{index}_carried_momentum"]
        np.testing.assert_allclose(actual["optimizer"].accuracy[1 + index], expected, rtol=0, atol=1e-6)
    for index, name in enumerate(("forget", "ood0", "ood1")):
        log = file[f"v1_log_{name}"]
        np.testing.assert_allclose(actual["everything"].loss[index], log[:, 1], rtol=0, atol=5e-6)
        np.testing.assert_allclose(actual["everything"].accuracy[index], log[:, 2], rtol=0, atol=1e-6)


def test_steps_scores_and_curves_equal_the_published_ones():
    file = golden("rea_score")
    forget, unseen = (relearning.first_steps(file[f"{name}_traj"], never=75) for name in ("forget", "ood"))
    np.testing.assert_array_equal(forget, file["index_forget"])
    np.testing.assert_array_equal(unseen, file["index_ood"])
    np.testing.assert_array_equal(unseen - forget, file["diff"])
    accuracy = np.concatenate([file["forget_traj"], file["ood_traj"]])
    scores = relearning.scores(accuracy, never=75, break_ties=False)
    np.testing.assert_array_equal(scores, file["derived_scores"])
    actual = roc.summary(scores, file["derived_labels"] > 0, (0.05,), "step")
    expected = [file[f"derived_{name}"] for name in ("auc", "balanced_acc", "tpr_at_5fpr")]
    np.testing.assert_allclose([actual.auc, actual.balanced_accuracy, actual.tpr_at_fpr[0]], expected, rtol=1e-12)


def test_ties_are_broken_by_the_mean_accuracy_and_by_nothing_else():
    accuracy = np.array([[0.0, 0.9, 1.0], [0.5, 0.9, 0.9], [0.89, 0.89, 0.9], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(relearning.first_steps(accuracy), [1, 1, 2, 3, 0])
    scores = relearning.scores(accuracy)
    np.testing.assert_array_equal(np.argsort(-scores), [4, 1, 0, 2, 3])
    assert relearning.first_steps(np.float32([[0.9]]))[0] == 0  # 0.9 of float32 is below that of float64


@pytest.mark.parametrize("fixed, variance", [(1, "global"), (0, "per_sample")])
def test_lira_by_medians_equals_the_published_one(fixed, variance):
    file = golden("lira")
    logits, labels = jnp.asarray(file["pred_logits"], jnp.float32), jnp.asarray(file["class_labels"])
    values = np.asarray(signals.carlini_logit(logits, jnp.broadcast_to(labels[None, :, None], logits.shape[:-1])))
    np.testing.assert_allclose(values, file["score_log_logits"], rtol=0, atol=1e-5)
    values, trained = file["score_log_logits"], file["in_out"][:8]
    scores = lira.median_online(values[8], values[:8], trained, variance=variance)
    np.testing.assert_allclose(scores, file[f"online_fix{fixed}"], rtol=1e-12)
    # Published: the last point whose FPR is strictly below the level.
    actual = roc.summary(scores, file["true_labels"] > 0, (0.0999, 0.00999), "step")
    expected = file[f"online_fix{fixed}_stats_auc_acc_tpr10_tpr1"]
    np.testing.assert_allclose([actual.auc, actual.balanced_accuracy], expected[:2], rtol=1e-12)


def test_lira_needs_models_of_both_kinds_and_one_of_each_is_finite():
    rng = np.random.default_rng(0)
    target, reference = rng.normal(size=(5, 2)), rng.normal(size=(2, 5, 2))
    trained = np.array([[True] * 5, [False] * 5])
    assert np.isfinite(lira.median_online(target, reference, trained, variance="per_sample")).all()
    with pytest.raises(errors.DataError, match="no shadow model did not train on"):
        lira.median_online(target, reference, np.ones((2, 5), bool))


# A plain loop


def victims_of(module, count, width=6):
    """Random victims, stacked."""
    drawn = jax.vmap(lambda key: module.init(key, jnp.zeros((2, width))))(jax.random.split(keys.root(1), count))
    return trees.to_host(drawn)


@functools.cache
def problem():
    """(module, victims, data, trials): 2 victims x 2 rates x (2 repeats of a forgotten and two unseen classes)."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20).astype(np.int32)
    inputs = (rng.normal(size=(6, 6))[labels] + 0.5 * rng.normal(size=(120, 6))).astype(np.float32)
    rows = [np.flatnonzero(labels == label) for label in range(6)]
    trials = relearning.draw(
        rows[3], rows[4:], np.concatenate(rows[:3]), 3, size=10, repeats=2, companions=4, steps=7, seed=3
    )
    data = population.DeviceDataset(inputs, np.minimum(labels, 3))
    module = Normed()
    return module, victims_of(module, 2), data, relearning.crossed(trials, [0, 1], [0.05, 0.3])


@functools.cache
def relearned():
    module, victims, data, trials = problem()
    return running.relearn(module, plain, victims, data, trials, ALL, key=keys.root(0))


def one_after_another(module, variables, data, trials, index, momentum=0.9):
    """Loss and accuracy after every step of one trial, in plain jax."""
    inputs = jnp.asarray(data.inputs)

    @jax.jit
    def step(variables, trace, rows, labels, rate):
        def loss(params):
            logits, moved = module.apply(
                {**variables, "params": params}, inputs[rows], train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved

        gradients, moved = jax.grad(loss, has_aux=True)(variables["params"])
        trace = jax.tree.map(lambda b, g: momentum * b + g, trace, gradients)
        params = jax.tree.map(lambda p, b: p - rate * b, variables["params"], trace)
        return {"params": params, **moved}, trace

    @jax.jit
    def evaluate(variables, rows, label):
        logits = module.apply(variables, inputs[rows])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.full(len(rows), label))
        return losses.mean(), (logits.argmax(-1) == label).mean()

    trace, metrics = jax.tree.map(jnp.zeros_like, variables["params"]), []
    label = trials.label[index]
    for probe, retained in zip(trials.learned[index], trials.retained[index], strict=True):
        rows = np.append(probe, retained)
        labels = np.append(label, data.labels[retained])
        variables, trace = step(variables, trace, rows, labels, trials.learning_rate[index])
        metrics.append(evaluate(variables, trials.probes[index], label))
    return np.asarray(metrics).T, variables


def test_the_population_equals_one_trial_after_another():
    module, victims, data, trials = problem()
    actual = relearned()
    for index in (0, 5, 8, 23):
        (loss, accuracy), variables = one_after_another(
            module, trees.take(victims, trials.victim[index]), data, trials, index
        )
        np.testing.assert_allclose(actual.loss[index], loss, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(actual.accuracy[index], accuracy, atol=1e-6)
        for a, b in zip(jax.tree.leaves(trees.take(actual.variables, index)), jax.tree.leaves(variables), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert actual.accuracy.shape == (24, 7) and len(np.unique(actual.accuracy)) > 3


@pytest.mark.parametrize("how", ["map", "chunks", "alone"])
def test_a_trial_does_not_notice_the_others(how):
    module, victims, data, trials = problem()
    mapping = population.make_mapping("map", 3, devices=1) if how == "map" else ALL
    selection = relearning.plan.take(trials, np.arange(9, 10)) if how == "alone" else trials
    actual = running.relearn(
        module, plain, victims, data, selection, mapping, key=keys.root(0), chunk=7 if how == "chunks" else 0
    )
    expected = trees.take(relearned(), slice(9, 10)) if how == "alone" else relearned()
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_padded_probes_and_steps_change_nothing():
    """A trial of fewer probes, filled up with -1 to the length of the others, and missing retained rows."""
    module, victims, data, trials = problem()
    selection = relearning.plan.take(trials, np.arange(4))

    def filled(rows, count, axis=1):
        widths = [(0, 0)] * rows.ndim
        widths[axis] = (0, count)
        return np.pad(rows, widths, constant_values=-1)

    padded = selection._replace(
        probes=filled(selection.probes, 3),
        learned=filled(selection.learned, 2),
        retained=filled(filled(selection.retained, 2), 1, 2),
    )
    actual = running.relearn(module, plain, victims, data, padded, ALL, key=keys.root(0))
    expected = trees.take(relearned(), slice(0, 4))
    np.testing.assert_allclose(actual.loss[:, :7], expected.loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(actual.loss[:, 7:], np.repeat(actual.loss[:, 6:7], 2, 1))
    np.testing.assert_allclose(actual.accuracy[:, :7], expected.accuracy, atol=1e-6)


def test_a_trial_that_diverges_stops_and_the_others_go_on():
    module, victims, data, trials = problem()
    rates = np.where(np.arange(24) == 2, np.float32(1e30), trials.learning_rate)
    actual = running.relearn(module, plain, victims, data, trials._replace(learning_rate=rates), ALL, key=keys.root(0))
    assert actual.diverged_at[2] >= 0 and (np.delete(actual.diverged_at, 2) == -1).all()
    others = np.delete(np.arange(24), 2)
    np.testing.assert_array_equal(actual.accuracy[others], relearned().accuracy[others])


# Plans


def test_trials_draw_their_own_rows_and_retained_rows_come_from_outside_the_held_out_part():
    rows = np.arange(100)
    drawn = relearning.draw(rows[:20], [rows[20:40], rows[40:60]], rows[60:], 7, size=12, repeats=3, companions=5)
    assert drawn.probes.shape == (9, 12) and drawn.retained.shape == (9, 12, 5)
    for index in range(9):
        assert len(set(drawn.probes[index])) == 12 and (drawn.probes[index] // 20 == index % 3).all()
        assert len(set(drawn.retained[index].ravel())) == 28 and (drawn.retained[index] >= 60).all()  # 40 - 12 held out
    np.testing.assert_array_equal(drawn.is_forgotten, [True, False, False] * 3)
    more = relearning.draw(rows[:20], [rows[20:40], rows[40:60]], rows[60:], 7, size=12, repeats=5, companions=5)
    np.testing.assert_array_equal(more.probes[:9], drawn.probes)
    members = relearning.crossed(drawn, [0, 2], [0.1, 0.2, 0.3])
    assert len(members.victim) == 9 * 6 and (members.victim[:27] == 0).all()
    np.testing.assert_array_equal(members.trial_id, np.tile(np.arange(9), 6))
    np.testing.assert_allclose(members.learning_rate[9:18], 0.2)


def test_what_cannot_be_relearned_is_named():
    rows = np.arange(60)
    with pytest.raises(errors.DataError, match="class 1 of the probes has 5 rows, but 12 are needed"):
        relearning.draw(rows[:20], [rows[20:25]], rows[30:], 0, size=12, repeats=1)
    with pytest.raises(errors.DataError, match="the retained rows has 10 rows"):
        relearning.draw(rows[:20], [], rows[50:], 0, size=12, repeats=1)
    module, victims, data, trials = problem()
    with pytest.raises(errors.DataError, match="victims 0 to 5 of 2"):
        wrong = trials._replace(victim=np.where(trials.victim == 1, 5, 0))
        running.relearn(module, plain, victims, data, wrong, ALL, key=keys.root(0))
    with pytest.raises(errors.DataError, match="learned contains row 500"):
        wrong = trials._replace(learned=np.full_like(trials.learned, 500))
        running.relearn(module, plain, victims, data, wrong, ALL, key=keys.root(0))


# Decisions


def test_a_decision_takes_the_rate_and_direction_that_separate_shadow_trials():
    truth = np.arange(20) < 10
    noise = np.random.default_rng(0).normal(size=20)
    scores = {0.01: noise, 0.1: np.where(truth, -3.0, 2.0) + 0.1 * noise, 0.2: np.where(truth, 1.0, 0.0)}
    decision = relearning.choose(scores, dict.fromkeys(scores, truth))
    assert (decision.learning_rate, decision.direction, decision.shadow_accuracy) == (0.1, -1, 1.0)
    assert -2.0 < decision.threshold < 1.0  # in the middle of the gap
    judged = relearning.judge(decision, np.array([-5.0, 5.0, -5.0, 5.0]), np.array([True, True, False, False]))
    assert judged == (0.5, 0.5, 0.5)


def test_chance_stays_chance_on_trials_that_a_decision_was_not_fitted_on():
    """The published number, a maximum over thresholds and rates on the very trials, does not."""
    rng = np.random.default_rng(1)
    truth = np.arange(24) < 12
    honest, published = [], []
    for _ in range(200):
        shadow, test = ({rate: rng.normal(size=24) for rate in (0.01, 0.1, 0.2)} for _ in range(2))
        decision = relearning.choose(shadow, dict.fromkeys(shadow, truth))
        honest.append(relearning.judge(decision, test[decision.learning_rate], truth).balanced_accuracy)
        published.append(max(roc.balanced_accuracy(values, truth) for values in test.values()))
    assert abs(np.mean(honest) - 0.5) < 0.025 < 0.15 < np.mean(published) - 0.5


def test_decisions_need_both_kinds_of_trials():
    with pytest.raises(errors.DataError, match="all of one kind"):
        relearning.choose({0.1: np.arange(3.0)}, {0.1: np.ones(3, bool)})
    with pytest.raises(errors.DataError, match="no shadow trials"):
        relearning.choose({}, {})
    with pytest.raises(errors.DataError, match="all of one kind"):
        relearning.judge(relearning.Decision(0.1, 0.0, 1, 1.0), np.arange(3.0), np.zeros(3, bool))


# Retained rows alone


def test_reminiscence_equals_fine_tuning_in_stages_and_watches_under_true_labels():
    module, victims, data, _ = problem()
    retain = [np.arange(0, 30), np.arange(5, 50)]
    watched = [np.arange(60, 72), np.arange(61, 66)]
    actual = reminiscence.reminisce(
        module, plain, victims, data, retain, watched, ALL, key=keys.root(2), stages=((0.1, 2), (0.02, 1)), batch=64,
        weight_decay=0.01,
    )  # fmt: skip
    assert actual.loss.shape == (2, 3)
    for member in range(2):
        variables = trees.take(victims, member)
        for stage, (rate, epochs) in enumerate(((0.1, 2), (0.02, 1))):
            trace = jax.tree.map(jnp.zeros_like, variables["params"])
            for epoch in range(epochs):

                def loss(params, variables=variables, member=member):
                    logits, moved = module.apply(
                        {**variables, "params": params},
                        data.inputs[retain[member]],
                        train=True,
                        mutable=["batch_stats"],
                    )
                    return optax.softmax_cross_entropy_with_integer_labels(
                        logits, data.labels[retain[member]]
                    ).mean(), moved

                gradients, moved = jax.grad(loss, has_aux=True)(variables["params"])
                gradients = jax.tree.map(lambda g, p: g + 0.01 * p, gradients, variables["params"])
                trace = jax.tree.map(lambda b, g: 0.9 * b + g, trace, gradients)
                params = jax.tree.map(lambda p, b, rate=rate: p - rate * b, variables["params"], trace)
                variables = {"params": params, **moved}
                answers = module.apply(variables, data.inputs[watched[member]])
                epoch_index = 2 * stage + epoch
                labels = data.labels[watched[member]]
                expected = optax.softmax_cross_entropy_with_integer_labels(answers, labels).mean()
                np.testing.assert_allclose(actual.loss[member, epoch_index], expected, rtol=1e-4)
                np.testing.assert_allclose(
                    actual.accuracy[member, epoch_index], (answers.argmax(-1) == labels).mean(), atol=1e-6
                )


def test_reminiscence_wants_rows_for_every_victim():
    module, victims, data, _ = problem()
    with pytest.raises(errors.ShapeError, match="2 victims, but 1 sets"):
        reminiscence.reminisce(module, plain, victims, data, [np.arange(3)], [np.arange(3)] * 2, ALL, key=keys.root(0))


def test_a_member_that_diverges_in_one_stage_stays_frozen_in_the_next():
    module, victims, data, _ = problem()
    broken = data._replace(inputs=np.where(np.arange(len(data.labels))[:, None] == 29, np.nan, np.asarray(data.inputs)))

    def after(*stages):
        return reminiscence.reminisce(
            module, plain, victims, broken, [np.arange(0, 24), np.arange(0, 30)], [np.arange(60, 72)] * 2, ALL,
            key=keys.root(0), stages=stages, batch=6,
        )  # fmt: skip

    first, actual = after((0.1, 1)), after((0.1, 1), (0.02, 1))
    assert first.diverged_at.tolist() == actual.diverged_at.tolist() and actual.diverged_at[1] > first.diverged_at[0]
    for a, b in zip(jax.tree.leaves(first.variables), jax.tree.leaves(actual.variables), strict=True):
        assert not np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    assert (actual.loss[1, actual.diverged_at[1] :] == actual.loss[1, -1]).all() and np.isfinite(actual.loss).all()
