"""Photographs that come with scikit-image, so that nothing is downloaded."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cod_jax import images
from cod_jax.errors import UserError

# Only photographs, not the charts and drawings that scikit-image also has.
TRAINING_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
HELD_OUT_PHOTOGRAPH = "coffee.png"
# The largest that none of them has to be enlarged for. One size for all, because each is compiled for.
WIDTH, HEIGHT = 432, 288
# Faces are in the upper part.
CENTRE = (0.5, 0.15)


def write_photographs(output: Path) -> tuple[Path, Path]:
    """Write scikit-image's photographs as PNG of WIDTH x HEIGHT pixels, scaled down and cropped.

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
            small = ImageOps.fit(picture, (WIDTH, HEIGHT), Image.Resampling.LANCZOS, centering=CENTRE)
            images.save_png(folder / f"{Path(name).stem}.png", np.asarray(small))
    return folders
