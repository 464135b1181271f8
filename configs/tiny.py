"""A tiny codec that a laptop CPU can train: 64-pixel crops, 4 bits per 16 x 16 pixels.

    python -m cod_jax.train --config configs/tiny.py --workdir runs/tiny --config.data.source=PHOTOS

For trying out data, settings and machines; no picture it makes is good.
"""

from ml_collections import config_dict

from configs import base, presets


def get_config() -> config_dict.ConfigDict:
    """A run of a few minutes on two CPU cores."""
    config = base.get_config()
    base.apply(
        config,
        presets.TINY_MODEL,
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
    )
    return config
