"""The door: names of arrays, and every message about arrays that cannot be used."""

from pathlib import Path

import audit_case
import numpy as np
import pytest

from jaxunlearn import errors, scores
from jaxunlearn.scores import evidence

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "iam"


def good(**changed):
    """Evidence with some arrays changed (None = taken out)."""
    return audit_case.make(samples=12, pairs=6, own=5, population=7).replace(**changed)


def arrays(**changed):
    found = audit_case.fields(good(**changed))
    found["forgotten"] = found["forgotten"].astype(np.float32)
    return found


def test_published_names_become_ours_and_shadows_come_first():
    with np.load(GOLDEN / "binui_cifar10_s10.npz") as file:
        published = dict(file)
    named = evidence.from_arrays(published)
    found = named.evidence
    for theirs, (ours, swap) in evidence.PUBLISHED.items():
        expected = np.swapaxes(published[theirs], 0, 1) if swap else published[theirs]
        np.testing.assert_array_equal(getattr(found, ours), expected)
    assert found.shadows.shape == (10, 120, 10) and found.population_shadows.shape == (10, 80, 10)
    assert found.forgotten.dtype == bool and found.labels.dtype == np.int32
    assert named.levels == int(published["INTERAPPROX"]) and "INTERAPPROX" not in named.ignored
    assert all(name.startswith(("score/", "eval/", "fit/")) for name in named.ignored) and named.ignored
    assert evidence.check(found) == {"N": 120, "C": 10, "S": 10, "P": 80, "m": 80}


def test_our_names_are_taken_as_they_are():
    named = evidence.from_arrays(arrays())
    assert named.levels is None and named.ignored == ()
    for name, array in audit_case.fields(good()).items():
        np.testing.assert_array_equal(getattr(named.evidence, name), array)


def test_unknown_names_are_ignored_and_listed():
    named = evidence.from_arrays({**arrays(), "notes": np.zeros(3), "shadow": np.zeros((1, 2, 3))})
    assert named.ignored == ("notes", "shadow")


def test_whole_numbers_stored_as_floats_are_labels():
    named = evidence.from_arrays({**arrays(), "labels": good().labels.astype(np.float64)})
    np.testing.assert_array_equal(named.evidence.labels, good().labels)
    assert named.evidence.labels.dtype == np.int32


def without(name, **more):
    return {key: value for key, value in {**arrays(), **more}.items() if key != name}


@pytest.mark.parametrize(
    "given, message",
    [
        (lambda: without("unlearned"), r"no array 'unlearned'\. It needs"),
        (lambda: without("unlearned", unlearnt=np.zeros((12, 6))), r"no array 'unlearned'\. Did you mean 'unlearnt'\?"),
        (lambda: without("labels"), "no array 'labels'"),
        (lambda: {**arrays(), "target_unl_logits": np.zeros((12, 6))}, "'unlearned' twice, also under its published"),
        (lambda: {**arrays(), "labels": np.full(12, 0.5)}, "labels has dtype float64; it must hold class numbers"),
        (lambda: {**arrays(), "labels": np.full(12, np.nan)}, "labels has dtype float64"),
        (lambda: {**arrays(), "labels": np.array(["cat"] * 12)}, "labels has dtype <U3"),
        (lambda: {**arrays(), "forgotten": np.full(12, 2)}, "forgotten must hold only 0 and 1"),
        (lambda: {**arrays(), "forgotten": np.full(12, np.nan)}, "forgotten must hold only 0 and 1"),
        (lambda: {**arrays(), "forgotten": np.array(["no"] * 12)}, "forgotten must hold only 0 and 1"),
        (lambda: {**arrays(), "reference_member": np.full((6, 12), -1)}, "reference_member must hold only 0 and 1"),
    ],
)
def test_arrays_that_cannot_be_named_are_refused(given, message):
    with pytest.raises(errors.DataError, match=message):
        evidence.from_arrays(given())


def changed(name, place, value):
    array = np.array(getattr(good(), name))
    array[place] = value
    return {name: array}


def no_model():
    member = np.array(good().reference_member)
    member[:, 3] = False
    return {"reference_member": member}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: {"unlearned": np.zeros(12, np.float32)}, r"unlearned has shape \(12,\), expected 2 axes \[N, C\]"),
        (
            lambda: {"labels": np.zeros(11, np.int32)},
            r"labels has shape \(11,\): axis N is 11, but unlearned has N = 12",
        ),
        (lambda: {"shadows": good().shadows[..., :5]}, r"shadows has shape .*axis C is 5, but unlearned has C = 6"),
        (lambda: {"population_shadows": good().population_shadows[:3]}, r"axis S is 3, but shadows has S = 4"),
        (lambda: {"pairs_unlearned": good().pairs_unlearned[:, :3]}, r"axis q is 3, but pairs_original has q = 6"),
        (lambda: {"shadows": good().shadows[:0]}, "population_shadows .* axis S is 4, but shadows has S = 0"),
        (lambda: changed("labels", 2, 6), r"labels must lie in \[0, 5\] for 6 classes, but row 2 is 6"),
        (lambda: changed("labels", 0, -1), "labels must lie in"),
        (lambda: changed("population_labels", 1, 9), "population_labels must lie in"),
        (lambda: changed("shadow_train_labels", (0, 1), 9), r"shadow_train_labels\[0\] must lie in .* row 1 is 9"),
        (lambda: changed("unlearned", (7, 2), np.nan), r"unlearned holds 1 value\(s\) .* first at \(7, 2\)"),
        (lambda: changed("shadows", (2, 7, 3), np.inf), r"shadows\[2\] holds 1 value\(s\) .* first at \(7, 3\)"),
        (lambda: changed("shadows_views", (1, 2, 7, 3), -np.inf), r"shadows_views\[1\] .* first at \(2, 7, 3\)"),
        (lambda: {"original": np.zeros((12, 6), np.int32)}, "original has dtype int32; logits are floating-point"),
        (lambda: {"original": np.full((12, 6), 1 / 6)}, "original looks like probabilities"),
        (lambda: {"shadows": np.full((4, 12, 6), 1 / 6, np.float16)}, "shadows looks like probabilities"),
        (lambda: {"forgotten": np.ones(12, bool)}, "`forgotten` marks every sample"),
        (lambda: {"forgotten": np.zeros(12, bool)}, "`forgotten` marks no sample"),
        (lambda: {"reference_member": np.ones((6, 12), bool)}, "sample 0 is in the training set of all or of no"),
        (no_model, r"sample 3 is in .* \(1 such sample"),
        (lambda: {"population_labels": None}, "'population_original' without 'population_labels'"),
        (lambda: {"shadow_train_labels": None}, "'shadow_train_logits' without 'shadow_train_labels'"),
        (lambda: {"reference_member": None}, "'reference' without 'reference_member'"),
        (lambda: {"pairs_unlearned": None}, "'pairs_original' without 'pairs_unlearned'"),
        (lambda: {"pairs_forgotten": None}, "'pairs_unlearned' without 'pairs_forgotten'"),
    ],
)
def test_evidence_that_does_not_fit_together_is_refused(change, message):
    with pytest.raises(errors.UserError, match=message):
        scores.run(("confidence",), good(**change()))


@pytest.mark.parametrize("samples, classes, message", [(0, 6, "empty along axis N"), (5, 0, "empty along axis C"),
                                                       (5, 1, "logits have 1 class; at least 2")])  # fmt: skip
def test_nothing_to_score_is_refused(samples, classes, message):
    little = scores.Evidence(np.zeros((samples, classes), np.float32), np.zeros(samples, np.int32))
    with pytest.raises(errors.ShapeError, match=message):
        evidence.check(little)


def test_good_evidence_gives_its_sizes():
    assert evidence.check(good()) == {"N": 12, "C": 6, "S": 4, "P": 7, "m": 5, "R": 6, "q": 6, "K": 2}


def test_logits_that_only_resemble_probabilities_are_accepted():
    values = np.random.default_rng(0).uniform(size=(12, 6)).astype(np.float32)  # in [0, 1], but rows do not sum to 1
    evidence.check(good(unlearned=values))
    assert evidence.FIELDS.keys() == vars(good()).keys()
