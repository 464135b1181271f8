import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax import images

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def test_ranges_are_inverse_to_each_other_with_and_without_jit():
    image_uint8 = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)

    def there_and_back(image_uint8):
        image01 = images.uint8_to_unit(image_uint8)
        image = images.unit_to_signed(image01)
        return image01, image, images.signed_to_uint8(image)

    for function, source in ((there_and_back, image_uint8), (jax.jit(there_and_back), jnp.asarray(image_uint8))):
        image01, image, back_uint8 = function(source)
        assert image01.dtype == image.dtype == np.float32
        assert type(image01) is type(image) is type(back_uint8)
        np.testing.assert_allclose([image01.min(), image01.max(), image.min(), image.max()], [0, 1, -1, 1], atol=1e-6)
        np.testing.assert_array_equal(back_uint8, image_uint8)


def test_signed_to_uint8_rounds_and_clips():
    step = 1 / 127.5
    image = np.array([-5, -1 + 0.49 * step, -1 + 0.51 * step, 0, 1 - 0.49 * step, 5], np.float32)
    assert images.signed_to_uint8(image).tolist() == [0, 0, 1, 128, 255, 255]
    assert images.signed_to_uint8(jnp.asarray([-5, 0, 5], jnp.bfloat16)).tolist() == [0, 128, 255]


def test_uint8_to_unit_refuses_floats():
    with pytest.raises(ValueError, match="float32"):
        images.uint8_to_unit(np.zeros((1, 1, 3), np.float32))


@pytest.mark.parametrize("shape", [(9, 14, 3), (2, 9, 14, 3), (16, 16, 1), (1, 1, 3)])
def test_padding_repeats_the_border_and_is_undone_by_cropping(shape):
    image = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    height, width = shape[-3:-1]
    padded = images.pad_to_multiple(image, 16)
    assert isinstance(padded, np.ndarray)
    assert padded.shape == (*shape[:-3], 16, 16, shape[-1])
    np.testing.assert_array_equal(padded[..., :height, :width, :], image)
    np.testing.assert_array_equal(
        padded[..., height:, :width, :], np.broadcast_to(image[..., -1:, :, :], padded[..., height:, :width, :].shape)
    )
    np.testing.assert_array_equal(
        padded[..., :, width:, :],
        np.broadcast_to(padded[..., :, width - 1 : width, :], padded[..., :, width:, :].shape),
    )
    jitted = jax.jit(images.pad_to_multiple, static_argnums=1)(jnp.asarray(image), 16)
    np.testing.assert_array_equal(jitted, padded)
    # Where nothing is missing nothing is copied.
    assert images.pad_to_multiple(padded, 16) is padded


def test_padding_refuses_nonsense():
    with pytest.raises(ValueError, match="multiple to be at least 1, got 0"):
        images.pad_to_multiple(RGB, 0)
    with pytest.raises(ValueError, match="without empty axes"):
        images.pad_to_multiple(RGB[:0], 16)
