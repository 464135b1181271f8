import numpy as np
from PIL import Image

from cod_jax import images

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def test_save_png_can_be_read_back(tmp_path):
    images.save_png(tmp_path / "a" / "photo.png", RGB)
    with Image.open(tmp_path / "a" / "photo.png") as image:
        np.testing.assert_array_equal(np.asarray(image), RGB)
