r"""Compact codecs that train from scratch on a CPU, for pictures at 0.03 to 0.5 bits per pixel.

    cod train --config configs/compact.py --workdir runs/compact --config.data.source=PHOTOS
    cod export --workdir runs/compact --output models/compact --images PHOTOS

A fresh model is a transform codec fitted to the photographs, and training improves it. One model has eight quality
levels; `:levels=1` trains the fourth alone. With `:size=small` the model has 0.9 million parameters, encoding takes 0.9
and decoding 2.7 thousand multiplications per pixel; with `base` 2.7 million, 3 and 9; with `large` 12.7 million, 14 and
35.

    cod train --config configs/compact.py:objective=texture --workdir runs/texture --config.init_from=runs/compact \
        --config.data.source=PHOTOS

adds a small network and trains it alone: files and pictures of one step stay as they are, and more steps add texture.

`:bottleneck=codebook` has one of 256 code vectors for each 8 x 8 pixels instead of rounded latents, and one quality
level. Its files are smaller by the prior that `cod export --images` fits, and by `objective.bottleneck.rate_weight`:
with it the encoder learns to choose code vectors that are easy to predict.
"""

from typing import Any

from ml_collections import config_dict

from configs import base, presets

OPTIONS = {
    "size": ("base", "small", "large"),
    "levels": ("8", "1"),
    "objective": ("one_step", "texture"),
    "bottleneck": ("factorized", "codebook"),
}
SIZES = {
    "small": {"hidden": 128, "latents": 96, "encoder_blocks": 1, "blocks": 1, "refined": 32, "refine_blocks": 1},
    "base": {"hidden": 192, "latents": 160, "encoder_blocks": 2, "blocks": 2, "refined": 48, "refine_blocks": 2},
    "large": {"hidden": 320, "latents": 192, "encoder_blocks": 4, "blocks": 4, "refined": 64, "refine_blocks": 3},
}
# Lambda from the lowest quality to the best, each 0.6 times the one before.
RATE_WEIGHTS = tuple(round(0.24 * 0.6**level, 6) for level in range(8))
# Latents about as large as what Adam changes in a run, so that code vectors can follow them.
CODEBOOK_CODEC = {"pitch": 8, "latent_channels": 16, "step": 4.0, "bottleneck": {"kind": "codebook", "bits": 8}}
CODEBOOK_RATE_WEIGHT = 0.2
# Parameters of a model without the network that adds texture.
ALL_BUT_TEXTURE = ("codec/*", "denoiser/[!t]*", "denoiser/timestep/*")


def get_config(argument: str = "") -> config_dict.ConfigDict:
    """Return the settings of a run from scratch.

    Args:
        argument: "size=small", "base" (by default) or "large"; "levels=8" or "1", which codebooks ignore;
            "objective=one_step" or "texture"; "bottleneck=factorized" or "codebook".
    """
    chosen = presets.options(argument, OPTIONS)
    size = presets.choose("size", chosen["size"], SIZES)
    rate_weights = RATE_WEIGHTS if chosen["levels"] == "8" else RATE_WEIGHTS[3:4]
    codec = {
        "latent_channels": size["latents"],
        "bottleneck": presets.factorized_bottleneck(num_levels=len(rate_weights), training="straight_through"),
    }
    has_codebook = chosen["bottleneck"] == "codebook"
    config = base.get_config()
    base.replace_codec(
        config,
        presets.compact_codec(
            hidden=size["hidden"],
            num_encoder_blocks=size["encoder_blocks"],
            num_decoder_blocks=size["blocks"],
            **(CODEBOOK_CODEC if has_codebook else codec),
        ),
    )
    base.replace_denoiser(
        config,
        presets.compact_denoiser(
            hidden=size["hidden"],
            num_blocks=size["blocks"],
            refined=size["refined"],
            num_refine_blocks=size["refine_blocks"],
            num_texture_blocks=4 if chosen["objective"] == "texture" else 0,
        ),
    )
    base.replace_objective(config, _objective(chosen["objective"], None if has_codebook else rate_weights))
    base.apply(
        config,
        {
            "data.image_size": 128,
            "data.crop": "random",
            "data.num_threads": 1,
            "batch_size": 8,
            "total_steps": 20_000,
            "compute.dtype": "float32",
            # A loop over so few blocks costs a seventh of a step on a CPU, and compiles no faster.
            "compute.unroll": True,
            "optimizer.learning_rate": 1.5e-3,
            "optimizer.warmup_steps": 100,
            "optimizer.schedule": "cosine",
            "optimizer.relative_clip": 2.0,
            "ema.decay": 0.999,
            "ema.warmup": True,
            "log.every_steps": 100,
            "checkpoint.every_steps": 1000,
            "validation.every_steps": 1000,
            "validation.num_images": 32,
        },
    )
    return config


def _objective(kind: str, rate_weights: tuple[float, ...] | None) -> dict[str, Any]:
    """Return the fields of the objective; without lambdas those for a codebook."""
    if kind == "texture":
        # The codec stays, and so do its code vectors.
        idle = presets.factorized_training(rate_weights=rate_weights) if rate_weights else presets.codebook_training()
        return presets.pretrain_objective(
            null_condition_probability=0.0,
            # Texture of this size is as strong as the noise at t = 0.9.
            time_shift=0.25,
            reconstruction_weight=0.0,
            bottleneck=idle,
            freeze=ALL_BUT_TEXTURE,
        )
    bottleneck = presets.codebook_training(revive_codes_every=10, rate_weight=CODEBOOK_RATE_WEIGHT)
    if rate_weights:
        bottleneck = presets.factorized_training(rate_weights=rate_weights, level_balance=0.5)
    return presets.one_step_objective(
        lora_rank=0,
        reconstruction=presets.reconstruction_losses(
            l1_weight=0.0,
            lpips_vgg_weight=0.0,
            lpips_alex_weight=0.0,
            feature_alignment_weight=0.0,
            squared_error_weight=1.0,
        ),
        bottleneck=bottleneck,
    )
