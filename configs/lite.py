"""CoD-Lite pre-training, the published stages at 0.0039 bits per pixel: "256", "512" and "unified".

    python -m cod_jax.train --config configs/lite.py:256 --workdir runs/256 --config.data.source=PHOTOS
    python -m cod_jax.export --workdir runs/256 --output models/256 --weights raw
    python -m cod_jax.train --config configs/lite.py:512 --workdir runs/512 --config.data.source=PHOTOS \
        --config.init_from=models/256
    python -m cod_jax.export --workdir runs/512 --output models/512 --weights ema
    python -m cod_jax.train --config configs/lite.py:unified --workdir runs/unified --config.data.source=PHOTOS \
        --config.init_from=models/512

Hardware: the authors report 284 hours of one A100 for the three stages. The files read here have not been trained to
the end yet. On several devices set `mesh`; where a batch does not fit in memory set `accumulation_steps`.

The other published rates come from fine-tuning this model for one-step decoding with another pitch and codebook.
"""

from ml_collections import config_dict

from configs import base, presets


def get_config(stage: str = "256") -> config_dict.ConfigDict:
    """One stage of CoD-Lite pre-training."""
    if stage not in presets.LITE_STAGES:
        raise ValueError(f"configs/lite.py has no preset {stage!r}; it has {', '.join(presets.LITE_STAGES)}")
    config = base.get_config()
    base.apply(config, presets.LITE_STAGES[stage])
    return config
