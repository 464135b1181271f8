"""PSNR and MS-SSIM of single pictures, in float64 on the host."""

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError
from cod_jax.losses.perceptual import K1, K2, WINDOW, WINDOW_SIGMA, ms_ssim_weights

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.floating]


def psnr(reference: Pixels, image: Pixels, *, data_range: float = 255.0) -> float:
    """Compute the peak signal-to-noise ratio in dB over all pixels and channels.

    Args:
        reference: Original [H, W, C].
        image: Decoded picture of the same shape.
        data_range: Difference between white and black: 255 for uint8, 1 for image01.

    Returns:
        10 log10(data_range^2 / mean squared error); infinity for equal pictures.

    Raises:
        UserError: The shapes differ.
    """
    reference64, image64 = _pair(reference, image)
    squared_error = float(np.mean((reference64 - image64) ** 2))
    return float("inf") if squared_error == 0 else float(10 * np.log10(data_range**2 / squared_error))


def ms_ssim(reference: Pixels, image: Pixels, *, data_range: float = 255.0) -> float:
    """Compute the multi-scale structural similarity (Wang et al. 2003, equation 7), the mean over the channels.

    Five scales with an 11x11 Gaussian window of sigma 1.5, without padding; between scales 2x2 means, the last row or
    column repeated where a side is odd; negative terms count as zero. A side below 161 pixels has no room for the
    window at all five scales: such a picture is measured at the scales that fit, with their weights scaled to the
    same sum, and below 11 pixels with a window cut to the side. Such values are not comparable with five-scale ones.

    Args:
        reference: Original [H, W, C].
        image: Decoded picture of the same shape.
        data_range: Difference between white and black: 255 for uint8, 1 for image01.

    Returns:
        A value in [0, 1]; 1 for equal pictures.

    Raises:
        UserError: The shapes differ.
    """
    x, y = _pair(reference, image)
    weights = ms_ssim_weights(*x.shape[:2])
    product = np.ones(x.shape[-1])
    for scale, weight in enumerate(weights):
        similarity, contrast = _ssim_per_channel(x, y, data_range)
        is_last = scale == len(weights) - 1
        product *= np.maximum(similarity if is_last else contrast, 0) ** weight
        if not is_last:
            x, y = _halve(x), _halve(y)
    return float(np.mean(product))


def _pair(reference: Pixels, image: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if reference.shape != image.shape or reference.ndim != 3 or 0 in reference.shape:
        raise UserError(
            f"pictures of shapes {reference.shape} and {image.shape} cannot be compared; both must be [H, W, C]"
        )
    return reference.astype(np.float64), image.astype(np.float64)


def _ssim_per_channel(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], data_range: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean of SSIM [C] and of its contrast-structure factor [C] over the positions."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + c2) / (variance_x + variance_y + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * contrast).mean(axis=(0, 1)), contrast.mean(axis=(0, 1))


def _blur(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Filter [H, W, C] with the separable Gaussian window, keeping only positions where it fits."""
    return _blur_rows(_blur_rows(x).swapaxes(0, 1)).swapaxes(0, 1)


def _blur_rows(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = min(WINDOW, x.shape[0])
    offsets = np.arange(size) - (size - 1) / 2
    taps = np.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    taps /= taps.sum()
    blurred = np.zeros((x.shape[0] - size + 1, *x.shape[1:]))
    for start, tap in enumerate(taps):
        blurred += tap * x[start : start + len(blurred)]
    return blurred


def _halve(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Take 2x2 means of [H, W, C]."""
    height, width, channels = x.shape
    x = np.pad(x, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return x.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels).mean(axis=(1, 3))
