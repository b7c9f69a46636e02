"""launch.audit --tokens: files in, report out; verdicts only where there is a null; the lines of the docs."""

import re
import types
from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import analyses, store
from jaxunlearn.analyses.audit import text_sections
from launch import _entry, audit

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "llm"


def launched(*arguments):
    return _entry.main(audit.command, audit.__doc__, ["audit", *arguments], define=audit.define, alone=audit.alone)


@pytest.fixture
def logged():
    with np.load(GOLDEN / "muse_news_retrain.npz") as file:
        kept = np.concatenate([np.flatnonzero(file["label"] == kind)[:150] for kind in (0, 1)])
        return {name: file[name][kept] for name in ("nll", "nll_fit", "nll_ref", "label")}


def test_losses_become_scores_intervals_figures_and_no_verdict(logged, tmp_path, capsys):
    np.savez(tmp_path / "tokens.npz", **logged)
    out = tmp_path / "out"
    assert launched(f"--tokens={tmp_path / 'tokens.npz'}", f"--out={out}", "--draws=40") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "NO VERDICT on single rows" in output and "several OUT" in output and "`nll_ref` [s, n]" in output
    assert (
        "lm_iam, fixed in advance, separates" in output
        and "Scores over bootstrap draws" in output
        and "lm_zlib needs texts" in output
    )
    assert not (out / "verdicts.npz").exists() and (out / "report" / "report.html").is_file()
    with np.load(out / "scores.npz") as arrays:
        assert set(arrays.files) == {"ids", "lm_loss", "lm_ratio", "lm_lira", "lm_iam", "random"}
        np.testing.assert_allclose(arrays["lm_loss"], -logged["nll"], rtol=1e-6)


def test_published_loss_files_and_the_published_bootstrap(logged, tmp_path, capsys):
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, key in (("nll", "nlloss"), ("nll_ref", "ref_nlloss"), ("nll_fit", "fitRef_nlloss"), ("label", "label")):
        lines = [f"{key} :", *map(str, logged[name].tolist())]
        (folder / f"news-7-{key}.txt").write_text("\n".join(lines) + "\n")
    read = store.signal_files.as_arrays(folder)
    np.testing.assert_allclose(read["nll_fit"], logged["nll_fit"], rtol=1e-6)
    plain = {"nll_target": logged["nll"], **{name: logged[name] for name in ("nll_fit", "nll_ref", "label")}}
    report = analyses.audit_texts(plain, compat="faithful", draws=40)
    expected = report.arrays["scores.npz"]["lm_iam"]
    assert launched(f"--tokens={folder}", f"--out={tmp_path / 'out'}", "--draws=40", "--compat=faithful") == 0
    assert "As published: mean ± standard deviation over 40 draws" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "scores.npz") as arrays:
        np.testing.assert_allclose(arrays["lm_iam"], expected, atol=1e-6)
    (folder / "news-7-nlloss.txt").write_text("nlloss :\n1.0\noops\n")
    assert launched(f"--tokens={folder}", f"--out={tmp_path / 'other'}") == 2
    assert "line 3: 'oops' is not a number" in capsys.readouterr().err
    for broken in ("", "nlloss :\n", "1.0\n2.0\n"):
        (folder / "news-7-nlloss.txt").write_text(broken)
        assert launched(f"--tokens={folder}", f"--out={tmp_path / 'other'}") == 2
        assert "The first line is the key" in capsys.readouterr().err
    (folder / "again-8-nlloss.txt").write_text("nlloss :\n1.0\n")
    assert launched(f"--tokens={folder}", f"--out={tmp_path / 'other'}") == 2
    assert "2 files *nlloss.txt" in capsys.readouterr().err


def answered(left, seed=0, outs=12):
    """Losses of 200 texts, 60 of them requested, where `left` of what training gained on these is still there."""
    generator = np.random.default_rng(seed)
    texts, others = generator.normal(2.5, 0.4, 200), generator.normal(2.5, 0.4, 100)
    is_requested = np.arange(200) < 60

    def model(hard, gain=0.0):
        return np.maximum(hard + generator.normal(0, 0.08, hard.shape) - gain, 0.01)

    return {
        "nll_target": model(texts, np.where(is_requested, 0.5 * left, 0.5)), "nll_fit": model(texts, 0.5),
        "nll_ref": np.stack([model(texts) for _ in range(outs)]), "pop_nll_target": model(others),
        "pop_nll_fit": model(others), "pop_nll_ref": np.stack([model(others) for _ in range(outs)]),
        "forgotten": is_requested,
    }  # fmt: skip


def audited(token_arrays, **choices):
    return analyses.audit_texts(token_arrays, scores=("lm_loss", "lm_rmia"), protocol="binui", draws=0, **choices)


def test_with_a_null_requests_are_judged_and_the_assumption_stands_first():
    kept, gone = audited(answered(1.0)), audited(answered(0.0))
    assert dict(kept.summary)["In short"].startswith("NOT FORGOTTEN. The request is still")
    assert dict(gone.summary)["In short"].startswith("FORGOTTEN as a whole, as far as")
    for report in (kept, gone):
        questions = [question for question, _ in report.summary]
        assert questions[1] == "Before anything else" and text_sections.OUT_NOTE in report.summary[1][1]
        assert report.arrays["verdicts.npz"]["verdict"].shape == (200,)
    codes = gone.arrays["verdicts.npz"]["verdict"][:60]
    assert (codes == 2).sum() <= 3 and (kept.arrays["verdicts.npz"]["verdict"][:60] == 2).sum() > 30


@pytest.mark.parametrize("lost", ["pop_nll_target", "pop_nll_ref", "nll_ref", "several"])
def test_without_a_null_nothing_is_called_forgotten(lost):
    token_arrays = answered(0.0)
    if lost == "several":
        token_arrays["nll_ref"], token_arrays["pop_nll_ref"] = (
            token_arrays["nll_ref"][0],
            token_arrays["pop_nll_ref"][0],
        )
    else:
        del token_arrays[lost]
        token_arrays.pop("pop_nll_ref", None) if lost == "nll_ref" else None
    report = analyses.audit_texts(token_arrays, scores=("lm_loss",), protocol="binui", draws=0)
    assert dict(report.summary)["In short"] == "NO VERDICT on single rows: required arrays are missing."
    assert "verdicts.npz" not in report.arrays and "FORGOTTEN as a whole" not in report.answer


def test_a_model_that_was_not_changed_and_copied_out_models_are_recognised():
    token_arrays = answered(1.0)
    same = audited(
        {**token_arrays, "nll_target": token_arrays["nll_fit"], "pop_nll_target": token_arrays["pop_nll_fit"]}
    )
    assert dict(same.summary)["In short"] == "NOT FORGOTTEN. The model was not changed at all."
    reference, pop = token_arrays["nll_ref"][:1], token_arrays["pop_nll_ref"][:1]
    copies = {**token_arrays, "nll_ref": np.repeat(reference, 4, 0), "pop_nll_ref": np.repeat(pop, 4, 0)}
    report = audited(copies)
    assert "The 4 OUT models are copies of one model" in report.answer and "verdicts.npz" not in report.arrays
    losses = np.concatenate([token_arrays["nll_ref"], token_arrays["nll_fit"][None]])
    pop_losses = np.concatenate([token_arrays["pop_nll_ref"], token_arrays["pop_nll_fit"][None]])
    unchanged = audited({**token_arrays, "nll_ref": losses, "pop_nll_ref": pop_losses})
    assert "answers like `original`" in unchanged.answer


def test_exact_retraining_stands_beside_the_audited_model():
    token_arrays = answered(1.0)
    exact = answered(0.0)
    beside = {"nll_retrained": exact["nll_target"], "pop_nll_retrained": exact["pop_nll_target"]}
    report = audited({**token_arrays, **beside})
    rows = {row[0]: row for section in report.sections if section.name == "verdicts" for row in section.table.rows}
    assert list(rows) == ["given model", "retrained", "original"]
    assert rows["retrained"][2] <= 3 < 30 < rows["given model"][2]
    assert (
        "rows that truly were forgotten" in next(section for section in report.sections if section.name == "trust").text
    )


def test_replaced_answers_are_seen_without_a_verdict_and_suppressed_with_one():
    token_arrays = answered(1.0)
    token_arrays["nll_target"] = np.where(token_arrays["forgotten"], np.float32(2.5), token_arrays["nll_target"] + 1e-3)
    token_arrays["pop_nll_target"] = token_arrays["pop_nll_fit"] + 1e-3 * np.random.default_rng(0).normal(size=100)
    report = audited(token_arrays)
    assert dict(report.summary)["In short"].startswith("SUPPRESSED")
    assert "60 of the 60 requested texts have exactly the same loss" in report.answer
    assert set(report.arrays["verdicts.npz"]["verdict"][:60]) == {3}
    lone = {name: values for name, values in token_arrays.items() if not name.startswith("pop_")}
    lone["nll_ref"] = token_arrays["nll_ref"][:1]
    report = audited(lone)
    assert "exactly the same loss" in report.answer and "verdicts.npz" not in report.arrays
    assert "exactly the same" not in audited(answered(0.0)).answer


def test_words_that_tell_the_texts_apart_are_said_before_everything():
    generator = np.random.default_rng(0)
    token_arrays = answered(0.0)
    vocabulary = np.array([f"word{number}" for number in range(120)])
    for shift in (0, 60):
        starts = np.where(token_arrays["forgotten"], shift, 0)
        token_arrays["texts"] = np.array(
            [" ".join(generator.choice(vocabulary[start : start + 60], 30)) for start in starts]
        )
        report = audited(token_arrays)
        section = next(section for section in report.sections if section.name == "words")
        assert section.findings[0].metric == "auc" and "bag of words" in section.text
        assert ("They are different kinds of text" in dict(report.summary)["Before anything else"]) == bool(shift)


@pytest.mark.parametrize("gamma, advice", [(2.0, "Lower rmia_gamma"), (1e-6, "Raise rmia_gamma")])
def test_ties_of_rmia_are_said_with_what_helps(gamma, advice):
    (note,) = [note for note in audited(answered(1.0), rmia_gamma=gamma).notes if "different values" in note]
    assert advice in note and "100 population texts" in note
    assert not [note for note in audited(answered(1.0), rmia_gamma=1.1).notes if "different values" in note]


def test_steps_of_a_training_are_followed_with_the_published_spearman():
    with np.load(GOLDEN / "muse_news_steps.npz") as file:
        token_arrays = {name: file[name] for name in file.files}
    arrays = {
        "nll_target": token_arrays["nll_by_step"][-1],
        **{name: token_arrays[name] for name in ("nll_fit", "nll_ref", "steps")},
    }
    names = ("lm_iam", "lm_lira", "lm_ratio", "lm_loss")
    report = analyses.audit_texts(
        {**arrays, "nll_by_step": token_arrays["nll_by_step"]}, protocol="scoreui", scores=names
    )
    section = next(section for section in report.sections if section.name == "scoreui")
    rows = {row[0]: row[1].value for row in section.table.rows}
    for name, key in zip(names, ("iam_full", "lira", "ratio", "loss"), strict=True):
        np.testing.assert_allclose(rows[name], token_arrays[f"spearman_{key}"], atol=1e-4, err_msg=name)
    assert "14 steps of one training" in section.table.caption


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--tokens={path}", "--evidence={path}"), "give --evidence or --tokens, not both"),
        (("--tokens={path}", "--config=configs/digits.py"), "give --config (a run) or --tokens (arrays), not both"),
        (("--tokens={path}", "--probabilities"), "--probabilities belongs to --evidence"),
        (("--tokens={path}", "--protocol=class_report"), "is not available for texts"),
        (("--tokens={path}", "--protocol=scoreui"), "needs `nll_steps`"),
        (("--tokens={path}", "--min_k=101"), "must be between 0.01 and 100"),
        (("--tokens={path}", "--interpolation_steps=1"), "IAM interpolation_steps = 1"),
        (("--tokens={path}", "--scores=lm_iamm"), "Did you mean 'lm_iam'"),
        (("--tokens={path}", "--decision=lm_zlib"), "needs texts"),
        (("--tokens={path}", "--scores=iam_on"), "is defined on logits, not on tokens"),
        (("--evidence={path}",), "there is no array 'unlearned'"),
    ],
)
def test_wrong_calls_are_one_clear_error(arguments, message, logged, tmp_path, capsys):
    np.savez(tmp_path / "tokens.npz", **logged)
    filled = [argument.format(path=tmp_path / "tokens.npz") for argument in arguments]
    assert launched(*filled, f"--out={tmp_path / 'out'}") == 2
    output = capsys.readouterr().err
    assert message in output and "Traceback" not in output


# ---------------------------------------------------------------------------------------------------------------------
# the lines of docs/language_models.md


class Words:
    """Numbers for words, as a tokenizer hands them out."""

    def __call__(self, text, return_tensors):
        torch = pytest.importorskip("torch")
        return types.SimpleNamespace(input_ids=torch.tensor([[sum(map(ord, word)) % 40 for word in text.split()]]))


def plain_model(seed):
    torch = pytest.importorskip("torch")
    table = torch.randn(40, 40, generator=torch.Generator().manual_seed(seed))

    class Model:
        device = "cpu"

        def __call__(self, ids):
            return types.SimpleNamespace(logits=torch.nn.functional.one_hot(ids, 40).float().cumsum(1) @ table)

    return Model()


def tiny_llama(seed):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=2, max_position_embeddings=32)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("make", [plain_model, tiny_llama])
def test_the_lines_of_the_docs_write_a_file_that_the_launcher_reads(make, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/language_models.md").read_text(), re.S)
    lines = next(block for block in blocks if "def signals(model, tokenizer, texts)" in block)
    monkeypatch.chdir(tmp_path)
    written = [" ".join(np.random.default_rng(seed).choice(list("abcdefgh"), 4 + seed % 9)) for seed in range(24)]
    token_arrays = {
        "target": make(0), "original": make(1), "other": make(2), "tokenizer": Words(), "other_tokenizer": Words(),
        "texts": written, "forgotten": np.arange(24) % 3 == 0,
    }  # fmt: skip
    exec(compile(lines, "docs/language_models.md", "exec"), token_arrays)
    with np.load("tokens.npz") as file:
        logp, mask = file["token_logp_target"], file["mask"]
        assert mask.sum(1).tolist() == [len(text.split()) - 1 for text in written]
        assert np.isfinite(logp[mask]).all() and (logp[mask] < 0).all() and np.isposinf(logp[~mask]).all()
    assert launched("--tokens=tokens.npz", "--out=out", "--draws=20") == 0
    with np.load("out/scores.npz") as arrays:
        assert {"lm_iam", "lm_zlib", "lm_min_k_pp", "lm_surp"} <= set(arrays.files)
        np.testing.assert_allclose(arrays["lm_loss"], logp.mean(1, where=mask), rtol=1e-5)
