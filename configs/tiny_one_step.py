r"""One-step codec in a quarter of an hour on a laptop CPU: 32-pixel crops, 6 bits per 4 x 4 pixels.

    cod train --config configs/tiny_one_step.py:pretrain --workdir runs/tiny_pretrained \
        --config.data.source=PHOTOS
    cod train --config configs/tiny_one_step.py:all --workdir runs/tiny_one_step \
        --config.data.source=PHOTOS --config.init_from=runs/tiny_pretrained \
        --config.objective.teacher=runs/tiny_pretrained

It serves to try out data, settings and machines; its pictures are poor. The pre-trained model is the teacher, and the
student and the critic start from it too. Stage 2 gives the discriminator more weight than the published runs, and the
teacher less, because this teacher is not better than the student. With these weights, after a few hundred updates the
pictures of so small a student look more real than those of its first stage.
"""

from ml_collections import config_dict

from configs import base, presets, tiny

OPTIONS = {"stage": ("1", "2", "pretrain"), "bottleneck": ("codebook", "factorized")}
STAGES = OPTIONS["stage"][:2]
_LOSSES = presets.WITHOUT_WEIGHT_FILES


def get_config(argument: str = "1") -> config_dict.ConfigDict:
    """Return the settings of the pre-training, or of a stage of the one-step codec."""
    chosen = presets.options(argument, OPTIONS)
    stage = presets.choose("stage", chosen["stage"], OPTIONS["stage"])
    config = tiny.get_config()
    steps, learning_rate = 500, 1e-3
    if stage == "1":
        base.replace_objective(config, presets.one_step_objective(reconstruction=_LOSSES, lora_rank=8, lora_alpha=8.0))
        steps = 300
    elif stage == "2":
        base.replace_objective(
            config,
            presets.distill_objective(
                reconstruction=_LOSSES,
                distribution_matching_weight=0.1,
                adversarial_weight=0.05,
                guidance_scale=1.0,
                critic_updates=1,
                critic_optimizer=presets.optimizer(learning_rate=3e-4, warmup_steps=10, gradient_clip=1.0, b1=0.5),
                discriminator={"kind": "patch", "widths": (32, 64, 128)},
            ),
        )
        steps, learning_rate = 1000, 5e-4
    base.apply(
        config,
        {
            "stage": 1 if stage == "pretrain" else 1 + int(stage),  # they follow the pre-training
            "model.codec.pitch": 4,
            "model.codec.bottleneck.bits": 6,
            "data.image_size": 32,
            "total_steps": steps,
            "optimizer.learning_rate": learning_rate,
        },
    )
    presets.choose_bottleneck(config, chosen["bottleneck"])
    return config
