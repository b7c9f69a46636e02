"""Methods for language models in the engine: published trajectories, alternatives, PDU's multiplier, faithful forms."""

import dataclasses

import common_checks
import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from test_language import golden

from jaxunlearn import errors, keys, population, records, trees
from jaxunlearn.models.layers import blocks
from jaxunlearn.population import StepInfo
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import Samples, StreamSpec
from jaxunlearn.unlearn.blocks import schedules, transforms
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.language import constrained, language, language_methods, preferences
from jaxunlearn.unlearn.methods import arithmetic


class Transformer(nn.Module):
    """The causal transformer of llm_descent.npz: one attention block, one dense block, no normalisation."""

    num_classes: int
    heads: int = 2

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        width, length = 12, inputs.shape[1]
        places = self.param("pos", nn.initializers.normal(), (length, width))
        h = nn.Embed(self.num_classes, width, name="embed")(inputs) + places
        q, k, v = (
            blocks.Dense(width, name=name)(h).reshape(*h.shape[:2], self.heads, -1).swapaxes(1, 2)
            for name in ("q", "k", "v")
        )
        scores = q @ k.swapaxes(-1, -2) * (width / self.heads) ** -0.5
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
        mixed = (nn.softmax(scores) @ v).swapaxes(1, 2).reshape(h.shape)
        h = h + blocks.Dense(width, name="o")(mixed)
        h = h + blocks.Dense(width, name="down")(jnp.tanh(blocks.Dense(2 * width, name="up")(h)))
        return blocks.Dense(self.num_classes, name="head")(h)


def parameters(file, prefix):
    params = {"pos": file[f"{prefix}.pos"], "embed": {"embedding": file[f"{prefix}.embed.weight"]}}
    for name in ("q", "k", "v", "o", "up", "down", "head"):
        params[name] = {"kernel": file[f"{prefix}.{name}.weight"].T, "bias": file[f"{prefix}.{name}.bias"]}
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), params)


def by_step(phase, rows):
    """A phase whose streams read given rows [steps, batch] in their order, an epoch per step."""
    names = tuple(rows)
    reads = {"step": StreamSpec(lambda member_rows: member_rows.forget[:1], 1)}
    for name, steps in rows.items():
        reads[name] = StreamSpec(
            lambda member_rows, rows=steps: rows.ravel(), steps.shape[1], shuffle=False, continue_across_epochs=True
        )
    moves = tuple(move._replace(streams=names) for move in phase.gradient_steps)
    return dataclasses.replace(phase, stream_specs=reads, gradient_steps=moves, epochs=len(rows[names[0]]))


@pytest.mark.parametrize("name", ["grad_diff", "npo", "simnpo", "wga"])
def test_trajectories_equal_the_published_ones(name):
    """Six steps of AdamW on recorded batches: every loss, and the parameters in the end."""
    file = golden("llm_descent")
    tokens = np.concatenate([file["retain_tokens"], file["forget_tokens"]]).astype(np.int32)
    retained, count = len(file["retain_tokens"]), len(tokens)
    prompts = np.full(count, int(file["prompt"]), np.int32)
    dataset = records.Dataset(tokens, np.zeros(count, np.int32), np.arange(count), vocabulary=13, prompts=prompts)
    build = common_checks.registry.METHODS[name].build
    method = build(lr=float(file["lr"]), schedule="constant", weight_decay=float(file["weight_decay"]), batch=3)
    rows = {"forget": file["forget_steps"] + retained, "retain": file["retain_steps"]}
    method = dataclasses.replace(method, phases=(by_step(method.phases[0], rows),))
    originals = trees.stack([{"params": parameters(file, "init")}])
    job = running.UnlearningJob(
        nets.network(Transformer(13, int(file["heads"])), tokens.shape[1:], jnp.int32),
        population.DeviceDataset(tokens, records.next_tokens(dataset)), lambda hyper: method, {}, originals,
        [np.arange(retained, count)], [np.arange(retained)], np.zeros(0, np.int32), np.zeros(1, np.int32),
        np.zeros(1, np.int32), keys.root(0), population.make_mapping("map", devices=1), "auto", 3, False,
    )  # fmt: skip
    *events, last = running.run(job)
    losses = [float(event.loss[0]) for event in events]
    np.testing.assert_allclose(losses, file[f"{name}.losses"], rtol=1e-6, atol=2e-5)
    actual = trees.take(last.outcome.variables, 0)["params"]
    for (path, a), (_, b) in zip(
        trees.named_leaves(actual), trees.named_leaves(parameters(file, f"{name}.after")), strict=True
    ):
        if path != "k/bias":  # softmax does not notice it: its gradient is rounding, of which Adam makes whole steps
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5, err_msg=path)


def test_the_multiplier_follows_the_retain_loss_as_published():
    file = golden("llm_losses")
    rows = file["pdu.dual_forget_retain_loss_multiplier"]
    step, eps = float(file["pdu.dual_step"]), float(file["pdu.dual_eps"])
    transform = constrained.dual(transforms.sgd(1.0), 1.0, 1.0, step, eps, warmup=1)
    params = {"w": jnp.zeros(2)}
    forget, retain = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 1.0])}

    def update(state, number, epoch):
        losses = {"forget": rows[number, 0], "retain": rows[number, 1]}
        step_info = StepInfo(jnp.int32(epoch), jnp.float32(0), jnp.int32(0))
        return transform.update(None, state, params, forget_grads=forget, retain_grads=retain, losses=losses,
                                step_info=step_info)  # fmt: skip

    state = transform.init(params)
    changes, state = update(state, 0, epoch=0)
    assert float(state.multiplier) == 1.0  # not warm yet
    for number, (of_forget, of_retain, returned, multiplier) in enumerate(rows):
        before = float(state.multiplier)
        changes, state = update(state, number, epoch=1)
        np.testing.assert_allclose(changes["w"], [-1.0, -before], rtol=1e-6)
        np.testing.assert_allclose(of_forget + before * (of_retain - eps), returned, rtol=1e-5)
        np.testing.assert_allclose(state.multiplier, multiplier, atol=1e-6)


def test_pdu_in_the_engine_raises_its_multiplier_where_the_retain_loss_is_too_high():
    """The transform is given the losses by name: above eps the multiplier climbs, epoch after epoch."""
    method = constrained.pdu(epochs=3, eps=0.1, step=0.5, warmup=1, batch=16)
    actual = []
    for event in running.run(
        common_checks.make_job(method, [common_checks.FORGET[0]], member_ids=[0], net=common_checks.TOKENS)
    ):
        if event.outcome is None:
            actual.append(float(event.checkpoint()["carry"].state.optimizer.multiplier[0]))
    assert actual[0] == 1.0 and actual[1] > 1.5 and actual[2] > actual[1] + 0.5


def test_linear_schedule():
    def factor(step):
        step_info = StepInfo(jnp.int32(step // 4), jnp.float32(step % 4 / 4), jnp.int32(step), jnp.int32(4))
        return float(schedules.linear(3)(step_info))

    np.testing.assert_allclose([factor(step) for step in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0])
    np.testing.assert_allclose([factor(step) for step in (8, 11)], [0.5, 0.125])
    short = schedules.linear(1)(StepInfo(jnp.int32(0), jnp.float32(0), jnp.int32(1), jnp.int32(4)))
    np.testing.assert_allclose(short, 0.5)


def sample_texts():
    """Two texts with a prompt of 2 and of 3 tokens, the second one padded; and one without anything to learn."""
    inputs = jnp.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 1, -1, -1], [1, 2, 3, 4, 5, 6]], jnp.int32)
    labels = jnp.array([[-1, 3, 4, 5, 6, -1], [-1, -1, 1, -1, -1, -1], [-1] * 6], jnp.int32)
    return Samples(inputs, labels, jnp.ones(3), jnp.array([4, 2, 0]), jnp.ones(3, bool))


def test_alternatives_replace_what_follows_the_prompt():
    samples = sample_texts()
    inputs = preferences.with_answer(samples, jnp.array([10, 10, 0]), 3)
    np.testing.assert_array_equal(inputs[:2], [[1, 2, 10, 10, 0, -1], [7, 8, 9, 10, 10, 0]])
    labels = preferences.answer_labels(inputs, preferences.answer_start(samples.labels))
    np.testing.assert_array_equal(labels[:2], [[-1, 10, 10, 0, -1, -1], [-1, -1, 10, 10, 0, -1]])
    cut = preferences.with_answer(samples, jnp.arange(9), 9)  # longer than there is room
    np.testing.assert_array_equal(cut[1], [7, 8, 9, 0, 1, 2])


def made(method, name="alternatives"):
    """Returns the estimate of member 0 of a method on the shared texts; forget rows 9 to 13."""
    job = common_checks.make_job(method, [common_checks.FORGET[1]], member_ids=[1], net=common_checks.TOKENS)
    return nets.estimated(job)[name], job


def test_random_alternatives_are_as_long_as_the_answers_and_lie_behind_the_prompts():
    table, _ = made(preferences.dpo(batch=4))
    tokens, labels = (array[common_checks.FORGET[1]] for array in common_checks.texts())
    np.testing.assert_array_equal(table["rows"][:5], common_checks.FORGET[1])
    assert (table["rows"][5:] == -1).all()
    np.testing.assert_array_equal(table["labels"][:5] >= 0, labels >= 0)
    start = np.argmax(labels >= 0, 1) + 1
    for row in range(5):
        np.testing.assert_array_equal(table["inputs"][row, : start[row]], tokens[row, : start[row]])
    assert (table["inputs"][:5] != tokens).any() and table["inputs"].max() < common_checks.VOCABULARY


def test_sampled_alternatives_of_temperature_0_are_what_the_original_finds_likeliest():
    table, job = made(preferences.altpo(batch=4, tokens=3, temperature=0.0))
    params = trees.take(job.originals, 0)["params"]
    for row in range(5):
        text = np.array(table["inputs"][row])
        logits, _ = network.forward(common_checks.TOKENS, params, {}, jnp.asarray(text)[None])
        places = np.flatnonzero(table["labels"][row] >= 0)
        assert 1 <= len(places) <= 3
        np.testing.assert_array_equal(np.argmax(logits[0], -1)[places], text[places + 1])
        known = language.row_losses(logits, jnp.asarray(table["labels"][row])[None])[0]
        np.testing.assert_allclose(table["losses"][row], known, rtol=1e-5)


def test_dpo_prefers_the_given_answer():
    """After some steps "I don't know" is likelier than it was, and the true answers are less likely."""
    method = preferences.dpo(lr=0.02, epochs=8, idk=(1, 5), schedule="constant", batch=4)
    table, job = made(method)
    before, after = (
        trees.take(variables, 0)["params"] for variables in (job.originals, common_checks.outcome(job).variables)
    )
    inputs, labels = (jnp.asarray(array[common_checks.FORGET[1]]) for array in common_checks.texts())
    answers = jnp.asarray(table["inputs"][:5]), jnp.asarray(table["labels"][:5])
    for texts, sign in (((inputs, labels), 1), (answers, -1)):
        old, new = (
            float(
                jnp.mean(language.row_losses(network.forward(common_checks.TOKENS, params, {}, texts[0])[0], texts[1]))
            )
            for params in (before, after)
        )
        assert sign * (new - old) > 0.1


def test_rmu_moves_hidden_activations_towards_its_direction():
    method = language_methods.rmu(lr=0.02, epochs=8, alpha=0.0, schedule="constant", batch=4)
    direction, job = made(method, "control")
    assert direction.shape == (6,) and (direction >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(direction), 2.0, rtol=1e-5)
    inputs, labels = (jnp.asarray(array[common_checks.FORGET[1]]) for array in common_checks.texts())
    batch = Samples(inputs, labels, jnp.ones(5), None, None)
    losses = []
    for variables in (job.originals, common_checks.outcome(job).variables):
        params = trees.take(variables, 0)["params"]
        hidden = network.with_features(common_checks.TOKENS, params, {}, inputs)[2][0]
        assert hidden.shape == (5, common_checks.LENGTH, 6)
        losses.append(float(language.misdirection(hidden, direction, batch)))
    assert losses[1] < 0.8 * losses[0]


def test_task_vector_goes_the_other_way():
    """alpha 0 is the original; 1 takes away what the copy has learned."""
    actual = {}
    for alpha in (0.0, 1.0):
        method = arithmetic.task_vector(lr=0.02, alpha=alpha, schedule="constant", batch=4)
        job = common_checks.make_job(method, [common_checks.FORGET[1]], member_ids=[1], net=common_checks.TOKENS)
        actual[alpha] = common_checks.outcome(job).variables
    for a, b in zip(jax.tree.leaves(actual[0.0]), jax.tree.leaves(job.originals), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    inputs, labels = (jnp.asarray(array[common_checks.FORGET[1]]) for array in common_checks.texts())
    old, new = (
        float(jnp.mean(language.row_losses(
            network.forward(common_checks.TOKENS, trees.take(params, 0)["params"], {}, inputs)[0], labels)))
        for params in (actual[0.0], actual[1.0])
    )  # fmt: skip
    assert new > old + 0.1


OWN = {"grad_diff": {"retain": "kl", "lr": 0.1}, "npo": {"retain": "kl", "lr": 0.1}, "simnpo": {"beta": 0.1}}


@pytest.mark.parametrize("name", ["grad_diff", "npo", "simnpo", "rmu", "pdu"])
def test_faithful_forms_run_and_differ_where_their_trap_is(name):
    """Texts of unequal answers with prompts (some of one token, which counts as none for SimNPO) and padding."""
    build = common_checks.registry.METHODS[name].build
    values = {"epochs": 2, "batch": 4, "schedule": "constant", **OWN.get(name, {})}
    actual = []
    for compat in ("corrected", "faithful"):
        job = common_checks.make_job(
            build(**values, compat=compat), [common_checks.FORGET[1]], member_ids=[1], net=common_checks.TOKENS
        )
        actual.append([event.loss[0] for event in running.run(job) if event.outcome is None][-1])
    assert abs(actual[0] - actual[1]) > 1e-3


def test_undial_as_published_needs_a_hundred_tokens():
    method = language_methods.undial(compat="faithful")
    with pytest.raises(errors.ConfigError, match="V - 100"):
        running.trace(common_checks.make_job(method, net=common_checks.TOKENS))


def test_what_a_network_or_vocabulary_does_not_have_is_refused():
    for method, match in (
        (language_methods.rmu(layer=2), "layer = 2"),
        (preferences.dpo(idk=(3, 11)), "vocabulary has 11"),
    ):
        with pytest.raises(errors.ConfigError, match=match):
            running.trace(common_checks.make_job(method, net=common_checks.TOKENS))
    for build in (preferences.npo, preferences.simnpo, preferences.dpo, preferences.altpo):
        with pytest.raises(errors.ConfigError, match="beta = 0.0"):
            build(beta=0.0)
    for build in (language_methods.grad_diff, preferences.npo):
        with pytest.raises(errors.ConfigError, match="retain"):
            build(retain="nothing")
