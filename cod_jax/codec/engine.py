"""The interface of the engines that compute for a codec."""

import abc
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.coding.stream import SymbolCoder
from cod_jax.model_folder.decoding import DecodingConfig


class Engine(abc.ABC):
    """Computes the symbols of pictures, and pictures of symbols; everything it is given has been checked.

    Attributes:
        coder: Writes and reads the files of the model.
        config: The `ModelConfig` of the model; None where the folder does not hold it.
        size_multiple: Both sides of all pictures are multiples of this many pixels.
        decoding: How pictures are decoded unless something else is asked for.
        summary: A few words about the model, for people.
    """

    coder: SymbolCoder
    config: Any
    size_multiple: int
    decoding: DecodingConfig
    summary: str

    @abc.abstractmethod
    def check_decoding(self, decoding: DecodingConfig) -> None:
        """Refuse a way of decoding that the engine does not have.

        Raises:
            UserError: The engine cannot decode so; the message says what to do instead.
        """

    @abc.abstractmethod
    def bytes_per_pixel(self, decoding: DecodingConfig | None) -> float:
        """Return the approximate temporary memory per pixel, to encode it (None) or to decode it so."""

    @abc.abstractmethod
    def encode(self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the symbols [B, H / pitch, W / pitch, C] of pictures [B, H, W, 3] at the quality level of each [B]."""

    @abc.abstractmethod
    def decode(
        self,
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures [B, h pitch, w pitch, 3] of symbols [B, h, w, C] at the quality level of each [B].

        Equal symbols and settings give equal pictures, wherever in a batch they are.
        """
