"""The interface of bottlenecks: latents to symbols and back, and what training asks of them.

A bottleneck has three sides. Its description says what it is and is stored with the model. Its module holds the
parameters. Its training settings weight its penalty and keep its parameters in use; a model folder knows nothing of
them. The three of one kind live in one file.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from cod_jax.coding.symbols import SymbolFormat
from cod_jax.models.fields import Part
from cod_jax.models.functional import Params


class Draws(NamedTuple):
    """Randomness of a batch in a bottleneck.

    Attributes:
        level: Quality level of each picture; 0 where there is no choice.
        noise: What training adds or chooses by, as the bottleneck drew it; None quantises as the codec in use does.
    """

    level: Int[Array, " B"]
    noise: Float[Array, "B h w N"] | None = None


class Quantized(NamedTuple):
    """What a bottleneck makes of latents.

    Attributes:
        values: Input of the condition decoder, with a gradient.
        symbols: int32, within the bottleneck's `SymbolFormat`.
        penalty: What training adds for each picture, unweighted.
        statistics: Named measurements of each picture [B, ...], from whose means `BottleneckConfig.metrics` follow.
    """

    values: Float[Array, "B h w F"]
    symbols: Int[Array, "B h w C"]
    penalty: Float[Array, " B"]
    statistics: dict[str, Array]


class SymbolMap(nnx.Module):
    """Latents to symbols and back, as in use; float32."""

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
            noise: See `Draws`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def entropy_tables(self) -> dict[str, np.ndarray]:
        """Return integer tables that code the symbols, to be stored with an exported model; {} where there are none.

        They are made once, on the host: what is computed in floating point differs between devices.
        """
        return {}


class BottleneckConfig(Part):
    """Description of a bottleneck; a subclass is a frozen dataclass.

    Attributes:
        kind: Which bottleneck this is.
        TRAINING: Kind of its training settings, which a run has by default.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "codebook": "cod_jax.models.bottlenecks.codebook:CodebookConfig",
        "factorized": "cod_jax.models.bottlenecks.factorized:FactorizedConfig",
    }
    TRAINING: ClassVar[type["BottleneckTraining"]]

    def symbols(self, features: int) -> SymbolFormat:
        """Return the format of the symbols for latents of so many channels."""
        raise NotImplementedError(f"{type(self).__name__} must define symbols")

    @property
    def nominal_bits(self) -> float | None:
        """Bits of a grid position by design; None where each picture has a rate of its own."""
        return None

    def stored(self) -> dict[str, Any]:
        """Return the fields of `ConditionCodecConfig` that hold this description in a model folder."""
        return {"bottleneck": {**vars(self)}}

    def build(self, features: int, *, pitch: int, rngs: nnx.Rngs) -> Bottleneck:
        """Return the module.

        Args:
            features: Channels of the latents.
            pitch: Pixels per grid position in each direction, for rates per pixel.
            rngs: Source of the initial values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def build_in_use(self, features: int, *, rngs: nnx.Rngs) -> SymbolMap:
        """Return the module of compiled codecs, whose parameters `fold` gives; by default the bottleneck itself."""
        return self.build(features, pitch=1, rngs=rngs)

    def fold(self, params: Params, features: int) -> Params:
        """Return the parameters of the module in use, with all that is constant computed."""
        return params

    def draw(self, key: jax.Array, grid: tuple[int, int, int], features: int) -> Draws:
        """Return the randomness of a training batch whose symbols have the grid [B, h, w]."""
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    def metrics(self, statistics: Mapping[str, Array]) -> dict[str, Array]:
        """Return what to log of the means of `Quantized.statistics` over pictures; "codebook/usage" and the like."""
        return {}


class BottleneckTraining(Part):
    """How a run trains a bottleneck; a subclass is a frozen dataclass.

    Attributes:
        kind: Which bottleneck these settings are for.
        TERM: Name of the penalty among the loss terms.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "codebook": "cod_jax.models.bottlenecks.codebook:CodebookTraining",
        "factorized": "cod_jax.models.bottlenecks.factorized:FactorizedTraining",
    }
    TERM: ClassVar[str]

    @property
    def weight(self) -> float:
        """Weight of the penalty in the loss; 0 leaves it out."""
        raise NotImplementedError(f"{type(self).__name__} must define weight")

    def check(self, bottleneck: BottleneckConfig) -> None:
        """Refuse settings that do not fit a bottleneck.

        Raises:
            UserError: With the setting to change.
        """

    def term(self, quantized: Quantized, level: Int[Array, " B"], keep: Bool[Array, " B"]) -> Float[Array, ""]:
        """Return the penalty of a batch, to be multiplied by `weight`.

        Args:
            quantized: The batch.
            level: Quality level of each picture.
            keep: Pictures that kept their condition; the others stand for "no condition", which no file holds.
        """
        raise NotImplementedError(f"{type(self).__name__} must define term")

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
