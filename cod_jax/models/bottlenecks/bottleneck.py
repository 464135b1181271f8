"""Interface of bottlenecks, which turn latents into symbols and back.

A bottleneck has three parts. Its description is stored with the model. Its module holds the parameters. Its training
settings weight the penalty and keep the parameters in use; a model folder does not contain them. All three parts of one
kind live in one file.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from cod_jax.coding.entropy import Prior
from cod_jax.coding.entropy.fitting import fit_prior
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError
from cod_jax.models.fields import Part
from cod_jax.models.functional import Functional, Params


class Draws(NamedTuple):
    """Randomness of a batch in a bottleneck.

    Attributes:
        level: Quality level of each picture, 0 if the model has one level.
        noise: Random numbers for training, as `BottleneckConfig.draw` made them. Without them (None) the bottleneck
            quantises as it does outside of training.
    """

    level: Int[Array, " B"]
    noise: Float[Array, "B h w N"] | None = None


class Quantized(NamedTuple):
    """Output of a bottleneck.

    Attributes:
        values: Input of the condition decoder, with a gradient.
        symbols: int32, within the bottleneck's `SymbolFormat`.
        penalty: Loss of each picture, unweighted.
        statistics: Named measurements of each picture [B, ...]. `BottleneckConfig.metrics` turns their means into
            metrics.
    """

    values: Float[Array, "B h w F"]
    symbols: Int[Array, "B h w C"]
    penalty: Float[Array, " B"]
    statistics: dict[str, Array]


class SymbolMap(nnx.Module):
    """Map between latents and symbols outside of training; float32."""

    def nearest(self, z: Float[Array, "B h w F"], level: Int[Array, " B"]) -> Int[Array, "B h w C"]:
        """Return the symbols of latents at the quality level of each picture."""
        raise NotImplementedError(f"{type(self).__name__} must define nearest")

    def lookup(self, symbols: Int[Array, "B h w C"], level: Int[Array, " B"]) -> Float[Array, "B h w F"]:
        """Return the values that symbols stand for at the quality level of each picture."""
        raise NotImplementedError(f"{type(self).__name__} must define lookup")


class Bottleneck(SymbolMap):
    """A bottleneck with its parameters."""

    def __call__(
        self, z: Float[Array, "B h w F"], level: Int[Array, " B"], noise: Float[Array, "B h w N"] | None = None
    ) -> Quantized:
        """Quantise latents.

        Args:
            z: Latents.
            level: Quality level of each picture.
            noise: Random numbers for training, see `Draws`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def entropy_tables(self) -> dict[str, np.ndarray]:
        """Return the integer tables for coding symbols, which an exported model stores; {} if there are none.

        They are computed once, on the host, because floating-point results differ between devices.
        """
        return {}

    def fit_prior(
        self,
        grids: Sequence[npt.NDArray[np.int32]],
        levels: Sequence[int],
        symbols: SymbolFormat,
        tables: Mapping[str, np.ndarray],
        *,
        network_steps: int = 0,
    ) -> Prior:
        """Return the tables that suit the symbols of some pictures: by default those for the symbols of a codebook.

        Args:
            grids: Symbols of pictures [h, w, C].
            levels: Quality level of each of them.
            symbols: Their format.
            tables: The tables that come from training, see `entropy_tables`.
            network_steps: Steps of training for networks that predict symbols; 0 makes none.

        Raises:
            UserError: There is no such entropy model for these symbols, it has no networks, or there are too few
                pictures.
        """
        if network_steps:
            raise UserError(f"expected symbols of a factorized bottleneck to train networks for, got {symbols}")
        if symbols.bits is None:
            raise UserError(f"no entropy model of this package can be fitted to {symbols}; name an --entropy-model")
        each = jnp.arange(symbols.size, dtype=jnp.int32)[None, :, None, None]
        values = np.asarray(self.lookup(each, jnp.zeros((1,), jnp.int32)))[0, :, 0]
        return fit_prior(grids, values)


class BottleneckConfig(Part):
    """Description of a bottleneck; subclasses are frozen dataclasses.

    Attributes:
        kind: Name of this kind of bottleneck.
        TRAINING: Class of the training settings that go with it.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "codebook": "cod_jax.models.bottlenecks.codebook:CodebookConfig",
        "factorized": "cod_jax.models.bottlenecks.factorized:FactorizedConfig",
    }
    TRAINING: ClassVar[type["BottleneckTraining"]]

    def symbols(self, features: int) -> SymbolFormat:
        """Return the format of the symbols for latents with this number of channels."""
        raise NotImplementedError(f"{type(self).__name__} must define symbols")

    @property
    def nominal_bits(self) -> float | None:
        """Bits per grid position by design, or None if the rate depends on the picture."""
        bits = self.symbols(1).bits
        return None if bits is None else float(bits)

    def stored(self) -> dict[str, Any]:
        """Return the fields of `ConditionCodecConfig` that hold this description in a model folder."""
        return {"bottleneck": dataclasses.asdict(cast(Any, self))}

    def build(self, features: int, *, pitch: int, rngs: nnx.Rngs) -> Bottleneck:
        """Return the module.

        Args:
            features: Channels of the latents.
            pitch: Pixels per grid position in each direction, for rates per pixel.
            rngs: Source of the initial values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def build_in_use(self, features: int, *, rngs: nnx.Rngs) -> SymbolMap:
        """Return the module for compiled codecs, with the parameters of `fold`; by default the bottleneck itself."""
        return self.build(features, pitch=1, rngs=rngs)

    def fold(self, params: Params, features: int) -> Params:
        """Return the parameters for `build_in_use`, with everything constant computed in advance."""
        return params

    def fit(self, params: Params, scales: npt.NDArray[np.floating]) -> Params:
        """Return the parameters of a fresh bottleneck for latents with these standard deviations [F]."""
        return params

    def draw(self, key: jax.Array, grid: tuple[int, int, int], features: int) -> Draws:
        """Return the randomness of a training batch whose symbols have the grid [B, h, w]."""
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    def metrics(self, statistics: Mapping[str, Array]) -> dict[str, Array]:
        """Return metrics such as "codebook/usage", given the means of `Quantized.statistics` over pictures."""
        return {}


class BottleneckTraining(Part):
    """Training settings of a bottleneck; subclasses are frozen dataclasses.

    Attributes:
        kind: Kind of bottleneck that these settings are for.
        TERM: Name of the penalty among the loss terms.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "codebook": "cod_jax.models.bottlenecks.codebook:CodebookTraining",
        "factorized": "cod_jax.models.bottlenecks.factorized:FactorizedTraining",
    }
    TERM: ClassVar[str]

    @property
    def weight(self) -> float:
        """Weight of the penalty in the loss; 0 switches it off."""
        raise NotImplementedError(f"{type(self).__name__} must define weight")

    def check(self, bottleneck: BottleneckConfig) -> None:
        """Refuse settings that do not fit a bottleneck.

        Raises:
            UserError: With the setting to change.
        """

    def importance(self, level: Int[Array, " B"]) -> Float[Array, " B"]:
        """Return the weight of each picture in the losses, 1 on average over the levels; `term` has it in already."""
        return jnp.ones(level.shape, jnp.float32)

    def term(self, quantized: Quantized, level: Int[Array, " B"], keep: Bool[Array, " B"]) -> Float[Array, ""]:
        """Return the penalty of a batch, to be multiplied by `weight`.

        Args:
            quantized: The quantised batch.
            level: Quality level of each picture.
            keep: Pictures that kept their condition. The others got the null condition, which no file contains.
        """
        raise NotImplementedError(f"{type(self).__name__} must define term")

    @property
    def estimated_rate_weight(self) -> float:
        """Weight of the bits per pixel that a network beside the model estimates; by default 0, without a network.

        A bottleneck that estimates its rate itself has it in `term`.
        """
        return 0.0

    def build_rate(self, bottleneck: BottleneckConfig, features: int) -> Functional[Any]:
        """Return the network that estimates the rate in training; exported models do not contain it.

        Args:
            bottleneck: Description of the bottleneck.
            features: Channels of the latents.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build_rate")

    def estimated_bits(
        self, rate: Any, bottleneck: Any, z: Float[Array, "B h w F"], quantized: Quantized
    ) -> Float[Array, " B"]:
        """Return the bits of each picture, with a gradient for the latents.

        Args:
            rate: The network of `build_rate`.
            bottleneck: The bottleneck with its parameters.
            z: Latents.
            quantized: What the bottleneck made of them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define estimated_bits")

    def buffer_axes(self, bottleneck: BottleneckConfig) -> dict[str, Any]:
        """Return logical axis names of the arrays that training keeps for the bottleneck, by name."""
        return {}

    def init_buffers(self, bottleneck: BottleneckConfig) -> dict[str, Any]:
        """Return these arrays for fresh parameters."""
        return {}

    def buffers_from(self, buffers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return these arrays for parameters that come from a trained model, given the shapes of fresh ones."""
        return {}

    def candidates(
        self, bottleneck: BottleneckConfig, z: Float[Array, "B h w F"], keep: Bool[Array, " B"], draws: Draws
    ) -> Any:
        """Return what `tend` may put in the place of parameters that are not in use, or None."""
        return None

    def tend(
        self,
        params: Params,
        average: Params,
        buffers: dict[str, Any],
        statistics: Mapping[str, Array],
        candidates: Any,
        step: jax.Array,
    ) -> tuple[Params, Params, dict[str, Any]]:
        """Return the bottleneck's parameters, their moving average and the buffers after a step.

        Args:
            params: Parameters of the bottleneck.
            average: Their moving average.
            buffers: Arrays of the run.
            statistics: Means of `Quantized.statistics` over the batch; pictures without a condition count as zero.
            candidates: See `candidates`.
            step: Step counted from 0.
        """
        return params, average, buffers
