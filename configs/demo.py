"""Run of `make demo`: a tiny codec and a few photographs, in a few minutes on two CPU cores.

cod train --config configs/demo.py --workdir runs/demo --config.data.source=PHOTOS
"""

from ml_collections import config_dict

from configs import base, tiny


def get_config() -> config_dict.ConfigDict:
    """Return the settings of a run for one-step decoding, which the demo shows."""
    config = tiny.get_config()
    base.apply(
        config,
        {
            "data.validation_modulus": 0,
            "data.image_size": 128,
            "data.min_scale": 0.4,
            "model.codec.bottleneck.bits": 8,
            "model.denoiser.hidden_pixel": 8,
            "model.denoiser.num_blocks": 3,
            "batch_size": 4,
            "total_steps": 700,
            # The flow loss is about ten times as large as the other terms, and here decoding in one step counts.
            "objective.one_step_weight": 10.0,
            "objective.one_step_noise_level": 0.0,
            "objective.bottleneck.commitment_weight": 2.5,
            "optimizer.learning_rate": 2e-3,
            "optimizer.b2": 0.99,
            "validation.num_images": 0,
            "log.every_steps": 10,
            "checkpoint.every_steps": 350,
        },
    )
    return config
