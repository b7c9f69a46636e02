import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, settings
from jaxunlearn.data.augmentation import augment

KEY = jax.random.key(0)


def raw(dataset, kind, pad=2):
    """The augmented pictures in raw units: no scale, no mean."""
    return augment.prepare(dataset.replace(scale=1.0, mean=(), std=()), kind, pad)


def test_evaluation_is_plain_normalisation(pictures):
    dataset = pictures()
    expected = (dataset.inputs.astype(np.float64) / 255 - 0.5) / 0.25
    for kind in augment.KINDS:
        outputs = augment.prepare(dataset, kind)(jnp.asarray(dataset.inputs), None, False)
        assert outputs.dtype == jnp.float32
        np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_tabular_rows_are_normalised_per_feature(rows):
    dataset = rows().replace(inputs=np.array([[2.0, 10.0]] * 3, np.float32), mean=(1.0, 10.0), std=(0.5, 2.0))
    np.testing.assert_allclose(augment.prepare(dataset)(jnp.asarray(dataset.inputs), None, True), [[2.0, 0.0]] * 3)
    with pytest.raises(errors.ConfigError, match="needs pictures, but rows of 'made' have shape"):
        augment.prepare(dataset, "flip")


def test_half_of_the_pictures_are_flipped_and_nothing_else_happens(pictures):
    dataset = pictures(count=2000, side=4)
    inputs = dataset.inputs
    outputs = np.asarray(raw(dataset, "flip")(jnp.asarray(inputs), KEY, True)).astype(np.uint8)
    is_flipped = (outputs == inputs[:, :, ::-1]).all((1, 2, 3))
    is_same = (outputs == inputs).all((1, 2, 3))
    assert (is_flipped | is_same).all()
    assert abs(is_flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


def offsets(inputs, outputs, pad):
    """For each row the one window of its black-bordered picture that was cut out."""
    side = inputs.shape[1]
    padded = np.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    positions = np.full((len(inputs), 2), -1)
    for dy in range(2 * pad + 1):
        for dx in range(2 * pad + 1):
            is_here = (padded[:, dy : dy + side, dx : dx + side] == outputs).all((1, 2, 3))
            positions[is_here] = dy, dx
    return positions


def test_every_crop_position_occurs_equally_often_with_a_black_border(pictures):
    dataset = pictures(count=2500, side=5)
    outputs = np.asarray(raw(dataset, "crop")(jnp.asarray(dataset.inputs), KEY, True)).astype(np.uint8)
    positions = offsets(dataset.inputs, outputs, 2)
    assert (positions >= 0).all()
    counts = np.bincount(positions[:, 0] * 5 + positions[:, 1], minlength=25)
    assert counts.min() > 60 and counts.max() < 145, "25 positions, 100 expected each"


def test_the_border_is_black_before_normalisation(pictures):
    dataset = pictures(count=200)
    outputs = np.asarray(augment.prepare(dataset, "crop", 4)(jnp.asarray(dataset.inputs), KEY, True))
    assert outputs.min() == pytest.approx(-2.0), "(0 / 255 - 0.5) / 0.25"
    assert (dataset.inputs > 0).all()


def test_flip_and_crop_draw_independently(pictures):
    dataset = pictures(count=1500, side=5)
    outputs = np.asarray(raw(dataset, "flip_crop")(jnp.asarray(dataset.inputs), KEY, True)).astype(np.uint8)
    plain, flipped = offsets(dataset.inputs, outputs, 2), offsets(dataset.inputs[:, :, ::-1], outputs, 2)
    is_flipped = flipped[:, 0] >= 0
    assert ((plain[:, 0] >= 0) ^ is_flipped).all()
    assert abs(is_flipped.mean() - 0.5) < 0.06
    assert abs(np.corrcoef(is_flipped, np.where(is_flipped, flipped[:, 1], plain[:, 1]))[0, 1]) < 0.1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_one_picture_in_ten_becomes_grey_and_nothing_else_changes(pictures, dtype):
    dataset = pictures(count=3000, side=4, dtype=dtype)
    inputs = jnp.asarray(dataset.inputs)
    outputs, coloured = (np.asarray(raw(dataset, kind)(inputs, KEY, True)) for kind in ("flip_crop_gray", "flip_crop"))
    is_gray = (outputs != coloured).any((1, 2, 3))
    assert abs(is_gray.mean() - 0.1) < 4 * 0.3 / np.sqrt(3000)
    luminance = coloured[is_gray].astype(np.float64) @ np.array([0.2989, 0.587, 0.114])
    lost = luminance[..., None] - outputs[is_gray]
    assert lost.min() > -1e-4 and lost.max() < (1 if dtype == np.uint8 else 1e-4) + 1e-4
    if dtype == np.uint8:
        np.testing.assert_array_equal(outputs, np.floor(outputs))
    # Word and bit are shared with the flip: the two draws must not be.
    flipped = np.asarray(raw(dataset, "flip")(inputs, KEY, True) != inputs).any((1, 2, 3))
    assert abs(flipped[is_gray].mean() - 0.5) < 4 * 0.5 / np.sqrt(is_gray.sum())


def test_grey_pictures_stay_as_they_are_and_other_channels_are_refused(pictures):
    dataset = pictures(count=200, channels=1)
    inputs = jnp.asarray(dataset.inputs)
    np.testing.assert_array_equal(
        raw(dataset, "flip_crop_gray")(inputs, KEY, True), raw(dataset, "flip_crop")(inputs, KEY, True)
    )
    with pytest.raises(errors.ConfigError, match="have 4 channels. Set --config.data.augment=flip_crop"):
        augment.prepare(pictures(channels=4), "flip_crop_gray")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_rows_draw_does_not_depend_on_the_batch_size(pictures, dtype):
    dataset = pictures(dtype=dtype)
    fn = augment.prepare(dataset, "flip_crop")
    whole = fn(jnp.asarray(dataset.inputs), KEY, True)
    np.testing.assert_array_equal(whole[:7], fn(jnp.asarray(dataset.inputs[:7]), KEY, True))
    assert not np.array_equal(whole, fn(jnp.asarray(dataset.inputs), jax.random.key(1), True))


def test_members_under_jit_and_vmap_equal_members_alone(pictures):
    dataset = pictures()
    fn = augment.prepare(dataset, "flip_crop")
    keys, inputs = jax.random.split(KEY, 3), jnp.asarray(dataset.inputs)
    together = jax.jit(jax.vmap(lambda key: fn(inputs, key, True)))(keys)
    for member_output, key in zip(together, keys, strict=True):
        np.testing.assert_allclose(member_output, fn(inputs, key, True), atol=1e-6)


def test_a_nan_stays_in_its_row(pictures):
    dataset = pictures(dtype=np.float32)
    inputs = dataset.inputs.copy()
    inputs[3] = np.nan
    outputs = np.asarray(augment.prepare(dataset, "flip_crop")(jnp.asarray(inputs), KEY, True))
    assert np.isnan(outputs[3]).any() and np.isfinite(np.delete(outputs, 3, axis=0)).all()


def test_every_kind_can_be_set(pictures):
    for kind in augment.KINDS:
        assert settings.resolve({"data": {"augment": kind}}).data.augment == kind


def test_bad_augmentation_settings_are_refused(pictures):
    with pytest.raises(errors.ConfigError, match="Did you mean 'flip'"):
        augment.prepare(pictures(), "flipp")
    with pytest.raises(errors.ConfigError, match="data.pad = -1"):
        augment.prepare(pictures(), "crop", -1)
    with pytest.raises(errors.ConfigError, match="no key was given"):
        augment.prepare(pictures(), "flip")(jnp.asarray(pictures().inputs), None, True)
