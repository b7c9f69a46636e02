"""Splits of the conformal unlearning experiments: SalUn's published ones, subclasses, sizes of the test set."""

import pathlib
import runpy

import numpy as np
import pytest

from jaxunlearn import errors, settings
from jaxunlearn.data.splitting import splits
from jaxunlearn.records import Dataset
from jaxunlearn.settings import ForgetSettings, ShadowSettings, SplitSettings

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "conformal" / "optml_split.npz"
HELD_OUT = 100


def labelled(labels, held_out=HELD_OUT, groups=None):
    """A data set of these labels, with as many held-out rows of every class as possible."""
    classes = int(labels.max()) + 1
    labels = np.concatenate([labels, np.arange(held_out) % classes]).astype(np.int32)
    return Dataset(
        inputs=np.zeros((len(labels), 1), np.uint8), labels=labels, ids=np.arange(len(labels)), groups=groups,
        name="made", num_train=len(labels) - held_out, num_classes=classes,
    )  # fmt: skip


def optml(**forget):
    return SplitSettings(shadow=0, rng="optml", forget=ForgetSettings(**forget))


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.mark.parametrize("case", ["s0", "s1", "s2", "s3"])
def test_salun_splits_are_reproduced_exactly(golden, case):
    labels = golden[f"{case}_labels"]
    seed, size, label = golden[f"{case}_seed_num_class"].tolist()
    dataset, is_whole = labelled(labels), size == -1
    training = golden[f"{case}_train_idx"]
    if label == -1:
        forget = {"kind": "set_random", "size": size}
    elif is_whole:
        forget = {"kind": "one_class", "classes": (label,)}
    else:
        forget = {"kind": "class_percentage", "classes": (label,)}
        forget["fraction"] = (size + 0.5) / (labels[training] == label).sum()
    split = splits.draw(dataset, optml(count=1, **forget), seed)
    np.testing.assert_array_equal(split.target, training)
    np.testing.assert_array_equal(split.shadow, golden[f"{case}_val_idx"])
    rows = np.flatnonzero(split.forget[0])
    np.testing.assert_array_equal(rows, golden[f"{case}_forget_idx"])
    np.testing.assert_array_equal(dataset.labels[rows], golden[f"{case}_forget_labels"])
    # The published test set is the whole held-out pool, without a class that is no longer trained on.
    held_out = np.concatenate([split.test, split.population])
    kept = np.isin(dataset.labels[held_out], dataset.labels[np.setdiff1d(split.target, rows)])
    assert kept.sum() == golden[f"{case}_test_n"]
    # The published original model always trains on the split of seed 1.
    original = splits.draw(dataset, optml(count=1, **forget), 1).target
    assert np.isin(rows, original).mean() == pytest.approx(float(golden[f"{case}_frac_forget_in_seed1_train"]))


def test_salun_forget_sets_of_a_run_are_those_of_the_following_seeds(golden):
    dataset = labelled(golden["s0_labels"])
    together = splits.draw(dataset, optml(size=45, count=3), 1)
    positions = np.arange(len(together.target))
    for number, row in enumerate(together.forget):
        drawn = np.random.RandomState(number).choice(positions, size=45, replace=False)
        np.testing.assert_array_equal(np.flatnonzero(row), np.sort(together.target[drawn]))
    assert splits.draw(dataset, optml(size=45, count=1), 0).forget.sum() == 45, "a seed below the published ones"


def test_salun_keeps_ten_percent_of_each_class_for_shadow_models(golden):
    labels = np.repeat([0, 1, 2], [40, 55, 9])
    dataset = labelled(labels)
    split = splits.draw(dataset, optml(size=5), 2)
    assert np.bincount(labels[split.shadow], minlength=3).tolist() == [4, 5, 0]
    assert len(split.target) == 95 and (np.diff(split.target) > 0).all()
    split_settings = SplitSettings(shadow=9, target=95, rng="optml", forget=ForgetSettings(size=5))
    np.testing.assert_array_equal(splits.draw(dataset, split_settings, 2).shadow, split.shadow)
    members = splits.shadow_members(split, ShadowSettings(ratio=0.8), [0, 1], 2, "optml", len(dataset.labels))
    assert (members.sum(1) == 7).all() and not members[:, split.target].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shadow": 800, "rng": "optml"}, "split.shadow = 800 .*do not fit"),
        (
            {"shadow": 8, "rng": "optml"},
            "split.shadow = 8, but split.rng = 'optml' keeps 10 % .* 9 rows.*shadow=0 or 9",
        ),
        ({"shadow": 0, "target": 50, "rng": "optml"}, "split.target = 50, .*--config.split.target=0 or 95"),
        ({"shadow": 0}, "split.shadow = 0: shadow models need at least 2 rows"),
        ({"shadow": 1, "rng": "mt19937"}, "split.shadow = 1: shadow models need at least 2 rows"),
        ({"shadow": 9, "test": 100}, "split.test = 100 leaves none of the 100 held-out rows of 'made'"),
    ],
)
def test_impossible_sizes_are_refused(options, words):
    dataset = labelled(np.repeat([0, 1, 2], [40, 55, 9]))
    with pytest.raises(errors.ConfigError, match=words):
        splits.draw(dataset, SplitSettings(**options, forget=ForgetSettings(size=5)), 0)


def test_salun_splits_of_tiny_classes_are_refused():
    with pytest.raises(errors.ConfigError, match="so small that this is 1 row"):
        splits.draw(labelled(np.repeat([0, 1], [12, 9])), optml(size=5), 0)


@pytest.mark.parametrize("rng", ["numpy", "mt19937", "optml"])
def test_the_test_set_has_the_size_asked_for_and_the_population_comes_after_it(rng):
    dataset = labelled(np.arange(4000) % 4)
    request = {"shadow": 400, "population": 25, "rng": rng, "forget": ForgetSettings(size=150)}
    half, most = (splits.draw(dataset, SplitSettings(test=test, **request), 5) for test in (0, 80))
    assert (len(half.test), len(half.population)) == (50, 25) and (len(most.test), len(most.population)) == (80, 20)
    np.testing.assert_array_equal(most.test, np.r_[half.test, half.population, most.test[75:]])
    assert not np.isin(most.population, most.test).any() and most.population.min() >= 4000


def test_a_subclass_is_every_target_row_of_its_fine_class():
    coarse = np.arange(600) % 2
    dataset = labelled(coarse, groups=np.arange(700) % 6)
    forget = ForgetSettings(kind="subclass", classes=(5, 2), count=3)
    split = splits.draw(dataset, SplitSettings(shadow=200, forget=forget), 1)
    is_target = np.isin(np.arange(700), split.target)
    for row, fine_class in zip(split.forget, (5, 2, 5), strict=True):
        np.testing.assert_array_equal(row, is_target & (dataset.groups == fine_class))
    assert (coarse[np.flatnonzero(split.forget[0])] == 1).all()


def test_impossible_subclasses_are_refused():
    dataset = labelled(np.arange(60) % 2, groups=np.r_[np.arange(60) % 4, np.full(HELD_OUT, 7)])

    def refused(kind, dataset, **forget):
        forget = ForgetSettings(kind="subclass", count=1, **forget)
        with pytest.raises(kind) as caught:
            splits.draw(dataset, SplitSettings(shadow=10, forget=forget), 0)
        return str(caught.value)

    plain = dataset.replace(groups=None)
    assert "needs fine classes, but data set 'made' has none" in refused(errors.ConfigError, plain, classes=(0,))
    assert "has the fine classes 0 to 7" in refused(errors.ConfigError, dataset, classes=(8,))
    message = refused(errors.DataError, dataset, classes=(6,))
    assert "fine class 6 of split.forget.classes has no row" in message and "fine classes 0, 1, 2, 3." in message
    assert "needs split.forget.classes" in refused(errors.ConfigError, dataset, classes=())


@pytest.mark.parametrize(
    ("name", "variant", "rows", "sizes"),
    [
        ("conformal_cifar10", "", 50_000, (49_998, 5000, 8000, 2000)),
        ("conformal_cifar10", "small", 50_000, (2000, 200, 8000, 2000)),
        ("conformal_cifar20", "paper", 50_000, (49_998, 500, 8000, 2000)),
        ("conformal_tiny_imagenet", "", 100_000, (99_998, 10_000, 8000, 2000)),
    ],
)
def test_configs_have_the_published_sizes(name, variant, rows, sizes):
    run_settings = settings.resolve(runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](variant))
    # Labels and fine classes as evenly spread as the real ones; the first data.train_rows rows are kept.
    rows = run_settings.data.train_rows or rows
    groups = np.arange(rows + 10_000) % 100
    split = splits.draw(labelled(groups[:rows] // 5, 10_000, groups), run_settings.split, run_settings.seed)
    drawn = (len(split.target), int(split.forget[0].sum()), len(split.test), len(split.population))
    assert drawn[0] == sizes[0] and drawn[2:] == sizes[2:]
    assert drawn[1] in range(sizes[1] - 2 * (run_settings.split.forget.kind == "subclass"), sizes[1] + 1)
