import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.data.formats import published_permutations
from jaxunlearn.data.splitting import splits
from jaxunlearn.records import Dataset
from jaxunlearn.settings import ForgetSettings, ShadowSettings, SplitSettings

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "iam" / "splits.npz"
CASES = ("cifar_seed42", "cinic10_seed43", "purchase_seed42")


def checksum(index):
    index = np.asarray(index, np.int64)
    return int((index * np.arange(1, len(index) + 1)).sum())


def ends(index, count):
    """Golden arrays are stored whole or as their first and last 200."""
    return index if len(index) == count else np.concatenate([index[:200], index[-200:]])


def simple(num_train, num_held_out, num_classes=4):
    count = num_train + num_held_out
    labels = (np.arange(count) % num_classes).astype(np.int32)
    return Dataset(
        inputs=np.zeros((count, 1), np.uint8), labels=labels, ids=np.arange(count), name="made",
        num_train=num_train, num_classes=num_classes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.mark.parametrize("case", CASES)
def test_published_splits_are_reproduced_exactly(golden, case):
    num_train, num_shadow, num_held_out, seed, size = golden[f"{case}/meta"].tolist()
    dataset = simple(num_train, num_held_out)
    settings = SplitSettings(shadow=num_shadow, rng="mt19937", forget=ForgetSettings(size=size, count=2))
    split = splits.draw(dataset, settings, seed)
    population, test = split.population - num_train, split.test - num_train
    for name, index in (("shadow", split.shadow), ("target", split.target), ("val", population), ("test", test)):
        expected = golden[f"{case}/{name}_idx"]
        np.testing.assert_array_equal(ends(index, len(expected)), expected)
    np.testing.assert_array_equal(
        [checksum(split.shadow), checksum(split.target), checksum(population), checksum(test)],
        golden[f"{case}/checksums"],
    )
    positions = np.flatnonzero(split.forget[0][split.target])
    np.testing.assert_array_equal(positions, golden[f"{case}/forget_positions"])
    assert split.forget[1][split.target[-100:]].all(), "the published tail is forgotten under every seed"
    assert (split.forget[0] != split.forget[1]).any()
    assert split.shadow.dtype == split.target.dtype == split.test.dtype == np.int32


@pytest.mark.parametrize("case", CASES)
def test_published_shadow_parts_are_reproduced_exactly(golden, case):
    num_train, num_shadow, num_held_out = golden[f"{case}/meta"].tolist()[:3]
    seeds = splits.shadow_seeds(4)
    for i, seed in enumerate(seeds):
        assert seed == golden[f"{case}/shadow{i}_seed"]
        positions = splits.published_shadow_positions(num_shadow, 0.8, seed)
        np.testing.assert_array_equal(positions[:50], golden[f"{case}/shadow{i}_train_first50"])
        assert [len(positions), num_shadow - len(positions)] == golden[f"{case}/shadow{i}_sizes"].tolist()
        assert checksum(positions) == golden[f"{case}/shadow{i}_checksums"][0]
        rest = published_permutations.published(num_shadow - 200, published_permutations.published_stream(seed))[
            len(positions) - 200 :
        ]
        assert checksum(rest) == golden[f"{case}/shadow{i}_checksums"][1]


def test_published_members_use_the_chain_of_a_sequential_run(rows):
    dataset = rows(1000, 50)
    split = splits.draw(dataset, SplitSettings(shadow=500, rng="mt19937", forget=ForgetSettings(size=50)), 7)
    members = splits.shadow_members(split, ShadowSettings(ratio=0.8), [3, 0], 7, "mt19937", 1050)
    assert splits.shadow_seeds(4) == [42, 43, 45, 48]
    for row, seed in zip(members, (48, 42), strict=True):
        expected = split.shadow[splits.published_shadow_positions(500, 0.8, seed)]
        np.testing.assert_array_equal(np.flatnonzero(row), np.sort(expected))
        assert row[split.shadow[-200:]].all()


def test_shadow_seeds_carry_only_the_low_byte():
    seeds = splits.shadow_seeds(40)
    assert all(seeds[i] == seeds[i - 1] % 256 + i for i in range(1, 40))
    assert max(seeds) < 256 + 40


def test_permutation_pass_matches_a_plain_loop():
    stream, other = published_permutations.published_stream(9), np.random.RandomState(9)
    for count in (0, 1, 2, 7, 30):
        order = list(range(count))
        for i in range(count - 1):
            j = i + int(other.randint(0, 2**32, dtype=np.uint32)) % (count - i)
            order[i], order[j] = order[j], order[i]
        assert published_permutations.published(count, stream).tolist() == order


@trials(max_examples=40, deadline=None)
@given(
    st.integers(220, 700), st.integers(2, 60), st.integers(0, 100), st.integers(0, 2**32 - 1),
    st.sampled_from(["numpy", "mt19937"]), st.sampled_from(["set_random", "one_class", "class_percentage", "classes"]),
)  # fmt: skip
def test_splits_are_disjoint_cover_the_pools_and_forget_lies_in_target(train, held_out, cap, seed, rng, kind):
    dataset = simple(train + 200, held_out)
    forget = ForgetSettings(kind=kind, size=20, count=3, classes=(1, 0), fraction=0.5)
    settings = SplitSettings(shadow=200, target=cap + 100 if cap else 0, population=20, rng=rng, forget=forget)
    split = splits.draw(dataset, settings, seed)
    row_sets = [split.shadow, split.target, split.population, split.test]
    together = np.concatenate(row_sets)
    assert len(np.unique(together)) == len(together)
    assert len(split.shadow) == 200
    assert len(split.target) == (cap + 100 if cap else train)
    assert np.concatenate(row_sets[:2]).max() < dataset.num_train <= np.concatenate(row_sets[2:]).min()
    assert len(split.test) == (held_out + 1) // 2 and len(split.population) == min(20, held_out // 2)
    assert split.forget.shape == (2 if kind == "classes" else 3, len(dataset.labels)) and split.forget.dtype == bool
    outside = np.ones(len(dataset.labels), bool)
    outside[split.target] = False
    assert not split.forget[:, outside].any()
    assert (0 < split.forget.sum(1)).all() and (split.forget.sum(1) < len(split.target)).all()
    again = splits.draw(dataset, settings, seed)
    assert all(np.array_equal(getattr(split, name), getattr(again, name)) for name in ("shadow", "target", "forget"))


@trials(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=6), st.integers(0, 2**32 - 1),
    st.sampled_from(["numpy", "mt19937"]), st.sampled_from(["shadow", "target", "both"]),
)  # fmt: skip
def test_a_members_rows_depend_on_neither_count_nor_position(ids, seed, rng, pool):
    dataset = simple(700, 10)
    split = splits.draw(dataset, SplitSettings(shadow=350, rng=rng, forget=ForgetSettings(size=20)), seed)
    shadows = ShadowSettings(ratio=0.75, pool=pool)
    members = splits.shadow_members(split, shadows, ids, seed, rng, 710)
    pool_rows = {"shadow": split.shadow, "target": split.target, "both": np.r_[split.shadow, split.target]}[pool]
    assert (members.sum(1) == int(0.75 * len(pool_rows))).all()
    outside = np.ones(710, bool)
    outside[pool_rows] = False
    assert not members[:, outside].any()
    for row, member_id in zip(members, ids, strict=True):
        np.testing.assert_array_equal(row, splits.shadow_members(split, shadows, [member_id], seed, rng, 710)[0])


def test_members_differ_and_cover_the_pool_evenly(rows):
    split = splits.draw(rows(), SplitSettings(shadow=400), 0)
    members = splits.shadow_members(split, ShadowSettings(ratio=0.5), range(200), 0, "numpy", 1100)
    assert len(np.unique(members, axis=0)) == 200
    share = members[:, split.shadow].mean(0)
    assert 0.3 < share.min() and share.max() < 0.7 and abs(share.mean() - 0.5) < 1e-9


def test_numpy_forget_sets_are_independent_uniform_draws(rows):
    settings = SplitSettings(shadow=500, forget=ForgetSettings(size=100, count=400))
    split = splits.draw(rows(), settings, 3)
    share = split.forget[:, split.target].mean(0)
    assert (split.forget.sum(1) == 100).all() and abs(share.mean() - 0.2) < 1e-9
    assert share.min() > 0.1 and share.max() < 0.3, "no row is always or never forgotten"
    shifted = splits.draw(rows(), settings, 4)
    assert not np.array_equal(split.target, shifted.target)


def test_sequential_removal_accumulates_and_classes_cycle(rows):
    dataset = rows()
    forget = ForgetSettings(kind="classes", classes=(2, 0))
    split = splits.draw(dataset, SplitSettings(shadow=100, forget=forget), 0)
    assert [sorted(set(dataset.labels[row].tolist())) for row in split.forget] == [[2], [0, 2]]
    forget = ForgetSettings(kind="one_class", classes=(2, 0), count=3)
    split = splits.draw(dataset, SplitSettings(shadow=100, forget=forget), 0)
    assert [sorted(set(dataset.labels[row].tolist())) for row in split.forget] == [[2], [0], [2]]
    assert split.forget[0].sum() == (dataset.labels[split.target] == 2).sum()
    assert split.kind == "one_class"


def test_published_class_percentage_takes_the_first_rows_in_target_order(rows):
    dataset = rows()
    forget = ForgetSettings(kind="class_percentage", classes=(1,), count=2, fraction=0.1)
    split = splits.draw(dataset, SplitSettings(shadow=200, rng="mt19937", forget=forget), 5)
    of_class = split.target[dataset.labels[split.target] == 1]
    for row in split.forget:
        np.testing.assert_array_equal(np.flatnonzero(row), np.sort(of_class[: int(0.1 * len(of_class))]))
    split = splits.draw(dataset, SplitSettings(shadow=200, rng="numpy", forget=forget), 5)
    assert (split.forget[0] != split.forget[1]).any()


@pytest.mark.parametrize("suffix", [".npy", ".txt", ".npz"])
def test_index_files_are_read_and_kept_out_of_the_shadow_set(rows, tmp_path, suffix):
    path, listed = tmp_path / f"forget{suffix}", [np.array([5, 3, 900]), np.array([10, 11])]
    if suffix == ".npy":
        np.save(path, listed[0])
    elif suffix == ".txt":
        path.write_text("5,3, 900\n")
    else:
        np.savez(path, *listed)
    forget = ForgetSettings(kind="index_file", path=str(path))
    for cap in (0, 50):
        split = splits.draw(rows(), SplitSettings(shadow=600, target=cap, forget=forget), 1)
        assert len(split.forget) == (2 if suffix == ".npz" else 1)
        assert np.flatnonzero(split.forget[0]).tolist() == [3, 5, 900]
        assert len(split.target) == (cap or 400) and not np.isin(split.target, split.shadow).any()


def draw_error(kind, dataset, seed=0, **settings):
    forget = ForgetSettings(**{key[7:]: settings.pop(key) for key in list(settings) if key.startswith("forget_")})
    with pytest.raises(kind) as caught:
        splits.draw(dataset, SplitSettings(**settings, forget=forget), seed)
    return str(caught.value)


def test_every_impossible_split_is_refused_before_any_work(rows):
    dataset, config, data = rows(), errors.ConfigError, errors.DataError
    assert "split.shadow = 1000 and at least 2 target rows" in draw_error(config, dataset, shadow=1000)
    assert "split.target = 500" in draw_error(config, dataset, shadow=501, target=500)
    assert "split.forget.size = 400, but the target set has 400" in draw_error(
        config, dataset, shadow=600, forget_size=400
    )
    assert "held-out pool of 'made' has 1 row(s)" in draw_error(config, rows(1000, 1), shadow=10)
    assert "at least 200 shadow rows" in draw_error(config, dataset, shadow=100, rng="mt19937")
    assert "at least 100 target rows" in draw_error(config, dataset, shadow=901, rng="mt19937")
    row_settings = {"shadow": 500, "forget_kind": "one_class"}
    assert "the classes 0 to 3" in draw_error(config, dataset, forget_classes=(4,), **row_settings)
    assert "needs split.forget.classes" in draw_error(config, dataset, forget_classes=(), **row_settings)
    only = dataset.replace(labels=np.where(dataset.labels == 1, 0, dataset.labels).astype(np.int32))
    assert "class 1 of split.forget.classes has no row" in draw_error(data, only, forget_classes=(1,), **row_settings)
    single = dataset.replace(labels=np.zeros(1100, np.int32))
    assert "takes 500 of 500 target rows" in draw_error(config, single, forget_classes=(0,), **row_settings)
    none = {"shadow": 500, "forget_kind": "class_percentage", "forget_fraction": 0.001}
    assert "is less than one row" in draw_error(config, dataset, **none)
    assert "Did you mean 'one_class'" in draw_error(config, dataset, shadow=500, forget_kind="oneclass")


def test_every_bad_index_file_is_refused(rows, tmp_path):
    dataset, data = rows(), errors.DataError

    def refused(name, content, **settings):
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content)
        elif content is not None:
            np.save(path, content)
        settings = {"shadow": 300, "error": data} | settings
        return draw_error(settings.pop("error"), dataset, forget_kind="index_file", forget_path=str(path), **settings)

    assert "there is no such file" in refused("no.npy", None)
    assert "expected a .npy, .npz or .txt" in refused("a.csv", "1\n2\n")
    assert "cannot be read as row numbers" in refused("a.txt", "one\n")
    assert "cannot be read as row numbers" in refused("broken.npy", "nothing")
    assert "shape (0,)" in refused("b.txt", "")
    assert "dtype float64" in refused("c.npy", np.array([1.0]))
    assert "lists row 1000, but the train pool" in refused("d.npy", np.array([1, 1000]))
    assert "lists row -1" in refused("e.npy", np.array([-1]))
    outside = splits.draw(dataset, SplitSettings(shadow=300, rng="mt19937", forget=ForgetSettings(size=9)), 0).shadow[
        :3
    ]
    assert "3 row(s) outside the target set" in refused("f.npy", outside, rng="mt19937")
    config = errors.ConfigError
    assert "only 100 rows of the train pool are left" in refused("g.npy", np.arange(900), error=config)
    assert "contains 20 different rows" in refused("h.npy", np.arange(20), target=10, error=config)


def test_impossible_shadow_members_are_refused(rows):
    split = splits.draw(rows(), SplitSettings(shadow=300), 0)

    def refused(rng="numpy", ids=(0,), **settings):
        with pytest.raises(errors.ConfigError) as caught:
            splits.shadow_members(split, ShadowSettings(**settings), ids, 0, rng, 1100)
        return str(caught.value)

    assert "gives 0 rows per shadow model" in refused(ratio=0.003)
    assert "gives 150 rows" in refused(ratio=0.5, rng="mt19937") and "200" in refused(ratio=0.5, rng="mt19937")
    assert "member number -1" in refused(ids=[0, -1])
    assert "Did you mean 'shadow'" in refused(pool="shadows")


def test_repeats_stand_in_a_row_and_randperm_gives_the_published_rows_of_cifar10():
    """Forget with Precision: torch.manual_seed(420); torch.randperm(50000)[:1000]."""
    expected = np.load(GOLDEN.parents[1] / "forget_precision" / "real_rows.npz")["forget_indices"]
    dataset = simple(50_000, 20)
    request = SplitSettings(shadow=2, forget=ForgetSettings(kind="randperm", size=1000, count=2, repeats=3))
    split = splits.draw(dataset, request, 0)
    assert split.forget.shape == (6, 50_020)
    for line in split.forget[:3]:
        np.testing.assert_array_equal(np.flatnonzero(line), expected)
    np.testing.assert_array_equal(split.forget[3], split.forget[5])
    assert (split.forget[3] != split.forget[0]).any()
    assert len(split.target) == 49_998 and not split.forget[:, split.shadow].any()


def test_randperm_that_leaves_nothing_is_refused():
    request = SplitSettings(shadow=2, forget=ForgetSettings(kind="randperm", size=100))
    with pytest.raises(errors.ConfigError, match="Lower split.forget.size"):
        splits.draw(simple(100, 20), request, 0)
