"""What is inside a model is what it compresses and decompresses with."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import cod_jax
from cod_jax.codec import Codec, inspection
from cod_jax.coding import container
from cod_jax.diffusion.noise import seed_words, seeded_noise
from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import bottleneck_of, load_bundle, save_bundle
from cod_jax.models import build_model
from tests.model_fixtures import (
    gradient_image,
    numpy_params,
    tiny_codec,
    tiny_compact_config,
    tiny_sampling_codec,
)

SIZE = (40, 56)
# At a pitch of 16 pixels, and of 8, where the model computes a row and a column more.
GRID, FINE_GRID = (3, 4), (5, 7)


@pytest.fixture(scope="module")
def compact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model without a codebook, of two quality levels and a pitch of 8 pixels."""
    config = tiny_compact_config(pitch=8, num_levels=2)
    folder = tmp_path_factory.mktemp("models") / "compact"
    save_bundle(folder, config, numpy_params(build_model(config).shapes), training={})
    return folder


@pytest.fixture(scope="module")
def compact(compact_folder: Path) -> Codec:
    """Return its codec."""
    return cod_jax.load(compact_folder)


def test_a_codebook_takes_the_same_bits_everywhere():
    codec = tiny_codec()
    data = codec.compress(gradient_image(*SIZE))
    bits = inspection.bit_map(codec, data)
    np.testing.assert_array_equal(bits, np.full(GRID, codec.symbols.bits))
    assert -(-bits.sum() // 8) == len(container.read(data).payload)
    np.testing.assert_array_equal(inspection.symbols(codec, data), codec.encode(gradient_image(*SIZE)))


@pytest.mark.parametrize("quality", [1, 2])
def test_the_bits_of_positions_add_up_to_the_payload(compact: Codec, quality: int):
    data = compact.compress(gradient_image(*SIZE), quality=quality)
    bits = inspection.symbol_bits(compact, data)
    assert bits.shape == inspection.symbols(compact, data).shape == (*FINE_GRID, compact.symbols.num_channels)
    assert (bits > 0).all()
    named = 1  # the byte that names the level
    assert abs(len(container.read(data).payload) - named - bits.sum() / 8) <= 2
    np.testing.assert_array_equal(inspection.bit_map(compact, data), bits.sum(axis=-1))


def test_latents_become_the_symbols(compact: Codec, compact_folder: Path):
    bundle = load_bundle(compact_folder)
    latents = inspection.latents(compact, gradient_image(*SIZE))
    assert (latents.shape[:2], latents.dtype) == (FINE_GRID, np.float32)
    bottleneck = bottleneck_of(bundle.config, bundle.params)
    found = bottleneck(jnp.asarray(latents)[None], jnp.array([0], jnp.int32), None).symbols[0]
    np.testing.assert_array_equal(found, compact.encode(gradient_image(*SIZE), level=0))


def test_there_is_a_condition_for_each_cell(compact: Codec):
    files = [compact.compress(gradient_image(*SIZE), quality=quality) for quality in (1, 2)]
    low, high = (inspection.condition(compact, data) for data in files)
    assert low.shape == high.shape == (*GRID, compact.config.denoiser.hidden)
    assert not np.array_equal(low, high)


def test_states_lead_from_noise_to_the_picture(compact: Codec):
    _check_states(compact, {"steps": 3, "guidance": 2.0, "sampler": "adams", "seed": 5})


@pytest.mark.slow
def test_states_of_latents_are_shown_as_pictures():
    _check_states(tiny_sampling_codec("latent"), {"seed": 5})


def _check_states(codec: Codec, settings: dict[str, Any]) -> None:
    data = codec.compress(gradient_image(*SIZE))
    states = inspection.sampler_states(codec, data, **settings)
    assert (len(states.timesteps), states.timesteps[0], states.timesteps[-1]) == (4, 0, 1)
    assert (states.pictures.shape, states.estimates.shape) == ((4, *SIZE, 3), (3, *SIZE, 3))
    # It is another program than that of `decompress`, and may round otherwise.
    assert np.abs(states.pictures[-1] - codec.decompress(data, **settings).astype(int)).max() <= 1
    noise = seeded_noise(seed_words(5), codec.config.values_shape((1, 48, 64, 3)))
    np.testing.assert_array_equal(states.values[0], noise[0])
    assert np.ptp(states.pictures.astype(int), axis=0).max() > 10


def test_one_step_goes_from_nothing_to_the_picture(compact: Codec):
    data = compact.compress(gradient_image(*SIZE))
    states = inspection.sampler_states(compact, data, steps=1)
    np.testing.assert_array_equal(states.timesteps, [0, 1])
    assert not states.values[0].any()
    np.testing.assert_array_equal(states.pictures[1], states.estimates[0])
    assert np.abs(states.pictures[1] - compact.decompress(data).astype(int)).max() <= 1


def test_more_states_than_there_is_memory_for_are_refused(compact: Codec, monkeypatch: pytest.MonkeyPatch):
    data = compact.compress(gradient_image(*SIZE))
    monkeypatch.setattr("cod_jax.codec.memory.available_bytes", lambda: 48 * 64 * 60 * 500)
    inspection.sampler_states(compact, data, steps=1)
    with pytest.raises(UserError, match="keeping all states of decoding 56x40 pixels takes about"):
        inspection.sampler_states(compact, data, steps=1000)
