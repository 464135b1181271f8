"""Files of the published CoD-Lite tool: decoded as it decodes them, and written with the same bytes."""

import numpy as np
import pytest

from cod_jax.bundle import Bundle
from cod_jax.codec import Codec
from cod_jax.interop import load_reference
from tests.parity.cases import Case


@pytest.mark.parametrize(
    "name",
    [
        "lite_ds32_b4_70x100_not_multiple",
        pytest.param("lite_ds16_b8_64x48", marks=pytest.mark.slow),
        pytest.param("lite_ds32_b4_64x128", marks=pytest.mark.slow),
    ],
)
def test_published_file(name: str):
    case = Case(f"cod_file_{name}")
    model = load_reference(case.meta["class"], case.config, case.weights())
    codec = Codec(Bundle(model.config, model.params, "0" * 64, "float32", {}))
    data = case.arrays["cod_file"].tobytes()

    decoded = codec.decompress(data)

    expected = np.moveaxis(case.arrays["decoded_u8"][0], 0, -1)
    # Rounding may fall to the other side where the two libraries' float32 differ.
    difference = np.abs(decoded.astype(int) - expected)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3
    height, width, _ = expected.shape
    pitch = model.config.codec.pitch
    assert (decoded[height // pitch * pitch :] == 128).all()
    assert (decoded[:, width // pitch * pitch :] == 128).all()

    image_uint8 = case.images_uint8()[0]
    if height % pitch == width % pitch == 0:
        assert codec.compress(image_uint8) == data
