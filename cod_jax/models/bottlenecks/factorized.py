"""Scalar quantisation with learned densities (Ballé et al. 2018); see docs/method.md, Bottlenecks."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from cod_jax.coding.entropy import Prior
from cod_jax.coding.entropy.factorized import stack_tables
from cod_jax.coding.entropy.predictive_fitting import fit_predictive
from cod_jax.coding.symbols import LARGEST_SYMBOL, SymbolFormat
from cod_jax.errors import UserError
from cod_jax.losses.terms import masked_mean
from cod_jax.models.bottlenecks.bottleneck import (
    Bottleneck,
    BottleneckConfig,
    BottleneckTraining,
    Draws,
    Quantized,
    SymbolMap,
)
from cod_jax.models.bottlenecks.densities import DensityLayer, bits_per_value, coding_tables, init_density, quantiles
from cod_jax.models.bottlenecks.network_fitting import with_network
from cod_jax.models.fields import require, require_range
from cod_jax.models.functional import Functional, Params

MAX_LEVELS = 64


@dataclasses.dataclass(frozen=True)
class FactorizedTraining(BottleneckTraining):
    """Rate-distortion training, whose loss contains lambda times the bits per pixel.

    Attributes:
        kind: Kind of bottleneck that these settings are for.
        rate_weights: Lambda, the weight of the bits per pixel, for each quality level. The first is the largest and
            belongs to the lowest quality.
        level_balance: How much the losses of the levels are evened out: those of a picture are multiplied by lambda to
            the power of minus this. At 0 the low levels, whose losses are largest, decide most of a gradient; at 1
            the high ones.
    """

    TERM = "rate"
    kind: Literal["factorized"] = "factorized"
    rate_weights: tuple[float, ...] = (1.0,)
    level_balance: float = 0.0

    def __post_init__(self):
        require(0 <= self.level_balance <= 1, f"level_balance must be in [0, 1], got {self.level_balance}")
        weights = self.rate_weights
        if not weights or not all(isinstance(weight, int | float) and 0 < weight < math.inf for weight in weights):
            raise UserError(f"rate_weights must hold positive finite numbers, such as (1.0,), got {weights!r}")
        if any(after >= before for before, after in itertools.pairwise(weights)):
            raise UserError(
                f"rate_weights must fall from level to level, got {weights!r}; put the lambda of the best quality last"
            )

    @property
    def weight(self) -> float:
        """Lambda of the lowest quality; `term` scales the bits of the other levels relative to it."""
        return self.rate_weights[0]

    def check(self, bottleneck: BottleneckConfig) -> None:
        """Check that there is one lambda for each quality level of the bottleneck.

        Raises:
            UserError: The numbers differ.
        """
        num_levels = bottleneck.symbols(1).num_levels
        if len(self.rate_weights) != num_levels:
            raise UserError(
                f"rate_weights must hold one lambda for each of the {num_levels} quality levels, the largest first, "
                f"got {len(self.rate_weights)}"
            )

    def term(self, quantized: Quantized, level: Int[Array, " B"], keep: Bool[Array, " B"]) -> Float[Array, ""]:
        """Return the mean bits per pixel, with each picture weighted by its lambda over the first.

        Pictures without a condition cost nothing, because no file contains the null condition.
        """
        relative = jnp.asarray(self.rate_weights, jnp.float32) / self.rate_weights[0]
        return masked_mean(relative[level] * self.importance(level) * quantized.penalty, keep)

    def importance(self, level: Int[Array, " B"]) -> Float[Array, " B"]:
        """Return lambda to the power of -`level_balance`, over its mean; see `BottleneckTraining.importance`."""
        weights = np.asarray(self.rate_weights, np.float64) ** -self.level_balance
        return jnp.asarray(weights / weights.mean(), jnp.float32)[level]


@dataclasses.dataclass(frozen=True)
class FactorizedConfig(BottleneckConfig):
    """A bottleneck that rounds latents and learns the density of each channel.

    Attributes:
        kind: Name of this kind of bottleneck.
        num_levels: Number of quality levels. Several levels learn bin widths of their own, one per channel; a single
            level rounds to bins of width 1.
        training: Stand-in for rounding in training. "noise" adds uniform noise of a bin's width. "straight_through"
            rounds for the condition decoder, with the gradient of the identity, and uses noise for the rate.
        offset: Place of the bins. "median" centres a channel's bin 0 on its median, so that a channel without
            information costs almost nothing. "none" centres bin 0 on 0.
        tail_mass: Share of a density that its coding table may leave out; see `densities.coding_tables`.
    """

    TRAINING = FactorizedTraining
    kind: Literal["factorized"] = "factorized"
    num_levels: int = 1
    training: Literal["noise", "straight_through"] = "noise"
    offset: Literal["median", "none"] = "median"
    tail_mass: float = 2.0**-16

    def __post_init__(self):
        require_range(self, {"num_levels": MAX_LEVELS})
        require(
            1e-9 <= self.tail_mass <= 0.1,
            f"tail_mass must be between 1e-9 and 0.1, got {self.tail_mass}; the default is 1.5e-5",
        )

    def symbols(self, features: int) -> SymbolFormat:
        """Return the format of the symbols: one integer per channel."""
        return SymbolFormat(features, -LARGEST_SYMBOL, LARGEST_SYMBOL, self.num_levels)

    def stored(self) -> dict[str, Any]:
        """Return the fields in model folders, where `codebook_bits` is 0 for this bottleneck."""
        return {"codebook_bits": 0, "factorized": {name: value for name, value in vars(self).items() if name != "kind"}}

    def build(self, features: int, *, pitch: int, rngs: nnx.Rngs) -> "ScalarQuantizer":
        """Return the module; see `BottleneckConfig.build`."""
        return ScalarQuantizer(self, features, pitch=pitch, rngs=rngs)

    def fit(self, params: Params, scales: npt.NDArray[np.floating]) -> Params:
        """Return the parameters with densities as wide as the latents; see `BottleneckConfig.fit`."""
        first, *rest = params["density"].items()
        number, layer = first
        # softplus(matrix) divides by the width, and is about exp(matrix) where that is small.
        weights = np.log1p(np.exp(np.asarray(layer["matrix"], np.float64))) / scales[:, None, None]
        return {**params, "density": {number: {**layer, "matrix": np.log(np.expm1(weights))}, **dict(rest)}}

    def build_in_use(self, features: int, *, rngs: nnx.Rngs) -> "FixedBins":
        """Return the module with the bins as plain numbers, without the densities."""
        return FixedBins(self.num_levels, features)

    def fold(self, params: Params, features: int) -> Params:
        """Return the bins of every quality level, as `FixedBins` holds them."""
        functional = Functional(lambda rngs: self.build(features, pitch=1, rngs=rngs))
        quantizer = functional.bind(jax.tree.map(jnp.asarray, params))
        return {"step": quantizer.steps(jnp.arange(self.num_levels)), "offset": quantizer.offsets()}

    def draw(self, key: jax.Array, grid: tuple[int, int, int], features: int) -> Draws:
        """Return a quality level for each picture and noise in +-0.5."""
        key_level, key_noise = jax.random.split(key)
        return Draws(
            level=jax.random.randint(key_level, grid[:1], 0, self.num_levels),
            noise=jax.random.uniform(key_noise, (*grid, features), jnp.float32, -0.5, 0.5),
        )

    def metrics(self, statistics: Mapping[str, Array]) -> dict[str, Array]:
        """Return the bits per pixel and per symbol by the learned densities."""
        names = {"estimated_bits_per_pixel": "pixels", "bits_per_symbol": "symbols"}
        return {name: statistics["bits"] / jnp.maximum(statistics[per], 1.0) for name, per in names.items()}


class _Bins(SymbolMap):
    """Rounding to the bins that `steps` and `offsets` define."""

    def nearest(self, z: Float[Array, "B h w C"], level: Int[Array, " B"]) -> Int[Array, "B h w C"]:
        """Return the bin of each latent at the quality level of each picture."""
        step, offset = self._bins(level)
        return _rounded((z.astype(jnp.float32) - offset) / step).astype(jnp.int32)

    def lookup(self, symbols: Int[Array, "B h w C"], level: Int[Array, " B"]) -> Float[Array, "B h w C"]:
        """Return the middle of each symbol's bin at the quality level of each picture."""
        step, offset = self._bins(level)
        return symbols * step + offset

    def steps(self, level: Int[Array, " B"]) -> Float[Array, "B C"]:
        """Return the widths of the bins at each level."""
        raise NotImplementedError

    def offsets(self) -> Float[Array, " C"]:
        """Return the middles of the channels' bins 0."""
        raise NotImplementedError

    def _bins(self, level: jax.Array) -> tuple[Float[Array, "B 1 1 C"], Float[Array, "1 1 1 C"]]:
        return self.steps(level)[:, None, None], self.offsets()[None, None, None]


class _ChannelLayer(nnx.Module):
    """The parameters of a `DensityLayer`."""

    def __init__(self, layer: DensityLayer):
        self.matrix = nnx.Param(layer.matrix, axes=("latent", "kernel", "kernel"))
        self.bias = nnx.Param(layer.bias, axes=("latent", "kernel"))
        factor = None if layer.factor is None else nnx.Param(layer.factor, axes=("latent", "kernel"))
        self.factor = nnx.data(factor)


class ScalarQuantizer(_Bins, Bottleneck):
    """Rounding of every channel, with a learned probability for each bin; float32.

    A latent z of channel c becomes the symbol k = round((z - offset_c) / step_c) and comes back as k step_c + offset_c.
    Each quality level has its own steps, the inverse of learned gains (Cui et al. 2021). The encoder does not see the
    level, so one density serves all levels.

    Args:
        config: The bottleneck's description.
        features: Channels.
        pitch: Pixels per grid position in each direction.
        rngs: Source of the initial values.
    """

    def __init__(self, config: FactorizedConfig, features: int, *, pitch: int, rngs: nnx.Rngs):
        self.features, self.tail_mass, self.pitch = features, config.tail_mass, pitch
        self.is_centred = config.offset == "median"
        self.rounds_in_training = config.training == "straight_through"
        self.num_levels = config.num_levels
        self.density = nnx.List([_ChannelLayer(layer) for layer in init_density(rngs.params(), features)])
        log_gains = None
        if config.num_levels > 1:
            # The best quality starts with steps of 1, each lower one with sqrt(2) times the steps of the next better.
            levels = np.arange(1 - config.num_levels, 1, dtype=np.float32) * (math.log(2) / 2)
            log_gains = nnx.Param(jnp.tile(levels[:, None], (1, features)), axes=("kernel", "latent"))
        self.log_gains = nnx.data(log_gains)

    def __call__(
        self, z: Float[Array, "B h w C"], level: Int[Array, " B"], noise: Float[Array, "B h w C"] | None = None
    ) -> Quantized:
        """Quantise z; the penalty of a picture is its bits per pixel, -log2 of the mass of its bins.

        Args:
            z: Latents.
            level: Quality level of each picture, 0 to num_levels - 1.
            noise: Uniform in +-0.5, a stand-in for rounding in training, see `FactorizedConfig.training`. Without it
                values and bits are those of the symbols.
        """
        z = z.astype(jnp.float32)
        step, offset = self._bins(level)
        scaled = self.positions(z, level)
        symbols = jax.lax.stop_gradient(_rounded(scaled))
        # The values of the symbols, with the gradient of the latents before rounding.
        rounded = (symbols + (scaled - jax.lax.stop_gradient(scaled))) * step + offset
        noisy = rounded if noise is None else z + noise * step
        return self._quantized(rounded if self.rounds_in_training else noisy, symbols, noisy, step)

    def positions(self, z: Float[Array, "B h w C"], level: Int[Array, " B"]) -> Float[Array, "B h w C"]:
        """Return the places of latents among the symbols, which are the whole numbers."""
        step, offset = self._bins(level)
        return (z.astype(jnp.float32) - offset) / step

    def at(self, positions: Float[Array, "B h w C"], level: Int[Array, " B"]) -> Quantized:
        """Return values and bits at places between symbols; those of the symbols at whole numbers."""
        step, offset = self._bins(level)
        values = positions * step + offset
        return self._quantized(values, _rounded(positions), values, step)

    def _quantized(self, values: jax.Array, symbols: jax.Array, coded: jax.Array, step: jax.Array) -> Quantized:
        """Return latents with the bits of those that are coded."""
        # A density's network would store dozens of numbers per latent for its gradient; recomputing them is cheap.
        bits = jnp.sum(jax.checkpoint(bits_per_value)(self.layers(), coded, step), axis=(1, 2, 3))
        num_positions = coded.shape[1] * coded.shape[2]
        pixels = float(num_positions * self.pitch**2)
        return Quantized(
            values=values,
            symbols=symbols.astype(jnp.int32),
            penalty=bits / pixels,
            statistics={
                "bits": bits,
                "pixels": jnp.full(bits.shape, pixels),
                "symbols": jnp.full(bits.shape, float(num_positions * self.features)),
            },
        )

    def entropy_tables(self) -> dict[str, np.ndarray]:
        """Return offsets and lengths [levels, C] and counts [levels, C, L] of the channels' coding tables."""
        layers, offset = self.layers(), self.offsets()
        levels = [
            coding_tables(layers, step=step, offset=offset, tail_mass=self.tail_mass)
            for step in self.steps(jnp.arange(self.num_levels))
        ]
        return stack_tables(levels)

    def fit_prior(
        self,
        grids: Sequence[npt.NDArray[np.int32]],
        levels: Sequence[int],
        symbols: SymbolFormat,
        tables: Mapping[str, np.ndarray],
        *,
        network_steps: int = 0,
    ) -> Prior:
        """Return the tables of mode "predictive" beside those of the densities; see `Bottleneck.fit_prior`."""
        fitted = fit_predictive(grids, levels, symbols)
        if network_steps:
            fitted = with_network(fitted, grids, levels, symbols, steps=network_steps)
        return Prior({**tables, **fitted.arrays()})

    def layers(self) -> list[DensityLayer]:
        """Return the densities of the latents."""
        return [
            DensityLayer(layer.matrix[...], layer.bias[...], None if layer.factor is None else layer.factor[...])
            for layer in self.density
        ]

    def steps(self, level: Int[Array, " B"]) -> Float[Array, "B C"]:
        """Return the widths of the bins at each level."""
        if self.log_gains is None:
            return jnp.ones((level.size, self.features), jnp.float32)
        return jnp.exp(-self.log_gains[...][level])

    def offsets(self) -> Float[Array, " C"]:
        """Return the middles of the channels' bins 0."""
        if not self.is_centred:
            return jnp.zeros((self.features,), jnp.float32)
        return jax.lax.stop_gradient(quantiles(self.layers(), jnp.zeros((1,)))[:, 0])


class FixedBins(_Bins):
    """A `ScalarQuantizer` for compiled codecs, with the bins as plain numbers and without densities.

    Args:
        num_levels: Quality levels.
        features: Channels.
    """

    def __init__(self, num_levels: int, features: int):
        self.step = nnx.Param(jnp.ones((num_levels, features)), axes=("kernel", "latent"))
        self.offset = nnx.Param(jnp.zeros((features,)), axes=("latent",))

    def steps(self, level: Int[Array, " B"]) -> Float[Array, "B C"]:
        """Return the widths of the bins at each level."""
        return self.step[...][level]

    def offsets(self) -> Float[Array, " C"]:
        """Return the middles of the channels' bins 0."""
        return self.offset[...]


def _rounded(scaled: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(scaled), -LARGEST_SYMBOL, LARGEST_SYMBOL)
