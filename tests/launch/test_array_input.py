"""The same arrays get the same answer at every analysis: types, probabilities, binary outputs, names, ids."""

import json

import numpy as np
import pytest

from launch import _entry, audit, epsilon, evaluate

N, C = 60, 4
LABELS = np.arange(N) % C


def softmax(values):
    raised = np.exp(values - values.max(-1, keepdims=True))
    return (raised / raised.sum(-1, keepdims=True)).astype(np.float32)


def logits(seed, *shape, labels=LABELS, classes=C):
    """[..., n, c] logits that fit the labels."""
    values = np.random.default_rng(seed).normal(size=(*shape, len(labels), classes))
    values[..., np.arange(len(labels)), labels] += 2
    return values.astype(np.float32)


def evidence(form, labels):
    return {"unlearned": form(logits(0)), "original": form(logits(1)), "shadows": form(logits(2, 3)), "labels": labels,
            "forgotten": np.arange(N) < 20, "population_labels": LABELS, **population(form, LABELS)}  # fmt: skip


def population(form, labels, classes=C):
    """Answers of the same models on N rows that none of them saw; shadows know which of them are hard."""
    hard = np.random.default_rng(9).normal(size=N)[:, None] * np.eye(classes)[labels]

    def some(*shape):
        return form((logits(*shape, labels=labels, classes=classes) + 3 * hard).astype(np.float32))

    return {"population_unlearned": some(20), "population_original": some(21), "population_shadows": some(22, 3)}


def outputs(form, labels):
    subsets = ("calibration", "forget", "test", "retain")
    return {name: array for index, subset in enumerate(subsets)
            for name, array in ((subset, form(logits(index))), (f"{subset}_labels", labels))}  # fmt: skip


def models(form, labels):
    seeds = {"retrained": 0, "mine": 1}
    return {"labels": labels, **{name: form(logits(seed, 8)).swapaxes(0, 1) for name, seed in seeds.items()}}


VERBS = {
    "audit": (audit, evidence, ("--scores=confidence,lira_off",)),
    "evaluate": (evaluate, outputs, ("--metrics=conformal",)),
    "epsilon": (epsilon, models, ("--bootstrap=0", "--histograms=0")),
}


@pytest.fixture
def answer(tmp_path, capsys):
    """(exit code, what was said) of a verb on arrays."""

    def run(verb, arrays, *more, out="out"):
        module, _, few = VERBS[verb]
        np.savez(tmp_path / "my.npz", **arrays)
        argv = ["x", f"--{module.VERB.flag}={tmp_path / 'my.npz'}", f"--out={tmp_path / out}", *few, *more]
        code = _entry.main(module.command, module.__doc__, argv, define=module.define, alone=module.alone)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    run.folder = tmp_path
    return run


def made(verb, form=lambda values: values, labels=LABELS):
    return VERBS[verb][1](form, labels)


LABEL_FORMS = {
    "float": LABELS.astype(np.float64),
    "column": LABELS[:, None],
    "one-hot": np.eye(C, dtype=np.float32)[LABELS],
    "uint8": LABELS.astype(np.uint8),
    "big-endian": LABELS.astype(">i8"),
}
BAD_LABELS = {"from 1": LABELS + 1, "text": np.array(list("abcd"))[LABELS], "half": LABELS + 0.5,
              "unknown": np.where(LABELS == 0, -1, LABELS)}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_labels_of_any_form_are_the_same_labels_and_bad_ones_are_refused(verb, answer):
    code, plain = answer(verb, made(verb), "--dry_run")
    assert code == 0
    for form, labels in LABEL_FORMS.items():
        assert answer(verb, made(verb, labels=labels), "--dry_run") == (0, plain), form
    for form, labels in BAD_LABELS.items():
        code, output = answer(verb, made(verb, labels=labels), "--dry_run")
        assert code == 2 and "labels" in output and "Traceback" not in output, form


FORMS = {
    "softmax": softmax,
    "rows sum to 1.005": lambda values: softmax(values) * np.float32(1.005),
    "three decimals": lambda values: np.round(softmax(values), 3),
    "two decimals": lambda values: np.round(softmax(values), 2),
    "half precision": lambda values: softmax(values).astype(np.float16),
}


@pytest.mark.parametrize("verb", VERBS)
def test_probabilities_are_refused_with_the_hint_or_used(verb, answer):
    for name, form in FORMS.items():
        code, output = answer(verb, made(verb, form), "--dry_run")
        assert code == 2 and "looks like probabilities" in output and "Pass --probabilities" in output, name
        assert answer(verb, made(verb, form), "--probabilities", "--dry_run")[0] == 0, name
    code, output = answer(verb, made(verb), "--probabilities", "--dry_run")
    assert code == 2 and "are not probabilities" in output and "drop --probabilities" in output


@pytest.mark.parametrize("verb", VERBS)
def test_names_that_are_not_known_are_refused_with_the_nearest(verb, answer):
    wrong = {"audit": ("shadow", "shadows"), "evaluate": ("retian", "retain"), "epsilon": ("label", "labels")}[verb]
    code, output = answer(verb, {**made(verb), wrong[0]: np.zeros(7, np.float32)}, "--dry_run")
    assert code == 2 and f"{wrong[0]!r}" in output and f"Did you mean {wrong[1]!r}?" in output


def test_softmax_gives_the_scores_of_its_logits(answer):
    for name, form, more in (("raw", lambda values: values, ()), ("soft", softmax, ("--probabilities",))):
        assert answer("audit", made("audit", form), *more, out=name)[0] == 0
    raw, soft = (dict(np.load(answer.folder / name / "scores.npz")) for name in ("raw", "soft"))
    for score in ("confidence", "lira_off"):
        np.testing.assert_allclose(raw[score], soft[score], atol=2e-4)
    raw, soft = (dict(np.load(answer.folder / name / "verdicts.npz")) for name in ("raw", "soft"))
    np.testing.assert_array_equal(raw["verdict"], soft["verdict"])
    for test in ("p_high", "p_low", "p_in"):
        np.testing.assert_allclose(raw[test], soft[test], atol=1.5 / N)


def binary(columns, probabilities):
    """Evidence of a binary model: [n, 2], [n, 1] or [n] outputs."""
    labels = np.arange(N) % 2

    def form(values):
        z = values[..., 1] - values[..., 0]
        two = softmax(np.stack([np.zeros_like(z), z], -1)) if probabilities else np.stack([np.zeros_like(z), z], -1)
        return two if columns == 2 else two[..., 1:] if columns == 1 else two[..., 1]

    arrays = {name: form(logits(seed, *shape, labels=labels, classes=2))
              for name, seed, shape in (("unlearned", 0, ()), ("original", 1, ()), ("shadows", 2, (3,)))}  # fmt: skip
    return {**arrays, "labels": labels, "forgotten": np.arange(N) < 20, "population_labels": labels,
            **population(form, labels, classes=2)}  # fmt: skip


@pytest.mark.parametrize("probabilities", [False, True])
def test_outputs_of_binary_models_are_widened(probabilities, answer):
    more = ("--probabilities",) if probabilities else ()
    for columns in (2, 1, 0):
        assert answer("audit", binary(columns, probabilities), *more, out=f"{columns}")[0] == 0
    for file, name in (("scores", "lira_off"), ("verdicts", "verdict"), ("verdicts", "z")):
        arrays = [np.load(answer.folder / f"{columns}" / f"{file}.npz")[name] for columns in (2, 1, 0)]
        tolerance = 1e-5 if file == "scores" else 1e-4  # 1 - p of small numbers, amplified by the deviation
        np.testing.assert_allclose(arrays[1], arrays[0], atol=tolerance)
        np.testing.assert_allclose(arrays[2], arrays[0], atol=tolerance)
    if probabilities:
        code, output = answer("audit", binary(0, True), out="none")
        assert code == 2 and "Pass --probabilities" in output


def test_ids_are_carried_to_every_output_per_sample(answer):
    names = np.array([f"patient {number}" for number in range(N)])
    assert answer("audit", {**made("audit"), "ids": names}, out="a")[0] == 0
    for file in ("scores.npz", "verdicts.npz"):
        np.testing.assert_array_equal(np.load(answer.folder / "a" / file)["ids"], names)
    for file in ("report/tables/rows.csv", "verdicts.csv"):
        assert "patient " in (answer.folder / "a" / file).read_text()
    assert answer("epsilon", {**made("epsilon"), "ids": names}, out="e")[0] == 0
    np.testing.assert_array_equal(np.load(answer.folder / "e" / "epsilon.npz")["ids"], names)
    assert answer("evaluate", {**made("evaluate"), "forget_ids": names}, out="v")[0] == 0
    sets = np.load(answer.folder / "v" / "evaluation" / "sets_unlearned.npz")
    np.testing.assert_array_equal(sets["ids"][sets["forget"][0]], names)
    code, output = answer("audit", {**made("audit"), "ids": names[:5]})
    assert code == 2 and "ids" in output


def test_exact_retraining_in_the_evidence_stands_next_to_the_model(answer):
    arrays = {**made("audit"), "retrained": logits(7)}
    rows = answer.folder / "out" / "report" / "tables" / "verdicts.csv"

    def roles():
        return [line.split(",")[0] for line in rows.read_text().splitlines()[1:]]

    assert answer("audit", arrays)[0] == 0 and roles() == ["given model", "original"]  # no population of its own
    others = population(lambda values: values, LABELS)["population_original"]
    code, output = answer("audit", {**arrays, "population_retrained": others}, "--overwrite=audit")
    assert code == 0 and roles() == ["given model", "retrained", "original"]
    page = (answer.folder / "out" / "report" / "report.html").read_text()
    assert "Of 20 rows that truly were forgotten, " in page and "(should be 5)" in page
    findings = json.loads((answer.folder / "out" / "findings.json").read_text())
    rates = [
        finding for finding in findings if finding["metric"] == "rate not forgotten" and finding["of"] == "given model"
    ]
    assert rates[0]["retrained"] is not None


def test_settings_are_flags_with_arrays_and_with_a_config(answer, capsys):
    assert answer("audit", made("audit"), "--group_size=1", "--family=norm", "--protocol=shadow_sweep")[0] == 0
    code, output = answer("audit", made("audit"), "--family=normal")
    assert code == 2 and "audit.family" in output
    argv = ["x", "--config=configs/digits.py", "--fdr=0.9", "--dry_run"]
    assert _entry.main(audit.command, "", argv, define=audit.define, alone=audit.alone) == 2
    assert "audit.fdr = 0.9" in capsys.readouterr().err
    code, output = answer("evaluate", made("evaluate"), "--attack=svc")
    assert code == 2 and "Did you mean --miacr_attack?" in output
