"""Files of the published tools: decoded as they decode them, and written with the same bytes.

All are slow; the quick tests read such files in `tests/golden`, and compare the networks in `test_one_step`.
"""

from pathlib import Path

import numpy as np
import pytest

from cod_jax.codec import from_bundle
from cod_jax.interop import load_reference
from cod_jax.model_folder.bundle import Bundle
from tests.parity.cases import Case, cases


@pytest.mark.parametrize(("folder", "name"), cases("cod_file_lite_*"))
def test_file_of_the_published_cod_lite_tool(folder: Path, name: str):
    case = Case(name, folder)
    model = load_reference(case.meta["class"], case.config, case.weights())
    codec = from_bundle(Bundle(model.config, model.params, "0" * 64, "float32", {}))
    data = case.arrays["cod_file"].tobytes()

    decoded = codec.decompress(data, layout="legacy-lite")

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
        assert codec.compress(image_uint8, layout="legacy-lite") == data


@pytest.mark.parametrize(("folder", "name"), cases("cod_file_cod_*"))
def test_file_of_the_published_cod_tool(folder: Path, name: str, monkeypatch):
    case = Case(name, folder)
    model = load_reference(case.meta["class"], case.config, case.weights())
    codec = from_bundle(Bundle(model.config, model.params, "0" * 64, "float32", {}))
    data = case.arrays["cod_file"].tobytes()
    height, width, _ = case.images_uint8()[0].shape
    assert codec.compress(case.images_uint8()[0], layout="legacy-cod") == data

    # Instead of the noise of our seeds, that of the published tool's.
    monkeypatch.setattr(
        "cod_jax.codec.model_engine.seeded_noise", lambda words, shape: case.nhwc("noise").reshape(shape)
    )
    settings = case.meta["sampler"]
    decoded = codec.decompress(
        data,
        layout="legacy-cod",
        steps=settings["num_steps"],
        guidance=settings["guidance"],
        sampler="euler" if settings["kind"] == "euler" else "adams",
    )
    assert decoded.shape == (height, width, 3)
    # "decoded_u8" has rows and columns exchanged, which is the published tool's mistake.
    difference = np.abs(decoded.astype(int) - np.moveaxis(case.arrays["evaluate_u8"][0], 0, -1))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3
