"""Settings without effect are refused."""

import pytest

from cod_jax.errors import UserError
from cod_jax.training.config_files import read_settings, read_stages
from cod_jax.training.field_names import check_fields
from cod_jax.training.idle_fields import RULES
from configs import base, compact, presets, tiny_one_step
from tests.conftest import REPOSITORY
from tests.training_fixtures import CONFIG

COMPACT = str(REPOSITORY / "configs" / "compact.py")
ONE_STEP = str(REPOSITORY / "configs" / "tiny_one_step.py")


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        (CONFIG, ["data.crop=center", "data.min_scale=0.3"], "data.min_scale has no effect with data.crop=center"),
        (COMPACT, ["data.min_scale=0.3"], "data.min_scale has no effect with data.crop=random"),
        (COMPACT, ["objective.lora_alpha=4"], "objective.lora_alpha has no effect while objective.lora_rank is 0"),
        (
            f"{ONE_STEP}:1",
            ["objective.lora_layers=('denoiser/*',)", "objective.adapt_pixel_condition=True"],
            "objective.adapt_pixel_condition has no effect with objective.lora_layers, which names all layers to adapt",
        ),
        (f"{COMPACT}:levels=1", ["objective.bottleneck.level_balance=1"], "no effect with a single quality level"),
        (CONFIG, ["data.validation_source=x", "data.validation_modulus=5"], "with data.validation_source"),
        (CONFIG, ["objective.alignment_block=2"], "while objective.feature_alignment_weight is 0"),
        (CONFIG, ["objective.one_step_noise_level=0"], "one_step_weight and objective.one_step_fraction are 0"),
        (CONFIG, ["objective.bottleneck.revive_codes_every=0", "objective.bottleneck.revive_usage=1"], "every is 0"),
        (f"{ONE_STEP}:1", ["validation.num_sampling_steps=3"], "on objectives of one-step codecs"),
        (f"{ONE_STEP}:1", ["objective.reconstruction.alignment_block=3"], "feature_alignment_weight is 0"),
        (f"{ONE_STEP}:2", ["objective.bottleneck.commitment_weight=1"], "in a distillation, which does not train"),
    ],
)
def test_a_setting_without_effect_is_refused(config, changes, reason):
    with pytest.raises(UserError, match=reason):
        read_settings(str(config), [f"--config.{change}" for change in changes])


@pytest.mark.parametrize(
    "changes",
    [
        ["data.min_scale=0.3"],
        ["data.validation_modulus=5"],
        ["objective.feature_alignment_weight=0.5", "objective.alignment_block=2"],
        ["objective.one_step_fraction=0.1", "objective.one_step_noise_level=0"],
        ["validation.every_steps=0"],
        ["validation.num_images=0", "validation.grid_images=5", "validation.every_steps=5"],
    ],
)
def test_a_setting_with_effect_is_taken(changes):
    read_settings(str(CONFIG), [f"--config.{change}" for change in changes])


def test_a_setting_needs_an_effect_in_one_stage_only():
    name, value = "--config.objective.bottleneck.commitment_weight", 0.5
    stages = read_stages(f"{ONE_STEP}:all", [f"{name}={value}"])
    assert [stage["objective"]["bottleneck"]["commitment_weight"] for stage in stages.values()] == [value, value]


def test_the_fields_of_all_rules_exist():
    stages = [base.get_config().to_dict(), compact.get_config().to_dict()]
    stages += [tiny_one_step.get_config(stage).to_dict() for stage in ("1", "2")]
    assert presets.one_step_objective()["kind"] == "one_step"
    check_fields(stages, [f"--config.{field}=1" for rule in RULES for field in rule.fields])
