"""Defaults have one value: those of the configs, with their units, and those of the descriptions agree."""

import dataclasses

import pytest

from cod_jax.models import DDTConfig, FactorizedConfig, PixNerDiTConfig
from cod_jax.models.bottlenecks import CodebookTraining, FactorizedTraining
from cod_jax.models.fields import from_mapping
from cod_jax.training.config import TrainConfig
from cod_jax.training.objectives.distill import DistillConfig
from cod_jax.training.objectives.one_step import OneStepConfig
from cod_jax.training.objectives.reconstruction import ReconstructionConfig
from configs import base, presets

BASE = TrainConfig.from_dict(base.get_config().to_dict())
# Code that does not say how to compute is exact; recipes are for accelerators.
DIFFERENT_ON_PURPOSE = {("compute", "dtype")}


@pytest.mark.parametrize("part", ["model", "objective", "optimizer", "ema", "data", "compute", "mesh", "limits"])
def test_base_has_the_defaults_of_the_descriptions(part):
    given = getattr(BASE, part)
    default = type(given)()
    for field in dataclasses.fields(given):
        if (part, field.name) not in DIFFERENT_ON_PURPOSE:
            assert getattr(given, field.name) == getattr(default, field.name), field.name


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (presets.pixel_denoiser, PixNerDiTConfig),
        (presets.latent_denoiser, DDTConfig),
        (presets.factorized_bottleneck, FactorizedConfig),
        (presets.codebook_training, CodebookTraining),
        (presets.factorized_training, FactorizedTraining),
        (presets.one_step_objective, OneStepConfig),
        (presets.distill_objective, DistillConfig),
        (presets.reconstruction_losses, ReconstructionConfig),
    ],
)
def test_presets_list_all_fields_with_their_defaults(fields, kind):
    values = fields()
    assert set(values) == {field.name for field in dataclasses.fields(kind)}
    assert from_mapping(kind, values, "preset") == kind()
