"""One-step codecs as serialised StableHLO programs for pictures of any size and batches of any number.

Weights are arguments, so a program contains only code of some hundred kilobytes, and the same weights serve all
platforms.

`jax.export` fixes the logical shapes and leaves memory layouts to the compiler of the machine that loads a program.
Images are [B, H, W, C] and kernels [row, column, in, out] (HWIO). XLA transposes a kernel on the device where its
convolutions need it, which takes no time compared with a picture.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from cod_jax.errors import UserError
from cod_jax.models import ComputeConfig, Functional, ModelConfig, PixNerDiTConfig, flatten_params, unflatten_params
from cod_jax.models.cod_codec import WINDOW
from cod_jax.models.compute import Dtype, matmul_precision
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.models.functional import Params
from cod_jax.nn.attention import MAX_WHOLE_QUERIES
from cod_jax.runtime.folder import ANY, Part, Platform, Range, Sizes, takes_levels
from cod_jax.specialize.folding import fold
from cod_jax.specialize.parts import OneStepDecoder, SymbolEncoder, storage_dtypes

COMPILED_KINDS = ("compact", "dconv", "pixnerdit")
# A chunk of the pixel head takes about 2 kilobytes per pixel in float32. On a CPU it should fit into the caches. On
# accelerators it should be the whole picture up to 4 megapixels.
PATCHES_PER_CHUNK: dict[Platform, int] = {"cpu": 128, "cuda": 2**14, "rocm": 2**14, "tpu": 2**14}


@dataclasses.dataclass(frozen=True)
class Half:
    """Encoder or decoder of a one-step codec.

    Attributes:
        part: "encode" or "decode".
        weights: Arrays by flat name, in the dtypes of `storage_dtypes`.
        apply: Pure function (weights, input, platform) -> output. Images are uint8 [B, H, W, 3]. Symbols are int32 [B,
            h, w, C], and inputs are pairs of images or symbols and the quality level of each picture, int32 [B]. With
            a fixed-length code symbols are [B, h, w] and inputs have no levels, as in the first compiled folders.
        cells_to_input: Function from (batch, rows, columns), counted in cells of `ModelConfig.size_multiple` pixels, to
            the shapes and dtypes of the input.
    """

    part: Part
    weights: dict[str, np.ndarray]
    apply: Callable[[dict[str, Any], Any, Platform], jax.Array]
    cells_to_input: Callable[[Any, Any, Any], Any]


def check_supported(config: ModelConfig) -> None:
    """Check that a model can be compiled.

    Raises:
        UserError: The model works on latents, has a denoiser from another package, or has the deep codec of the 64-bit
            models.
    """
    if config.is_latent:
        raise UserError(
            f"only models on pixels can be compiled, got one on latents (denoiser.kind {config.denoiser.kind}); use "
            "the model folder itself"
        )
    if config.denoiser.kind not in COMPILED_KINDS:
        raise UserError(
            f"only denoisers of kind {', '.join(COMPILED_KINDS)} can be compiled, got {config.denoiser.kind}; use "
            "the model folder itself"
        )
    if config.codec.is_deep:
        raise UserError(f"the deep codec (pitch {config.codec.pitch}) cannot be compiled; use the model folder itself")


def split(config: ModelConfig, params: Params, dtype: Dtype) -> tuple[Half, Half]:
    """Return encoder and decoder of a model, specialised for one step.

    Args:
        config: The model's description.
        params: Its float32 parameters.
        dtype: Dtype of the computation.

    Raises:
        UserError: The model cannot be compiled, see `check_supported`.
    """
    check_supported(config)
    compute = ComputeConfig(dtype)
    multiple, symbols_per_cell = config.size_multiple, config.size_multiple // config.codec.pitch
    encoder = Functional(lambda rngs: SymbolEncoder(config, compute=compute, rngs=rngs))
    decoder = Functional(lambda rngs: OneStepDecoder(config, compute=compute, rngs=rngs))
    encoder_params, decoder_params = fold(config, params)

    is_plain = not takes_levels(config.codec.symbols)

    def encode(weights: dict[str, Any], encoder_input: Any, platform: Platform) -> jax.Array:
        module = encoder.bind(unflatten_params(weights, encoder.shapes))
        images, level = with_level(encoder_input)
        with jax.default_matmul_precision(matmul_precision(dtype)):
            symbols = module(images, level)
        return symbols[..., 0] if is_plain else symbols

    def decode(weights: dict[str, Any], decoder_input: Any, platform: Platform) -> jax.Array:
        module = decoder.bind(unflatten_params(weights, decoder.shapes))
        symbols, level = with_level(decoder_input)
        symbols = symbols[..., None] if is_plain else symbols
        with jax.default_matmul_precision(matmul_precision(dtype)):
            return module(symbols, level, patches_per_chunk=PATCHES_PER_CHUNK[platform])

    def with_level(given: Any) -> tuple[jax.Array, jax.Array]:
        return (given, jnp.zeros(given.shape[:1], jnp.int32)) if is_plain else given

    def images(batch: Any, rows: Any, columns: Any) -> Any:
        return with_levels(jax.ShapeDtypeStruct((batch, multiple * rows, multiple * columns, 3), jnp.uint8))

    def symbols(batch: Any, rows: Any, columns: Any) -> Any:
        channels = () if is_plain else (config.codec.symbols.num_channels,)
        grid = (symbols_per_cell * rows, symbols_per_cell * columns)
        return with_levels(jax.ShapeDtypeStruct((batch, *grid, *channels), jnp.int32))

    def with_levels(pictures: jax.ShapeDtypeStruct) -> Any:
        levels = jax.ShapeDtypeStruct(pictures.shape[:1], jnp.int32)
        return pictures if is_plain else (pictures, levels)

    return (
        Half("encode", _stored(encoder, encoder_params), encode, images),
        Half("decode", _stored(decoder, decoder_params), decode, symbols),
    )


def export_program(half: Half, sizes: Sizes, platform: Platform) -> bytes:
    """Serialise a half for one platform and one of `size_ranges`, with batches of any number.

    The program takes (weights, input) as `Half.apply` does. It is traced here and compiled where it is loaded.
    """
    scope = export.SymbolicScope(_constraints(sizes))
    batch, rows, columns = export.symbolic_shape("b, h, w", scope=scope)
    weights = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in half.weights.items()}

    def program(weights, batch):
        return half.apply(weights, batch, platform)

    exported = export.export(jax.jit(program), platforms=[platform])(weights, half.cells_to_input(batch, rows, columns))
    return bytes(exported.serialize())


def size_ranges(config: ModelConfig, part: Part) -> list[Sizes]:
    """Return the ranges of sizes, in cells, for which a half needs a program each; every size is in exactly one.

    Sizes are symbolic, so nothing is padded, and pooling and normalisation see the picture as it is. But tracing must
    know how attention works: it cuts maps with a side longer than a window into windows, and many queries of global
    attention into chunks.
    """
    symbols_per_cell = config.size_multiple // config.codec.pitch
    # Positions per cell in the maps with global attention.
    positions = {symbols_per_cell**2} if config.codec.attention == "global" else set()
    if part == "decode" and isinstance(config.denoiser, PixNerDiTConfig):
        positions.add((config.size_multiple // PATCH_SIZE) ** 2)
    last_cells = [MAX_WHOLE_QUERIES // number for number in sorted(positions, reverse=True)]
    firsts, lasts = [1, *(last + 1 for last in last_cells)], [*last_cells, None]
    cells: list[Range] = list(zip(firsts, lasts, strict=True))
    if config.codec.attention in ("global", None):
        return [Sizes(cells=number) for number in cells]
    last = WINDOW // symbols_per_cell
    within, beyond = (1, last), (last + 1, None)
    # JAX does not infer how many cells two short sides can have.
    small = [(first, min(number or last**2, last**2)) for first, number in cells if first <= last**2]
    large = [Sizes(*sides, number) for sides in ((beyond, ANY), (within, beyond)) for number in cells]
    return [Sizes(within, within, number) for number in small] + large


def _constraints(sizes: Sizes) -> list[str]:
    numbers = {"h": sizes.rows, "w": sizes.columns, "h*w": sizes.cells}
    at_least = [f"{number} >= {first}" for number, (first, _) in numbers.items() if first > 1]
    return at_least + [f"{number} <= {last}" for number, (_, last) in numbers.items() if last is not None]


def _stored(functional: Functional, params: Params) -> dict[str, np.ndarray]:
    dtypes = storage_dtypes(functional.bind(params))
    # safetensors ignores strides, so arrays must be contiguous.
    return {
        name: np.asarray(value, jnp.dtype(dtypes[name]), order="C") for name, value in flatten_params(params).items()
    }
