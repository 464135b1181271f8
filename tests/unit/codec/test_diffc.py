"""Mode diffc: round trips of tiny models, rates, prefixes, and files that are refused."""

import dataclasses
import itertools
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

import cod_jax
from cod_jax.codec import Codec, diffc, from_bundle, inspection
from cod_jax.coding import container, walk
from cod_jax.coding.stream import SymbolCoder
from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.models import build_model
from tests.model_fixtures import gradient_image, numpy_params, tiny_compact_config, tiny_sampling_codec

# Walking takes many compiled programs; `tests/unit/commands/test_diffc.py` goes one way quickly.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Return a model folder of a compact model with two quality levels."""
    config = tiny_compact_config(num_levels=2)
    path = tmp_path_factory.mktemp("diffc") / "model"
    save_bundle(path, config, numpy_params(build_model(config).shapes), training={})
    return path


@pytest.fixture(scope="module")
def codec(folder) -> Any:
    return cod_jax.load(folder)


IMAGE = gradient_image(37, 50)


@pytest.fixture(scope="module")
def data(codec: Any) -> bytes:
    return diffc.compress(codec, IMAGE, steps=5)


def test_another_process_decodes_the_same_picture(codec: Any, folder, data: bytes, tmp_path):
    (tmp_path / "file").write_bytes(data)
    script = (
        f"import cod_jax, numpy, pathlib; data = pathlib.Path({str(tmp_path / 'file')!r}).read_bytes(); "
        f"numpy.save({str(tmp_path / 'out.npy')!r}, cod_jax.load({str(folder)!r}).decompress(data))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), codec.decompress(data))
    assert data == diffc.compress(codec, IMAGE, steps=5)


def test_every_prefix_of_the_steps_is_a_picture(codec: Any, data: bytes):
    pictures = [codec.decompress(data, coded_steps=number) for number in range(6)]
    assert {picture.shape for picture in pictures} == {IMAGE.shape}
    np.testing.assert_array_equal(pictures[5], codec.decompress(data))
    assert all(np.any(one != other) for one, other in itertools.pairwise(pictures))
    # The first is that of the symbols with the noise of the walk.
    plain = codec.compress(IMAGE, quality=1)
    both = codec.decompress([data, plain, data])
    np.testing.assert_array_equal(both[1], codec.decompress(plain))
    np.testing.assert_array_equal(both[0], both[2])


def test_the_finish_honours_steps_guidance_and_sampler(codec: Any, data: bytes):
    chosen: list[dict] = [{"guidance": 1.0}, {"guidance": 2.0}, {"guidance": 4.0}, {"steps": 1}, {"sampler": "adams"}]
    pictures = [codec.decompress(data, **{"steps": 3, **settings}) for settings in chosen]
    for place, one in enumerate(pictures):
        assert all(np.any(one != other) for other in pictures[:place])
    np.testing.assert_array_equal(codec.decompress(data, steps=3, guidance=1.0, seed=1), pictures[0])


def test_guidance_has_no_effect_on_a_finish_of_one_step(codec: Codec, data: bytes):
    one = codec.decompress(data, steps=1, guidance=1.0)
    np.testing.assert_array_equal(codec.decompress(data, steps=1, guidance=3.0), one)


def test_the_path_of_coded_steps_is_not_that_of_the_sampler(codec: Codec, data: bytes):
    with pytest.raises(UserError, match="got one of mode diffc, whose sampler starts where its coded steps end"):
        inspection.sampler_states(codec, data)


def test_the_symbols_are_coded_once(codec: Codec, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    encode = SymbolCoder.shortest
    monkeypatch.setattr(SymbolCoder, "shortest", lambda *given: calls.append(1) or encode(*given))
    diffc.compress(codec, IMAGE, bpp=3.0)
    assert len(calls) == 1


def test_large_pictures_have_fewer_steps(folder, data: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(walk, "STEPS_AT_THE_LIMIT", 4)
    small = cod_jax.load(folder, max_pixels=IMAGE[..., 0].size)
    with pytest.raises(UserError, match="expected at most 4 steps for 50x37 pixels, got 5, which would take very long"):
        small.decompress(data)
    with pytest.raises(UserError, match="expected at most 4 steps for 50x37 pixels, got 5; raise it with --max-pixels"):
        diffc.compress(small, IMAGE, steps=5)
    assert cod_jax.load(folder, max_pixels=2 * IMAGE[..., 0].size).decompress(data).shape == IMAGE.shape


def test_a_rate_is_kept_and_used(codec: Any):
    data = diffc.compress(codec, IMAGE, bpp=3.0)
    assert 2.9 < 8 * len(data) / IMAGE[..., 0].size <= 3.0


@pytest.mark.parametrize("kind", ["pixel", "latent"])
def test_other_kinds_of_models_walk_too(kind: Any):
    codec = tiny_sampling_codec(kind)
    data = diffc.compress(codec, IMAGE, steps=2)
    assert container.read(data).mode == "diffc"
    assert codec.decompress(data).shape == IMAGE.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "takes either steps or bpp"),
        ({"steps": 3, "bpp": 0.1}, "takes either steps or bpp"),
        ({"steps": 0}, "steps to be a whole number from 1 to 1000, got 0"),
        ({"bpp": -1.0}, "positive number, got -1.0"),
        (
            {"bpp": 0.01},
            r"expected at least \d\.\d+ bits per pixel, which the first step .*, got 0\.01",
        ),
        ({"steps": 3, "quality": 7}, "quality must be between 1 and 2"),
    ],
)
def test_what_cannot_be_reached_is_refused(codec: Any, settings: dict, message: str):
    with pytest.raises(UserError, match=message):
        diffc.compress(codec, IMAGE, **settings)


def test_a_rate_beyond_the_schedule_is_refused(codec: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(walk, "END_OF_SCHEDULE", 2**12)
    with pytest.raises(UserError, match=r"expected at most \d+ steps and \d.* bits per pixel .*, got 900 steps"):
        diffc.compress(codec, IMAGE, steps=900)
    with pytest.raises(UserError, match=r"expected at most \d+ steps and \d.* bits per pixel .*, got 20.0 bits"):
        diffc.compress(codec, IMAGE, bpp=20.0)


def test_files_that_cannot_be_decoded_are_refused(codec: Any, folder, data: bytes, tmp_path):
    with pytest.raises(UserError, match="coded_steps from 0 to 5, the steps of this file, got 6"):
        codec.decompress(data, coded_steps=6)
    with pytest.raises(UserError, match="coded_steps is for files of mode diffc"):
        codec.decompress(codec.compress(IMAGE), coded_steps=1)
    with pytest.raises(UserError, match="does not fit its content"):
        codec.decompress(data[:-5] + data[-3:])
    file = container.read(data)
    with pytest.raises(UserError, match="model of fingerprint"):
        codec.decompress(container.write(dataclasses.replace(file, model="0" * 8)))
    mode, symbols, steps = walk.read_walk(file.payload)

    def changed(**fields: Any) -> bytes:
        payload = walk.write_walk(mode, symbols, dataclasses.replace(steps, **fields))
        return container.write(dataclasses.replace(file, payload=payload))

    with pytest.raises(UserError, match="another state than the encoder's"):
        codec.decompress(changed(check=bytes(4)))
    with pytest.raises(UserError, match="another state than the encoder's"):
        codec.decompress(changed(indices=steps.indices ^ 1))
    with pytest.raises(UserError, match="into 60000 chunks, so it is damaged"):
        codec.decompress(changed(indices=np.zeros((5, 60000), np.int32)))


def test_weights_that_are_not_those_of_the_encoder_are_noticed(codec: Any, folder, data: bytes):
    bundle = load_bundle(folder)
    denoiser = jax.tree.map(lambda value: 1.2 * value, bundle.params["denoiser"])
    other = from_bundle(dataclasses.replace(bundle, params={**bundle.params, "denoiser": denoiser}))
    with pytest.raises(UserError, match="another state than the encoder's"):
        other.decompress(data)
