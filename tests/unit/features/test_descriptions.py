"""Descriptions of frozen networks, and the axes of their parameters."""

import dataclasses

import pytest

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.features.sd_vae import SDVAEConfig
from cod_jax.models.functional import flatten_params
from configs import base
from tests.unit.features.networks import dinov2, dists, lpips, vae


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (DINOv2Config(), {"num_heads": 5}, "expected width to be a multiple of num_heads 5, got 768"),
        (DINOv2Config(), {"num_blocks": 0}, "expected num_blocks to be at least 1, got 0"),
        (SDVAEConfig(), {"widths": ()}, "at least one level"),
        (SDVAEConfig(), {"widths": (128, 100)}, "multiples of num_groups 32"),
        (SDVAEConfig(), {"encoder_blocks": 0}, "expected encoder_blocks to be at least 1"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **change)


@pytest.mark.parametrize("functional", [dinov2(), vae(), lpips(), dists()], ids=["dinov2", "vae", "lpips", "dists"])
def test_every_parameter_names_its_axes_and_the_default_rules_know_them(functional):
    rules = base.get_config().to_dict()["sharding"]["rules"]
    axes = flatten_params(functional.axes)
    for name, leaf in flatten_params(functional.shapes).items():
        assert len(axes[name]) == leaf.ndim, name
        assert set(axes[name]) <= set(rules), name
