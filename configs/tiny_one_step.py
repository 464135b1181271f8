r"""The one-step codec in a few minutes on a laptop CPU, from the models of configs/tiny.py: stage "1", "2", or "all".

    python -m cod_jax.train --config configs/tiny.py --workdir runs/tiny --config.data.source=PHOTOS
    python -m cod_jax.train --config configs/tiny_one_step.py:all --workdir runs/tiny_one_step \
        --config.data.source=PHOTOS --config.init_from=runs/tiny --config.objective.teacher=runs/tiny

For trying out data, settings and machines; no picture it makes is good. The teacher may be any model that works on
pixels: here it is what the student starts from, and the critic too.
"""

from ml_collections import config_dict

from configs import base, presets, tiny

STAGES = ("1", "2")
_CRITIC = presets.optimizer(learning_rate=5e-4, warmup_steps=10, gradient_clip=1.0)


def get_config(argument: str = "1") -> config_dict.ConfigDict:
    """A run of a few minutes on two CPU cores."""
    stage = presets.choose("stage", presets.options(argument, stage="1")["stage"], STAGES)
    config = tiny.get_config()
    if stage == "1":
        objective = presets.one_step_objective(reconstruction=presets.WITHOUT_WEIGHT_FILES, lora_rank=8, lora_alpha=8.0)
        steps, learning_rate = 300, 1e-3
    else:
        objective = presets.distill_objective(
            reconstruction=presets.WITHOUT_WEIGHT_FILES,
            guidance_scale=1.0,
            adversarial_weight=0.1,
            critic_optimizer=_CRITIC,
            discriminator={"kind": "patch", "widths": (32, 64, 128)},
        )
        steps, learning_rate = 500, 2e-4
    base.replace_objective(config, objective)
    base.apply(config, {"total_steps": steps, "optimizer.learning_rate": learning_rate})
    return config
