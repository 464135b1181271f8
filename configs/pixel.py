r"""Pixel-space CoD pre-training, the three published stages: "1", "2", "3", or "all".

    cod train --config configs/pixel.py:all --workdir runs/pixel --config.data.source=PHOTOS \
        --config.frozen.weights=WEIGHTS
    cod export --workdir runs/pixel/stage3 --output models/pixel

Options follow the stage. `:all,rate=0.00024` gives 64 bits per 512-pixel picture instead of 0.0039 bits per pixel.
`:all,size=114m` gives a smaller denoiser; the sizes are 49m, 114m, 330m and xl.

Two loss terms compare with features of DINOv2: WEIGHTS is the folder of its published file. Without it, add
`--config.objective.feature_alignment_weight=0 --config.objective.condition_alignment_weight=0`.

`:all,data=published` takes the published mixture of ImageNet-21K, OpenImages and SA-1B, which `cod prepare --dataset`
has made at 256 and 512 pixels in $TFDS_DATA_DIR.

Hardware: the authors report about 20 days on one A100 for XL. With this file no run has been trained to the end yet. On
several devices, set `mesh`. If a batch does not fit in memory, set `accumulation_steps` or `compute.remat`.
"""

from ml_collections import config_dict

from configs import presets

OPTIONS = presets.COD_OPTIONS
STAGES = OPTIONS["stage"]


def get_config(argument: str = "1") -> config_dict.ConfigDict:
    """Return the settings of one stage of pixel CoD."""
    guidance = {"0.0039": 3.0, "0.00024": 3.0}
    return presets.cod(argument, presets.PIXEL_DENOISERS, presets.pixel_denoiser, guidance)
