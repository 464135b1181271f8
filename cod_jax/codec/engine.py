"""The interface of the engines that compute for a codec."""

import abc
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cod_jax.coding.stream import SymbolCoder
from cod_jax.errors import UserError
from cod_jax.model_folder.decoding import DecodingConfig

CLOSED = "a compiled model does not show what is inside it; load the model folder that it was made from"
NO_WALK = "mode diffc needs the model folder, got a compiled one; use the model folder that it was made from"


class SamplerStates(NamedTuple):
    """The path of a sampler from noise to picture, in k steps.

    Those of a batch have an axis B after the first one.

    Attributes:
        timesteps: Timesteps from 0, noise, to 1, the picture, float32 [k + 1].
        values: The states x_t, pixels around [-1, 1] or latents, of the whole grid, float32 [k + 1, h, w, c].
        pictures: The states as pictures, uint8 [k + 1, H, W, 3]; the last one is what is decoded.
        estimates: The pictures that the denoiser expects at the end, x_t + (1 - t) v, at the beginning of each step,
            uint8 [k, H, W, 3].
    """

    timesteps: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.uint8]
    estimates: npt.NDArray[np.uint8]


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

    def refine(
        self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32], effort: int
    ) -> npt.NDArray[np.int32]:
        """Return symbols like those of `encode` that are better for these pictures, found by gradient steps.

        Args:
            images_uint8: Pictures [B, H, W, 3].
            levels: The quality level of each [B].
            effort: How many steps; each takes about as long as three decodings. Some hundred are enough.

        Raises:
            UserError: The engine or the model cannot do that.
        """
        raise UserError("effort needs the model folder, got a compiled one; leave it out, or give the model folder")

    @abc.abstractmethod
    def decode(
        self,
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures [B, h pitch, w pitch, 3] of symbols [B, h, w, C] at the quality level of each [B].

        Equal symbols and settings give equal pictures up to rounding, wherever in a batch they are.
        """

    # What only the model's own code can show or do.

    def latents(self, images_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the latents [B, H / pitch, W / pitch, F] of pictures [B, H, W, 3], before they are quantised.

        Raises:
            UserError: The model is compiled.
        """
        raise UserError(CLOSED)

    def condition(self, symbols: npt.NDArray[np.int32], levels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Return the conditions [B, H / 16, W / 16, hidden] of symbols [B, h, w, C] at the quality level of each [B].

        Raises:
            UserError: The model is compiled.
        """
        raise UserError(CLOSED)

    def sampler_states(
        self,
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> SamplerStates:
        """Return what `decode` goes through.

        Raises:
            UserError: The model is compiled.
        """
        raise UserError(CLOSED)

    def values(self, images_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return what the denoiser makes of pictures [B, H, W, 3]: pixels in [-1, 1], or latents [B, h, w, c].

        Raises:
            UserError: The model is compiled.
        """
        raise UserError(NO_WALK)

    def estimate(
        self, x_t: npt.NDArray[np.float32], t: float, condition: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return what the model expects at the end of the path from x_t at the timestep t [B, h, w, c], unguided.

        Raises:
            UserError: The model is compiled.
        """
        raise UserError(NO_WALK)

    def finish(
        self,
        x_t: npt.NDArray[np.float32],
        t: float,
        condition: npt.NDArray[np.float32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures [B, H, W, 3] at the end of the sampler's path from x_t at the timestep t.

        Raises:
            UserError: The model is compiled.
        """
        raise UserError(NO_WALK)
