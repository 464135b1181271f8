r"""CoD-Lite pre-training at 0.0039 bits per pixel, the three published stages: "1", "2", "3", or "all".

    cod train --config configs/lite.py:all --workdir runs/lite --config.data.source=PHOTOS \
        --config.frozen.weights=WEIGHTS
    cod export --workdir runs/lite/stage3 --output models/lite

Two loss terms compare with features of DINOv2: WEIGHTS is the folder of its published file. Without it, add
`--config.objective.feature_alignment_weight=0 --config.objective.condition_alignment_weight=0`.

Hardware: the authors report 284 hours on one A100 for the three stages. With this file no run has been trained to the
end yet. On several devices, set `mesh`. If a batch does not fit in memory, set `accumulation_steps`.

`:all,data=published` takes the published mixture of ImageNet-21K, OpenImages and SA-1B, which `cod prepare --dataset`
has made at 256 and 512 pixels in $TFDS_DATA_DIR.

The other published rates come from this model, fine-tuned for one-step decoding with another pitch and codebook.
"""

from ml_collections import config_dict

from configs import base, presets

OPTIONS = {"stage": ("1", "2", "3"), "bottleneck": ("codebook", "factorized"), "data": ("own", "published")}
STAGES = OPTIONS["stage"]


def get_config(argument: str = "1") -> config_dict.ConfigDict:
    """Return the settings of one stage of CoD-Lite pre-training; the networks are those of configs/base.py."""
    chosen = presets.options(argument, OPTIONS)
    stage = presets.choose("stage", chosen["stage"], STAGES)
    config = base.get_config()
    base.apply(config, presets.published_stage(stage, presets.PITCHES["0.0039"], presets.LITE_STEPS, chosen["data"]))
    presets.choose_bottleneck(config, chosen["bottleneck"])
    return config
