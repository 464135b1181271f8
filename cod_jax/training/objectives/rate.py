"""The rate of a factorized bottleneck in training: its randomness, its loss term, and lambda."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cod_jax.errors import UserError
from cod_jax.losses.terms import masked_mean
from cod_jax.models import ConditionCodecConfig
from cod_jax.models.quantizer import Quantized


class BottleneckDraws(NamedTuple):
    """Randomness of a factorized bottleneck; vector quantisation has none.

    Attributes:
        level: Quality level of each image; None is the last one.
        noise: Uniform in +-0.5, in place of rounding; None rounds.
    """

    level: Int[Array, " B"] | None = None
    noise: Float[Array, "B h w C"] | None = None


# Vector quantisation, or rounding at the best quality.
NOT_RANDOM = BottleneckDraws()


def draw_bottleneck(key: jax.Array, codec: ConditionCodecConfig, image_shape: Sequence[int]) -> BottleneckDraws:
    """Randomness for a batch of images [B, H, W, 3]."""
    if codec.factorized is None:
        return NOT_RANDOM
    key_level, key_noise = jax.random.split(key)
    batch, height, width, _ = image_shape
    shape = (batch, height // codec.pitch, width // codec.pitch, codec.latent_channels)
    num_levels = codec.factorized.num_levels
    return BottleneckDraws(
        level=jax.random.randint(key_level, (batch,), 0, num_levels) if num_levels > 1 else None,
        noise=jax.random.uniform(key_noise, shape, jnp.float32, -0.5, 0.5),
    )


def check_rate_weights(rate_weights: Sequence[float]) -> None:
    """Refuse lambdas that cannot be.

    Raises:
        UserError: There is none, one is not positive, or they do not fall.
    """
    if not rate_weights or not all(
        isinstance(weight, int | float) and 0 < weight < math.inf for weight in rate_weights
    ):
        raise UserError(f"rate_weights is {rate_weights!r}; it must hold positive finite numbers, such as (1.0,)")
    if any(after >= before for before, after in itertools.pairwise(rate_weights)):
        raise UserError(f"rate_weights is {rate_weights!r}; it must fall, because the last level is the best quality")


def check_rate_settings(codec: ConditionCodecConfig, rate_weights: Sequence[float], revive_codes_every: int) -> None:
    """Refuse settings of an objective that do not fit the bottleneck.

    Raises:
        UserError: The bottleneck has another number of quality levels than there are lambdas, or it is factorized and
            codes are to be revived.
    """
    if codec.factorized is None:
        if len(rate_weights) > 1:
            raise UserError(
                f"rate_weights has {len(rate_weights)} numbers, but a codebook has one quality and no lambda; choose "
                "the config's option bottleneck=factorized"
            )
        return
    if len(rate_weights) != codec.factorized.num_levels:
        raise UserError(
            f"rate_weights has {len(rate_weights)} numbers, but the bottleneck has {codec.factorized.num_levels} "
            "quality levels; give one lambda for each, the largest first"
        )
    if revive_codes_every:
        raise UserError(
            f"revive_codes_every is {revive_codes_every}, but a factorized bottleneck has no codes; set it to 0"
        )


def rate_term(
    quantized: Quantized,
    level: Int[Array, " B"] | None,
    rate_weights: Sequence[float],
    keep: Bool[Array, " B"],
    image_shape: Sequence[int],
) -> Float[Array, ""]:
    """Bits per pixel of images [B, H, W, 3], averaged; its weight in the loss is the first lambda.

    Args:
        quantized: By a factorized bottleneck.
        level: Quality level of each image, as it was quantised; None is the last one.
        rate_weights: Lambda of each level; the bits of an image count as its lambda over the first.
        keep: Images that kept their condition; no file holds the null condition, so its bits cost nothing.
        image_shape: Of the images.

    Raises:
        UserError: The bottleneck is not factorized.
    """
    if quantized.bits is None:
        raise UserError("vector quantisation has no rate; only a factorized bottleneck does")
    _, height, width, _ = image_shape
    relative = jnp.asarray(rate_weights, jnp.float32) / rate_weights[0]
    relative = relative[-1:] if level is None else relative[level]
    return masked_mean(relative * quantized.bits / (height * width), keep)
