"""Picture files: nothing of their content, and none of the files, is lost without a word."""

import os

import numpy as np
import PIL.Image
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data.formats import decoding
from jaxunlearn.settings import DataSettings

RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 65536, (6, 8, 8)).astype(np.uint16)


def saved(folder, pictures, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.{suffix}" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        (picture if isinstance(picture, PIL.Image.Image) else PIL.Image.fromarray(picture)).save(path)
    return paths


def refused(work, *arguments):
    with pytest.raises(errors.DataError) as caught:
        work(*arguments)
    return str(caught.value)


def load(root, **settings):
    return data.load(DataSettings(name="folder", path=str(root), **{"size": 8} | settings))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_become_brightness_in_float32(tmp_path, suffix):
    values, transparent = decoding.read_pictures(saved(tmp_path, DEEP, suffix), 8)
    assert (values.shape, values.dtype, transparent) == ((6, 8, 8, 1), np.float32, 0)
    np.testing.assert_allclose(values[..., 0], DEEP / 65535, rtol=1e-6)


def test_pictures_of_8_and_16_bits_share_one_scale(tmp_path):
    shallow = RANDOM.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    values, _ = decoding.read_pictures(saved(tmp_path / "a", DEEP) + saved(tmp_path / "b", shallow), 8)
    np.testing.assert_allclose(values[6:], shallow / 255, rtol=1e-6)
    np.testing.assert_allclose(values[:6], np.repeat((DEEP / 65535)[..., None], 3, -1), rtol=1e-6)
    small, _ = decoding.read_pictures(saved(tmp_path / "c", [np.full((9, 5), 40_000, np.uint16)]), 4)
    np.testing.assert_allclose(small, 40_000 / 65535, rtol=1e-6)


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette"])
def test_what_only_the_transparency_shows_is_drawn(tmp_path, ink, mode):
    alpha = np.where(RANDOM.random((3, 8, 8)) < 0.5, 255, 0).astype(np.uint8)
    pictures = []
    for mask in alpha:
        if mode == "palette":
            picture = PIL.Image.fromarray((mask > 0).astype(np.uint8), "P")
            picture.putpalette([ink] * 6)
            picture.info["transparency"] = 0
        else:
            picture = PIL.Image.new(mode, (8, 8), (ink,) * (len(mode) - 1) + (0,))
            picture.putalpha(PIL.Image.fromarray(mask))
        pictures.append(picture)
    values, transparent = decoding.read_pictures(saved(tmp_path, pictures), 8)
    assert transparent == 3 and values.shape[-1] == (1 if mode == "LA" else 3)
    np.testing.assert_array_equal(values[..., 0], np.where(alpha == 255, ink, 128))


@pytest.mark.parametrize("alpha", [255, 0, 90])
def test_transparency_that_shows_nothing_changes_nothing(tmp_path, alpha):
    colours = RANDOM.integers(0, 256, (2, 8, 8, 4)).astype(np.uint8)
    colours[..., 3] = alpha
    values, transparent = decoding.read_pictures(saved(tmp_path, colours), 8)
    assert transparent == 0
    np.testing.assert_array_equal(values, colours[..., :3])


def test_pictures_that_are_not_one_picture_of_at_most_16_bits_are_refused(tmp_path):
    def said(name, picture, **options):
        picture.save(tmp_path / name, **options)
        return refused(decoding.read_pictures, [tmp_path / name], 8)

    assert "its pixels are -5 to 70000" in said("a.tif", PIL.Image.fromarray(np.array([[-5, 70_000]], np.int32)))
    assert "floating-point numbers" in said("b.tif", PIL.Image.fromarray(np.ones((8, 8), np.float32)))
    page = PIL.Image.new("L", (8, 8))
    assert "it contains 3 pictures" in said("c.tif", page, save_all=True, append_images=[page.copy(), page.copy()])
    (tmp_path / "d.png").write_bytes((tmp_path / "a.tif").read_bytes()[:40])
    assert f"{tmp_path / 'd.png'} cannot be read as a picture" in refused(
        decoding.read_pictures, [tmp_path / "d.png"], 8
    )


def test_more_pixels_than_memory_holds_are_refused_before_any_is_read(tmp_path, monkeypatch):
    paths = saved(tmp_path, DEEP)
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    assert "6 pictures of 8 x 8 would take 1.5 KiB of memory" in refused(decoding.read_pictures, paths, 8)


def test_every_kind_of_picture_is_read_and_what_is_left_out_is_counted(tmp_path):
    for pool in ("train", "test"):
        for kind in ("cat", "dog"):
            colour = RANDOM.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
            for suffix in ("png", "tif", "ppm"):
                saved(tmp_path / pool / kind, colour, suffix)
            (tmp_path / pool / kind / "notes.txt").write_text("x")
            (tmp_path / pool / kind / "README").write_text("x")
            (tmp_path / pool / kind / "more").mkdir()
    saved(tmp_path / "val" / "cat", colour)
    saved(tmp_path, colour, "bmp")
    dataset = load(tmp_path)
    assert (dataset.num_train, len(dataset.labels)) == (12, 24)
    assert dataset.names[:3].tolist() == ["train/cat/0.png", "train/cat/0.ppm", "train/cat/0.tif"]
    assert dataset.names[12] == "test/cat/0.png"
    (note,) = dataset.notes
    for words in ("4 '.txt'", "4 without suffix", "4 folders", "1 folder 'val'", "2 '.bmp'"):
        assert words in note


def test_names_of_pictures_follow_them_into_the_pools(tmp_path):
    for kind, base in (("a", 0), ("b", 100)):
        saved(tmp_path / kind, [np.full((8, 8), base + i, np.uint8) for i in range(5)])
    dataset = load(tmp_path, held_out=0.5)
    shown = [100 * (name[0] == "b") + int(name[2]) for name in dataset.names.tolist()]
    assert shown == dataset.inputs[:, 0, 0, 0].tolist() and shown != sorted(shown)
    assert dataset.notes == ()


def test_only_regular_files_are_opened_and_a_link_to_nothing_is_named(tmp_path):
    for kind in ("a", "b"):
        saved(tmp_path / kind, DEEP)
    wrong = tmp_path / "a" / "x.png"
    for make, words in (
        (lambda: wrong.symlink_to(tmp_path / "moved.png"), "is a link to"),
        (lambda: wrong.symlink_to(wrong), "is a link to"),
        (lambda: os.mkfifo(wrong), "is not a regular file"),
        (wrong.mkdir, "is not a regular file"),
    ):
        make()
        assert f"{wrong} " in refused(load, tmp_path) and words in refused(load, tmp_path)
        wrong.rmdir() if wrong.is_dir() else wrong.unlink()
    (tmp_path / "c").symlink_to(tmp_path / "moved")
    assert f"{tmp_path / 'c'} is a link to {tmp_path / 'moved'}" in refused(load, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a file nor a folder" in refused(load, tmp_path / "pipe")
    assert "cannot be read as a folder" in refused(load, tmp_path / "a" / "0.png")
