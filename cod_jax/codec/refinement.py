"""Better encoding of single pictures: symbols that are trained on their own rate and distortion.

The encoder gives good latents for pictures in general. Gradient steps find better ones for one picture, and the decoder
does not change. Rounding is annealed: each latent is drawn between its two nearest symbols by a relaxed random choice
whose temperature falls (Yang, Bamler and Mandt 2020, "Improving inference for neural image compression", equation 10).

The rate is that of the entropy coder: the bits of every symbol, given those it is predicted from. These are held fixed
for some steps, and looked at again a few times.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float

from cod_jax import images
from cod_jax.coding.entropy.predictive import Costs, PredictiveModel
from cod_jax.coding.stream import SymbolCoder
from cod_jax.errors import UserError
from cod_jax.losses.similarity import ms_ssim_per_image
from cod_jax.losses.terms import squared_error_per_image
from cod_jax.models import CoD, Functional
from cod_jax.models.bottlenecks.factorized import ScalarQuantizer
from cod_jax.models.functional import Params

# Adam's settings; the rate is in symbols.
LEARNING_RATE, B1, B2, EPSILON = 0.02, 0.9, 0.99, 1e-9
# The temperature falls exponentially to a 20th of the first.
FIRST_TEMPERATURE, LAST_TEMPERATURE, DECAY = 0.5, 0.05, 3.0
# How often what symbols are predicted from is looked at.
NUM_ROUNDS = 5
# Keeps the inverse hyperbolic tangent finite.
MARGIN = 1e-5


class Weights(NamedTuple):
    """Weights of the loss, from the training of a model: lambda of each level [L], and those of the distortions."""

    rate: npt.NDArray[np.float32]
    squared_error: float
    ms_ssim: float


def weights_of(training: Mapping[str, Any], num_levels: int) -> Weights:
    """Return the loss that a model was trained with, from the facts of its training.

    Args:
        training: The facts; they are not part of the model's fingerprint, so they may be anything.
        num_levels: Quality levels of the model.

    Raises:
        UserError: They do not tell it, or the loss has other terms.
    """
    try:
        objective = training["config"]["objective"]
        rate = np.asarray(objective["bottleneck"]["rate_weights"], np.float32)
        terms = {n: float(v) for n, v in objective["reconstruction"].items() if n.endswith("_weight") and v}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        rate, terms = np.zeros(0, np.float32), {}
    if rate.shape != (num_levels,) or not terms or terms.keys() - {"squared_error_weight", "ms_ssim_weight"}:
        raise UserError(
            "effort needs a model that was trained on squared error or MS-SSIM and the rate, as configs/compact.py "
            "trains it; leave it out"
        )
    return Weights(rate, terms.get("squared_error_weight", 0.0), terms.get("ms_ssim_weight", 0.0))


class State(NamedTuple):
    """Places of latents among the symbols, which are the whole numbers, and Adam's two moments [B, h, w, C]."""

    positions: jax.Array
    first: jax.Array
    second: jax.Array


class Refinement:
    """Gradient steps on the symbols of pictures.

    Args:
        functional: The model.
        coder: Writes its files.
        training: The facts of its training.

    Raises:
        UserError: The model has no such loss, or another bottleneck.
    """

    def __init__(self, functional: Functional[CoD], coder: SymbolCoder, training: Mapping[str, Any]):
        self._functional, self._coder, self._weights = functional, coder, weights_of(training, coder.num_levels)
        self._predictive = next((model for model in coder.models if isinstance(model, PredictiveModel)), None)
        self._start, self._run, self._distortion = map(jax.jit, (self._first, self._steps, self._distortions))

    def __call__(
        self, params: Params, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32], num_steps: int
    ) -> npt.NDArray[np.int32]:
        """Return symbols [B, h, w, C]; those of the encoder for a picture that got no better.

        Args:
            params: Parameters of the model.
            images_uint8: Pictures [B, H, W, 3].
            levels: Quality level of each [B].
            num_steps: Number of steps, at least 1.
        """
        state = self._start(params, images_uint8, levels)
        encoded = _symbols(state)
        ends = [num_steps * (index + 1) // NUM_ROUNDS for index in range(NUM_ROUNDS)]
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            costs = self._costs(_symbols(state), levels)
            state = self._run(
                params, images_uint8, levels, state, costs, np.int32(begin), np.int32(end), np.float32(num_steps)
            )
        refined = _symbols(state)
        losses = [self._losses(params, images_uint8, levels, symbols) for symbols in (refined, encoded)]
        return np.where((losses[0] < losses[1])[:, None, None, None], refined, encoded)

    def _costs(self, symbols: npt.NDArray[np.int32], levels: npt.NDArray[np.int32]) -> Costs | None:
        """Return what symbols cost in mode predictive; None for a model without it, whose densities then count."""
        if self._predictive is None:
            return None
        costs = [self._predictive.costs(one, int(level)) for one, level in zip(symbols, levels, strict=True)]
        base, sign, rows = (np.stack(parts) for parts in zip(*(one[1:] for one in costs), strict=True))
        return Costs(costs[0].table, base, sign, rows)

    def _losses(
        self,
        params: Params,
        images_uint8: npt.NDArray[np.uint8],
        levels: npt.NDArray[np.int32],
        symbols: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.float64]:
        """Return the loss of each picture with the bytes that its symbols are coded in."""
        distortion = np.asarray(self._distortion(params, images_uint8, levels, symbols.astype(np.float32)))
        _, height, width, _ = images_uint8.shape
        sizes = [
            len(self._coder.encode(one, height=height, width=width, level=int(level), layout="cod"))
            for one, level in zip(symbols, levels, strict=True)
        ]
        return distortion + self._weights.rate[levels] * 8 * np.array(sizes, np.float64) / (height * width)

    def _first(self, params: Params, images_uint8: jax.Array, levels: jax.Array) -> State:
        latents = self._functional.bind(params).codec.encode(images.uint8_to_unit(images_uint8))
        positions = self._quantizer(params).positions(latents, levels)
        return State(positions, jnp.zeros_like(positions), jnp.zeros_like(positions))

    def _steps(
        self,
        params: Params,
        images_uint8: jax.Array,
        levels: jax.Array,
        state: State,
        costs: Costs | None,
        begin: jax.Array,
        end: jax.Array,
        num_steps: jax.Array,
    ) -> State:
        """Take the steps from `begin` to before `end`, of `num_steps` in all."""
        _, height, width, _ = images_uint8.shape

        def loss(positions: jax.Array) -> jax.Array:
            distortion = self._distortions(params, images_uint8, levels, positions)
            if costs is None:
                rate = self._quantizer(params).at(positions, levels).penalty
            else:
                rate = jnp.sum(_bits(positions, costs), axis=(1, 2, 3)) / (height * width)
            return jnp.sum(distortion + jnp.asarray(self._weights.rate)[levels] * rate)

        def step(number: jax.Array, state: State) -> State:
            temperature = jnp.maximum(LAST_TEMPERATURE, FIRST_TEMPERATURE * jnp.exp(-DECAY * number / num_steps))
            # The same for all pictures, so that each is refined as it is alone.
            noise = jax.random.gumbel(jax.random.fold_in(jax.random.key(0), number), (2, 1, *state.positions.shape[1:]))
            gradient = jax.grad(lambda x: loss(_annealed(x, temperature, noise)))(state.positions)
            first, second = B1 * state.first + (1 - B1) * gradient, B2 * state.second + (1 - B2) * gradient**2
            power = (number + 1).astype(jnp.float32)
            direction = first / (1 - B1**power) / (jnp.sqrt(second / (1 - B2**power)) + EPSILON)
            return State(state.positions - LEARNING_RATE * direction, first, second)

        return jax.lax.fori_loop(begin, end, step, state)

    def _distortions(
        self, params: Params, images_uint8: jax.Array, levels: jax.Array, positions: Float[Array, "B h w C"]
    ) -> Float[Array, " B"]:
        """Return the weighted distortion of each picture, decoded in one step from places among the symbols."""
        model = self._functional.bind(params)
        image = images.unit_to_signed(images.uint8_to_unit(images_uint8))
        decoded = model.one_step(model.codec.decode(self._quantizer(params).at(positions, levels).values))
        distortion = jnp.zeros(len(image))
        if self._weights.squared_error:
            distortion += self._weights.squared_error * squared_error_per_image(decoded, image)
        if self._weights.ms_ssim:
            distortion += self._weights.ms_ssim * (1 - jnp.asarray(ms_ssim_per_image(decoded, image)))
        return distortion

    def _quantizer(self, params: Params) -> ScalarQuantizer:
        bottleneck = self._functional.bind(params).codec.bottleneck
        if not isinstance(bottleneck, ScalarQuantizer):
            raise UserError("effort needs a model with a factorized bottleneck; leave it out")
        return bottleneck


def _symbols(state: State) -> npt.NDArray[np.int32]:
    return np.round(np.asarray(state.positions)).astype(np.int32)


def _bits(positions: Float[Array, "B h w C"], costs: Costs) -> Float[Array, "B h w C"]:
    """Return the bits of places between symbols, by linear interpolation."""
    largest = costs.table.shape[1] // 2
    difference = jnp.clip((positions - costs.base) * costs.sign, -largest, largest - MARGIN)
    below = jnp.floor(difference)
    place = below.astype(jnp.int32) + largest
    table = jnp.asarray(costs.table)
    low, high = table[costs.rows, place], table[costs.rows, place + 1]
    return low + (difference - below) * (high - low)


def _annealed(
    positions: Float[Array, "B h w C"], temperature: jax.Array, noise: Float[Array, "2 1 h w C"]
) -> Float[Array, "B h w C"]:
    """Return places drawn between the symbols below and above, near one of them at low temperatures."""
    below = jnp.floor(positions)
    rest = jnp.clip(positions - below, MARGIN, 1 - MARGIN)
    logits = jnp.stack([-jnp.arctanh(rest), -jnp.arctanh(1 - rest)]) / temperature
    shares = jax.nn.softmax((logits + noise) / temperature, axis=0)
    return below + shares[1]
