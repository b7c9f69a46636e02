"""Excluded classes: gone from every pool, reachable as probes, and users keep their own class numbers."""

import pathlib

import numpy as np
import pytest

from jaxunlearn import data, errors, settings
from jaxunlearn.data import exclusion, naming
from jaxunlearn.data.sources import archives
from jaxunlearn.data.splitting import forget, splits
from jaxunlearn.settings import DataSettings, ForgetSettings, SplitSettings

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "our" / "splits.npz"
COUNT = 240
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(COUNT, 3)).astype(np.float32)


def load(tmp_path, x=X, y=None, ood=(), ood_fine=(), **content):
    path = tmp_path / "own.npz"
    np.savez(path, x=x, y=np.arange(COUNT) % 6 if y is None else y, **content)
    return data.load(DataSettings(name="npz", path=str(path), ood_classes=ood, ood_subclasses=ood_fine))


def split_of(dataset, *classes, kind="one_class"):
    request = ForgetSettings(kind=kind, classes=classes, count=len(classes))
    return splits.draw(dataset, SplitSettings(shadow=10, forget=request), 0)


@pytest.mark.parametrize("case", ["c0", "c1", "c2", "c3"])
def test_kept_classes_are_numbered_as_published(rows, case):
    golden = np.load(GOLDEN)
    classes, forgotten = (int(golden[f"{case}_{name}"]) for name in ("num_classes", "forget"))
    whole = rows(num_train=40 * classes, num_held_out=4 * classes, num_classes=classes)
    dataset = exclusion.exclude(whole, [str(value) for value in golden[f"{case}_ood"]])
    split = split_of(dataset, forgotten)
    retained = np.setdiff1d(split.target, np.flatnonzero(split.forget[0]))
    # ids are rows of the whole set, whose labels are the original classes.
    pairs = sorted(
        set(zip(whole.labels[dataset.ids[retained]].tolist(), dataset.labels[retained].tolist(), strict=True))
    )
    original, label = map(list, zip(*pairs, strict=True))
    assert original == golden[f"{case}_retain_original"].tolist() and label == golden[f"{case}_retain_label"].tolist()
    # The published code leaves the forget set's old label; ours is the corrected one.
    assert set(dataset.labels[split.forget[0]]) == {int(golden[f"{case}_forget_label_reindexed"])}
    assert set(whole.labels[dataset.ids[split.forget[0]]]) == {forgotten}
    assert dataset.num_classes == classes - len(golden[f"{case}_ood"])


def test_excluded_rows_are_in_no_pool_and_every_row_is_somewhere(tmp_path):
    names = np.array(["ant", "bee", "cat", "dog", "elk", "fox"])
    whole, dataset = load(tmp_path, class_names=names), load(tmp_path, class_names=names, ood=("elk", "1"))
    ood = dataset.ood
    assert sorted([*dataset.ids, *ood.ids]) == list(range(COUNT)) and not set(dataset.ids) & set(ood.ids)
    for subset in (dataset, ood):
        values = np.array(subset.class_values)[subset.labels]
        np.testing.assert_array_equal(values, subset.ids % 6)
        np.testing.assert_array_equal(subset.inputs, X[subset.ids])
        # Train rows stay train rows, in their order.
        np.testing.assert_array_equal(
            subset.ids[: subset.num_train], [i for i in whole.ids[:192] if i in set(subset.ids)]
        )
    assert dataset.class_names == ("ant", "cat", "dog", "fox") and dataset.class_values == (0, 2, 3, 5)
    assert ood.class_names == ("bee", "elk") and ood.class_values == (1, 4) and ood.num_classes == 2
    assert dataset.notes[-1] == (
        "data.ood_classes: no model sees the classes 1 ('bee'), 4 ('elk') (80 rows); 4 classes are left"
    )


def test_names_of_a_command_line_come_as_one_text(tmp_path):
    names = np.array(["ant", "bee", "cat", "dog,elk", "e", "f"])
    assert load(tmp_path, class_names=names, ood=("bee, 0",)).ood.class_names == ("ant", "bee")
    assert load(tmp_path, class_names=names, ood=("dog,elk",)).ood.class_names == ("dog,elk",)


def test_constants_of_normalisation_know_nothing_of_excluded_rows(tmp_path):
    x = X + 100.0 * (np.arange(COUNT) % 6 == 2)[:, None]
    dataset = load(tmp_path, x, ood=("2",))
    kept = dataset.ids[: dataset.num_train]
    np.testing.assert_allclose(dataset.mean, x[kept].mean(0), atol=1e-5)
    np.testing.assert_allclose(dataset.std, x[kept].std(0), rtol=1e-5)
    assert (dataset.ood.mean, dataset.ood.std) == (dataset.mean, dataset.std)
    path = str(tmp_path / "own.npz")
    plain = data.load(DataSettings(name="npz", path=path, ood_classes=("2",), normalise=False))
    assert plain.mean == plain.ood.mean == ()


def test_published_constants_stay(tmp_path):
    pictures = RANDOM.integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "c.npz", x=pictures, y=np.arange(40) % 10)
    dataset = data.load(DataSettings(name="cifar10", path=str(tmp_path / "c.npz"), ood_classes=("9",)))
    assert (dataset.mean, dataset.std) == archives.FACTS["cifar10"].constants and dataset.num_classes == 9


def test_classes_to_forget_are_the_users_numbers(tmp_path):
    dataset = load(tmp_path, ood=("0", "3"))
    split = split_of(dataset, 5, 1)
    for row, value in zip(split.forget, (5, 1), strict=True):
        assert set(dataset.ids[row] % 6) == {value}
    assert forget.set_names(dataset, SplitSettings(forget=ForgetSettings(kind="one_class", classes=(5, 1))), 2) == (
        "5", "1",
    )  # fmt: skip
    assert dataset.class_names == ("1", "2", "4", "5") and naming.class_display(dataset, 3) == "5"
    with pytest.raises(errors.ConfigError, match="contains class 3, whose rows are excluded by data.ood_classes"):
        split_of(dataset, 3)
    with pytest.raises(errors.ConfigError, match="has the classes 1, 2, 4, 5"):
        split_of(dataset, 6)
    lone = dataset.replace(labels=np.where(dataset.labels == 2, 1, dataset.labels))
    with pytest.raises(errors.DataError, match=r"class 4 .* has no row .* contains the classes 1, 2, 5\."):
        split_of(lone, 4)


def test_a_subclass_is_excluded_and_another_one_forgotten(tmp_path):
    fine = np.arange(COUNT) % 6  # superclass = fine // 3
    names = np.array(["a", "b", "c", "d", "e", "f"])
    dataset = load(tmp_path, y=fine // 3, fine=fine, fine_names=names, ood_fine=("e",))
    assert dataset.num_classes == 2 and dataset.ood.class_names == ("e",) and dataset.ood.class_values == (4,)
    np.testing.assert_array_equal(dataset.labels, dataset.ids % 6 // 3)
    assert set(dataset.ood.ids % 6) == {4} and 4 not in set(dataset.ids % 6)
    split = split_of(dataset, 5, kind="subclass")
    assert set(dataset.ids[split.forget[0]] % 6) == {5} and set(dataset.labels[split.forget[0]]) == {1}
    request = SplitSettings(forget=ForgetSettings(kind="subclass", classes=(5,)))
    assert forget.sentences(dataset, request) == ("split.forget.classes: fine class 5 is 'f'",)
    assert forget.set_names(dataset, request, 1) == ("f",)
    with pytest.raises(errors.ConfigError, match="fine class 4, whose rows are excluded"):
        split_of(dataset, 4, kind="subclass")
    # A class all of whose fine classes are gone is gone, too.
    three = load(tmp_path, y=fine // 2, fine=fine, ood_fine=("2", "3"))
    assert three.class_values == (0, 2) and three.ood.class_values == (2, 3) and three.ood.num_classes == 2


def test_cifar20_knows_its_fine_classes(tmp_path):
    pictures = RANDOM.integers(0, 256, (200, 32, 32, 3)).astype(np.uint8)
    names = np.array([f"fine{value}" for value in range(100)])
    np.savez(tmp_path / "c.npz", x=pictures, y=np.arange(200) % 100, class_names=names)
    path = str(tmp_path / "c.npz")
    dataset = data.load(DataSettings(name="cifar20", path=path, ood_classes=("trees", "12", "16", "18", "19")))
    assert dataset.num_classes == 15 and dataset.class_values == (*range(12), 13, 14, 15)
    assert dataset.class_names[12] == "non-insect_invertebrates"
    fine = data.load(DataSettings(name="cifar20", path=path, ood_subclasses=("fine55",)))
    assert fine.num_classes == 20 and fine.ood.class_names == ("fine55",) and 55 not in fine.groups


@pytest.mark.parametrize(
    ("ood", "ood_fine", "words"),
    [
        (("7",), (), "'7', which is not a class .* classes are 0, 1, 2, 3, 4, 5"),
        (("cat",), (), "'cat', which is not a class"),
        ((), ("1",), "needs fine classes, but data set 'npz' has none"),
        (("1",), ("1",), "cannot be combined"),
        (tuple("01234"), (), "leaves 1 of the 6 classes"),
        (tuple("012345"), (), "leaves 0 of the 6 classes"),
    ],
)
def test_impossible_exclusions_are_refused(tmp_path, ood, ood_fine, words):
    with pytest.raises(errors.ConfigError, match=words):
        load(tmp_path, ood=ood, ood_fine=ood_fine)


def test_an_empty_pool_is_refused(rows):
    dataset = rows(num_train=40, num_held_out=8)
    dataset = dataset.replace(labels=np.where(np.arange(48) < 40, dataset.labels, 3))
    with pytest.raises(errors.ConfigError, match="no row of the held-out pool"):
        exclusion.exclude(dataset, ["3"])
    with pytest.raises(errors.ConfigError, match="classes without a row: 3"):
        exclusion.exclude(dataset.replace(labels=dataset.labels % 3), ["3"])


def test_probes_that_are_not_there_are_refused(tmp_path):
    assert exclusion.require(load(tmp_path, ood=("2", "4")), classes=2, rows=40).num_classes == 2
    with pytest.raises(errors.ConfigError, match=r"at least 1 class.* but 0 are excluded"):
        exclusion.require(load(tmp_path))
    with pytest.raises(errors.ConfigError, match=r"at least 3 class.* but 2 are excluded"):
        exclusion.require(load(tmp_path, ood=("2", "4")), classes=3)
    with pytest.raises(errors.ConfigError, match="41 rows of each excluded class, but class 2 has 40"):
        exclusion.require(load(tmp_path, ood=("2", "4")), rows=41)


def test_class_numbers_of_a_command_line_are_taken_as_names():
    config = settings.defaults()
    config.data.ood_classes = (12, "cat")
    assert settings.resolve(config).data.ood_classes == ("12", "cat")


def test_an_emptied_list_excludes_nothing(tmp_path):
    dataset = load(tmp_path, ood=("",), ood_fine=(" ",))
    assert dataset.ood is None and dataset.num_classes == load(tmp_path).num_classes
