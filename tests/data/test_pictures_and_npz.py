import zipfile

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data.formats import published_permutations
from jaxunlearn.settings import DataSettings


@pytest.fixture
def saved(tmp_path):
    def save(**content):
        path = tmp_path / f"data{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **content)
        return str(path)

    return save


def load(path, name="npz", **settings):
    return data.load(DataSettings(name=name, path=path, **settings))


def refused(path, name="npz", **settings):
    with pytest.raises(errors.DataError) as caught:
        load(path, name, **settings)
    return str(caught.value)


def pools(x, y=None, test=3):
    y = np.arange(len(x)) % 2 if y is None else y
    return {"x_train": x[:-test], "y_train": y[:-test], "x_test": x[-test:], "y_test": y[-test:]}


RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (12, 5, 6, 3)).astype(np.uint8)


def test_colour_pictures_keep_their_bytes_and_get_channel_statistics(saved):
    dataset = load(saved(**pools(COLOUR), class_names=np.array(["cat", "dog"])))
    np.testing.assert_array_equal(dataset.inputs, COLOUR)
    assert (dataset.num_train, dataset.scale, dataset.class_names) == (9, 255.0, ("cat", "dog"))
    np.testing.assert_array_equal(dataset.ids, np.arange(12))
    np.testing.assert_allclose(dataset.mean, (COLOUR[:9] / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, (COLOUR[:9] / 255).std((0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("raw", "dtype", "scale"),
    [
        (COLOUR[..., 0], np.uint8, 255.0),
        (COLOUR.astype(np.int64), np.uint8, 255.0),
        (COLOUR.astype(np.float64), np.uint8, 255.0),
        (COLOUR / 255, np.float32, 1.0),
        (COLOUR.astype(np.int32) - 10, np.float32, 1.0),
        (COLOUR > 100, np.uint8, 1.0),
        (RANDOM.normal(size=(12, 4)), np.float32, 1.0),
        (RANDOM.integers(0, 9, (12, 4)), np.uint8, 1.0),
        (RANDOM.integers(0, 2, (12, 4)) * 1.0, np.uint8, 1.0),
    ],
)
def test_inputs_get_their_smallest_honest_type(saved, raw, dtype, scale):
    dataset = load(saved(**pools(raw)))
    assert (dataset.inputs.dtype, dataset.scale) == (dtype, scale)
    np.testing.assert_allclose(dataset.inputs.reshape(raw.shape), raw, rtol=1e-6)
    is_binary_table = raw.ndim == 2 and set(np.unique(raw)) <= {0, 1}
    assert len(dataset.mean) == (0 if is_binary_table else dataset.inputs.shape[-1])


def test_a_constant_feature_is_centred_and_not_divided_by_zero(saved):
    raw = np.stack([np.full(12, 0.1), RANDOM.normal(size=12) * 1e-9 + 1e6], 1)
    dataset = load(saved(**pools(raw)))
    assert dataset.std[0] == 1.0 and dataset.mean[0] == pytest.approx(0.1)


def test_one_array_is_cut_by_the_fixed_permutation(saved):
    y = np.eye(3)[np.arange(12) % 3]
    dataset = load(saved(x=COLOUR, y=y), held_out=0.3)
    np.testing.assert_array_equal(dataset.ids, published_permutations.fixed(12))
    np.testing.assert_array_equal(dataset.inputs, COLOUR[dataset.ids])
    np.testing.assert_array_equal(dataset.labels, dataset.ids % 3)
    assert dataset.num_train == 8


def test_every_malformed_npz_is_refused(saved, tmp_path):
    assert "contains the arrays a, b; expected x_train" in refused(saved(a=COLOUR, b=COLOUR))
    assert "contains Python objects" in refused(saved(x=np.array([{}, None]), y=np.arange(2)))
    (tmp_path / "text.npz").write_text("no archive")
    assert "cannot be read as an .npz" in refused(str(tmp_path / "text.npz"))
    whole = saved(**pools(COLOUR))
    (tmp_path / "cut.npz").write_bytes(open(whole, "rb").read()[:500])
    assert "cannot be read as an .npz" in refused(str(tmp_path / "cut.npz"))
    raw = bytearray(open(whole, "rb").read())
    raw[200] ^= 1
    (tmp_path / "flipped.npz").write_bytes(raw)
    assert "Bad CRC" in refused(str(tmp_path / "flipped.npz"))
    for header in (
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000, 2), }",
        b"{'descr': '<f8', (((",
    ):
        with zipfile.ZipFile(tmp_path / "absurd.npz", "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        assert "cannot be read as an .npz of plain arrays" in refused(str(tmp_path / "absurd.npz"))
    with zipfile.ZipFile(tmp_path / "strange.npz", "w") as archive:
        archive.writestr("notes.txt", "no array")
    assert "'notes.txt', which is not an array" in refused(str(tmp_path / "strange.npz"))
    assert "x_train has shape (9, 5, 6, 3), y_train has shape (8,)" in refused(
        saved(**pools(COLOUR) | {"y_train": np.arange(8)})
    )
    assert "x has shape (12, 5, 6, 3), y has shape (3,)" in refused(saved(x=COLOUR, y=np.arange(3)))
    assert "rows of x_test (5, 6)" in refused(saved(**pools(COLOUR) | {"x_test": COLOUR[-3:, :, :, 0]}))
    assert "contains no value" in refused(saved(**pools(COLOUR) | {"x_test": COLOUR[:0], "y_test": np.arange(0)}))
    assert "probably scaled" in refused(saved(**pools(COLOUR) | {"x_test": COLOUR[-3:] / 255}))
    assert "looks like [N, C, H, W]" in refused(saved(**pools(COLOUR.transpose(0, 3, 1, 2))))
    assert "dtype float64, expected whole numbers" in refused(saved(**pools(COLOUR, np.linspace(0, 1, 12))))
    assert "names belong in class_names" in refused(saved(**pools(COLOUR, np.array(["a"] * 12))))
    assert "row 0 is -1" in refused(saved(**pools(COLOUR, np.arange(12) - 1)))
    assert "has shape (12,), expected [N, F]" in refused(saved(x=np.arange(12), y=np.arange(12)))
    assert "dtype <U1, expected numbers" in refused(saved(x=np.full((12, 2), "a"), y=np.arange(12)))
    nan = COLOUR / 255
    nan[1, 0, 0, 0] = np.nan
    assert "1 value(s) that are NaN or infinite" in refused(saved(**pools(nan)))
    assert "as float32 contains 9 value(s)" in refused(saved(**pools(np.full((12, 1), 1e300))))
    assert "1 class(es)" in refused(saved(**pools(COLOUR, np.zeros(12, int))))
    names = np.array(["a", "b"])
    assert "must lie in [0, 1]" in refused(saved(**pools(COLOUR, np.arange(12)), class_names=names))
    assert "expected a list of names" in refused(saved(**pools(COLOUR), class_names=np.arange(2)))
    assert "one of the two pools is empty" in refused(saved(x=COLOUR[:1], y=np.arange(1)))


def paint(root, pictures, suffix="png", mode="RGB"):
    import PIL.Image

    for name, array in pictures.items():
        path = root / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(array).convert(mode).save(path)


def flat(value, size=8):
    return np.full((size, size, 3), value, np.uint8)


def test_folders_with_own_pools_are_read_in_sorted_order_and_decoded_once(tmp_path, monkeypatch):
    root = tmp_path / "pictures"
    paint(root, {"train/dog/2": flat(40), "train/cat/10": flat(20), "train/cat/1": flat(10), "val/dog/1": flat(50)})
    (root / "train" / "cat" / "notes.txt").write_text("no picture")
    dataset = load(str(root), "folder", size=8)
    assert dataset.inputs.shape == (4, 8, 8, 3)
    assert dataset.inputs[:, 0, 0, 0].tolist() == [10, 20, 40, 50]
    assert dataset.labels.tolist() == [0, 0, 1, 1] and dataset.num_train == 3
    assert dataset.class_names == ("cat", "dog") and dataset.scale == 255.0
    with monkeypatch.context() as patch:
        patch.setattr("jaxunlearn.data.formats.decoding.read_pictures", None)
        assert load(str(root), "folder", size=8).inputs.tolist() == dataset.inputs.tolist()
    paint(root, {"train/dog/3": flat(45)})
    assert len(load(str(root), "folder", size=8).labels) == 5, "a changed folder is decoded again"


def test_folders_without_pools_have_a_fraction_held_out_and_grey_gives_one_channel(tmp_path):
    for suffix in ("png", "bmp", "jpg", "webp"):
        paint(tmp_path / "p", {f"{c}/{i}{suffix}": flat(9 * i, 16) for c in "ab" for i in range(3)}, suffix,
              mode="RGB" if suffix == "webp" else "L")  # fmt: skip
    assert load(str(tmp_path / "p"), "folder", size=4).inputs.shape == (24, 4, 4, 3), "one picture has colours"
    for path in (tmp_path / "p").glob("*/*.webp"):
        path.unlink()
    dataset = load(str(tmp_path / "p"), "folder", size=4, held_out=0.5)
    assert dataset.inputs.shape == (18, 4, 4, 1) and dataset.num_train == 9
    np.testing.assert_array_equal(dataset.ids, published_permutations.fixed(18))
    np.testing.assert_array_equal(dataset.labels, dataset.ids // 9)


def test_every_malformed_folder_is_refused(tmp_path):
    root = tmp_path / "p"
    root.mkdir()
    assert "contains no class folders" in refused(str(root), "folder")
    paint(root, {"train/a/1": flat(1), "train/b/1": flat(2)})
    assert "none of 'test', 'val', 'valid'" in refused(str(root), "folder")
    paint(root, {"test/c/1": flat(1)})
    assert "the class 'c', which" in refused(str(root), "folder")
    (root / "test" / "c").rename(root / "test" / "a")
    (root / "train" / "b" / "1.png").write_bytes(b"no picture")
    message = refused(str(root), "folder")
    assert "b/1.png cannot be read as a picture" in message
    (root / "train" / "b" / "1.png").unlink()
    assert "train/b contains no pictures" in refused(str(root), "folder")


def test_cinic10_holds_out_valid_then_test_with_published_constants(tmp_path):
    from jaxunlearn.data.sources import image_folders

    root = tmp_path / "CINIC-10"
    counts = {"train": 10, "valid": 20, "test": 30}
    paint(root, {f"{pool}/{name}/1": flat(base + i, 32) for pool, base in counts.items()
                 for i, name in enumerate(image_folders.CINIC10_CLASSES)})  # fmt: skip
    dataset = load(str(root), "cinic10")
    assert dataset.inputs.shape == (30, 32, 32, 3) and dataset.num_train == 10
    assert dataset.inputs[::10, 0, 0, 0].tolist() == [10, 20, 30]
    assert (dataset.mean, dataset.std) == image_folders.CINIC10_CONSTANTS and dataset.num_classes == 10
    (root / "train" / "cat").rename(root / "train" / "lion")
    assert "contains the classes" in refused(str(root), "cinic10")
    (root / "valid").rename(root / "val")
    assert "of which valid is absent" in refused(str(root), "cinic10")


WNIDS = ("n01443537", "n01629819", "n02480495")


def tiny(root, *layouts):
    """Three classes: train pictures 10, 11, 12 and per layout one picture per class of the given values."""
    paint(root, {f"train/{name}/images/{name}_0": flat(10 + i, 64) for i, name in enumerate(WNIDS)}, "JPEG")
    for layout, value in layouts:
        paint(root, {f"{layout}/{name}/1": flat(value + i, 64) for i, name in enumerate(WNIDS)}, "JPEG")
    return root


def test_tiny_imagenet_is_read_as_downloaded(tmp_path):
    from jaxunlearn.data.sources import image_folders

    root = tiny(tmp_path / "tiny-imagenet-200")
    (root / "train" / WNIDS[0] / f"{WNIDS[0]}_boxes.txt").write_text("n01443537_0.JPEG\t0\t10\t63\t58\n")
    paint(root, {f"val/images/val_{i}": flat(100 + i, 64) for i in range(4)}, "JPEG")
    paint(root, {"test/images/test_0": flat(200, 64)}, "JPEG")
    annotations = root / "val" / "val_annotations.txt"
    lines = [f"val_{i}.JPEG\t{WNIDS[k]}\t0\t32\t44\t62\n" for i, k in enumerate((2, 0, 2, 1))]
    annotations.write_text("".join(lines))
    (root / "words.txt").write_text("n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn02480495\torangutan\n")
    dataset = load(str(root), "tiny_imagenet")
    assert dataset.inputs.shape == (7, 64, 64, 3) and dataset.inputs.dtype == np.uint8
    assert dataset.inputs[:, 0, 0, 0].tolist() == [10, 11, 12, 101, 103, 100, 102]
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2, 2] and (dataset.num_train, dataset.num_classes) == (3, 3)
    assert dataset.class_names == ("goldfish", "n01629819", "orangutan")
    assert (dataset.mean, dataset.std) == image_folders.TINY_IMAGENET_CONSTANTS
    annotations.write_text("".join(lines[::-1]).replace(WNIDS[1], WNIDS[0]))
    assert load(str(root), "tiny_imagenet").labels.tolist()[3:] == [0, 0, 2, 2], "other labels are never served stale"
    annotations.write_text(lines[0] + "val_1.JPEG\tn99999999\t0\n")
    assert "line 2: 'val_1.JPEG\\tn99999999\\t0' does not give" in refused(str(root), "tiny_imagenet")
    annotations.write_text("val_9.JPEG\t" + WNIDS[0])
    assert "val_9.JPEG, which is absent" in refused(str(root), "tiny_imagenet")
    annotations.write_text("\n")
    assert "labels no picture" in refused(str(root), "tiny_imagenet")


def test_a_rearranged_tiny_imagenet_holds_out_val_test_and_cal_in_this_order(tmp_path):
    root = tiny(tmp_path / "rearranged", ("cal", 50), ("val", 30))
    paint(root, {"test/images/test_0": flat(200, 64)}, "JPEG")
    (root / "val" / "val_annotations.txt").write_text("left over\n")
    dataset = load(str(root), "tiny_imagenet")
    assert dataset.inputs[:, 0, 0, 0].tolist() == [10, 11, 12, 30, 31, 32, 50, 51, 52] and dataset.num_train == 3
    assert dataset.class_names == WNIDS and dataset.labels.tolist() == [0, 1, 2] * 3
    complete_root = tiny(tmp_path / "tiny-imagenet-200", ("val", 30), ("test", 40), ("cal", 50))
    complete = data.load(DataSettings(name="tiny_imagenet", cache=str(tmp_path)))
    assert complete.inputs[:, 0, 0, 0].tolist() == [10, 11, 12, 30, 31, 32, 40, 41, 42, 50, 51, 52]
    (complete_root / "val" / WNIDS[1]).rename(complete_root / "val" / "n00000001")
    assert "contains the class 'n00000001', which" in refused(str(complete_root), "tiny_imagenet")


def test_a_missing_tiny_imagenet_says_what_to_download_and_where_to_put_it(tmp_path):
    for root, words in ((tmp_path / "nowhere", "nowhere, given as data.path"), (tmp_path, "the folder train in")):
        message = refused(str(root), "tiny_imagenet")
        assert words in message and "tiny-imagenet-200.zip, unpack it, and point --config.data.path" in message
    assert "class folders in val, test or cal" in refused(str(tiny(tmp_path / "only_train")), "tiny_imagenet")
    np.savez(tmp_path / "own.npz", **pools(np.zeros((6, 64, 64, 3), np.uint8)))
    assert load(str(tmp_path / "own.npz"), "tiny_imagenet").mean[0] == 0.485
