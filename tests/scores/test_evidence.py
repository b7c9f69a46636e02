"""The door: names of arrays, and every message about arrays that cannot be used."""

from pathlib import Path

import audit_case
import numpy as np
import pytest

from jaxunlearn import arrays, errors, scores
from jaxunlearn.analyses.audit.evidence import gather
from jaxunlearn.scores import evidence

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "iam"


def good(**changed):
    """Evidence with some arrays changed (None = taken out)."""
    return audit_case.make(samples=12, pairs=6, train_rows=5, population=7).replace(**changed)


def good_arrays(**changed):
    fields = audit_case.fields(good(**changed))
    fields["forgotten"] = fields["forgotten"].astype(np.float32)
    return fields


def read(values):
    return arrays.read(values, evidence.FIELDS, "Evidence contains more.")


def test_published_names_become_ours_and_shadows_come_first():
    with np.load(GOLDEN / "binui_cifar10_s10.npz") as file:
        published = dict(file)
    named = arrays.read(published, gather.FIELDS, "")
    actual = evidence.from_arrays(named)
    published_names = {alias: ours for ours, field in evidence.FIELDS.items() for alias in field.aliases}
    theirs = {alias: ours for alias, ours in published_names.items() if alias in published}
    assert len(theirs) == 10
    for name, ours in theirs.items():
        expected = published[name].swapaxes(0, 1) if published[name].ndim == 3 else published[name]
        np.testing.assert_array_equal(getattr(actual, ours), expected)
    assert actual.shadows.shape == (10, 120, 10) and actual.population_shadows.shape == (10, 80, 10)
    assert actual.forgotten.dtype == bool and actual.labels.dtype == np.int32
    assert int(named["levels"]) == int(published["INTERAPPROX"])
    results = published.keys() - theirs.keys() - evidence.FIELDS.keys() - {"INTERAPPROX"}
    assert results and all(name.startswith(("score/", "eval/", "fit/")) for name in results)
    assert named.keys() - {"levels"} == {name for name, value in vars(actual).items() if value is not None}
    assert evidence.check(actual)[1] == {"N": 120, "C": 10, "S": 10, "P": 80, "m": 80}


def test_our_names_are_taken_as_they_are():
    named = evidence.from_arrays(read(good_arrays()))
    for name, array in audit_case.fields(good()).items():
        np.testing.assert_array_equal(getattr(named, name), array)


@pytest.mark.parametrize("name, message", [("notes", r"'notes' of shape \(3,\) is not known here\. Rename"),
                                            ("shadow", "'shadow' .* Did you mean 'shadows'")])  # fmt: skip
def test_unknown_names_are_refused(name, message):
    with pytest.raises(errors.DataError, match=message):
        read({**good_arrays(), name: np.zeros(3)})


@pytest.mark.parametrize(
    "change",
    [lambda labels: labels.astype(np.float64), lambda labels: labels[:, None], lambda labels: np.eye(6)[labels]],
)
def test_labels_may_be_whole_floats_a_column_or_one_hot(change):
    for labels in (
        read({**good_arrays(), "labels": change(good().labels)})["labels"],
        evidence.check(good(labels=change(good().labels)))[0].labels,
    ):
        np.testing.assert_array_equal(labels, good().labels)
        assert labels.dtype == np.int32


def without(name, **more):
    return {key: value for key, value in {**good_arrays(), **more}.items() if key != name}


@pytest.mark.parametrize(
    "make_arrays, message",
    [
        (lambda: without("unlearned"), r"no array 'unlearned'\. Evidence contains"),
        (lambda: without("unlearned", unlearnt=np.zeros((12, 6))), r"no array 'unlearned'\. Did you mean 'unlearnt'\?"),
        (lambda: without("labels"), "no array 'labels'"),
        (
            lambda: {**good_arrays(), "target_unl_logits": np.zeros((12, 6))},
            "'unlearned' is given twice, also under its published",
        ),
        (lambda: {**good_arrays(), "labels": np.full(12, 0.5)}, "labels has dtype float64, expected whole numbers"),
        (lambda: {**good_arrays(), "labels": np.full(12, np.nan)}, "labels has dtype float64"),
        (lambda: {**good_arrays(), "labels": np.array(["cat"] * 12)}, "labels has dtype <U3"),
        (lambda: {**good_arrays(), "forgotten": np.full(12, 2)}, "forgotten must contain only 0 and 1"),
        (lambda: {**good_arrays(), "forgotten": np.full(12, np.nan)}, "forgotten must contain only 0 and 1"),
        (lambda: {**good_arrays(), "forgotten": np.array(["no"] * 12)}, "forgotten must contain only 0 and 1"),
        (
            lambda: {**good_arrays(), "reference_member": np.full((6, 12), -1)},
            "reference_member must contain only 0 and 1",
        ),
    ],
)
def test_arrays_that_cannot_be_named_are_refused(make_arrays, message):
    with pytest.raises(errors.DataError, match=message):
        read(make_arrays())


def changed(name, index, value):
    array = np.array(getattr(good(), name))
    array[index] = value
    return {name: array}


def no_model():
    member = np.array(good().reference_member)
    member[:, 3] = False
    return {"reference_member": member}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: {"unlearned": np.zeros((2, 12, 6))}, r"unlearned has shape \(2, 12, 6\), expected 2 axes \[N, C\]"),
        (lambda: {"unlearned": np.zeros(12)}, "original has shape .*: axis C is 6, but unlearned has C = 2"),
        (
            lambda: {"labels": np.zeros(11, np.int32)},
            r"labels has shape \(11,\): axis N is 11, but unlearned has N = 12",
        ),
        (lambda: {"shadows": good().shadows[..., :5]}, r"shadows has shape .*axis C is 5, but unlearned has C = 6"),
        (lambda: {"population_shadows": good().population_shadows[:3]}, r"axis S is 3, but shadows has S = 4"),
        (
            lambda: {"posterior_pairs_unlearned": good().posterior_pairs_unlearned[:, :3]},
            r"axis q is 3, but posterior_pairs_original has q = 6",
        ),
        (lambda: {"shadows": good().shadows[:0]}, "population_shadows .* axis S is 4, but shadows has S = 0"),
        (lambda: changed("labels", 2, 6), r"labels must lie in \[0, 5\] for 6 classes, but row 2 is 6"),
        (lambda: changed("labels", 0, -1), "labels must lie in"),
        (lambda: changed("population_labels", 1, 9), "population_labels must lie in"),
        (lambda: changed("shadow_train_labels", (0, 1), 9), r"shadow_train_labels\[0\] must lie in .* row 1 is 9"),
        (lambda: changed("unlearned", (7, 2), np.nan), r"unlearned contains 1 value\(s\) .* first at \(7, 2\)"),
        (lambda: changed("shadows", (2, 7, 3), np.inf), r"shadows\[2\] contains 1 value\(s\) .* first at \(7, 3\)"),
        (lambda: changed("shadows_views", (1, 2, 7, 3), -np.inf), r"shadows_views\[1\] .* first at \(2, 7, 3\)"),
        (lambda: {"original": np.zeros((12, 6), np.int32)}, "original has dtype int32, .*: outputs of"),
        (lambda: {"original": np.full((12, 6), 1 / 6)}, "original looks like probabilities"),
        (lambda: {"shadows": np.full((4, 12, 6), 1 / 6, np.float16)}, "shadows looks like probabilities"),
        (lambda: {"forgotten": np.ones(12, bool)}, "`forgotten` marks every sample"),
        (lambda: {"forgotten": np.zeros(12, bool)}, "`forgotten` marks no sample"),
        (lambda: {"reference_member": np.ones((6, 12), bool)}, "sample 0 is in the training set of all or of no"),
        (no_model, r"sample 3 is in .* \(1 such sample"),
        (lambda: {"population_labels": None}, "'population_original' is given without 'population_labels'"),
        (lambda: {"shadow_train_labels": None}, "'shadow_train_logits' is given without 'shadow_train_labels'"),
        (lambda: {"reference_member": None}, "'reference' is given without 'reference_member'"),
        (
            lambda: {"posterior_pairs_unlearned": None},
            "'posterior_pairs_original' is given without 'posterior_pairs_unlearned'",
        ),
        (
            lambda: {"posterior_pairs_forgotten": None},
            "'posterior_pairs_unlearned' is given without 'posterior_pairs_forgotten'",
        ),
    ],
)
def test_evidence_that_does_not_fit_together_is_refused(change, message):
    with pytest.raises(errors.UserError, match=message):
        scores.run(("confidence",), good(**change()))


@pytest.mark.parametrize("samples, classes", [(0, 6), (5, 0)])
def test_nothing_to_score_is_refused(samples, classes):
    little = scores.Evidence(np.zeros((samples, classes), np.float32), np.zeros(samples, np.int32))
    with pytest.raises(errors.ShapeError, match=rf"unlearned is empty: it has shape \({samples}, {classes}\)"):
        evidence.check(little)


def test_outputs_of_a_binary_model_are_two_classes():
    outputs, labels = np.array([3.0, -1.0, 0.5], np.float32), np.array([1, 0, 0])
    two = scores.Evidence(np.stack([0 * outputs, outputs], -1), labels)
    for shaped in (outputs, outputs[:, None]):
        actual = scores.run(("loss",), scores.Evidence(shaped, labels))
        np.testing.assert_array_equal(actual.scores["loss"].values, scores.run(("loss",), two).scores["loss"].values)


def test_good_evidence_gives_its_sizes():
    assert evidence.check(good())[1] == {"N": 12, "C": 6, "S": 4, "P": 7, "m": 5, "R": 6, "q": 6, "K": 2}


def test_logits_that_only_resemble_probabilities_are_accepted():
    values = np.random.default_rng(0).uniform(size=(12, 6)).astype(np.float32)  # in [0, 1], but rows do not sum to 1
    evidence.check(good(unlearned=values))
    assert {*evidence.FIELDS, *evidence.AUDIT_FIELDS} == {*vars(good()), "levels"}


def test_outputs_of_one_model_in_place_of_several_are_named():
    with pytest.raises(errors.ShapeError, match=r"shadows has shape \(12, 6\),.* be \[S, N, C\].*shadows\[None\]"):
        scores.run(["lira_off"], good(shadows=good().unlearned))
