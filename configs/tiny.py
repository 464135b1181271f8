"""Tiny codecs that a laptop CPU can train: 64-pixel crops, 4 bits per 16 x 16 pixels.

    cod train --config configs/tiny.py --workdir runs/tiny --config.data.source=PHOTOS

They serve to try out data, settings and machines; their pictures are poor. `:kind=pixel` and `:kind=latent` are small
relatives of pixel and latent CoD. The latents are a fixed projection of the pixels instead of those of the SD-VAE.
`:all` goes through three stages like those of the published models: 64 pixels, 128 pixels, and 128 pixels with one-step
training.

`:bottleneck=factorized` rounds latents and learns their densities instead of choosing code vectors. Lambda then decides
the rate, and a model can have several quality levels, for example with
`--config.model.codec.bottleneck.num_levels=2 --config.objective.bottleneck.rate_weights="(1.0, 0.5)"`.
"""

from ml_collections import config_dict

from configs import base, presets

# Without a stage the settings are those of one run by itself.
OPTIONS = {
    "stage": ("", "1", "2", "3"),
    "kind": ("lite", "pixel", "latent"),
    "bottleneck": ("codebook", "factorized"),
}
STAGES = OPTIONS["stage"][1:]

_DENOISERS = {
    "lite": None,
    "pixel": presets.pixel_denoiser(hidden=64, num_heads=4, hidden_pixel=16, num_blocks=4, num_pixel_blocks=2),
    "latent": presets.latent_denoiser(
        hidden=64, num_heads=4, num_blocks=4, num_decoder_blocks=2, autoencoder="space_to_depth"
    ),
}
_STAGES = {
    "": {},
    "1": {"model.codec.pitch": 16, "model.codec.input_stride": 1, "total_steps": 400},
    "2": {
        "stage": 2,
        "model.codec.pitch": 32,
        "data.image_size": 128,
        "batch_size": 8,
        "total_steps": 100,
        "init_weights": "raw",
        "init_fresh": presets.DOUBLING,
    },
    "3": {
        "stage": 3,
        "model.codec.pitch": 32,
        "data.image_size": 128,
        "batch_size": 8,
        "total_steps": 50,
        "objective.one_step_weight": 1.0,
    },
}


def get_config(argument: str = "") -> config_dict.ConfigDict:
    """Return the settings of a run of a few minutes on two CPU cores."""
    chosen = presets.options(argument, OPTIONS)
    stage = presets.choose("stage", chosen["stage"], _STAGES)
    denoiser = presets.choose("kind", chosen["kind"], _DENOISERS)
    config = base.get_config()
    base.apply(config, presets.TINY_CODEC)
    if denoiser is None:
        base.apply(config, presets.TINY_DENOISER)
    else:
        base.replace_denoiser(config, denoiser)
    base.apply(
        config,
        presets.SHORT_RUN,
        {
            "data.image_size": 64,
            "batch_size": 16,
            "total_steps": 1000,
            "log.every_steps": 20,
            "checkpoint.every_steps": 200,
            "validation.every_steps": 200,
            "validation.num_images": 16,
        },
        stage,
    )
    presets.choose_bottleneck(config, chosen["bottleneck"])
    return config
