"""Fields that do not exist, and those that may be meant."""

import pytest

from cod_jax.errors import UserError
from cod_jax.training.config import flatten
from cod_jax.training.field_names import check_fields, field_names, suggestions
from configs import base, tiny_one_step

FIELDS = list(flatten(base.get_config().to_dict()))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("optimizer.lr", ["optimizer.learning_rate"]),
        ("lr", ["objective.lora_rank", "optimizer.learning_rate"]),
        ("learning_rate", ["optimizer.learning_rate"]),
        ("optimizer.learning_rat", ["optimizer.learning_rate"]),
        ("optimizer.wd", ["optimizer.weight_decay"]),
        ("optimizer.warmup", ["optimizer.warmup_steps"]),
        ("optimizer.clip", ["optimizer.gradient_clip", "optimizer.relative_clip"]),
        ("bs", ["batch_size"]),
        ("source", ["data.source"]),
        ("data.size", ["data.image_size"]),
        ("ema_decay", ["ema.decay"]),
        ("checkpoint.every", ["checkpoint.every_steps"]),
        ("model.codec.bits", ["model.codec.bottleneck.bits"]),
        ("dtype", ["compute.dtype", "frozen.dtype"]),
        ("optimizer.zzz", []),
        ("seed.x", []),
    ],
)
def test_a_wrong_name_stands_for_fields(wrong, meant):
    assert suggestions(wrong, FIELDS) == meant


def test_fields_of_any_stage_may_be_meant():
    stages = [tiny_one_step.get_config(stage).to_dict() for stage in ("1", "2")]
    with pytest.raises(UserError, match=r"optimizer\.learning_rate or --config\.objective\.critic_optimizer\.l"):
        check_fields(stages, ["--config.lr=1"])
    check_fields(stages, ["--config.objective.lora_rank=1", "--config.objective.teacher", "t"])


def test_groups_are_names_too():
    assert {"model", "model.codec", "model.codec.bottleneck"} <= field_names(base.get_config().to_dict())
