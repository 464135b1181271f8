"""Patch-FID: one number of all pictures at a rate, from features that are computed and kept picture by picture."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cod_jax.evaluation.fid import frechet_distance, patch_corners, patches
from cod_jax.evaluation.metric_table import Described, Picture
from cod_jax.evaluation.networks import inception_features

SIZES = (64, 256)
# Up to this many pixels in each picture, those of the Kodak pictures, the smaller size is taken.
MAX_PIXELS = 512 * 768
MIN_PATCHES = 2
Features = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class PatchFid(Described):
    """The Fréchet distance of features of the patches of two sets of pictures; the subclasses have sizes of patches.

    Attributes:
        size: Side of the patches in pixels.
        load: Function of the folder that returns the parameters, such as `interop.load_inception`.
        folder: Folder of the weight file.
        weights_sha256: Of this file.
    """

    name: ClassVar[str] = "patch_fid"
    title: ClassVar[str] = "patch-FID"
    higher_is_better: ClassVar[bool | None] = False
    size: ClassVar[int]

    load: Callable[[str], Any]
    folder: str
    weights_sha256: str | None = None

    def of_size(self, size: int) -> "PatchFid":
        """Return it with patches of 64 or 256 pixels."""
        return {kind.size: kind for kind in (Fid64, Fid256)}[size](self.load, self.folder, self.weights_sha256)

    def features(self, picture: Picture) -> Features:
        """Return the features [N, D] of the patches of a picture [H, W, 3]; of a picture without patches [0, 0]."""
        cut = patches(picture, self.size)
        return inception_features(self.load, self.folder)(cut) if len(cut) else np.empty((0, 0), np.float32)


def _protocol(size: int) -> str:
    return (
        "Fréchet distance (Heusel et al. 2017) of all decoded pictures of a rate and their originals, one number of "
        f"the set. It is that of patches of {size}x{size} pixels: side by side from the top left, and once more moved "
        f"by half a patch both ways where both sides have one and a half. Patches have {SIZES[0]} pixels if no picture "
        f"of the set has more than 512x768, else {SIZES[1]}. Features are the 2048 of Inception-v3 in TensorFlow's "
        "version of 2015-12-05, float32, of patches resized to 299x299 with anti-aliasing, which torchmetrics does by "
        "default from version 1.8 on; CoD's own script takes that default. Means and covariances are float64."
    )


class Fid64(PatchFid):
    """Patch-FID of small pictures."""

    name: ClassVar[str] = "fid_64"
    title: ClassVar[str] = "FID-64"
    shown: ClassVar[str] = "FID-64 {:.2f}"
    description: ClassVar[str] = _protocol(64)
    size: ClassVar[int] = 64


class Fid256(PatchFid):
    """Patch-FID of large pictures."""

    name: ClassVar[str] = "fid_256"
    title: ClassVar[str] = "FID-256"
    shown: ClassVar[str] = "FID-256 {:.2f}"
    description: ClassVar[str] = _protocol(256)
    size: ClassVar[int] = 256


def distance(originals: Sequence[Features], decoded: Sequence[Features]) -> float:
    """Return the Fréchet distance of two sets of pictures, given the features of the patches of each picture.

    Raises:
        UserError: A set has fewer than `MIN_PATCHES` patches.
    """
    none = np.empty((0, 0), np.float32)
    sets = (np.concatenate([one for one in found if len(one)] or [none]) for found in (originals, decoded))
    return frechet_distance(*sets)


def patch_size(sizes: Iterable[tuple[int, int]]) -> int:
    """Return the side of the patches of a set, one for all pictures: `SIZES` and `MAX_PIXELS` say which.

    Args:
        sizes: Width and height of each picture.
    """
    return SIZES[0] if all(width * height <= MAX_PIXELS for width, height in sizes) else SIZES[1]


def num_patches(sizes: Iterable[tuple[int, int]], size: int) -> int:
    """Return how many patches pictures have in all.

    Args:
        sizes: Width and height of each picture.
        size: Side of a patch in pixels.
    """
    return sum(len(patch_corners(height, width, size)) for width, height in sizes)
