"""The smallest run of the trainer: a few thousand parameters on a few 32-pixel crops."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from configs import base, compact, tiny

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "configs" / "tiny.py"

# By dotted name; the denoiser is as small as its parts allow, because compiling is most of the time.
SMALL = {
    "model.codec.encoder_width": 4,
    "model.codec.latent_channels": 4,
    "model.codec.bottleneck.bits": 3,
    "model.codec.num_groups": 2,
    "model.denoiser.hidden": 8,
    "model.denoiser.hidden_pixel": 4,
    "model.denoiser.num_blocks": 1,
    "model.denoiser.num_pixel_blocks": 1,
    "model.denoiser.bottleneck_width": 4,
    "model.denoiser.mlp_ratio": 2.0,
    "data.image_size": 32,
    "data.validation_modulus": 5,
    "data.num_threads": 1,
    "batch_size": 8,
    "optimizer.warmup_steps": 2,
    "optimizer.schedule": "constant",  # a program that does not depend on the number of steps
    "log.every_steps": 1,
    "validation.num_images": 3,
    "validation.num_sampling_steps": 2,
    "validation.grid_images": 2,
}
VALIDATION = ("validation.every_steps", "validation.num_sampling_steps", "validation.grid_images")


def write_photographs(folder: Path, count: int = 16) -> Path:
    """Write smooth random pictures of 40 x 48 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        coarse = generator.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"photo_{index:02d}.png")
    return folder


def small_arguments(workdir: Path, photographs: Path | str, **changes: object) -> list[str]:
    """Return the trainer's arguments for the smallest run; in keywords "__" stands for the dot."""
    fields = {
        **SMALL,
        "data.source": photographs,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    if fields["validation.num_images"] == 0:  # then the trainer refuses settings of the validation
        fields = {name: value for name, value in fields.items() if name not in VALIDATION}
    settings = [f"--config.{name}={value}" for name, value in fields.items()]
    return [f"--config={CONFIG}", f"--workdir={workdir}", *settings]


def small_settings() -> dict:
    """Return the settings of the smallest run as a nested dict, without images."""
    config = tiny.get_config()
    base.apply(config, SMALL)
    return config.to_dict()


def small_compact_settings() -> dict:
    """Return the settings of a run of a compact model of some ten thousand parameters, without images."""
    config = compact.get_config()
    sizes = {"hidden": 32, "mlp_ratio": 1.0}
    codec = {**sizes, "num_encoder_blocks": 1, "num_decoder_blocks": 1, "latent_channels": 24}
    denoiser = {**sizes, "num_blocks": 1, "refined": 8, "num_refine_blocks": 1}
    fields = {f"model.codec.{name}": value for name, value in codec.items()}
    fields |= {f"model.denoiser.{name}": value for name, value in denoiser.items()}
    kept = {name: value for name, value in SMALL.items() if not name.startswith("model.")}
    sampling = {"validation.num_sampling_steps"}
    base.apply(config, {**fields, **{name: value for name, value in kept.items() if name not in sampling}})
    return config.to_dict()


def one_device() -> dict[str, str]:
    """Return the environment of a command that sees one CPU device and compiles without optimisations."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
    changes = {"XLA_FLAGS": " ".join(flags), "PYTHONUNBUFFERED": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return {**os.environ, **changes}


def run_trainer(arguments: Sequence[str], **options) -> subprocess.CompletedProcess[str]:
    """Run the trainer as a user does, on one device."""
    command = [sys.executable, "-m", "cod_jax.train", *arguments]
    options = {"cwd": REPOSITORY, "env": one_device(), "capture_output": True, "text": True, "timeout": 300} | options
    return subprocess.run(command, check=False, **options)
