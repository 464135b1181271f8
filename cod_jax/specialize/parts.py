"""The two halves of a one-step codec, without what is constant at t = 0 and zero noise (spec section 5)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from cod_jax.images import signed_to_uint8, uint8_to_unit
from cod_jax.models import CoD, ComputeConfig, ModelConfig
from cod_jax.models.config import PATCH_SIZE
from cod_jax.models.dconv import DConv
from cod_jax.nn.attention import AttentionMode
from cod_jax.nn.embeddings import unpatchify
from cod_jax.nn.layers import Conv, DepthwiseConv, Linear


class SymbolEncoder(nnx.Module):
    """Pictures to symbols: the condition encoder and the bottleneck.

    Args:
      config: The model's description.
      compute: How it is computed.
      rngs: Source of the initial values.
    """

    def __init__(self, config: ModelConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        self.attention: AttentionMode = config.codec.attention
        self.codec = CoD(config, compute=compute, rngs=rngs).codec
        del self.codec.decoder

    def __call__(self, image_uint8: UInt8[Array, "B H W 3"]) -> Int[Array, "B h w"]:
        """Encode pixels [B, H, W, 3], sides multiples of `ModelConfig.size_multiple`, to symbols [B, h, w]."""
        z = self.codec.encode(uint8_to_unit(image_uint8), attention=self.attention)
        return self.codec.quantize(z).indices


class NeutralModulation(nnx.Module):
    """Stands where the adaLN layer of a `DiCoBlock` was whose values are folded into its other layers.

    Shifts and scales are 0 and gates are 1 whatever the timestep; compilers drop them.
    """

    def __init__(self, features: int, dtype: str):
        self.features, self.dtype = features, dtype

    def __call__(self, _: Float[Array, "B C"]) -> Float[Array, "1 C6"]:
        """Return (shift, scale, gate) of the mixer and of the MLP, each [1, features]."""
        return jnp.repeat(jnp.asarray([0, 0, 1, 0, 0, 1], self.dtype), self.features)[None]


class OneStepDecoder(nnx.Module):
    """Symbols to pictures in one step from zero noise; CoD-Lite only.

    It has no timestep embedding, no adaLN layers of the condition blocks, no patch embedding, and no pixel embedding:
    `folding.fold` puts what they add into the other layers' parameters.

    Args:
      config: The model's description.
      compute: How it is computed.
      rngs: Source of the initial values.

    Raises:
      ValueError: The denoiser is no DConv.
    """

    def __init__(self, config: ModelConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        self.attention: AttentionMode = config.codec.attention
        model = CoD(config, compute=compute, rngs=rngs)
        denoiser, hidden = model.denoiser, config.denoiser.hidden
        if not isinstance(denoiser, DConv):
            raise ValueError(f"a {config.denoiser.kind} cannot be decoded in one step by this class; it takes dconv")
        self.codec = model.codec
        del self.codec.encoder
        self.merge = Linear(hidden, hidden, axes=("mixer", "embed"), dtype=compute.dtype, rngs=rngs)
        denoiser.blocks.block.modulation = NeutralModulation(hidden, compute.dtype)
        self.blocks = denoiser.blocks
        del denoiser.head.embed, denoiser.head.project
        self.head = denoiser.head

    def __call__(self, indices: Int[Array, "B h w"], *, patches_per_chunk: int) -> UInt8[Array, "B H W 3"]:
        """Decode symbols [B, h, w] to pixels; see `image`."""
        return signed_to_uint8(self.image(indices, patches_per_chunk=patches_per_chunk))

    def image(self, indices: Int[Array, "B h w"], *, patches_per_chunk: int) -> Float[Array, "B H W 3"]:
        """Decode symbols [B, h, w] to an image of about [-1, 1], float32.

        Args:
          indices: Symbols of pictures whose sides are multiples of `ModelConfig.size_multiple`.
          patches_per_chunk: The pixel head runs on this many patches at a time at most. Patches are independent, so
            that this changes the memory and not the result.
        """
        condition = self.codec.decode(self.codec.dequantize(indices), attention=self.attention)
        state = self.merge(condition)
        # The blocks' second argument is the timestep's embedding, which nothing reads any more.
        state = self.blocks(state, jnp.zeros((state.shape[0], state.shape[-1])))
        return unpatchify(self._pixels(condition, state, patches_per_chunk), PATCH_SIZE)

    def _pixels(self, condition: jax.Array, state: jax.Array, patches_per_chunk: int) -> jax.Array:
        """Pixels [B, h, w, P, 3] of each patch, in the fewest chunks, which are of equal size."""
        batch, rows, columns, hidden = state.shape
        patches = batch * rows * columns
        num_chunks = -(-patches // patches_per_chunk)
        size = -(-patches // num_chunks)

        def to_chunks(x: jax.Array) -> jax.Array:
            padded = jnp.pad(x.reshape(patches, hidden), ((0, num_chunks * size - patches), (0, 0)))
            return padded.reshape(num_chunks, 1, 1, size, hidden)

        def decode(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
            condition, state = chunk
            x = self.head.condition(condition).reshape(1, 1, size, PATCH_SIZE**2, -1)
            return self.head.read(x, state)

        pixels = jax.lax.map(decode, (to_chunks(condition), to_chunks(state)))
        return pixels.reshape(num_chunks * size, PATCH_SIZE**2, 3)[:patches].reshape(batch, rows, columns, -1, 3)


def storage_dtypes(module: nnx.Module) -> dict[str, str]:
    """Dtype in which each parameter is stored, by flat name, so that storing rounds nothing that is not rounded in use.

    Kernels and biases that a layer converts to bfloat16 are stored so; norms, the codebook and layers that compute in
    float32 keep float32.
    """
    narrow = {
        "/".join(map(str, path))
        for path, layer in nnx.iter_modules(module)
        if isinstance(layer, (Linear, Conv, DepthwiseConv)) and layer.dtype == "bfloat16"
    }
    names = ("/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param)))
    return {name: "bfloat16" if name.rpartition("/")[0] in narrow else "float32" for name in names}
