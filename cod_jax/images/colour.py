"""Samples of any depth, alpha and colour profiles to 8-bit sRGB."""

import functools
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms


def scale_to_8_bits(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Return integers of [0, 2**bits - 1], bits at most 16, as the nearest ones of [0, 255]."""
    if bits == 8:
        return samples.astype(np.uint8)
    top = 2**bits - 1
    return ((samples.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def scale_to_16_bits(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint16]:
    """Return integers of [0, 2**bits - 1], bits at most 16, as the nearest ones of [0, 65535]."""
    top = 2**bits - 1
    return ((samples.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def unpremultiply(colour: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Divide 16-bit colours [H, W, C] by their 16-bit alpha [H, W, 1]; where that is 0 they become 0."""
    wide = np.minimum(colour, alpha).astype(np.uint32) * 65535
    return (wide // np.maximum(alpha, 1)).astype(np.uint16)


def composite_on_white(pixels: npt.NDArray[np.uint8], alpha: npt.NDArray[Any], notes: list[str]) -> np.ndarray:
    """Composite pixels [H, W, C] on white and note it; opaque ones are returned as they are.

    Args:
        pixels: Colours that are not multiplied with alpha.
        alpha: Opacity [H, W, 1], uint8 or uint16.
        notes: Receives a note if anything is transparent.
    """
    top = np.iinfo(alpha.dtype).max
    if (alpha == top).all():
        return pixels
    notes.append("transparency was composited on white")
    wide = alpha.astype(np.uint32)
    return ((pixels * wide + 255 * (top - wide) + top // 2) // top).astype(np.uint8)


def to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Convert a picture of mode L, RGB or CMYK to RGB, through its colour profile if it has a usable one.

    Args:
        image: The picture.
        profile: Content of its ICC profile.
        notes: Receives a note if the profile is unusable.
    """
    if profile:
        try:
            transform = _profile_transform(profile, image.mode)
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("the embedded colour profile is unusable and was ignored")
        else:
            if transform is not None:
                return ImageCms.applyTransform(image, transform) or image
    return image.convert("RGB")


@functools.cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"),  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        ImageCms.createProfile("sRGB"),  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        "LAB",
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        # With tables that speed up the conversion saturated colours are off by up to 16 levels.
        ImageCms.Flags.NOOPTIMIZE,
    )


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of mode LAB, D50, to sRGB."""
    return ImageCms.applyTransform(image, _lab_transform()) or image


@functools.lru_cache(maxsize=16)
def _profile_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the conversion of a profile to sRGB, or return None if the profile is sRGB already.

    Raises:
        ImageCms.PyCMSError, OSError: The profile is damaged or belongs to another mode.
    """
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "L":
        # The tables that speed up the conversion are off by several levels in the shadows of a grey picture.
        flags |= ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags,
    )
    if mode == "CMYK":
        return transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    probe_image = Image.fromarray(probe if mode == "RGB" else np.ascontiguousarray(probe[..., 0]))
    converted = ImageCms.applyTransform(probe_image, transform)
    before = np.asarray(probe_image.convert("RGB")).astype(np.int16)
    change = np.abs(np.asarray(converted).astype(np.int16) - before).max()
    return transform if change > 1 else None
