"""PSNR and MS-SSIM of single pictures, in float64 on the host."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.errors import UserError
from cod_jax.losses.similarity import ms_ssim_per_image, psnr_per_image

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.floating]


def mean_squared_error(reference: Pixels, image: Pixels) -> float:
    """Compute the mean of the squared differences over all pixels and channels.

    Args:
        reference: Original [H, W, C].
        image: Decoded picture of the same shape.

    Raises:
        UserError: The shapes differ, or only one of the two is uint8.
    """
    reference, image = _pair(reference, image)
    return float(np.mean((reference.astype(np.float64) - image.astype(np.float64)) ** 2))


def psnr(reference: Pixels, image: Pixels, *, data_range: float | None = None) -> float:
    """Compute the peak signal-to-noise ratio in dB over all pixels and channels.

    Args:
        reference: Original [H, W, C].
        image: Decoded picture of the same shape.
        data_range: Difference between white and black: 1 for image01. Integers have 255 by default, and of
            floating-point values it must be said.

    Returns:
        10 log10(data_range^2 / mean squared error); infinity for equal pictures.

    Raises:
        UserError: The shapes differ, only one of the two is uint8, or the range is not known.
    """
    reference, image = _pair(reference, image)
    return float(psnr_per_image(reference[None], image[None], data_range=_range_of(reference, image, data_range))[0])


def ms_ssim(reference: Pixels, image: Pixels, *, data_range: float | None = None) -> float:
    """Compute the multi-scale structural similarity (Wang et al. 2003, equation 7), the mean over the channels.

    Five scales with an 11x11 Gaussian window of sigma 1.5, without padding. Between scales 2x2 means are taken; an odd
    side gets a black pixel in front, as in pytorch-msssim. Negative terms count as zero.

    A side below 161 pixels has no room for the window at all five scales. Such a picture is measured at the scales that
    fit, with their weights scaled to the same sum; below 11 pixels the window is cut to the side. These values are not
    comparable with five-scale ones.

    Args:
        reference: Original [H, W, C].
        image: Decoded picture of the same shape.
        data_range: Difference between white and black: 1 for image01. Integers have 255 by default, and of
            floating-point values it must be said.

    Returns:
        A value in [0, 1]; 1 for equal pictures.

    Raises:
        UserError: The shapes differ, only one of the two is uint8, or the range is not known.
    """
    reference, image = _pair(reference, image)
    data_range = _range_of(reference, image, data_range)
    # Channel by channel, because the windowed moments of a large picture in float64 are five times its size.
    channels = [
        ms_ssim_per_image(*(_signed(x[None, ..., channel, None], data_range) for x in (reference, image)))
        for channel in range(reference.shape[-1])
    ]
    return float(np.mean(channels))


def texture(image: npt.NDArray[np.uint8]) -> float:
    """Compute the mean absolute difference of neighbouring pixels, the mean over both directions, from 0 to 255.

    Args:
        image: Picture [H, W, C]; a direction with a single pixel counts as 0.
    """
    differences = (np.abs(np.diff(image.astype(np.int16), axis=axis)) for axis in (0, 1))
    return sum(float(np.mean(one, dtype=np.float64)) for one in differences if one.size) / 2


def _range_of(reference: Any, image: Any, data_range: float | None) -> float:
    """Return the difference between white and black.

    Raises:
        UserError: It is not a positive number, or it is not said and the values do not say it.
    """
    if data_range is None:
        if not all(np.issubdtype(pixels.dtype, np.integer) for pixels in (reference, image)):
            raise UserError("expected data_range with floating-point values, got none; give 1 for values from 0 to 1")
        return 255.0
    if not 0 < data_range < np.inf:
        raise UserError(f"expected data_range to be a positive number, got {data_range}; give 1 for values from 0 to 1")
    return float(data_range)


def _signed(x: Pixels, data_range: float) -> npt.NDArray[np.float64]:
    return x.astype(np.float64) * (2 / data_range) - 1


def _pair(reference: Any, image: Any) -> tuple[Any, Any]:
    """Return two pictures as numpy arrays, on which 64 bits are 64 bits.

    Raises:
        UserError: The shapes differ, or only one of them is uint8, as if its values were of another range.
    """
    reference, image = np.asarray(reference), np.asarray(image)
    if reference.shape != image.shape or reference.ndim != 3 or 0 in reference.shape:
        raise UserError(
            f"expected two pictures of one shape [height, width, channels], got {reference.shape} and {image.shape}"
        )
    if (reference.dtype == np.uint8) != (image.dtype == np.uint8):
        raise UserError(
            f"expected two pictures of one range, got {reference.dtype} and {image.dtype}; convert one of them"
        )
    return reference, image
