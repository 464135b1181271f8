"""Encoder and decoder of a one-step codec, without the constant parts; see docs/method.md, One-step codec."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from cod_jax.errors import UserError
from cod_jax.images import signed_to_uint8, uint8_to_unit
from cod_jax.models import CoD, ComputeConfig, ModelConfig
from cod_jax.models.compact import REFINED_VALUES, CompactDenoiser
from cod_jax.models.dconv import DConv, MLPPixelHead
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.models.pixel_head import PixelHead
from cod_jax.models.pixnerdit import PixNerDiT
from cod_jax.nn.embeddings import unpatchify
from cod_jax.nn.layers import Conv, DepthwiseConv, Linear
from cod_jax.nn.transformer import RotaryAttention
from cod_jax.specialize.trunks import build_trunk


class SymbolEncoder(nnx.Module):
    """Network from pictures to symbols, the condition encoder and the bottleneck.

    Args:
        config: The model's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: ModelConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        codec = CoD(config, compute=compute, rngs=rngs).codec
        self.encoder = codec.encoder
        self.bottleneck = config.codec.bottleneck.build_in_use(config.codec.latent_channels, rngs=rngs)

    def __call__(self, image_uint8: UInt8[Array, "B H W 3"], level: Int[Array, " B"]) -> Int[Array, "B h w C"]:
        """Encode pixels to symbols.

        Args:
            image_uint8: Pixels [B, H, W, 3]; both sides are multiples of `ModelConfig.size_multiple`.
            level: Quality level of each image.
        """
        return self.bottleneck.nearest(self.encoder(uint8_to_unit(image_uint8)), level)


class OneStepDecoder(nnx.Module):
    """Network from symbols to pictures, with one step from zero noise; for denoisers that work on pixels.

    It has no timestep embedding, no layers driven by the timestep, no patch embedding, no pixel embedding, and no
    densities. `folding.fold` puts their effect into the other parameters.

    Args:
        config: The model's description.
        compute: How it is computed.
        rngs: Source of the initial values.

    Raises:
        UserError: The denoiser works on latents.
    """

    def __init__(self, config: ModelConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        model = CoD(config, compute=compute, rngs=rngs)
        denoiser = model.denoiser
        if not isinstance(denoiser, (CompactDenoiser, DConv, PixNerDiT)):
            raise UserError(f"expected a denoiser of kind compact, dconv or pixnerdit, got {config.denoiser.kind}")
        self.bottleneck = config.codec.bottleneck.build_in_use(config.codec.latent_channels, rngs=rngs)
        self.decoder = model.codec.decoder
        self.trunk = build_trunk(denoiser, config.denoiser.hidden, dtype=compute.dtype, rngs=rngs)
        self.head = _build_head(denoiser, dtype=compute.dtype, rngs=rngs)

    def __call__(
        self, symbols: Int[Array, "B h w C"], level: Int[Array, " B"], *, patches_per_chunk: int
    ) -> UInt8[Array, "B H W 3"]:
        """Decode symbols to pixels; see `image`."""
        return signed_to_uint8(self.image(symbols, level, patches_per_chunk=patches_per_chunk))

    def image(
        self, symbols: Int[Array, "B h w C"], level: Int[Array, " B"], *, patches_per_chunk: int
    ) -> Float[Array, "B H W 3"]:
        """Decode symbols to an image of about [-1, 1], float32.

        Args:
            symbols: Symbols of pictures whose sides are multiples of `ModelConfig.size_multiple`.
            level: Quality level of each image.
            patches_per_chunk: Largest number of patches that the pixel head computes at a time. Patches are
                independent, so this changes the memory but not the result. Compact models have no such head.
        """
        condition = self.decoder(self.bottleneck.lookup(symbols, level))
        state = self.trunk(condition)
        # From zero noise the image is the network's output, whether it predicts an image or a velocity.
        if isinstance(self.head, CompactDenoiser):
            return self.head.pixels(state)
        return unpatchify(self._pixels(self.head, condition, state, patches_per_chunk), PATCH_SIZE)

    def _pixels(self, head: PixelHead, condition: jax.Array, state: jax.Array, patches_per_chunk: int) -> jax.Array:
        """Return the pixels [B, h, w, P, 3] of each patch, computed in as few chunks of equal size as possible."""
        batch, rows, columns, hidden = state.shape
        patches = batch * rows * columns
        num_chunks = -(-patches // patches_per_chunk)
        size = -(-patches // num_chunks)

        def to_chunks(x: jax.Array) -> jax.Array:
            padded = jnp.pad(x.reshape(patches, hidden), ((0, num_chunks * size - patches), (0, 0)))
            return padded.reshape(num_chunks, 1, 1, size, hidden)

        def decode(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
            condition, state = chunk
            x = head.condition(condition).reshape(1, 1, size, PATCH_SIZE**2, -1)
            return head.read(x, state)

        pixels = jax.lax.map(decode, (to_chunks(condition), to_chunks(state)))
        return pixels.reshape(num_chunks * size, PATCH_SIZE**2, 3)[:patches].reshape(batch, rows, columns, -1, 3)


def _build_head(
    denoiser: CompactDenoiser | DConv | PixNerDiT, *, dtype: str, rngs: nnx.Rngs
) -> CompactDenoiser | PixelHead:
    """Return what maps the trunk's state to pixels; it is taken from the denoiser, whose trunk was taken before."""
    if isinstance(denoiser, CompactDenoiser):
        del denoiser.blocks, denoiser.timestep, denoiser.patch_embed, denoiser.texture
        features = denoiser.refine_in.kernel.shape[-1]
        denoiser.refine_in = Linear(REFINED_VALUES, features, axes=("features", "embed"), dtype=dtype, rngs=rngs)
        return denoiser
    head = denoiser.head
    del head.embed
    if isinstance(head, MLPPixelHead):
        del head.project
    return head


def storage_dtypes(module: nnx.Module) -> dict[str, str]:
    """Return the dtype for storing each parameter, by flat name, so that storing does not change results.

    Kernels and biases that a layer converts to bfloat16 are stored in bfloat16. Norms, the bottleneck and layers that
    compute in float32 keep float32.
    """
    narrow = {
        "/".join(map(str, path))
        for path, layer in nnx.iter_modules(module)
        if isinstance(layer, (Linear, Conv, DepthwiseConv, RotaryAttention)) and layer.dtype == "bfloat16"
    }
    names = ("/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param)))
    return {name: "bfloat16" if name.rpartition("/")[0] in narrow else "float32" for name in names}
