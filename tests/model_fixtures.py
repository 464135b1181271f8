"""A model small enough for tests, with parameters that no initialiser has to compute."""

import functools
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from cod_jax.codec import Codec, from_bundle
from cod_jax.model_folder.bundle import Bundle, save_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import (
    CompactCodecConfig,
    CompactDenoiserConfig,
    ConditionCodecConfig,
    DConvConfig,
    DDTConfig,
    FactorizedConfig,
    ModelConfig,
    PixNerDiTConfig,
    build_model,
)


def tiny_model_config(**codec_fields: Any) -> ModelConfig:
    """Return a model of about 700 thousand parameters; keywords change fields of its condition codec."""
    codec = {
        "pitch": 16,
        "input_stride": 2,
        "encoder_width": 16,
        "latent_channels": 8,
        "num_groups": 4,
        "attention": "global",
    }
    return ModelConfig(
        codec=ConditionCodecConfig(**{**codec, **codec_fields}),
        denoiser=DConvConfig(hidden=32, hidden_pixel=8, num_blocks=2, num_pixel_blocks=1, bottleneck_width=16),
    )


def tiny_pixel_config() -> ModelConfig:
    """Return a small relative of pixel CoD with the same condition codec, which predicts velocities."""
    denoiser = PixNerDiTConfig(hidden=32, num_heads=2, hidden_pixel=8, num_blocks=2, num_pixel_blocks=1)
    return ModelConfig(tiny_model_config().codec, denoiser)


def tiny_latent_config(autoencoder: Literal["space_to_depth", "sd_vae"] = "space_to_depth") -> ModelConfig:
    """Return a small relative of latent CoD; its latents need no weights unless they are those of the VAE."""
    denoiser = DDTConfig(hidden=32, num_heads=2, num_blocks=2, num_decoder_blocks=1, autoencoder=autoencoder)
    return ModelConfig(tiny_model_config().codec, denoiser)


def tiny_compact_config(
    *, pitch: Literal[8, 16] = 16, step: float = 0.4, num_levels: int = 1, training: Any = "straight_through"
) -> ModelConfig:
    """Return a compact codec of some ten thousand parameters, with 24 latents for each 16 x 16 pixels."""
    codec = CompactCodecConfig(
        pitch=pitch,
        hidden=32,
        num_encoder_blocks=1,
        num_decoder_blocks=1,
        mlp_ratio=1.0,
        latent_channels=24 * pitch**2 // 16**2,
        step=step,
        bottleneck=FactorizedConfig(num_levels=num_levels, training=training),
    )
    return ModelConfig(
        codec, CompactDenoiserConfig(hidden=32, num_blocks=1, mlp_ratio=1.0, refined=8, num_refine_blocks=1)
    )


def numpy_params(shapes: Any, seed: int = 0) -> Any:
    """Fill a tree of shapes with seeded float32 numbers; layers that start at zero get numbers as well.

    Biases are small, scales of norms around 1, and kernels keep the variance of what they are applied to.
    """
    generator = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        values = generator.standard_normal(leaf.shape)
        if "scale" in name:
            values = 1 + 0.1 * values
        elif "codebook" in name:
            values = 0.5 * values
        elif "bias" in name:
            values = 0.1 * values
        else:
            is_stacked = "denoiser" in name and "blocks" in name and "head" not in name
            values = values / np.sqrt(np.prod(leaf.shape[is_stacked:-1]))
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.cache
def tiny_bundle(**codec_fields: Any) -> Bundle:
    """Return a tiny model as if it had been loaded from a folder."""
    config = tiny_model_config(**codec_fields)
    return Bundle(config, numpy_params(build_model(config).shapes), "0" * 64, "float32", {})


@functools.cache
def tiny_sampling_codec(kind: Literal["pixel", "latent"]) -> Codec:
    """Return the codec of a model that takes three guided steps unless something else is asked for."""
    config = tiny_pixel_config() if kind == "pixel" else tiny_latent_config()
    params = numpy_params(build_model(config).shapes)
    return from_bundle(Bundle(config, params, "1" * 64, "float32", {}, decoding=DecodingConfig(3, 2.0, "adams")))


@functools.cache
def tiny_codec(**codec_fields: Any) -> Codec:
    """Return a codec with a tiny model, the same one to all tests, so that each size compiles once."""
    return from_bundle(tiny_bundle(**codec_fields))


def load_tiny(path: str, **limit: int) -> Codec:
    """Stand in for `cod_jax.load`: the tiny codec, whatever the path."""
    return from_bundle(tiny_bundle(), **limit) if limit else tiny_codec()


def save_tiny_model(path: str | Path) -> None:
    """Write the tiny model as a model folder."""
    bundle = tiny_bundle()
    save_bundle(path, bundle.config, bundle.params, training={"step": 12, "weights": "ema"})


def gradient_image(height: int, width: int) -> np.ndarray:
    """Return a smooth uint8 picture [height, width, 3] in which no two sizes start alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (rows * 5 + columns, 255 - rows - columns * 3, 128 + 60 * np.sin((rows + 2 * columns) / 9))
    return np.stack([np.asarray(channel) % 256 for channel in channels], axis=-1).astype(np.uint8)
