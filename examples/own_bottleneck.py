"""A bottleneck of your own: finite scalar quantisation (Mentzer et al. 2024), which needs no codebook.

    export PYTHONPATH=. COD_JAX_PLUGINS=examples
    cod train --config examples/own_bottleneck.py --workdir runs/own_bottleneck --config.data.source=PHOTOS
    cod export --workdir runs/own_bottleneck --output models/own_bottleneck
    cod compress -m models/own_bottleneck photo.jpg

A few bounded numbers are rounded at each grid position; together they are the digits of one symbol.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from cod_jax.coding.symbols import SymbolFormat
from cod_jax.models.bottlenecks import Bottleneck, BottleneckConfig, BottleneckTraining, Draws, Quantized
from cod_jax.models.fields import require, require_range
from cod_jax.nn.layers import Linear

LEVELS = 4


@dataclasses.dataclass(frozen=True)
class FiniteScalarTraining(BottleneckTraining):
    """Training settings of finite scalar quantisation, which has no penalty.

    Attributes:
        kind: Name of this class, by which a config finds it.
    """

    TERM = "bottleneck"
    kind: str = "examples.own_bottleneck:FiniteScalarTraining"

    @property
    def weight(self) -> float:
        """Weight of the penalty."""
        return 0.0

    def term(self, quantized: Quantized, level: Int[Array, " B"], keep: Bool[Array, " B"]) -> Float[Array, ""]:
        """Return the penalty, 0."""
        return jnp.mean(quantized.penalty)


@dataclasses.dataclass(frozen=True)
class FiniteScalarConfig(BottleneckConfig):
    """Description of finite scalar quantisation.

    Attributes:
        kind: Name of this class, by which a config and a model folder find it.
        num_digits: Numbers at each grid position, each rounded to one of four values; two bits each.
    """

    TRAINING = FiniteScalarTraining
    kind: str = "examples.own_bottleneck:FiniteScalarConfig"
    num_digits: int = 3

    def __post_init__(self):
        require_range(self, {"num_digits": 8})

    def symbols(self, features: int) -> SymbolFormat:
        """Return the format of the symbols: one number of so many digits at each position."""
        return SymbolFormat(num_channels=1, first=0, last=LEVELS**self.num_digits - 1)

    def build(self, features: int, *, pitch: int, rngs: nnx.Rngs) -> "FiniteScalar":
        """Return the module."""
        return FiniteScalar(self.num_digits, features, rngs=rngs)

    def draw(self, key: jax.Array, grid: tuple[int, int, int], features: int) -> Draws:
        """Return no randomness."""
        return Draws(jnp.zeros(grid[:1], jnp.int32))


class FiniteScalar(Bottleneck):
    """Linear map to a few numbers, rounding, and a linear map back; float32."""

    def __init__(self, num_digits: int, features: int, *, rngs: nnx.Rngs):
        require(features >= num_digits, f"num_digits must be at most {features}, the latents' channels")
        self.num_digits = num_digits
        self.project = Linear(features, num_digits, axes=("latent", "features"), dtype="float32", rngs=rngs)
        self.expand = Linear(num_digits, features, axes=("features", "latent"), dtype="float32", rngs=rngs)

    @property
    def _places(self) -> Int[Array, "1 1 1 D"]:
        return LEVELS ** jnp.arange(self.num_digits, dtype=jnp.int32)[None, None, None]

    def _bounded(self, z: Float[Array, "B h w F"]) -> Float[Array, "B h w D"]:
        """Return the numbers before rounding, in [0, LEVELS - 1]."""
        return (LEVELS - 1) * jax.nn.sigmoid(self.project(z.astype(jnp.float32)))

    def _values(self, digits: Float[Array, "B h w D"]) -> Float[Array, "B h w F"]:
        return self.expand(2 / (LEVELS - 1) * digits - 1)

    def nearest(self, z: Float[Array, "B h w F"], level: Int[Array, " B"]) -> Int[Array, "B h w 1"]:
        """Return the rounded numbers as the digits of one symbol, the lowest first."""
        digits = jnp.round(self._bounded(z)).astype(jnp.int32)
        return jnp.sum(digits * self._places, axis=-1, keepdims=True)

    def lookup(self, symbols: Int[Array, "B h w 1"], level: Int[Array, " B"]) -> Float[Array, "B h w F"]:
        """Return the values of symbols' digits."""
        return self._values((symbols // self._places % LEVELS).astype(jnp.float32))

    def __call__(
        self, z: Float[Array, "B h w F"], level: Int[Array, " B"], noise: Float[Array, "B h w N"] | None = None
    ) -> Quantized:
        """Round, with the gradient of the identity."""
        bounded = self._bounded(z)
        digits = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
        return Quantized(self._values(digits), self.nearest(z, level), jnp.zeros(z.shape[:1]), {})


def get_config():
    """The tiny recipe with this bottleneck."""
    from configs import base, tiny

    config = tiny.get_config()
    fields, training = dataclasses.asdict(FiniteScalarConfig()), dataclasses.asdict(FiniteScalarTraining())
    base.replace_bottleneck(config, fields, training)
    base.apply(config, {"objective.one_step_weight": 1.0, "objective.one_step_noise_level": 0.0})
    return config
