"""The bad teacher and SCRUB: against the published implementations, and what they promise."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, trees
from jaxunlearn.population import StepInfo
from jaxunlearn.unlearn.base.method import MemberRows, Method, Phase, Samples
from jaxunlearn.unlearn.blocks import losses, schedules, transforms
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import descent, teachers

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}


def batch_of(is_forget):
    n = len(is_forget)
    none = jnp.zeros(n, jnp.int32)
    return Samples(jnp.zeros((n, 1)), none, jnp.ones(n), none, jnp.asarray(is_forget) > 0)


def placed(params, keep=""):
    """A phase that puts these parameters in place."""
    return Phase(transforms.one_shot(lambda old, **extras: jax.tree.map(jnp.asarray, params)), save_as=keep)


def reading(method, rows):
    """The method with every stream of its phases reading these rows in their order."""
    fixed = nets.in_order(method)
    phases = tuple(
        dataclasses.replace(
            phase, stream_specs={name: spec._replace(rows=rows) for name, spec in phase.stream_specs.items()}
        )
        for phase in fixed.phases
    )
    return dataclasses.replace(fixed, phases=phases)


def with_bad_teacher(method, params):
    """The method with a given network as its bad teacher; it starts from the original model."""
    (phase,) = method.phases
    later = dataclasses.replace(phase, start="original", teachers={**phase.teachers, "bad": "given"})
    return dataclasses.replace(method, phases=(placed(params, "given"), later))


@pytest.mark.parametrize("temperature", [1, 2])
@pytest.mark.parametrize("folder", ["conformal", "our"])
def test_two_teachers_equal_the_published_loss(folder, temperature):
    if folder == "conformal":
        file = np.load(GOLDEN / "conformal" / "teacher.npz")
        student, good, bad, flag = (
            file[f"loss_{name}"] for name in ("student", "full_teacher", "bad_teacher", "is_forget")
        )
        loss, gradient = file[f"loss_T{temperature}"], file[f"loss_T{temperature}_grad"]
    else:
        file = np.load(GOLDEN / "our" / "losses.npz")
        student, good, bad = (file[f"{name}_logits"] for name in ("student", "full_teacher", "bad_teacher"))
        flag = file["is_forget"]
        loss, gradient = file[f"badteacher_loss_T{temperature}"], file[f"badteacher_grad_T{temperature}"]
    student, good, bad = (jnp.asarray(logits, jnp.float32) for logits in (student, good, bad))
    actual = jax.jit(jax.value_and_grad(teachers.two_teachers))(student, bad, good, batch_of(flag), temperature)
    np.testing.assert_allclose(actual[0], loss, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(actual[1], gradient, rtol=0, atol=1e-6)
    whole = teachers.two_teachers(student, bad, good, batch_of(flag), temperature, per_class=False)
    np.testing.assert_allclose(whole, student.shape[1] * actual[0], rtol=1e-6)


@pytest.mark.parametrize("folder, temperature", [("conformal", 1), ("conformal", 2), ("conformal", 4), ("our", 4)])
def test_distillation_equals_the_published_loss(folder, temperature):
    if folder == "conformal":
        file = np.load(GOLDEN / "conformal" / "scrub.npz")
        student, teacher, tag = file["kl_student"], file["kl_teacher"], f"kl_T{temperature}"
    else:
        file = np.load(GOLDEN / "our" / "losses.npz")
        student, teacher, tag = file["student_logits"], file["full_teacher_logits"], f"distill_kl_T{temperature}"
    student, teacher = jnp.asarray(student, jnp.float32), jnp.asarray(teacher, jnp.float32)
    batch = batch_of(np.zeros(len(student)))
    loss, gradient = jax.value_and_grad(teachers.distillation)(student, teacher, batch, temperature)
    np.testing.assert_allclose(loss, file[tag], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, file[f"{tag}_grad"], rtol=0, atol=1e-6)


def test_bad_teacher_equals_conformal_unlearning():
    file = np.load(GOLDEN / "conformal" / "teacher.npz")
    _, hidden, classes = (int(size) for size in file["dims"])
    net = nets.network(nets.Tiny(classes, hidden), (6,))
    lr, epochs = file["hyper_lr_epochs"]
    method = teachers.bad_teacher(lr=float(lr), epochs=int(epochs), share=0.0, batch=int(file["batch_size"]))
    method = reading(
        method, lambda member_rows: np.concatenate([member_rows.forget, member_rows.retain[: len(member_rows.forget)]])
    )
    method = with_bad_teacher(method, nets.variables(file, "bad_teacher", DENSE)["params"])
    retain, forget = ((file[f"x_{name}"], file[f"y_{name}"]) for name in ("retain", "forget"))
    actual = nets.outcome(nets.make_job(net, method, nets.variables(file, "init", DENSE), retain, forget))
    nets.assert_close(actual, nets.variables(file, "final", DENSE), 1e-5)


def test_bad_teacher_equals_over_unlearning_and_replay():
    file = np.load(GOLDEN / "our" / "descent.npz")
    net = nets.network(nets.Tiny(4, 5, activation="tanh"), (6,))
    is_forget = file["bt_flag"] > 0
    # The file mixes both kinds; here forget rows follow the retained ones, and the stream restores its order.
    order = np.empty(len(is_forget), int)
    order[np.concatenate([np.flatnonzero(~is_forget), np.flatnonzero(is_forget)])] = np.arange(len(is_forget))
    (phase,) = teachers.bad_teacher(lr=0.01, epochs=1).phases
    method = with_bad_teacher(
        Method((nets.by_step(phase, order, 4),)), nets.variables(file, "bad_teacher", DENSE, "__")["params"]
    )
    retain, forget = ((file["bt_X"][flags], np.zeros(int(flags.sum()), np.int32)) for flags in (~is_forget, is_forget))
    job = nets.make_job(net, method, nets.variables(file, "init", DENSE, "__"), retain, forget)
    *steps, last = running.run(job)
    actual = trees.take(last.outcome.variables, 0)
    nets.assert_close(actual, nets.variables(file, "badteacher", DENSE, "__"), 5e-6)
    # The published mean is over batches, of 4, 4, 4 and 3 rows.
    losses_of_steps = [step.loss[0] for step in steps]
    np.testing.assert_allclose(np.mean(losses_of_steps), file["badteacher_mean_loss"], rtol=0, atol=5e-6)


def by_pass(method):
    """SCRUB with the passes of a phase of one epoch as phases of their own: each tells its loss and accuracy."""

    def passes(phase):
        rows = phase.stream_specs["both"].rows
        if phase.epochs > 1 or isinstance(rows, str):
            return (phase,)
        first, second = (
            dataclasses.replace(phase, stream_specs={"both": phase.stream_specs["both"]._replace(rows=segment)})
            for segment in rows
        )
        return first, dataclasses.replace(second, same_optimizer=True)

    return dataclasses.replace(method, phases=sum(map(passes, method.phases), ()))


@pytest.mark.parametrize("case", ["a", "b"])
def test_scrub_equals_conformal_unlearning(case):
    file = np.load(GOLDEN / "conformal" / "scrub.npz")
    hidden = int(file["dims"][1])
    msteps, epochs, gamma, beta, lr, temperature = file[f"c5_hyper_{case}_msteps_epochs_gamma_beta_lr_T"]
    method = teachers.scrub(
        lr=lr, epochs=int(epochs), msteps=int(msteps), gamma=gamma, beta=beta, temperature=temperature,
        batch=int(file["batch_size"]), optimizer="sgd", compat="faithful",
    )  # fmt: skip
    retain, forget = ((file[f"c5_x_{name}"], file[f"c5_y_{name}"]) for name in ("retain", "forget"))
    net = nets.network(nets.Tiny(5, hidden), (6,))
    method = by_pass(nets.in_order(method))
    *epochs, last = running.run(nets.make_job(net, method, nets.variables(file, "c5_init", DENSE), retain, forget))
    actual = trees.take(last.outcome.variables, 0)
    nets.assert_close(actual, nets.variables(file, f"c5_final_{case}", DENSE), 1e-5)
    # Of the retained rows, in percent, while it trains on them for the last time; of the others in the end.
    others = [nets.accuracy(net, actual, file[f"c5_x_{name}"], file[f"c5_y_{name}"]) for name in ("forget", "test")]
    expected = file[f"c5_ret_{case}_retainAcc_forgetAcc_testAcc"]
    np.testing.assert_allclose([100 * epochs[-1].accuracy[0], *others], expected, rtol=1e-6)


def test_scrub_with_adam_equals_over_unlearning_and_replay():
    file = np.load(GOLDEN / "our" / "scrub.npz")
    start, teacher = (nets.variables(file, name, DENSE, "__") for name in ("student_init", "teacher"))
    hidden, classes = (len(start["params"][name]["bias"]) for name in ("Dense_0", "Dense_1"))
    net = nets.network(nets.Tiny(classes, hidden, activation="tanh"), (6,))
    method = teachers.scrub(
        lr=0.01, epochs=1, msteps=1, beta=0.1, temperature=4.0, optimizer="adam", milestones=(3, 5, 9),
        batch=int(file["batch"]),
    )  # fmt: skip
    method = Method((placed(start["params"]), *by_pass(nets.in_order(method)).phases), method.bn)
    retain, forget = ((file[f"X_{name}"], file[f"y_{name}"]) for name in ("retain", "forget"))
    away, near, _ = running.run(nets.make_job(net, method, teacher, retain, forget))
    for event, name in ((away, "max"), (near, "min")):
        nets.assert_close(nets.after(event), nets.variables(file, f"after_{name}", DENSE, "__"), 5e-6)
        np.testing.assert_allclose(event.loss[0], file[f"{name}_loss"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(100 * near.accuracy[0], file["min_acc"], rtol=1e-6)


def test_the_steps_of_the_rate_equal_over_unlearning_and_replay():
    file = np.load(GOLDEN / "our" / "scrub.npz")
    schedule = schedules.milestones((3, 5, 9), 0.1)
    clocks = [StepInfo(jnp.int32(epoch), jnp.float32(0), jnp.int32(epoch), jnp.int32(1)) for epoch in range(12)]
    np.testing.assert_allclose(
        [0.01 * schedule(step_info) for step_info in clocks], file["lr_epoch_1_to_12"], rtol=1e-5
    )


def rows(count, seed, spread=1.0):
    """Rows of three classes around fixed centres."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    centres = np.random.default_rng(9).normal(size=(3, 5)) * 2
    return (centres[y] + rng.normal(size=(count, 5)) * spread).astype(np.float32), y.astype(np.int32)


def learned(net, samples):
    """Variables of a network that has learned these samples."""
    start = net.module.init(jax.random.key(1), jnp.zeros((1, 5)))
    method = descent.finetune(lr=0.1, epochs=30)
    return nets.outcome(nets.make_job(net, method, start, samples, tuple(part[:1] for part in samples), batch=16))


def answers(net, variables, samples):
    return np.asarray(net.module.apply(variables, jnp.asarray(samples[0])))


def error(net, variables, samples):
    return float(np.mean(answers(net, variables, samples).argmax(-1) != samples[1]))


def confidence(net, variables, samples):
    probabilities = np.asarray(jax.nn.softmax(answers(net, variables, samples)))
    return float(np.mean(probabilities[np.arange(len(samples[1])), samples[1]]))


@pytest.fixture(scope="module")
def original():
    """A network with BatchNorm that has learned all rows; those of one class are to be forgotten."""
    net = nets.network(nets.Tiny(3, 16, norm=True), (5,))
    (x, y), held_out = rows(60, 0), rows(30, 2)
    retain, forget = ((x[flags], y[flags]) for flags in (y != 2, y == 2))
    return net, learned(net, (x, y)), retain, forget, held_out


METHODS = {
    "bad_teacher": lambda: teachers.bad_teacher(lr=0.02, epochs=10),
    "scrub": lambda: teachers.scrub(lr=0.03, msteps=3),
    "scrub_sgd": lambda: teachers.scrub(lr=0.2, optimizer="sgd", momentum=0.0),
    "scrub_rewound": lambda: teachers.scrub(lr=0.03, epochs=2, rewind=True),
}


@pytest.mark.parametrize("name", METHODS)
def test_forget_samples_lose_confidence_and_the_smallest_sets_stay_finite(original, name):
    net, start, retain, forget, held_out = original
    job = nets.make_job(net, METHODS[name](), start, retain, forget, validation=held_out, batch=16, members=3)
    kept, single_row = job.retain[0], np.array([len(retain[1])])
    job = job._replace(retain=[kept, kept[:0], kept[:7]], forget=[job.forget[0], single_row, single_row])
    *_, last = running.run(job)
    actual = last.outcome.variables
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))
    assert (last.outcome.diverged_at == running.NOT_DIVERGED).all()
    member = trees.take(actual, 0)
    lost = [confidence(net, start, samples) - confidence(net, member, samples) for samples in (forget, retain)]
    # The rewound model forgets as much as the held-out rows ask for: a test of its own.
    assert name == "scrub_rewound" or (lost[0] > 0.02 and lost[0] > lost[1])


def test_bad_teacher_pulls_forget_rows_to_the_random_network_and_retained_ones_to_the_original(original):
    net, start, retain, forget, _ = original
    bad = net.module.init(jax.random.key(7), jnp.zeros((1, 5)))["params"]
    method = with_bad_teacher(teachers.bad_teacher(lr=0.02, epochs=20, share=1.0), bad)
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget, bn="frozen"))
    # As `with_bad_teacher` keeps it: the random parameters with the statistics of the original.
    random = {"params": bad, "batch_stats": start["batch_stats"]}

    def distance(teacher, student, samples):
        pair = (jnp.asarray(answers(net, variables, samples)) for variables in (student, teacher))
        return float(jnp.mean(losses.divergence(*pair)))

    assert distance(random, actual, forget) < 0.3 * distance(random, start, forget)
    assert distance(start, actual, retain) < 0.3 * distance(start, actual, forget)


@pytest.mark.parametrize("method", [teachers.bad_teacher(epochs=0), teachers.scrub(epochs=0),
                                    teachers.scrub(epochs=0, rewind=True)])  # fmt: skip
def test_zero_epochs_change_nothing(original, method):
    net, start, retain, forget, _ = original
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    for a, b in zip(*map(jax.tree.leaves, (actual, start)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_forget_passes_scrub_only_trains_on_retained_rows():
    def read(method):
        return [(phase.stream_specs["both"].rows, phase.epochs, phase.first_epoch) for phase in method.phases]

    assert read(teachers.scrub(epochs=5, msteps=0)) == [("retain", 5, 0)]
    assert read(teachers.scrub(epochs=5, msteps=2)) == [(("forget", "retain"), 2, 0), ("retain", 3, 2)]
    assert read(teachers.scrub(epochs=5, msteps=2, compat="faithful"))[0][1] == 3
    assert read(teachers.scrub(epochs=2, msteps=7)) == [(("forget", "retain"), 2, 0)]
    rewound = teachers.scrub(epochs=3, msteps=1, rewind=True).phases
    assert [phase.save_as for phase in rewound] == ["epoch_0", "epoch_1", "epoch_2", ""]
    assert [phase.same_optimizer for phase in rewound] == [False, True, True, False]


def member_rows(forget, retain, validation, labels):
    arrays = (np.asarray(rows, np.int32) for rows in (forget, retain, validation, labels))
    return MemberRows(*arrays, 0, np.random.default_rng(0))


@pytest.mark.parametrize("share, expected", [(0.0, 3), (0.3, 6), (1.0, 20), (0.01, 0)])
def test_the_share_of_retained_rows(share, expected):
    retain = np.arange(10, 30)
    actual = teachers.forget_and_share(share)(member_rows([1, 4, 7], retain, [], np.zeros(30)))
    np.testing.assert_array_equal(actual[:3], [1, 4, 7])
    assert len(actual) == 3 + expected == len(set(actual)) and set(actual[3:]) <= set(retain)


def test_as_many_retained_rows_as_there_are_at_most():
    actual = teachers.forget_and_share(0.0)(member_rows([0, 1, 2], [5], [], np.zeros(6)))
    np.testing.assert_array_equal(actual, [0, 1, 2, 5])


def test_held_out_rows_have_the_classes_of_the_forget_set():
    labels = np.array([0, 0, 1, 2, 0, 0, 0, 1, 3, 3])
    actual = teachers.held_out_alike(member_rows([0, 1, 2, 3], [], [4, 5, 6, 7, 8, 9], labels))
    np.testing.assert_array_equal(np.sort(labels[actual]), [0, 0, 1])
    assert set(actual) <= {4, 5, 6, 7}
    anything = teachers.held_out_alike(member_rows([3], [], [4, 5, 6], labels))
    assert len(anything) == 1 and anything[0] in {4, 5, 6}
    with pytest.raises(errors.ConfigError, match="held-out rows, and there are none"):
        teachers.held_out_alike(member_rows([0], [], [], labels))


def test_rewinding_takes_the_epoch_whose_forget_error_is_closest_to_the_held_out_error(original):
    net, start, retain, forget, _ = original
    count = len(forget[1])

    def run(held_out, **more):
        method = nets.in_order(teachers.scrub(lr=0.03, epochs=4, msteps=3, batch=16, **more))
        return running.run(nets.make_job(net, method, start, retain, forget, validation=held_out, bn="faithful"))

    states = [nets.after(event) for event in run(retain) if event.outcome is None]
    wrong = np.array([error(net, state, forget) for state in states])
    kept = tuple(part[:count] for part in retain)
    assert (np.diff(wrong) > 0).all() and error(net, states[-1], kept) == 0
    taken = []
    for share in (0.0, 0.5, 1.0):
        labels = np.where(np.arange(count) < share * count, 1 - kept[1], kept[1])
        taken.append(int(np.argmin(np.abs(wrong - share))))
        *_, last = run((kept[0], labels), rewind=True)
        nets.assert_close(trees.take(last.outcome.variables, 0), states[taken[-1]], 1e-6)
    assert taken == [0, 2, 3]


def test_unknown_choices_are_refused():
    with pytest.raises(errors.ConfigError, match=r"unknown optimizer 'adams'.*Did you mean 'adam'"):
        teachers.scrub(optimizer="adams")
    with pytest.raises(errors.ConfigError, match="unknown compat"):
        teachers.scrub(compat="published")
