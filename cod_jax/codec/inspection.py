"""The insides of a model: latents, symbols, the bits of each position, the condition, and the states of its sampler.

All functions take a codec as `cod_jax.load` returns it. A compiled model shows symbols and bits only.
"""

import numpy as np
import numpy.typing as npt

from cod_jax import images
from cod_jax.codec import checks, memory
from cod_jax.codec.codec import Codec
from cod_jax.codec.engine import SamplerStates
from cod_jax.coding import stream
from cod_jax.coding.sizes import ceil_grid
from cod_jax.errors import UserError
from cod_jax.images import ImageSource
from cod_jax.model_folder.decoding import Sampler, checked_seed

# Memory that a state of the sampler takes for each pixel: itself and its estimate, as numbers and as pictures, twice.
BYTES_PER_STATE = 60.0

__all__ = ["SamplerStates", "bit_map", "condition", "latents", "sampler_states", "symbol_bits", "symbols"]


def latents(codec: Codec, image: ImageSource) -> npt.NDArray[np.float32]:
    """Return the latents of a picture, before they are quantised; they do not depend on the quality level.

    Args:
        codec: The codec of a model folder.
        image: What `Codec.compress` takes, but no list.

    Returns:
        float32 [ceil(H / pitch), ceil(W / pitch), F].

    Raises:
        UserError: It is not a picture, or too large; or the model is compiled.
    """
    checks.check_source(image)
    pixels = images.to_uint8_rgb(image, check_size=codec.check_size)
    height, width, _ = pixels.shape
    rows, columns = ceil_grid(height=height, width=width, pitch=codec.pitch)
    padded = images.pad_to_multiple(pixels[None], codec.engine.size_multiple)
    return codec.engine.latents(padded)[0, :rows, :columns]


def symbols(codec: Codec, data: bytes) -> npt.NDArray[np.int32]:
    """Return the symbols of a file.

    Args:
        codec: The codec of the model that wrote the file.
        data: The content of the file.

    Returns:
        int32 [ceil(H / pitch), ceil(W / pitch), C]; C is 1 with a codebook.

    Raises:
        UserError: The file is damaged, of another model, or its picture is too large.
    """
    return _read(codec, data).symbols


def symbol_bits(codec: Codec, data: bytes) -> npt.NDArray[np.float64]:
    """Return the bits that each symbol takes in a file.

    They are -log2 of the probabilities by which the file is coded, taken from its model's tables of integers. Their sum
    is the length of the payload, apart from the byte that names the quality level, and from what the range coder
    rounds: about a byte at the end, and three in ten thousand on the way.

    Args:
        codec: The codec of the model that wrote the file.
        data: The content of the file.

    Returns:
        float64, of the shape of the symbols.

    Raises:
        UserError: The file is damaged, of another model, or its picture is too large; or it is coded by an entropy
            model of another package, which does not tell.
    """
    return codec.engine.coder.symbol_bits(_read(codec, data))


def bit_map(codec: Codec, data: bytes) -> npt.NDArray[np.float64]:
    """Return the bits that each position of the grid takes in a file: the sum of `symbol_bits` over channels.

    Args:
        codec: The codec of the model that wrote the file.
        data: The content of the file.

    Returns:
        float64 [ceil(H / pitch), ceil(W / pitch)].

    Raises:
        UserError: As `symbol_bits` does.
    """
    return symbol_bits(codec, data).sum(axis=-1)


def condition(codec: Codec, data: bytes) -> npt.NDArray[np.float32]:
    """Return the condition that a file gives the denoiser.

    Args:
        codec: The codec of a model folder.
        data: The content of the file.

    Returns:
        float32 [ceil(H / 16), ceil(W / 16), hidden].

    Raises:
        UserError: The file is damaged, of another model, or its picture is too large; or the model is compiled.
    """
    picture = _read(codec, data)
    grid, level = _batch(codec, picture)
    found = codec.engine.condition(grid, level)[0]
    cell = grid.shape[1] * codec.pitch // found.shape[0]
    rows, columns = ceil_grid(height=picture.height, width=picture.width, pitch=cell)
    return found[:rows, :columns]


def sampler_states(
    codec: Codec,
    data: bytes,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> SamplerStates:
    """Return the states that the sampler goes through when a file is decompressed.

    Args:
        codec: The codec of a model folder.
        data: The content of the file.
        steps: See `Codec.decompress`, as for the others. One step starts from zeros, several from noise.
        guidance: Classifier-free guidance.
        sampler: "euler" or "adams".
        seed: Number of the noise.

    Returns:
        Timesteps, states, and the pictures that the denoiser expects on the way; pictures have the size of the file's.

    Raises:
        UserError: The file is damaged, of mode diffc, of another model, or its picture is too large, a setting is out
            of range, or all states together take more memory than there is; or the model is compiled.
    """
    engine, decoding = codec.engine, codec.decoding.override(steps=steps, guidance=guidance, sampler=sampler)
    engine.check_decoding(decoding)
    seed, picture = checked_seed(seed), _read(codec, data)
    if picture.walk is not None:
        raise UserError(
            "expected a file of symbols alone, got one of mode diffc, whose sampler starts where its coded steps end; "
            "give the file of cod compress without --mode diffc"
        )
    memory.check(
        height=picture.height,
        width=picture.width,
        multiple=engine.size_multiple,
        bytes_per_pixel=engine.bytes_per_pixel(decoding) + BYTES_PER_STATE * (decoding.num_steps + 1),
        task="keeping all states of decoding",
    )
    found = engine.sampler_states(*_batch(codec, picture), decoding, seed)
    pictures, estimates = (
        pixels[:, 0, : picture.height, : picture.width] for pixels in (found.pictures, found.estimates)
    )
    return SamplerStates(found.timesteps, found.values[:, 0], pictures, estimates)


def _read(codec: Codec, data: bytes) -> stream.CodedPicture:
    return checks.parsed(data, codec.engine.coder, max_pixels=codec.max_pixels, layout="cod")


def _batch(codec: Codec, picture: stream.CodedPicture) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the symbols of a picture as a batch of one, on a grid that the model takes, and its quality level [1]."""
    grid = images.pad_to_multiple(picture.symbols[None], codec.engine.size_multiple // codec.pitch)
    return grid, np.array([picture.level], np.int32)
