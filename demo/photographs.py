"""Photographs that come with scikit-image, so that nothing is downloaded."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from cod_jax import images
from cod_jax.errors import UserError

# Only photographs, not the charts and drawings that scikit-image also has.
TRAINING_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
HELD_OUT_PHOTOGRAPH = "coffee.png"
# The crops of the demo's config then show things about as large as whole photographs do. A codec trained on shrunk
# crops fails on the photographs themselves.
SHORT_EDGE = 168


def write_photographs(output: Path) -> tuple[Path, Path]:
    """Write scikit-image's photographs as PNG with a short edge of SHORT_EDGE pixels.

    Args:
        output: Folder; the photographs go to `photos/train` and `photos/heldout` in it.

    Returns:
        The folders of the training photographs and of the held-out one.

    Raises:
        UserError: Scikit-image or one of its pictures is missing.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError("the demo takes its photographs from scikit-image; install it: pip install -e '.[demo]'")
    source = Path(spec.origin).parent / "data"
    folders = output / "photos" / "train", output / "photos" / "heldout"
    for folder, names in zip(folders, (TRAINING_PHOTOGRAPHS, (HELD_OUT_PHOTOGRAPH,)), strict=True):
        for name in names:
            if not (source / name).is_file():
                raise UserError(f"scikit-image has no {name} any more; install the version named in pyproject.toml")
            picture = Image.fromarray(images.to_uint8_rgb(source / name))
            scale = SHORT_EDGE / min(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            small = picture.resize(size, Image.Resampling.LANCZOS)
            images.save_png(folder / f"{Path(name).stem}.png", np.asarray(small))
    return folders
