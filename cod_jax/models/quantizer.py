"""Bottlenecks: latents to symbols and back.

Vector quantisation (van den Oord et al. 2017) is that of the published models (spec section 1). The other is scalar
quantisation with learned densities (Ballé et al. 2018; spec section 6).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from cod_jax.coding.factorized import LARGEST_SYMBOL, ChannelTables
from cod_jax.models.config import FactorizedConfig
from cod_jax.models.factorized_prior import DensityLayer, bits_per_value, coding_tables, init_density, quantiles

# The published code weights the codebook's term, not the encoder's commitment, with 0.25.
CODEBOOK_WEIGHT = 0.25


class Quantized(NamedTuple):
    """What a bottleneck makes of latents.

    Attributes:
        values: What the condition decoder gets, with a gradient.
        indices: The symbols, int32: indices of code vectors [B, h, w], or rounded latents [B, h, w, C] within
            +-`LARGEST_SYMBOL`.
        loss: What training adds: the quantisation loss, or the mean bits per position of a factorized bottleneck.
        bits: Of each image, by the learned densities; None with vector quantisation.
    """

    values: Float[Array, "B h w C"]
    indices: Int[Array, "B h w"] | Int[Array, "B h w C"]
    loss: Float[Array, ""]
    bits: Float[Array, " B"] | None = None


class VectorQuantizer(nnx.Module):
    """Nearest code vector by squared distance, in float32.

    Args:
        codebook_size: Number of code vectors; initialised uniformly in +-1 / codebook_size.
        features: Channels of a code vector.
        rngs: Source of the initial values.
    """

    def __init__(self, codebook_size: int, features: int, *, rngs: nnx.Rngs):
        codebook = jax.random.uniform(rngs.params(), (codebook_size, features), jnp.float32, -1.0, 1.0)
        self.codebook = nnx.Param(codebook / codebook_size, axes=("codebook", "latent"))

    def nearest(self, z: Float[Array, "B h w C"]) -> Int[Array, "B h w"]:
        """Index of the nearest code vector of each position; the first one where several are equally near."""
        z = z.astype(jnp.float32)
        codebook = self.codebook[...]
        # float32 products in full precision: tensor cores' shorter ones would flip indices between devices.
        products = jnp.einsum("bhwc,nc->bhwn", z, codebook, precision=jax.lax.Precision.HIGHEST)
        norms = jnp.sum(codebook**2, axis=-1)[None, None, None]
        distances = jnp.sum(z**2, axis=-1, keepdims=True) + norms - 2 * products
        return jnp.argmin(distances, axis=-1).astype(jnp.int32)

    def lookup(self, indices: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """Code vectors of the indices."""
        return self.codebook[...][indices]

    def __call__(self, z: Float[Array, "B h w C"]) -> Quantized:
        """Quantise z; the loss is mean((sg(e) - z)^2) + 0.25 mean((e - sg(z))^2)."""
        z = z.astype(jnp.float32)
        indices = self.nearest(z)
        codes = self.lookup(indices)
        commitment = jnp.mean((jax.lax.stop_gradient(codes) - z) ** 2)
        codebook = jnp.mean((codes - jax.lax.stop_gradient(z)) ** 2)
        values = z + jax.lax.stop_gradient(codes - z)
        return Quantized(values, indices, commitment + CODEBOOK_WEIGHT * codebook)


class _ChannelLayer(nnx.Module):
    """The parameters of a `DensityLayer`."""

    def __init__(self, layer: DensityLayer):
        self.matrix = nnx.Param(layer.matrix, axes=("latent", "kernel", "kernel"))
        self.bias = nnx.Param(layer.bias, axes=("latent", "kernel"))
        factor = None if layer.factor is None else nnx.Param(layer.factor, axes=("latent", "kernel"))
        self.factor = nnx.data(factor)


class ScalarQuantizer(nnx.Module):
    """Rounds every channel to bins and knows how likely each bin is, in float32.

    A latent z of channel c is the symbol k = round((z - offset_c) / step_c) and comes back as k step_c + offset_c. A
    quality level has steps of its own, the inverse of learned gains (Cui et al. 2021); the encoder does not know the
    level, so that one density of its latents serves all of them.

    Args:
        config: The bottleneck's description.
        features: Channels.
        rngs: Source of the initial values.
    """

    def __init__(self, config: FactorizedConfig, features: int, *, rngs: nnx.Rngs):
        self.features, self.tail_mass = features, config.tail_mass
        self.is_centred = config.offset == "median"
        self.rounds_in_training = config.training == "straight_through"
        self.num_levels = config.num_levels
        self.density = nnx.List([_ChannelLayer(layer) for layer in init_density(rngs.params(), features)])
        log_gains = None
        if config.num_levels > 1:
            # The best quality starts with steps of 1, and each one below with sqrt(2) times those of its neighbour.
            levels = np.arange(1 - config.num_levels, 1, dtype=np.float32) * (math.log(2) / 2)
            log_gains = nnx.Param(jnp.tile(levels[:, None], (1, features)), axes=("kernel", "latent"))
        self.log_gains = nnx.data(log_gains)

    def __call__(
        self,
        z: Float[Array, "B h w C"],
        *,
        level: Int[Array, " B"] | None = None,
        noise: Float[Array, "B h w C"] | None = None,
    ) -> Quantized:
        """Quantise z.

        Args:
            z: Latents.
            level: Quality level of each image, 0 to num_levels - 1; by default the last, which is the best.
            noise: Uniform in +-0.5, for training: what stands for rounding, as the description says. Without it values
                and bits are those of the symbols.
        """
        z = z.astype(jnp.float32)
        step, offset = self.steps(level)[:, None, None], self.offsets()[None, None, None]
        scaled = (z - offset) / step
        symbols = jax.lax.stop_gradient(jnp.clip(jnp.round(scaled), -LARGEST_SYMBOL, LARGEST_SYMBOL))
        # Exactly the symbols, but with the gradient of what was rounded.
        rounded = (symbols + (scaled - jax.lax.stop_gradient(scaled))) * step + offset
        noisy = rounded if noise is None else z + noise * step
        # The network of a density keeps dozens of numbers per latent for its gradient; they are cheap to make again.
        bits = jax.checkpoint(bits_per_value)(self.layers(), noisy, step)
        return Quantized(
            values=rounded if self.rounds_in_training else noisy,
            indices=symbols.astype(jnp.int32),
            loss=jnp.mean(jnp.sum(bits, axis=-1)),
            bits=jnp.sum(bits, axis=(1, 2, 3)),
        )

    def lookup(
        self, symbols: Int[Array, "B h w C"], *, level: Int[Array, " B"] | None = None
    ) -> Float[Array, "B h w C"]:
        """What the symbols stand for at a quality level; see `__call__`."""
        return symbols * self.steps(level)[:, None, None] + self.offsets()[None, None, None]

    def coding_tables(self) -> list[ChannelTables]:
        """The tables that code the symbols of each quality level; not for use inside jitted functions."""
        steps = self.steps(jnp.arange(self.num_levels))
        layers, offset = self.layers(), self.offsets()
        return [coding_tables(layers, step=step, offset=offset, tail_mass=self.tail_mass) for step in steps]

    def layers(self) -> list[DensityLayer]:
        """The densities of the latents."""
        return [
            DensityLayer(layer.matrix[...], layer.bias[...], None if layer.factor is None else layer.factor[...])
            for layer in self.density
        ]

    def steps(self, level: Int[Array, " B"] | None) -> Float[Array, "B C"]:
        """Widths of the bins at the quality level of each image; see `__call__`."""
        if self.log_gains is None:
            return jnp.ones((1 if level is None else level.size, self.features), jnp.float32)
        log_gains = self.log_gains[...]
        return jnp.exp(-(log_gains[-1:] if level is None else log_gains[level]))

    def offsets(self) -> Float[Array, " C"]:
        """Middles of the channels' bins 0."""
        if not self.is_centred:
            return jnp.zeros((self.features,), jnp.float32)
        return jax.lax.stop_gradient(quantiles(self.layers(), jnp.zeros((1,)))[:, 0])
