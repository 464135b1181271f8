"""Part of an objective that concerns the bottleneck, the same for all objectives and kinds of bottleneck."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cod_jax.errors import UserError
from cod_jax.losses.terms import masked_mean
from cod_jax.models.bottlenecks import BottleneckTraining, Draws, Quantized
from cod_jax.models.codec_config import CodecConfig
from cod_jax.models.functional import Functional, Params
from cod_jax.training.objectives.loss_output import Buffers, LossOutput

# Loss term and training head of an estimated rate.
RATE = "rate"


class BottleneckSide:
    """Loss terms, randomness, measurements and upkeep of a model's bottleneck.

    Args:
        codec: Description of the condition codec.
        training: Training settings of its bottleneck.
        trained: Whether the bottleneck is trained; if not, its rate is not estimated.

    Attributes:
        weights: Weight of each loss term.
        heads: Training heads by name: "rate", or none.
        buffer_axes: Logical axis names of the buffers.

    Raises:
        UserError: The settings are for another kind of bottleneck, or do not fit this one.
    """

    def __init__(self, codec: CodecConfig, training: BottleneckTraining, *, trained: bool = True):
        if not isinstance(training, codec.bottleneck.TRAINING):
            raise UserError(
                f"objective.bottleneck must hold settings for a bottleneck of kind {codec.bottleneck.kind}, got "
                f"settings for {training.kind}; set model.codec.bottleneck and objective.bottleneck together"
            )
        training.check(codec.bottleneck)
        self._codec, self._training = codec, training
        self.weights = {training.TERM: training.weight}
        self.heads: dict[str, Functional[Any]] = {}
        if trained and training.estimated_rate_weight > 0:
            self.weights[RATE] = training.estimated_rate_weight
            self.heads[RATE] = training.build_rate(codec.bottleneck, codec.latent_channels)
            self._bottleneck = Functional(
                lambda rngs: codec.bottleneck.build(codec.latent_channels, pitch=codec.pitch, rngs=rngs)
            )
        self.buffer_axes: Buffers = training.buffer_axes(codec.bottleneck)

    def init_buffers(self) -> Buffers:
        """Return the buffers that go with fresh parameters."""
        return self._training.init_buffers(self._codec.bottleneck)

    def carried_buffers(self, buffers: Buffers) -> Mapping[str, np.ndarray]:
        """Return the buffers that replace fresh ones if the bottleneck comes from a trained model."""
        return self._training.buffers_from(buffers)

    def draw(self, key: jax.Array, image_shape: Sequence[int]) -> Draws:
        """Return the randomness for a batch of images [B, H, W, 3]."""
        batch, height, width, _ = image_shape
        grid = (batch, height // self._codec.pitch, width // self._codec.pitch)
        return self._codec.bottleneck.draw(key, grid, self._codec.latent_channels)

    def importance(self, draws: Draws) -> Float[Array, " B"]:
        """Return the weight of each picture in the losses; the mean over the quality levels is 1."""
        return self._training.importance(draws.level)

    def terms(
        self,
        params: Params,
        quantized: Quantized,
        draws: Draws,
        keep: Bool[Array, " B"],
        latents: Float[Array, "B h w F"],
    ) -> dict[str, Float[Array, ""]]:
        """Return the unweighted loss terms.

        Args:
            params: All parameters.
            quantized: The quantised batch.
            draws: Its randomness.
            keep: Pictures that kept their condition.
            latents: Latents before quantisation.
        """
        terms = {self._training.TERM: self._training.term(quantized, draws.level, keep)}
        if RATE in self.heads:
            head = self.heads[RATE].bind(params["heads"][RATE])
            bottleneck = self._bottleneck.bind(_bottleneck_of(params))
            bits = self._training.estimated_bits(head, bottleneck, latents, quantized)
            pixels = quantized.symbols.shape[1] * quantized.symbols.shape[2] * self._codec.pitch**2
            terms[RATE] = masked_mean(bits / pixels, keep)
        return terms

    def output(
        self,
        terms: dict[str, Float[Array, ""]],
        quantized: Quantized,
        keep: Bool[Array, " B"],
        latents: Float[Array, "B h w F"] | None = None,
        draws: Draws | None = None,
    ) -> LossOutput:
        """Return a loss's output with the measurements of the bottleneck.

        Args:
            terms: All unweighted loss terms.
            quantized: The quantised batch.
            keep: Pictures that kept their condition; the others count as zero.
            latents: Latents before quantisation; None if the bottleneck is not trained.
            draws: Randomness of the batch; goes with `latents`.
        """

        def mean(values: jax.Array) -> jax.Array:
            kept = keep.reshape(-1, *(1,) * (values.ndim - 1))
            return jnp.mean(jnp.where(kept, values, 0.0), axis=0)

        candidates = None
        if latents is not None and draws is not None:
            candidates = self._training.candidates(self._codec.bottleneck, latents, keep, draws)
        return LossOutput(terms, {name: mean(values) for name, values in quantized.statistics.items()}, candidates)

    def tend(
        self, params: Params, average: Params, buffers: Buffers, output: LossOutput, step: jax.Array
    ) -> tuple[Params, Params, Buffers]:
        """Return all parameters, their average and the buffers after the bottleneck's upkeep."""
        own, own_average, buffers = self._training.tend(
            _bottleneck_of(params), _bottleneck_of(average), buffers, output.statistics, output.candidates, step
        )
        return _with_bottleneck(params, own), _with_bottleneck(average, own_average), buffers


def _bottleneck_of(params: Params) -> Params:
    return params["model"]["codec"]["bottleneck"]


def _with_bottleneck(params: Params, bottleneck: Params) -> Params:
    model = params["model"]
    return {**params, "model": {**model, "codec": {**model["codec"], "bottleneck": bottleneck}}}
