"""AutoAugment beside Pillow, operation by operation; its draws beside the published table."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxunlearn import errors
from jaxunlearn.data.augmentation import augment, autoaugment, autoaugment_tables

KEY = jax.random.key(0)
# The policy as torchvision has it: operation(probability, level), "-" = no level.
PUBLISHED = """
Invert(.1,-) Contrast(.2,6); Rotate(.7,2) TranslateX(.3,9); Sharpness(.8,1) Sharpness(.9,3); ShearY(.5,8)
TranslateY(.7,9); AutoContrast(.5,-) Equalize(.9,-); ShearY(.2,7) Posterize(.3,7); Color(.4,3) Brightness(.6,7);
Sharpness(.3,9) Brightness(.7,9); Equalize(.6,-) Equalize(.5,-); Contrast(.6,7) Sharpness(.6,5); Color(.7,7)
TranslateX(.5,8); Equalize(.3,-) AutoContrast(.4,-); TranslateY(.4,3) Sharpness(.2,6); Brightness(.9,6) Color(.2,8);
Solarize(.5,2) Invert(0,-); Equalize(.2,-) AutoContrast(.6,-); Equalize(.2,-) Equalize(.6,-); Color(.9,9)
Equalize(.6,-); AutoContrast(.8,-) Solarize(.2,8); Brightness(.1,3) Color(.7,0); Solarize(.4,5) AutoContrast(.9,-);
TranslateY(.9,9) TranslateY(.7,9); AutoContrast(.9,-) Solarize(.8,3); Equalize(.8,-) Invert(.1,-); TranslateY(.7,9)
AutoContrast(.9,-)"""
NAMES = {name.replace("_", ""): name for name in autoaugment_tables.OPERATIONS}
PAIRS = [
    [(NAMES[name.lower()], float(p), int(level.replace("-", "0"))) for name, p, level in match]
    for match in (re.findall(r"(\w+)\(([\d.]+),([\d-])\)", pair) for pair in PUBLISHED.split(";"))
]
apply = jax.jit(autoaugment.apply)
transform = jax.jit(autoaugment.transform)


def drawings(height, width):
    """Pictures of several kinds [12, H, W, 3] uint8: noise, waves, few values, one value, two values, nearly black."""
    draw = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    pictures = [draw.integers(0, 256, (height, width, 3)) for _ in range(3)]
    for _ in range(4):
        size, across, down, phase = (draw.uniform(0, high, 3) for high in (127, 0.3, 0.3, 6))
        pictures.append(128 + size * np.sin(x[..., None] * across + y[..., None] * down + phase))
    pictures += [draw.integers(low, high, (height, width, 3)) for low, high in ((40, 90), (17, 200))]
    pictures += [np.full((height, width, 3), (0, 77, 255)), np.where(draw.random((height, width, 1)) < 0.1, 9, 250)]
    pictures.append(draw.integers(0, 2, (height, width, 3)))
    return np.stack([np.broadcast_to(finding, (height, width, 3)) for finding in pictures]).astype(np.uint8)


def by_pillow(picture, operation, level, is_negative):
    """One operation on one picture [H, W, 3], by the library that torchvision calls."""
    old = Image.fromarray(picture)
    side = old.size["y" in operation]
    size = autoaugment_tables.magnitude(operation, level, is_negative, side)
    maps = {
        "shear_x": (1, size, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, size, 1, 0),
        "translate_x": (1, 0, -int(size), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -int(size)),
    }
    if operation in maps:
        new = old.transform(old.size, Image.Transform.AFFINE, maps[operation], Image.Resampling.NEAREST)
    elif operation == "rotate":
        new = old.rotate(size, Image.Resampling.NEAREST)
    elif operation in ("brightness", "color", "contrast", "sharpness"):
        new = getattr(ImageEnhance, operation.capitalize())(old).enhance(1 + size)
    elif operation in ("posterize", "solarize"):
        new = getattr(ImageOps, operation)(old, size)
    else:
        new = getattr(ImageOps, operation)(old)
    return np.asarray(new)


@pytest.mark.parametrize("shape", [(32, 32), (17, 24), (2, 3)], ids=str)
@pytest.mark.parametrize("operation", autoaugment_tables.OPERATIONS)
def test_every_operation_gives_pillow_s_bytes_at_all_levels_and_both_signs(operation, shape):
    pictures = drawings(*shape)
    cases = [(level, is_negative) for level in range(autoaugment_tables.LEVELS) for is_negative in (False, True)]
    rows = np.repeat([autoaugment_tables.row(operation, *case) for case in cases], len(pictures))
    outputs = apply(np.tile(pictures, (len(cases), 1, 1, 1)), rows)
    expected = [by_pillow(picture, operation, *case) for case in cases for picture in pictures]
    np.testing.assert_array_equal(outputs, np.stack(expected))


def test_autocontrast_truncates_as_pillow_does_between_any_two_extremes():
    # Exact arithmetic would give 255 to the brightest byte always; Pillow's float64 gives 254 to one pair in seven.
    draw = np.random.default_rng(0)
    ends = np.sort(draw.integers(0, 256, (1000, 3, 2)), axis=-1)
    ramp = np.clip(np.arange(256)[:, None], ends[:, None, :, 0], ends[:, None, :, 1])
    pictures = ramp.reshape(1000, 16, 16, 3).astype(np.uint8)
    outputs = np.asarray(apply(pictures, np.full(1000, autoaugment_tables.row("autocontrast"))))
    np.testing.assert_array_equal(outputs, [by_pillow(picture, "autocontrast", 0, False) for picture in pictures])
    is_stretched = ends[..., 0] < ends[..., 1]
    assert 0.05 < np.mean(outputs.max((1, 2))[is_stretched] == 254) < 0.25


def test_row_zero_leaves_a_picture_as_it_is():
    pictures = drawings(8, 8)
    np.testing.assert_array_equal(apply(pictures, np.zeros(len(pictures), int)), pictures)


def test_magnitudes_are_those_of_torchvision():
    def levels(operation, **options):
        return [autoaugment_tables.magnitude(operation, level, **options) for level in range(10)]

    # torch.linspace(0, 0.9, 10) and (0, 30, 10), as torch 2.13 prints them.
    tenths = [0.0, 0.09999999403953552, 0.19999998807907104, 0.29999998211860657, 0.3999999761581421]
    tenths += [0.5, 0.6000000238418579, 0.699999988079071, 0.7999999523162842, 0.8999999761581421]
    degrees = [0.0, 3.3333332538604736, 6.666666507720947, 10.0, 13.333333015441895]
    degrees += [16.666667938232422, 20.0, 23.33333396911621, 26.66666603088379, 30.0]
    for operation in ("brightness", "color", "contrast", "sharpness"):
        assert levels(operation) == tenths
    assert levels("rotate") == degrees
    assert levels("posterize") == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    np.testing.assert_allclose(levels("solarize"), np.linspace(255, 0, 10), rtol=1e-6)
    np.testing.assert_allclose(levels("shear_x", is_negative=True), -np.linspace(0, 0.3, 10), rtol=1e-6)
    assert [int(x) for x in levels("translate_y")] == [0, 1, 3, 4, 6, 8, 9, 11, 12, 14]
    assert [int(x) for x in levels("translate_x", side=64)] == [0, 3, 6, 9, 12, 16, 19, 22, 25, 29]
    assert levels("equalize") == levels("invert") == levels("autocontrast") == [0.0] * 10


def words(count, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2**32, (count, autoaugment.WORDS), dtype=np.uint32))


def test_the_table_is_the_published_one():
    assert len(PAIRS) == 25 and all(len(pair) == 2 for pair in PAIRS)
    assert [list(pair) for pair in autoaugment_tables.CIFAR10] == PAIRS


def test_pairs_applications_and_signs_are_drawn_as_the_table_says():
    count = 400_000
    drawn = words(count)
    pair, rows = np.asarray(drawn[:, 0] % 25), np.asarray(jax.jit(autoaugment.choose)(drawn))
    assert abs(np.bincount(pair, minlength=25) - count / 25).max() < 5 * np.sqrt(count / 25)
    for index, operations in enumerate(PAIRS):
        here = rows[pair == index]
        for slot, (name, p, level) in enumerate(operations):
            signs = [autoaugment_tables.row(name, level, is_negative) for is_negative in (False, True)]
            assert set(here[:, slot]) <= {0, *signs}
            assert abs(np.mean(here[:, slot] > 0) - p) <= 5 * np.sqrt(p * (1 - p) / len(here))
            if p:
                is_negative = here[here[:, slot] > 0, slot] == signs[1]
                assert abs(is_negative.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(is_negative))
        both, alone = np.mean((here > 0).all(1)), np.prod([p for _, p, _ in operations])
        assert abs(both - alone) <= 5 * np.sqrt(alone * (1 - alone) / len(here)), "the two are independent"


def test_draws_of_keys_follow_the_table_too(pictures):
    # Bright pictures that lose nothing but what a pair does to them: white stays white unless inverted or darkened.
    dataset = pictures(count=4000, side=4)
    white = jnp.full(dataset.inputs.shape, 255, jnp.uint8)
    outputs = augment.prepare(dataset.replace(scale=1.0, mean=(), std=()), "autoaugment", 0)(white, KEY, True)
    is_black = np.asarray((outputs == 0).all((1, 2, 3)))
    # Black: inverted (pairs 1, 24) or solarized (15, 19, 21, 23); in pair 21 autocontrast leaves one value as it is.
    chance = (0.1 + 0.1 + 0.5 + 0.2 + 0.4 + 0.8) / 25
    assert abs(is_black.mean() - chance) < 5 * np.sqrt(chance * (1 - chance) / 4000)


def test_a_picture_s_result_is_its_own():
    inputs, drawn = np.tile(drawings(12, 12), (20, 1, 1, 1)), words(240, 1)
    whole = np.asarray(transform(inputs, drawn))
    assert np.mean((whole != inputs).any((1, 2, 3))) > 0.5
    order = np.random.default_rng(0).permutation(240)
    np.testing.assert_array_equal(transform(inputs[order], drawn[order]), whole[order])
    np.testing.assert_array_equal(transform(inputs[:7], drawn[:7]), whole[:7])
    np.testing.assert_array_equal(transform(inputs[5:6], drawn[5:6]), whole[5:6])
    others = np.where(np.arange(240)[:, None, None, None] == 5, inputs, 255 - inputs)
    np.testing.assert_array_equal(transform(others, drawn)[5], whole[5])


def test_with_and_without_jit_and_under_vmap_the_bytes_are_the_same():
    inputs, drawn = drawings(9, 9), words(36, 2).reshape(3, 12, -1)
    together = jax.jit(jax.vmap(autoaugment.transform, (None, 0)))(inputs, drawn)
    for outputs, member_words in zip(together, drawn, strict=True):
        np.testing.assert_array_equal(outputs, autoaugment.transform(jnp.asarray(inputs), member_words))


def versions(picture, pad):
    """bytes -> (flip, top, left) of all that the published chain can make of a picture: pair, reflected crop, flip."""
    chains = {((), ())}
    for pair in PAIRS:
        slots = [[()] + [((name, level, sign),) for sign in (False, True)] if p else [()] for name, p, level in pair]
        chains |= {(first, second) for first in slots[0] for second in slots[1]}
    pictures, draws_of = {picture.tobytes(): picture}, {}
    for chain in chains:
        new = functools.reduce(lambda now, step: by_pillow(now, *step), chain[0] + chain[1], picture)
        pictures[new.tobytes()] = new
    for new in pictures.values():
        padded = np.pad(new, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        for top in range(2 * pad + 1):
            for left in range(2 * pad + 1):
                window = padded[top : top + len(new), left : left + new.shape[1]]
                draws_of[window[:, ::-1].tobytes()] = True, top, left
                draws_of[window.tobytes()] = False, top, left
    return draws_of


def test_the_kind_applies_the_policy_then_crops_a_reflected_border_then_flips(pictures):
    dataset = pictures(side=8)
    picture = drawings(8, 8)[4]
    draws_of, count = versions(picture, 2), 3000
    batch = jnp.asarray(np.tile(picture, (count, 1, 1, 1)))
    fn = jax.jit(
        lambda inputs: augment.prepare(dataset.replace(scale=1.0, mean=(), std=()), "autoaugment", 2)(inputs, KEY, True)
    )
    outputs = np.asarray(fn(batch)).astype(np.uint8)
    draws = np.asarray([draws_of.get(finding.tobytes(), (-1, -1, -1)) for finding in outputs])
    assert (draws >= 0).all(), "each is a crop of the reflected picture after a pair of operations"
    # A few pictures (all black, or symmetric) can be made in several ways; the margins leave room for them.
    assert abs(draws[:, 0].mean() - 0.5) < 0.06
    counts = np.bincount(draws[:, 1] * 5 + draws[:, 2], minlength=25)
    assert counts.min() > 60 and counts.max() < 200, "25 positions, 120 expected each"
    np.testing.assert_array_equal(np.asarray(fn(batch[:9])).astype(np.uint8), outputs[:9])


def test_only_colour_pictures_of_bytes_are_taken(pictures):
    for dataset, words in (
        (pictures(channels=1), "have 1 channel.s. of uint8"),
        (pictures(dtype=np.float32), "have 3 channel.s. of float32"),
    ):
        with pytest.raises(errors.ConfigError, match=f"red, green and blue bytes.* 'made' {words}.*augment=flip_crop"):
            augment.prepare(dataset, "autoaugment")
