"""Folded parameters make the same pictures as the whole model, and contain nothing that is constant."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.models import (
    FactorizedConfig,
    ModelConfig,
    build_model,
    flatten_params,
)
from cod_jax.models.bottlenecks.factorized import FixedBins
from cod_jax.specialize.folding import fold
from tests.model_fixtures import (
    numpy_params,
    tiny_model_config,
    tiny_pixel_config,
)
from tests.unit.specialize.decoders import SYMBOLS, decoded, decoder, folded


def whole_model(config: ModelConfig, params) -> np.ndarray:
    @jax.jit
    def run(params, symbols):
        model = build_model(config).bind(params)
        return model.one_step(model.codec.decode(model.codec.dequantize(symbols)))

    return np.asarray(run(params, SYMBOLS))


def without_modulation(params):
    """Return the same model with the adaLN layers of its blocks at zero, as if folding had forgotten them."""
    block = params["denoiser"]["blocks"]["block"]
    blank = {**block, "modulation": jax.tree.map(np.zeros_like, block["modulation"])}
    return {**params, "denoiser": {**params["denoiser"], "blocks": {"block": blank}}}


@pytest.mark.parametrize(
    "config",
    # That of the other kind is run by the tests of compiled models, too.
    [tiny_model_config(), pytest.param(tiny_pixel_config(), marks=pytest.mark.slow)],
    ids=["dconv", "pixnerdit"],
)
def test_the_folded_decoder_is_the_model(config):
    params = numpy_params(build_model(config).shapes)
    expected = whole_model(config, params)
    folded_params = fold(config, params)[1]
    np.testing.assert_allclose(decoded(decoder(config=config), folded_params, 16), expected, rtol=1e-5, atol=1e-5)
    # What is folded is no trifle.
    assert np.abs(whole_model(config, without_modulation(params)) - expected).max() > 0.1


@pytest.mark.parametrize("config", [tiny_model_config(), tiny_pixel_config()], ids=["dconv", "pixnerdit"])
def test_what_stays_as_it_is_is_not_copied(config):
    params = numpy_params(build_model(config).shapes)
    own = list(flatten_params(params).values())
    halves = [flatten_params(half) for half in fold(config, params)]
    for name, value in [*halves[0].items(), *halves[1].items()]:
        is_shared = any(np.shares_memory(value, array) for array in own)
        assert is_shared or name.startswith(("trunk/", "head/condition/")), name


@pytest.mark.parametrize("num_levels", [1, 3])
def test_folded_bins_are_those_of_the_factorized_bottleneck(num_levels):
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=num_levels))
    functional = build_model(config)
    params = numpy_params(functional.shapes)
    bins = FixedBins(num_levels, 8)
    bins.step[...], bins.offset[...] = (fold(config, params)[0]["bottleneck"][name] for name in ("step", "offset"))
    quantizer: Any = functional.bind(jax.tree.map(jnp.asarray, params)).codec.bottleneck
    level = jnp.arange(num_levels, dtype=jnp.int32)
    z = 20 * jax.random.normal(jax.random.key(0), (num_levels, 4, 4, 8))
    z = z.at[0, 0, 0, 0].set(1e9)
    expected = quantizer(z, level)
    symbols = bins.nearest(z, level)
    np.testing.assert_array_equal(symbols, expected.symbols)
    np.testing.assert_allclose(bins.lookup(symbols, level), expected.values, rtol=1e-6, atol=1e-6)
    assert np.abs(bins.offset[...]).max() > 0.1


def test_nothing_that_depends_on_the_timestep_is_left():
    names = set(flatten_params(folded()[1]))
    assert not any("timestep" in name or "patch_embed" in name or "embed/" in name for name in names)
    # The head's own modulation depends on the picture.
    assert {name for name in names if "modulation" in name} == {
        "head/blocks/0/modulation/bias",
        "head/blocks/0/modulation/kernel",
    }
