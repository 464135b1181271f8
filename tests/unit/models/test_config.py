"""Descriptions of models: stored values and errors."""

import json
import math

import pytest

from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.models import (
    FactorizedConfig,
    ModelConfig,
)
from tests.model_fixtures import tiny_model_config


def test_config_survives_plain_values():
    config = tiny_model_config(attention="window_masked")
    assert ModelConfig.from_dict(config.to_dict()) == config


def factorized_model(**fields) -> ModelConfig:
    return tiny_model_config(bottleneck=FactorizedConfig(**fields))


def test_descriptions_survive_json_and_those_with_a_codebook_are_as_before():
    config = factorized_model(num_levels=4, tail_mass=1e-6)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    vector = tiny_model_config()
    assert set(vector.to_dict()["codec"]) == {
        "pitch",
        "input_stride",
        "encoder_width",
        "latent_channels",
        "codebook_bits",
        "decoder_depth",
        "num_groups",
        "attention",
    }
    assert ModelConfig.from_dict(vector.to_dict()) == vector
    assert ModelConfig.from_dict({"codec": {"factorized": None}}) == ModelConfig()


def test_symbols_and_rates_by_design():
    assert factorized_model(num_levels=2).codec.symbols == SymbolFormat(8, -LARGEST_SYMBOL, LARGEST_SYMBOL, 2)
    assert factorized_model().codec.nominal_bits_per_pixel is None
    assert tiny_model_config().codec.symbols == SymbolFormat(1, 0, 15, 1)
    assert tiny_model_config().codec.nominal_bits_per_pixel == 4 / 16**2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codec": {"pich": 16}}, r"unknown field model.codec.pich; did you mean model.codec.pitch\?"),
        ({"encoder": {}}, "unknown field model.encoder"),
        ({"codec": 3}, "model.codec must hold a kind and its fields, got 3"),
        ({"codec": {"pitch": "16"}}, "model.codec.pitch must be of type int, got '16'"),
        ({"codec": {"pitch": 24}}, "pitch must be a power of two and a multiple of input_stride 1, got 24"),
        ({"codec": {"pitch": 2}}, "downsamplings"),
        ({"codec": {"pitch": 64, "input_stride": 2}}, "downsamplings"),
        ({"codec": {"encoder_width": 48}}, "encoder_width must be a multiple of num_groups 32, got 48"),
        ({"codec": {"attention": "local"}}, "attention must be one of .* got 'local'"),
        ({"codec": {"codebook_bits": 17}}, "bits must be between 1 and 16, got 17"),
        ({"denoiser": {"hidden": 100}}, "denoiser.hidden must be a multiple of codec.num_groups 32, got 100"),
        ({"denoiser": {"prediction": "x"}}, "prediction must be one of image, velocity, got 'x'"),
        ({"denoiser": {"num_blocks": 0}}, "num_blocks must be between 1 and 256, got 0"),
        ({"denoiser": {"patch_size": 16}}, "unknown field model.denoiser.patch_size"),
        ({"denoiser": {"mlp_ratio": float("inf")}}, "mlp_ratio must be a finite number, got inf"),
        ({"denoiser": {"mlp_ratio": float("nan")}}, "mlp_ratio must be a finite number, got nan"),
        ({"denoiser": {"num_pixel_blocks": 10**6}}, "num_pixel_blocks must be between 1 and 64, got 1000000"),
        ({"codec": {"encoder_width": 2**20}}, "encoder_width must be between 1 and 16384, got 1048576"),
    ],
)
def test_config_errors_say_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ({"codebook_bits": 4, "factorized": {}}, "codebook_bits must be 0 beside a factorized bottleneck, got 4"),
        ({"codebook_bits": 0}, "bits must be between 1 and 16, got 0"),
        ({"codebook_bits": 0, "factorized": {"levels": 3}}, "unknown field model.codec.bottleneck.levels"),
        ({"codebook_bits": 0, "factorized": 3}, "model.codec.bottleneck must hold a kind and its fields, got 3"),
        ({"codebook_bits": 0, "factorized": {"num_levels": 65}}, "num_levels must be between 1 and 64, got 65"),
        ({"codebook_bits": 0, "factorized": {"tail_mass": 0.5}}, "tail_mass must be between 1e-9 and 0.1"),
        ({"codebook_bits": 0, "factorized": {"tail_mass": math.nan}}, "tail_mass must be .* got nan"),
        ({"codebook_bits": 0, "factorized": {"training": "none"}}, "training must be one of noise, straight_through"),
        ({"bottleneck": {"kind": "tree"}}, "bottleneck.kind must be one of codebook, factorized, or package.module"),
        ({"bottleneck": {"kind": "os:system"}}, "expected os:system to be a subclass of .*BottleneckConfig"),
        ({"bottleneck": {"kind": "not_here.blocks:Mine"}}, "install not_here, import not_here.blocks first or list"),
    ],
)
def test_unusable_descriptions_are_refused(codec, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict({"codec": codec})
