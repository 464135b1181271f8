r"""One-step codec, the product of CoD-Lite, at eight rates: stage "1", stage "2", or "all".

    cod train --config configs/one_step.py:all,rate=0.0312 --workdir runs/one_step_0.0312 \
        --config.init_from=runs/lite/stage3 --config.objective.teacher=models/pixel \
        --config.data.source=PHOTOS --config.frozen.weights=WEIGHTS
    cod export --workdir runs/one_step_0.0312/stage2 --output models/one_step_0.0312

Stage 1 adapts a pre-trained CoD-Lite to another rate and to one step. Stage 2 makes its pictures look like those of the
teacher, a pixel CoD. One pre-training and one teacher serve all rates: 0.0039, 0.0078, 0.0156, 0.0312, 0.0625, 0.125,
0.25 and 0.5 bits per pixel. `denoiser=49m`, 114m, 330m or xl trains one-step CoD of that size instead of CoD-Lite.

WEIGHTS is the folder of the published files of DINOv2 and LPIPS. `losses=lpips` does without DINOv2: there is no
alignment, and the discriminator works on pixels. `losses=plain` needs no files: a structural distance also takes the
place of LPIPS.

`bottleneck=factorized` continues a model that was pre-trained with this option. Its rate follows from lambda,
`objective.bottleneck.rate_weights`; the option `rate` then only chooses the pixels per position.

Attention runs in windows of 32 x 32 positions of a map, in training and in use. The published trainer attends globally
and cuts windows only in use; `--config.model.codec.attention=global` attends globally in both.

Stage 2 holds the teacher and trains two more networks. If they do not fit in memory, split them over devices
(`--config.mesh.fsdp=8`) or compute batches in parts (`--config.accumulation_steps=8`). `cod memory`
estimates how much memory a run needs.

Hardware: the authors report 244 hours on one A100 for one rate. With this file no run has been trained to the end yet.
"""

from ml_collections import config_dict

from configs import base, presets

OPTIONS = {
    "stage": ("1", "2"),
    "rate": ("0.0312", "0.0039", "0.0078", "0.0156", "0.0625", "0.125", "0.25", "0.5"),
    "denoiser": ("lite", "49m", "114m", "330m", "xl"),
    "losses": ("published", "lpips", "plain"),
    "bottleneck": ("codebook", "factorized"),
}
STAGES = OPTIONS["stage"]


def get_config(argument: str = "1") -> config_dict.ConfigDict:
    """Return the settings of one stage of the one-step codec."""
    chosen = presets.options(argument, OPTIONS)
    stage = presets.choose("stage", chosen["stage"], STAGES)
    pitch, bits = presets.choose("rate", chosen["rate"], presets.ONE_STEP_RATES)
    losses = presets.choose("losses", chosen["losses"], presets.ONE_STEP_LOSSES)
    discriminator = presets.DISCRIMINATORS[chosen["losses"]]
    size = presets.choose("denoiser", chosen["denoiser"], {"lite": None, **presets.PIXEL_DENOISERS})
    config = base.get_config()
    if size is not None:
        base.replace_denoiser(config, presets.pixel_denoiser(**size))
        base.apply(config, {"model.codec.decoder_depth": 3, "model.codec.attention": "global"})
    if size is not None or stage == "2":
        # A transformer takes part: pixel CoD, as the student or as the teacher and the critic.
        base.apply(config, {"compute.remat": "dots"})
    if stage == "1":
        base.replace_objective(config, presets.one_step_objective(reconstruction=losses))
        base.apply(config, {"batch_size": 16, "optimizer.learning_rate": 1e-4, "init_fresh": ("codec/*",)})
    else:
        base.replace_objective(config, presets.distill_objective(reconstruction=losses, discriminator=discriminator))
        base.apply(config, {"batch_size": 32, "optimizer.learning_rate": 1e-5, "optimizer.schedule": "tenth"})
    base.apply(
        config,
        {
            "stage": len(presets.STAGES) + int(stage),  # they follow those of pre-training
            "model.codec.pitch": pitch,
            "model.codec.input_stride": 2,
            "model.codec.bottleneck.bits": bits,
            "data.image_size": 512,
            "data.crop": "center",
            "data.flip": False,
            "total_steps": 200_000,
        },
    )
    presets.choose_bottleneck(config, chosen["bottleneck"])
    return config
