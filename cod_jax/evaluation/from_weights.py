"""Metrics in the features of a network as functions on arrays, with the folder of its weight files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError
from cod_jax.evaluation import networks
from cod_jax.evaluation.metrics import Pixels
from cod_jax.evaluation.networks import Dists, LpipsAlex, NetworkMetric
from cod_jax.interop.frozen_networks.dists import load_dists
from cod_jax.interop.frozen_networks.inception import load_inception
from cod_jax.interop.frozen_networks.lpips import load_lpips


def lpips(reference: Pixels, image: Pixels, *, weights: str | Path) -> float:
    """Compute LPIPS v0.1 with AlexNet (Zhang et al. 2018) of whole pictures, as `cod evaluate` does.

    The weights are read once, and a program is compiled for each size.

    Args:
        reference: Original, uint8 [H, W, 3].
        image: Decoded picture of the same shape and type.
        weights: Folder of the published files alexnet-owt-7be5be79.pth and alex.pth.

    Returns:
        The distance, 0 for equal pictures.

    Raises:
        FileNotFoundError: A file is not there; the message says where it comes from.
        UserError: A file is not the published one, the pictures are not uint8 of one shape, or a side is too short.
    """
    return _measure(LpipsAlex, load_lpips, weights, reference, image)


def dists(reference: Pixels, image: Pixels, *, weights: str | Path) -> float:
    """Compute DISTS (Ding et al. 2020) of whole pictures, as `cod evaluate` does.

    The weights are read once, and a program is compiled for each size.

    Args:
        reference: Original, uint8 [H, W, 3].
        image: Decoded picture of the same shape and type.
        weights: Folder of the published files vgg16-397923af.pth and weights.pt.

    Returns:
        The distance, 0 for equal pictures.

    Raises:
        FileNotFoundError: A file is not there; the message says where it comes from.
        UserError: A file is not the published one, the pictures are not uint8 of one shape, or a side is too short.
    """
    return _measure(Dists, load_dists, weights, reference, image)


def inception_features(patches: Pixels, *, weights: str | Path) -> npt.NDArray[np.float32]:
    """Compute the features of Inception-v3 that patch-FID of `cod evaluate` compares, for `frechet_distance`.

    The weights are read once, and a program is compiled for each size.

    Args:
        patches: Pictures or patches of one size, at least one, uint8 [N, H, W, 3]; see `patches`.
        weights: Folder of the published file pt_inception-2015-12-05-6726825d.pth.

    Returns:
        Features [N, 2048].

    Raises:
        FileNotFoundError: The file is not there; the message says where it comes from.
        UserError: The file is not the published one, or the patches are not uint8 of this shape.
    """
    given: Any = np.asarray(patches)
    if given.dtype != np.uint8 or given.ndim != 4 or given.shape[-1] != 3 or 0 in given.shape:
        raise UserError(
            f"expected patches uint8 [N, H, W, 3], got {given.dtype} {list(given.shape)}; give at least one"
        )
    return networks.inception_features(load_inception, str(Path(weights).resolve()))(given)


def _measure(
    kind: type[NetworkMetric], load: Callable[..., Any], weights: str | Path, reference: Any, image: Any
) -> float:
    pair: tuple[Any, Any] = np.asarray(reference), np.asarray(image)
    if any(picture.dtype != np.uint8 for picture in pair) or pair[0].shape != pair[1].shape:
        given = " and ".join(f"{picture.dtype} {list(picture.shape)}" for picture in pair)
        raise UserError(f"expected two uint8 pictures of one shape, got {given}; convert them to 8-bit sRGB")
    return float(kind(load, str(Path(weights).resolve())).measure(*pair, 0))
