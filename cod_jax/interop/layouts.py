"""Correspondence of arrays of PyTorch's layers and ours."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Relation of a published array and one of ours that hold the same numbers."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_published: Callable[[np.ndarray], np.ndarray]


def _patch_to_published(array: np.ndarray) -> np.ndarray:
    side = round((array.shape[0] // 3) ** 0.5)
    return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


# Kernels are stored as out, in, height, width there; as height, width, in, out here.
SAME = Layout(lambda array: array, lambda array: array)
LINEAR = Layout(lambda array: array.T, lambda array: array.T)
CONV1X1 = Layout(lambda array: array[:, :, 0, 0].T, lambda array: array.T[:, :, None, None])
CONV = Layout(lambda array: array.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1))
DEPTHWISE = Layout(lambda array: array[:, 0].transpose(1, 2, 0), lambda array: array.transpose(2, 0, 1)[:, None])
# A convolution over whole patches of RGB pixels is our linear layer of flattened patches.
PATCH = Layout(lambda array: array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0]), _patch_to_published)
# One linear layer for queries, keys and values; ours is [in, 3, out].
QKV = Layout(lambda array: array.T.reshape(array.shape[1], 3, -1), lambda array: array.reshape(array.shape[0], -1).T)


def pixel_major(channels: int, *, is_conv: bool) -> tuple[Layout, Layout]:
    """Return the layouts of kernel and bias of a linear layer whose outputs are the pixels of a patch.

    The published outputs are ordered by channel, then pixel; ours by pixel, then channel.

    Args:
        channels: Channels of a pixel.
        is_conv: Whether the published layer is a 1x1 convolution.
    """

    def by_pixel(rows: np.ndarray) -> np.ndarray:
        return rows.reshape(channels, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)

    def by_channel(rows: np.ndarray) -> np.ndarray:
        return rows.reshape(-1, channels, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)

    plain = CONV1X1 if is_conv else LINEAR
    kernel = Layout(
        lambda array: plain.to_ours(by_pixel(array)),
        lambda array: by_channel(plain.to_published(array)),
    )
    return kernel, Layout(by_pixel, by_channel)
