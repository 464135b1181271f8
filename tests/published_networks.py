"""Small published networks: their arguments, weights and files."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cod_jax.interop.cod_networks.description import reference_config
from cod_jax.interop.cod_networks.reference import network_entries
from cod_jax.models import ConditionCodecConfig, build_model

DCONV = "cod.models.pixel_cnn.DConv"
PIXNERDIT = "cod.models.pixel_dit.PixNerDiT"
DDT = "cod.models.latent_dit.DDT"
ONE_STEP = "finetuned_one_step_codec.models.models.OneStepCoD"
# What a file of the published trainer holds besides the network.
AROUND = {
    "seed_everything": True,
    "trainer": {"precision": "bf16-mixed", "callbacks": [{"class_path": "cod.callbacks.SaveImagesHook"}]},
    "data": {"train_dataset": {"class_path": "cod.data.ImageDataset", "init_args": {"resolution": 512}}},
}
BESIDE = {
    "latent": False,
    "vae": {"class_path": "cod.models.autoencoder.PixelAE", "init_args": {"scale": 1.0}},
    "diffusion_trainer": {"class_path": "cod.diffusion.REPATrainer", "init_args": {"encoder": {"class_path": "D"}}},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-5}},
}
SMALL = {"hidden_size": 32, "num_blocks": 4, "num_cond_blocks": 2, "up2x": True}
LITE_ARGUMENTS = {**SMALL, "hidden_size_x": 4, "bottleneck_dim": 8, "light": True}
PIXEL_ARGUMENTS = {**SMALL, "hidden_size_x": 4, "num_groups": 2, "in_channels": 3, "patch_size": 16}
LATENT_ARGUMENTS = {**SMALL, "num_groups": 2}


def write_yaml(path: Path, class_path: str, init_args: dict[str, Any], name: str = "denoiser") -> Path:
    """Write a file such as the published trainer takes."""
    network = {"class_path": class_path, "init_args": init_args}
    path.write_text(yaml.safe_dump({**AROUND, "model": {**BESIDE, name: network}}))
    return path


def prefixed(prefix: str, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: value for name, value in weights.items()}


def make_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the condition encoder of every published class narrow: as it is it has 28 million parameters."""
    codec = functools.partial(ConditionCodecConfig, encoder_width=32, latent_channels=8)
    monkeypatch.setattr("cod_jax.interop.cod_networks.condition_codec.ConditionCodecConfig", codec)


@functools.cache
def weights_of(class_name: str, **init_args: Any) -> dict[str, np.ndarray]:
    """Return published arrays of a network, of the narrow kind."""
    config = reference_config(class_name, init_args)
    entries = network_entries(build_model(config), config)
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(entry.shape, np.float32) for name, entry in entries.items()}
