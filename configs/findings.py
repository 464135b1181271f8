r"""First two findings of the CoD-Lite paper (arXiv 2604.12525) at small scale, as runs that differ in one setting.

    for pretraining in compression generation; do
        cod train --config configs/findings.py:all,pretraining=$pretraining \
            --workdir runs/findings/$pretraining --config.data.source=PHOTOS
        cod export --workdir runs/findings/$pretraining/stage2 --output models/findings_$pretraining
        cod evaluate --model models/findings_$pretraining --images KODAK --output results/$pretraining
    done

Stage 1 pre-trains at 256 pixels. Stage 2 turns the model into a one-step codec.

- `pretraining=compression` gives the denoiser the condition of the picture. `generation` gives it that of an empty
  picture, so the codec learns nothing about pictures before stage 2, which always trains all of it. The runs differ
  only in `objective.null_condition_probability` of stage 1.
- `denoiser=convolution` is that of CoD-Lite. `transformer` is that of pixel CoD with the same width and about as many
  parameters (59.7 and 60.7 million). The runs differ only in `model.denoiser`.

`losses=published` uses LPIPS and DINOv2 in stage 2 and needs their weight files. `lpips` needs those of LPIPS only, and
`plain`, the default, needs none.
"""

from ml_collections import config_dict

from configs import base, presets

OPTIONS = {
    "stage": ("1", "2"),
    "pretraining": ("compression", "generation"),
    "denoiser": ("convolution", "transformer"),
    "losses": ("plain", "lpips", "published"),
}
STAGES = OPTIONS["stage"]
_PRETRAINING = {"compression": 0.1, "generation": 1.0}
_DENOISERS = {
    "convolution": None,
    "transformer": presets.pixel_denoiser(hidden=384, num_heads=6, hidden_pixel=32, num_blocks=19, prediction="image"),
}


def get_config(argument: str = "1") -> config_dict.ConfigDict:
    """Return the settings of one stage of one of the runs."""
    chosen = presets.options(argument, OPTIONS)
    stage = presets.choose("stage", chosen["stage"], STAGES)
    null_condition_probability = presets.choose("pretraining", chosen["pretraining"], _PRETRAINING)
    denoiser = presets.choose("denoiser", chosen["denoiser"], _DENOISERS)
    losses = presets.choose("losses", chosen["losses"], presets.ONE_STEP_LOSSES)
    config = base.get_config()
    if denoiser is not None:
        base.replace_denoiser(config, denoiser)
    if stage == "1":
        base.apply(config, {"objective.null_condition_probability": null_condition_probability})
    else:
        base.replace_objective(config, presets.one_step_objective(reconstruction=losses))
    base.apply(
        config,
        {
            "stage": int(stage),
            "data.crop": "center",
            "data.flip": False,
            "batch_size": 32,
            "total_steps": 100_000 if stage == "1" else 50_000,
        },
    )
    return config
