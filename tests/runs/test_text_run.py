"""Runs of language models: what is recorded, audits and prompts, unlearning beside retraining, a kill, refusals."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import keys
from jaxunlearn.data.language import grammar
from jaxunlearn.records import next_tokens
from jaxunlearn.runs import answers, experiments, prompts, splits
from jaxunlearn.runs.execution import members, scratch
from jaxunlearn.runs.roles import audited_models
from jaxunlearn.scores import tokens
from launch import _entry, audit, evaluate, extract, leaks, shadows, study, unlearn

SMALL = (
    "--config=configs/tiny_lm.py:smoke", "--config.data.train_rows=160", "--config.data.test_rows=64",
    "--config.split.shadow=96", "--config.split.target=48", "--config.split.forget.size=12",
    "--config.model.width=16", "--config.model.hidden=2,2", "--config.train.batch=16", "--config.targets.breaks=1",
)  # fmt: skip
VERBS = {"audit": audit, "unlearn": unlearn, "study": study, "shadows": shadows, "evaluate": evaluate, "leaks": leaks,
         "extract": extract}  # fmt: skip


def call(verb, *flags):
    module = VERBS[verb]
    more = {name: getattr(module, name) for name in ("define", "alone") if hasattr(module, name)}
    return _entry.main(module.command, module.__doc__, ["x", *SMALL, *map(str, flags)], **more)


@pytest.fixture
def launch(capsys):
    def run(verb, *flags):
        code = call(verb, *flags)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished audit of tiny language models."""
    folder = tmp_path_factory.mktemp("texts") / "run"
    assert call("audit", f"--workdir={folder}") == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def prepared(*flags):
    return experiments.prepare(_entry.parse(["x", *SMALL, *flags], "", audit.define, audit.alone).settings)


def member(folder, role, number):
    """An experiment, its split, and the variables of one finished member."""
    experiment = prepared()
    split = splits.draw(experiment)
    spec = audited_models.describe(experiment, split, role)
    loaded = members.load(experiment, folder / "populations" / role, spec.fingerprint, np.asarray([number]))
    return experiment, split, spec, jax.tree.map(lambda leaf: leaf[0], loaded)


def test_recorded_signals_are_those_of_the_network(finished):
    experiment, _, spec, variables = member(finished, "retrained", 1)
    dataset = experiment.dataset
    recorded = np.load(finished / "logits" / "retrained.npy")[1]
    net = experiments.build_evaluator(experiment.settings, dataset, "native")
    texts = np.asarray(dataset.inputs)[spec.rows]
    logits = np.asarray(net.apply(variables, texts), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    came = np.take_along_axis(log_p[:, :-1], texts[:, 1:, None], -1)[..., 0]
    read = tokens.unpacked(recorded, answers.prediction_mask(dataset)[spec.rows])
    np.testing.assert_allclose(read.logp, came, atol=2e-5)
    np.testing.assert_allclose(read.entropy, -(np.exp(log_p) * log_p).sum(-1)[:, :-1], atol=2e-5)
    np.testing.assert_array_equal(read.right, log_p[:, :-1].argmax(-1) == texts[:, 1:])
    np.testing.assert_allclose(answers.losses(dataset, recorded, spec.rows), -came.mean(-1), atol=2e-5)
    np.testing.assert_allclose(answers.correctness(dataset, recorded, spec.rows), read.right.mean(-1), atol=1e-6)


def test_members_learn_their_own_texts_alone(finished):
    """Training lowers the loss, and the retrained members never see what they are to have forgotten."""
    experiment, split, spec, _ = member(finished, "retrained", 0)
    assert not (spec.membership & np.asarray(split.forget)).any()
    fresh = experiment.task.init(keys.root(0))
    untrained = answers.losses(
        experiment.dataset,
        np.asarray(experiment.task.predict({"params": fresh.params}, np.asarray(experiment.dataset.inputs)[spec.rows])),
        spec.rows,
    )
    trained = answers.losses(experiment.dataset, np.load(finished / "logits" / "retrained.npy")[0], spec.rows)
    assert abs(untrained.mean() - np.log(grammar.VOCABULARY)) < 0.1  # it knows nothing
    assert trained.mean() < untrained.mean() - 0.1


def test_a_job_learns_next_tokens(finished):
    experiment, split, spec, _ = member(finished, "original", 0)
    resident = experiments.device_dataset(experiment)
    np.testing.assert_array_equal(resident.labels, next_tokens(experiment.dataset))
    job = scratch.make_job(spec, np.arange(2))
    assert (
        job.task.predict(  # what is kept per text, whatever the vocabulary
            {"params": experiment.task.init(keys.root(1)).params}, jnp.asarray(resident.inputs[:3])
        ).shape
        == (3, tokens.width(grammar.LENGTH))
    )


def test_an_audit_has_every_score_that_needs_no_edited_text(finished):
    findings = json.loads((finished / "findings.json").read_text())
    named = {finding["of"] for finding in findings if finding["metric"] == "auc"}
    expected = {"lm_iam", "lm_lira", "lm_rmia", "lm_ratio", "lm_loss", "lm_zlib", "lm_min_k", "lm_min_k_pp", "lm_surp"}
    assert expected <= named
    with np.load(finished / "scores" / "binui_retrained.npz") as kept:
        assert kept["lm_iam"].shape == (2, 2, 48) and kept["forgotten"].sum() == 24
    assert {finding["of"] for finding in findings if finding["metric"] == "ScoreUI Spearman"} >= {"lm_iam", "lm_loss"}


def test_prompts_change_what_is_asked_and_nothing_else(finished):
    """Forgotten texts are answered behind the prompt, all others as the original answers them."""
    scored = {}
    for role in ("prompted:refusal", "prompted:corrupted"):
        with np.load(finished / "scores" / f"binui_{role}.npz") as kept:
            scored[role], forgotten = kept["lm_loss"][0], kept["forgotten"]
    experiment, split, spec, _ = member(finished, "original", 0)
    places = np.searchsorted(spec.rows, np.asarray(split.target))
    recorded = np.load(finished / "logits" / "original.npy")
    for number in range(2):
        plain = -answers.losses(experiment.dataset, recorded[number][places], np.asarray(split.target))
        for role, lines in scored.items():
            hidden = np.load(finished / "logits" / f"original.{role.removeprefix('prompted:')}.npy")[number][places]
            behind = -answers.losses(experiment.dataset, hidden, np.asarray(split.target))
            np.testing.assert_allclose(lines[number], np.where(forgotten[number], behind, plain), atol=1e-6)
            assert np.abs(behind - plain).min() > 0


def test_a_prompt_stands_in_front_of_the_text(finished):
    experiment, _, _, variables = member(finished, "original", 0)
    texts = np.asarray(experiment.dataset.inputs)[:4]
    front = np.array(grammar.read("IcannotanswerquestionsaboutthistextX"[:-1]))
    whole = np.concatenate([np.broadcast_to(front, (4, len(front))), texts], 1)
    net = experiments.build_evaluator(experiment.settings, experiment.dataset, "native")
    expected = tokens.recorded(net.apply(variables, whole)[:, len(front) :], jnp.asarray(texts))
    signals = prompts.task(experiment, "refusal").predict(variables, jnp.asarray(texts))
    np.testing.assert_allclose(signals, expected, atol=1e-5)


def test_a_corrupted_copy_keeps_about_half_of_its_text():
    texts = jnp.asarray(grammar.documents(64))
    short = texts.at[:, 20:].set(-1)
    copies, again = prompts._corrupt(texts, 64), prompts._corrupt(texts, 64)
    np.testing.assert_array_equal(copies, again)
    assert 0.45 < float((copies == texts).mean()) < 0.57
    repeated = prompts._corrupt(short, 64)
    assert int(repeated.min()) >= 0  # padding would be read as a token
    np.testing.assert_array_equal(prompts._corrupt(short[:2], 64), repeated[:2])


def test_a_killed_training_goes_on_to_the_same_models(copied, finished, launch):
    """The retrained models and their signals are deleted, as after a kill: the same command makes them again."""
    before = np.load(finished / "logits" / "retrained.npy")
    shutil.rmtree(copied / "populations" / "retrained")
    for name in ("retrained.npy", "retrained.json"):
        (copied / "logits" / name).unlink()
    code, output = launch("audit", f"--workdir={copied}")
    assert code == 0 and "original: 2 of 2 members are finished already" in output
    np.testing.assert_array_equal(np.load(copied / "logits" / "retrained.npy"), before)


def test_objectives_stand_beside_exact_retraining(copied, launch):
    fewer = "--config.unlearn.options=npo.epochs=1,finetune.epochs=1"
    code, output = launch("unlearn", f"--workdir={copied}", "--methods=npo,ssd,finetune", fewer)
    assert code == 0, output
    record = json.loads((copied / "unlearned.json").read_text())["roles"]
    for role in ("original", "retrained", "unlearned:npo", "unlearned:ssd", "unlearned:finetune"):
        assert set(record[role]["numbers"]) == {"forget_loss", "retain_loss", "test_loss"}
    assert np.mean(record["unlearned:npo"]["numbers"]["forget_loss"]) > np.mean(
        record["original"]["numbers"]["forget_loss"]
    )
    code, output = launch("study", f"--workdir={copied}", "--config.unlearn.methods=npo,ssd,finetune", fewer)
    assert code == 0 and "nats" in output
    findings = json.loads((copied / "report" / "methods_findings.json").read_text())
    assert {"forget_loss", "retain_loss", "test_loss", "gap", "AUC"} <= {finding["metric"] for finding in findings}


def test_shadows_alone_say_accuracy_over_tokens(tmp_path, launch):
    code, output = launch("shadows", f"--workdir={tmp_path / 'run'}", "--config.train.epochs=1")
    assert code == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert all(0 < accuracy < 1 for accuracy in summary["held_out_accuracy"])
    assert (tmp_path / "run" / "report" / "shadows.svg").exists()


@pytest.mark.parametrize(
    ("verb", "flags", "message"),
    [
        ("evaluate", (), "contains texts"),
        ("leaks", (), "contains texts"),
        ("extract", (), "contains texts"),
        ("audit", ("--config.model.name=mlp",), "does not read texts"),
        ("audit", ("--config.data.name=digits",), "does not read rows that are not texts"),
        ("audit", ("--config.model.name=lm",), "learned positions"),
        ("audit", ("--unlearned=prompted:nothing",), "prompted:refusal"),
        ("audit", ("--config.targets.population_in=True",), "targets.population_in"),
        ("audit", ("--protocol=class_report",), "not available for texts"),
        ("audit", ("--config.data.augment=flip",), "contains texts"),
        ("audit", ("--config.train.keep=best",), "set it to 'last'"),
        ("unlearn", ("--methods=boundary_shrink",), "boundary_shrink"),
        ("study", ("--config.study.kind=conformal",), "contains texts"),
    ],
)
def test_what_texts_do_not_have_is_refused_before_anything_runs(verb, flags, message, tmp_path, launch):
    code, output = launch(verb, f"--workdir={tmp_path / 'run'}", *flags)
    assert code == 2 and message in output and "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_prompts_are_for_language_models_alone(tmp_path, capsys):
    argv = ["x", "--config=configs/digits.py:smoke", f"--workdir={tmp_path / 'run'}", "--unlearned=prompted:refusal"]
    code = _entry.main(audit.command, audit.__doc__, argv, define=audit.define, alone=audit.alone)
    assert code == 2 and "language models" in capsys.readouterr().err


def test_prompts_decide_about_a_run(monkeypatch):
    """Runs of other prompts are other runs: what was trained without them is not taken up."""
    experiment = prepared()
    prompted = experiment.dataset.replace(prompts=np.full(len(experiment.dataset.labels), 3, np.int32))
    targets = next_tokens(prompted)
    assert targets[:, :2].max() == -1 and targets[:, 2].min() >= 0
    monkeypatch.setattr(experiments.data, "load", lambda settings: prompted)
    assert prepared().data_fingerprint != experiment.data_fingerprint
