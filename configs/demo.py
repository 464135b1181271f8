"""The run of `make demo`: a tiny codec and a few photographs, a few minutes on two CPU cores.

python -m cod_jax.train --config configs/demo.py --workdir runs/demo --config.data.source=PHOTOS
"""

from ml_collections import config_dict

from configs import base, tiny


def get_config() -> config_dict.ConfigDict:
    """Everything is trained for decoding in one step, which is what the demo shows."""
    config = tiny.get_config()
    base.apply(
        config,
        {
            "data.validation_modulus": 0,
            "data.image_size": 96,
            "total_steps": 400,
            "objective.one_step_weight": 1.0,
            "objective.one_step_noise_level": 0.0,
            "log.every_steps": 10,
            "checkpoint.every_steps": 200,
        },
    )
    return config
