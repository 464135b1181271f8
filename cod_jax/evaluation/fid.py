"""Fréchet distance of two sets of features, and the patches that patch-FID takes it of.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6, on overlapping patches as Mentzer et al.
2020 ("High-Fidelity Generative Image Compression") measure it. The features are those of a network, such as the
Inception-v3 of the published figures.
"""

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError

Features = npt.NDArray[np.floating]


def frechet_distance(a: Features, b: Features) -> float:
    """Compute the Fréchet distance of two sets of features, as if each were Gaussian.

    It is |m - m'|^2 + tr(S) + tr(S') - 2 tr((S S')^(1/2)), with means m and covariances S of n - 1 degrees of freedom.
    With centred samples A and B, divided by sqrt(n - 1), the last trace is the sum of the singular values of A B^T.
    This is exact also where there are fewer samples than features, for which the usual root of a matrix is not. Of many
    samples the triangle R of A = Q R stands for A, which leaves the singular values as they are.

    Args:
        a: Features [N, D] of one set, at least two.
        b: Features [M, D] of the other.

    Returns:
        The distance, in float64; 0 for equal sets.

    Raises:
        UserError: A set has fewer than two samples, they have different features, or some are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UserError(f"expected two sets of at least two features of one length, got {a.shape} and {b.shape}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("expected finite features, got NaN or infinity; look for the pictures that they are of")
    means = a.mean(axis=0), b.mean(axis=0)
    centred = [(x - mean[None]) / np.sqrt(len(x) - 1) for x, mean in zip((a, b), means, strict=True)]
    traces = sum(np.sum(x**2) for x in centred)
    a, b = (np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x for x in centred)
    root = np.sum(np.linalg.svd(a @ b.T, compute_uv=False))
    return float(np.sum((means[0] - means[1]) ** 2) + traces - 2 * root)


def patch_corners(height: int, width: int, size: int) -> npt.NDArray[np.int32]:
    """Return the top left corners [N, 2], row and column, of the patches of a picture.

    They lie side by side from the top left, row by row, and what is left over is dropped; then, if both sides are at
    least one and a half patches, once more, moved by half a patch in both directions.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture.
        size: Side of a patch: 64 on the Kodak pictures in the published figures, 256 on others.
    """
    starts = [0] + ([size // 2] if min(height, width) >= 1.5 * size else [])
    corners = [
        (row, column)
        for start in starts
        for row in range(start, height - size + 1, size)
        for column in range(start, width - size + 1, size)
    ]
    return np.array(corners, np.int32).reshape(-1, 2)


def patches(picture: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return the patches [N, size, size, 3] of a picture [H, W, 3]; none of one that is smaller.

    Raises:
        UserError: The size is not a positive number.
    """
    if size < 1:
        raise UserError(f"expected patches of at least one pixel, got {size}")
    corners = patch_corners(picture.shape[0], picture.shape[1], size).tolist()
    cut = [picture[row : row + size, column : column + size] for row, column in corners]
    return np.stack(cut) if cut else np.empty((0, size, size, 3), np.uint8)
