"""DINOv2 ViT-B/14 (Oquab et al. 2023): the frozen features of the alignment loss and of the discriminator.

See docs/method.md, Frozen networks.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.features.resize import bicubic_resize
from cod_jax.features.sizes import require_multiple
from cod_jax.nn.attention import multi_head_attend
from cod_jax.nn.embeddings import patchify
from cod_jax.nn.layers import Linear
from cod_jax.nn.norms import LayerNorm
from cod_jax.nn.stack import Stack

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Pixels per condition cell; pictures are resized so that every cell gets one token.
CELL = 16
# The position table is resized with this much added to the new grid, a workaround of the published code for rounding
# that became part of the network (vision_transformer.py, `interpolate_offset`).
POSITION_EXTENT_OFFSET = 0.1


@dataclasses.dataclass(frozen=True)
class DINOv2Config:
    """A vision transformer; the defaults are the published ViT-B/14 without registers.

    Attributes:
        patch_size: Pixels per side of a token.
        width: Channels of a token.
        num_blocks: Transformer blocks.
        num_heads: Attention heads, a divisor of `width`.
        mlp_width: Hidden channels of a block's MLP.
        table_side: Side of the grid that position embeddings are stored for.
    """

    patch_size: int = 14
    width: int = 768
    num_blocks: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    table_side: int = 37

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise UserError(f"expected {field.name} to be at least 1, got {getattr(self, field.name)}")
        if self.width % self.num_heads:
            raise UserError(f"expected width to be a multiple of num_heads {self.num_heads}, got {self.width}")


class Block(nnx.Module):
    """Attention, then an MLP, each normalised before and scaled per channel after, each added to its input."""

    def __init__(self, config: DINOv2Config, *, dtype: str, rngs: nnx.Rngs):
        width = config.width
        self.num_heads = config.num_heads
        self.norm1 = LayerNorm(width)
        self.qkv = Linear(width, 3 * width, axes=("embed", "mixer"), dtype=dtype, rngs=rngs)
        self.project = Linear(width, width, axes=("mixer", "embed"), dtype=dtype, rngs=rngs)
        self.scale1 = nnx.Param(jnp.ones((width,), jnp.float32), axes=("norm",))
        self.norm2 = LayerNorm(width)
        self.mlp_in = Linear(width, config.mlp_width, axes=("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.mlp_out = Linear(config.mlp_width, width, axes=("mlp", "embed"), dtype=dtype, rngs=rngs)
        self.scale2 = nnx.Param(jnp.ones((width,), jnp.float32), axes=("norm",))

    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        """Map tokens [B, N, width]."""
        x = x + self.project(self._mix(self.norm1(x))) * self.scale1[...].astype(x.dtype)[None, None]
        hidden = jax.nn.gelu(self.mlp_in(self.norm2(x)), approximate=False)
        return x + self.mlp_out(hidden) * self.scale2[...].astype(x.dtype)[None, None]

    def _mix(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        # Columns are ordered (q, k, v), head, channel of the head.
        heads = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, x.shape[2] // self.num_heads)
        return multi_head_attend(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]).reshape(x.shape)


class DINOv2(nnx.Module):
    """Picture to patch tokens.

    Args:
        config: The network's description.
        dtype: Dtype of the computation, "float32" or "bfloat16"; norm statistics, the attention's softmax and the
            resizes are float32, as are the parameters.
        rngs: Source of the initial values, which only tests use.
    """

    def __init__(self, config: DINOv2Config, *, dtype: str, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        num_inputs = 3 * config.patch_size**2
        self.patch_embed = Linear(num_inputs, config.width, axes=("features", "embed"), dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(jnp.zeros((config.width,), jnp.float32), axes=("embed",))
        # Row 0 belongs to the cls token, the others to the grid, row by row.
        num_positions = 1 + config.table_side**2
        table = 0.02 * jax.random.normal(rngs.params(), (num_positions, config.width), jnp.float32)
        self.positions = nnx.Param(table, axes=("features", "embed"))
        self.blocks = Stack(lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.num_blocks, rngs=rngs)
        self.norm = LayerNorm(config.width)

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Return the tokens of the last block, normalised, [B, H / patch_size, W / patch_size, width].

        Args:
            x: Pictures whose sides are multiples of patch_size, in the range that the caller wants the network to see.

        Raises:
            UserError: A side is not a multiple of patch_size.
        """
        return self._to_grid(self.norm(self._run(self.embed(x), keep=False)[0]), x)

    def layers(self, x: Float[Array, "B H W 3"], layers: Sequence[int]) -> Float[Array, "L B h w C"]:
        """Return tokens after some blocks, normalised by the final norm, [L, B, H / patch_size, W / patch_size, width].

        Args:
            x: As for a call.
            layers: Numbers of the blocks, 0 is the first.

        Raises:
            UserError: There is no such block, or a side is not a multiple of patch_size.
        """
        wrong = [layer for layer in layers if not 0 <= layer < self.config.num_blocks]
        if wrong or not layers:
            raise UserError(f"expected layers to be blocks from 0 to {self.config.num_blocks - 1}, got {tuple(layers)}")
        streams = self.streams(self.embed(x))
        return jnp.stack([self._to_grid(self.norm(streams[layer]), x) for layer in layers])

    def alignment_tokens(self, image01: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Return one token per cell of 16 pixels, [B, H / 16, W / 16, width], as CoD's alignment loss takes them.

        Args:
            image01: Pictures in [0, 1]; they are normalised by ImageNet's statistics and then resized.

        Raises:
            UserError: A side is not a multiple of 16.
        """
        return self(self._resize_cells(normalize_imagenet(image01)))

    def discriminator_layers(self, image: Float[Array, "B H W 3"], layers: Sequence[int]) -> Float[Array, "L B h w C"]:
        """Return tokens after some blocks, one per cell of 16 pixels, as CoD's discriminator takes them.

        Args:
            image: Pictures in [-1, 1], which is what the network sees: CoD does not normalise here.
            layers: Numbers of the blocks, 0 is the first.

        Raises:
            UserError: There is no such block, or a side is not a multiple of 16.
        """
        return self.layers(self._resize_cells(image), layers)

    def embed(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B N C"]:
        """Return the input of the first block: the cls token and the patches row by row, with their positions added."""
        batch = x.shape[0]
        patch, side = self.config.patch_size, self.config.table_side
        require_multiple(x, patch)
        grid = patchify(x, patch)
        tokens = self.patch_embed(grid.reshape(*grid.shape[:3], -1))
        table = self.positions[...]
        positions = table[1:].reshape(1, side, side, -1)
        if grid.shape[1:3] != (side, side):
            positions = bicubic_resize(positions, grid.shape[1], grid.shape[2], extent_offset=POSITION_EXTENT_OFFSET)
        tokens = tokens + positions.astype(tokens.dtype)
        cls = (self.cls_token[...] + table[0]).astype(tokens.dtype)
        cls = jnp.broadcast_to(cls[None, None], (batch, 1, cls.shape[0]))
        return jnp.concatenate([cls, tokens.reshape(batch, -1, cls.shape[-1])], axis=1)

    def streams(self, x: Float[Array, "B N C"]) -> Float[Array, "L B N C"]:
        """Return the tokens after every block, not normalised, the cls token first."""
        return self._run(x, keep=True)[1]

    def _run(self, x: Float[Array, "B N C"], keep: bool) -> tuple[jax.Array, Any]:
        """Return the tokens after the last block, and those after every block if `keep`."""

        def body(carry: jax.Array, block: Block, _: jax.Array):
            after = block(carry)
            return after, after if keep else None

        return self.blocks.scan(body, x)

    def _resize_cells(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B H2 W2 3"]:
        require_multiple(x, CELL)
        _, height, width, _ = x.shape
        patch = self.config.patch_size
        return bicubic_resize(x, height // CELL * patch, width // CELL * patch)

    def _to_grid(self, tokens: Float[Array, "B N C"], x: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Drop the cls token and restore the grid."""
        patch = self.config.patch_size
        return tokens[:, 1:].reshape(x.shape[0], x.shape[1] // patch, x.shape[2] // patch, -1)


def normalize_imagenet(image01: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Subtract ImageNet's mean colour from pictures in [0, 1] and divide by its standard deviation."""
    mean, std = (np.array(values, np.float32)[None, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image01 - mean) / std
