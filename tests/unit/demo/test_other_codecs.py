"""JPEG and WebP at no more bytes than another file."""

import numpy as np
import pytest
from PIL import Image

from cod_jax.errors import UserError
from demo.other_codecs import OPTIONS, code_within
from tests.model_fixtures import gradient_image


@pytest.mark.parametrize("codec", OPTIONS)
def test_the_largest_quality_that_fits_is_taken_and_a_better_one_is_longer(codec: str):
    image_uint8 = np.asarray(Image.effect_noise((96, 64), 60).convert("RGB"))
    coded = code_within(image_uint8, codec, 2500)
    assert coded.num_bytes <= 2500
    assert coded.pixels.shape == image_uint8.shape
    assert "of its size" not in coded.settings
    longer = code_within(image_uint8, codec, 3500)
    assert 2500 < longer.num_bytes <= 3500
    assert int(longer.settings.split()[1]) > int(coded.settings.split()[1])


def test_a_smaller_picture_is_coded_where_quality_1_is_too_long_and_the_settings_say_so():
    image_uint8 = np.asarray(Image.effect_noise((300, 200), 60).convert("RGB"))
    coded = code_within(image_uint8, "JPEG", 1000)
    assert "picture at 0." in coded.settings
    assert coded.pixels.shape == (200, 300, 3)
    with pytest.raises(UserError, match="JPEG cannot code 300x200 pixels in 20 bytes; allow more"):
        code_within(gradient_image(200, 300), "JPEG", 20)
