"""Vector quantisation (van den Oord et al. 2017), as in the published models; see docs/method.md, Bottlenecks.

Training keeps codes in use: it replaces a code vector whose running share is too small by a latent of the batch. It can
also weigh the rate of the symbols.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from cod_jax.coding.entropy.context import MAX_CONTEXT_BITS
from cod_jax.coding.symbols import MAX_BITS, SymbolFormat
from cod_jax.errors import UserError
from cod_jax.models.bottlenecks.bottleneck import Bottleneck, BottleneckConfig, BottleneckTraining, Draws, Quantized
from cod_jax.models.bottlenecks.symbol_rate import SymbolRate
from cod_jax.models.fields import require, require_at_least
from cod_jax.models.functional import Functional, Params

# The published code puts the factor 0.25 on the codebook's term instead of the encoder's.
CODEBOOK_WEIGHT = 0.25
# The running share of each code averages over roughly the last 100 steps.
USAGE_DECAY = 0.99
USAGE = "codebook_usage"


class Candidates(NamedTuple):
    """Latents that may replace unused code vectors.

    Attributes:
        values: One latent per code vector.
        valid: 1 for a latent, 0 for a filler because no picture kept its condition.
    """

    values: Float[Array, "K F"]
    valid: Float[Array, " K"]


@dataclasses.dataclass(frozen=True)
class CodebookTraining(BottleneckTraining):
    """Training settings of a codebook.

    Attributes:
        kind: Kind of bottleneck that these settings are for.
        commitment_weight: Weight of the quantisation loss; 0 switches it off.
        revive_codes_every: Steps between replacements of unused code vectors by latents of the batch; 0 never replaces
            any. The first replacement, at step 0, initialises a fresh codebook from data.
        revive_usage: Threshold below which a code counts as unused: its running share times the codebook's size.
        rate_weight: Lambda, the weight of the estimated bits per pixel of the symbols; 0 leaves the rate to a prior
            that is fitted after training.
    """

    TERM = "commitment"
    kind: Literal["codebook"] = "codebook"
    commitment_weight: float = 0.25
    revive_codes_every: int = 0
    revive_usage: float = 0.03
    rate_weight: float = 0.0

    def __post_init__(self):
        require_at_least(self, 0, "commitment_weight", "revive_codes_every", "revive_usage", "rate_weight")

    def check(self, bottleneck: BottleneckConfig) -> None:
        """Refuse to weigh the rate of symbols whose files do not use the symbols around them.

        Raises:
            UserError: The codebook is too large.
        """
        if self.rate_weight and _size(bottleneck) > 2**MAX_CONTEXT_BITS:
            raise UserError(
                f"objective.bottleneck.rate_weight needs a codebook of at most {MAX_CONTEXT_BITS} bits, got "
                f"{bottleneck.nominal_bits:g}; set model.codec.bottleneck.bits lower or rate_weight to 0"
            )

    @property
    def estimated_rate_weight(self) -> float:
        """Lambda."""
        return self.rate_weight

    def build_rate(self, bottleneck: BottleneckConfig, features: int) -> Functional[SymbolRate]:
        """Return the network that predicts symbols from those around them."""
        return Functional(lambda rngs: SymbolRate(_size(bottleneck), features, rngs=rngs))

    def estimated_bits(
        self, rate: SymbolRate, bottleneck: "VectorQuantizer", z: Float[Array, "B h w F"], quantized: Quantized
    ) -> Float[Array, " B"]:
        """Return the bits of each picture; see `SymbolRate.bits`."""
        z = z.astype(jnp.float32)
        codebook = jax.lax.stop_gradient(bottleneck.codebook[...])
        distances = _distances(z, codebook)
        return rate.bits(quantized.values, quantized.symbols, codebook, distances)

    @property
    def weight(self) -> float:
        """Weight of the quantisation loss."""
        return self.commitment_weight

    def term(self, quantized: Quantized, level: Int[Array, " B"], keep: Bool[Array, " B"]) -> Float[Array, ""]:
        """Return the mean quantisation loss over all pictures; as published, those without a condition count too."""
        return jnp.mean(quantized.penalty)

    def buffer_axes(self, bottleneck: BottleneckConfig) -> dict[str, Any]:
        """Return the axes of the codes' running shares."""
        return {USAGE: ("codebook",)}

    def init_buffers(self, bottleneck: BottleneckConfig) -> dict[str, Any]:
        """Return shares of zero, because no code has been used yet."""
        return {USAGE: jnp.zeros((_size(bottleneck),), jnp.float32)}

    def buffers_from(self, buffers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return equal shares, so that the first step does not take trained codes for unused ones."""
        shape = buffers[USAGE].shape
        return {USAGE: np.full(shape, 1 / shape[0], np.float32)}

    def candidates(
        self, bottleneck: BottleneckConfig, z: Float[Array, "B h w F"], keep: Bool[Array, " B"], draws: Draws
    ) -> Candidates | None:
        """Return latents of kept pictures in random order, as many as there are codes."""
        if self.revive_codes_every == 0 or draws.noise is None:
            return None
        # Positions of dropped pictures sort last and are never chosen.
        order = jnp.where(keep[:, None, None], draws.noise[..., 0], 2.0).reshape(-1)
        size = _size(bottleneck)
        num_kept = jnp.maximum(jnp.sum(keep) * (order.size // keep.size), 1)
        chosen = jnp.argsort(order)[jnp.arange(size) % num_kept]
        values = jax.lax.stop_gradient(z).astype(jnp.float32).reshape(-1, z.shape[-1])[chosen]
        return Candidates(values, jnp.broadcast_to(jnp.any(keep), (size,)).astype(jnp.float32))

    def tend(
        self,
        params: Params,
        average: Params,
        buffers: dict[str, Any],
        statistics: Mapping[str, Array],
        candidates: Candidates | None,
        step: jax.Array,
    ) -> tuple[Params, Params, dict[str, Any]]:
        """Update the codes' running shares and, when due, replace unused codes by latents of the batch."""
        if not statistics:
            return params, average, buffers
        usage, counts = buffers[USAGE], statistics["code_counts"]
        never_used = usage == 0
        usage = USAGE_DECAY * usage + (1 - USAGE_DECAY) * _shares(counts)
        if candidates is None:
            return params, average, {**buffers, USAGE: usage}
        size = usage.shape[0]
        due = step % self.revive_codes_every == 0
        # No code of a fresh codebook has been used yet, so the first step initialises it from data.
        unused = (usage < self.revive_usage / size) | never_used
        replace = due & unused & (candidates.valid > 0)

        def revived(params: Params) -> Params:
            return {**params, "codebook": jnp.where(replace[:, None], candidates.values, params["codebook"])}

        return revived(params), revived(average), {**buffers, USAGE: jnp.where(replace, 1.0 / size, usage)}


@dataclasses.dataclass(frozen=True)
class CodebookConfig(BottleneckConfig):
    """A codebook of 2^bits vectors.

    Attributes:
        kind: Name of this kind of bottleneck.
        bits: Bits per symbol.
    """

    TRAINING = CodebookTraining
    kind: Literal["codebook"] = "codebook"
    bits: int = 4

    def __post_init__(self):
        require(1 <= self.bits <= MAX_BITS, f"bits must be between 1 and {MAX_BITS}, got {self.bits}")

    @property
    def size(self) -> int:
        """Number of code vectors."""
        return 2**self.bits

    def symbols(self, features: int) -> SymbolFormat:
        """Return the format of the symbols: one index per position."""
        return SymbolFormat(num_channels=1, first=0, last=self.size - 1)

    def stored(self) -> dict[str, Any]:
        """Return the field of the first model folders, which knew codebooks only."""
        return {"codebook_bits": self.bits}

    def build(self, features: int, *, pitch: int, rngs: nnx.Rngs) -> "VectorQuantizer":
        """Return the module; see `BottleneckConfig.build`."""
        return VectorQuantizer(self.size, features, rngs=rngs)

    def draw(self, key: jax.Array, grid: tuple[int, int, int], features: int) -> Draws:
        """Return random numbers in [0, 1) that order the latents for replacing unused codes."""
        return Draws(jnp.zeros(grid[:1], jnp.int32), jax.random.uniform(key, (*grid, 1)))

    def metrics(self, statistics: Mapping[str, Array]) -> dict[str, Array]:
        """Return the share of codes that occur, in [0, 1], and the perplexity and entropy in bits of the symbols."""
        shares = _shares(statistics["code_counts"])
        entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.maximum(shares, 1e-12)), 0.0))
        return {
            "codebook/usage": jnp.mean((shares > 0).astype(jnp.float32)),
            "codebook/perplexity": jnp.exp(entropy),
            "bits_per_symbol": entropy / np.log(2),
        }


class VectorQuantizer(Bottleneck):
    """Nearest code vector by squared distance, in float32.

    Args:
        codebook_size: Number of code vectors; initialised uniformly in +-1 / codebook_size.
        features: Channels of a code vector.
        rngs: Source of the initial values.
    """

    def __init__(self, codebook_size: int, features: int, *, rngs: nnx.Rngs):
        codebook = jax.random.uniform(rngs.params(), (codebook_size, features), jnp.float32, -1.0, 1.0)
        self.codebook = nnx.Param(codebook / codebook_size, axes=("codebook", "latent"))

    def nearest(self, z: Float[Array, "B h w F"], level: Int[Array, " B"]) -> Int[Array, "B h w 1"]:
        """Return the index of the nearest code vector at each position, the first of several equally near ones."""
        distances = _distances(z.astype(jnp.float32), self.codebook[...])
        return jnp.argmin(distances, axis=-1, keepdims=True).astype(jnp.int32)

    def lookup(self, symbols: Int[Array, "B h w 1"], level: Int[Array, " B"]) -> Float[Array, "B h w F"]:
        """Return the code vector of each symbol."""
        return self.codebook[...][symbols[..., 0]]

    def __call__(
        self, z: Float[Array, "B h w F"], level: Int[Array, " B"], noise: Float[Array, "B h w 1"] | None = None
    ) -> Quantized:
        """Quantise z; the penalty of a picture is mean((sg(e) - z)^2) + 0.25 mean((e - sg(z))^2)."""
        z = z.astype(jnp.float32)
        symbols = self.nearest(z, level)
        codes = self.lookup(symbols, level)
        commitment = jnp.mean((jax.lax.stop_gradient(codes) - z) ** 2, axis=(1, 2, 3))
        codebook = jnp.mean((codes - jax.lax.stop_gradient(z)) ** 2, axis=(1, 2, 3))
        values = z + jax.lax.stop_gradient(codes - z)
        counts = _code_counts(symbols, self.codebook.shape[0])
        return Quantized(values, symbols, commitment + CODEBOOK_WEIGHT * codebook, {"code_counts": counts})


def _distances(z: Float[Array, "B h w F"], codebook: Float[Array, "K F"]) -> Float[Array, "B h w K"]:
    """Return the squared distances of latents from code vectors."""
    # Full float32 precision, because the reduced precision of tensor cores flips indices between devices.
    products = jnp.einsum("bhwc,nc->bhwn", z, codebook, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(codebook**2, axis=-1)[None, None, None]
    return jnp.sum(z**2, axis=-1, keepdims=True) + norms - 2 * products


def _size(bottleneck: BottleneckConfig) -> int:
    if not isinstance(bottleneck, CodebookConfig):
        raise UserError(
            f"expected a codebook, got a bottleneck of kind {bottleneck.kind}; use the training settings of that kind"
        )
    return bottleneck.size


def _code_counts(symbols: Int[Array, "B h w 1"], codebook_size: int) -> Float[Array, "B K"]:
    """Count how often each code occurs in each picture."""
    flat = symbols.reshape(symbols.shape[0], -1)
    pictures = jnp.arange(flat.shape[0])[:, None]
    return jnp.zeros((flat.shape[0], codebook_size), jnp.float32).at[pictures, flat].add(1.0)


def _shares(counts: Float[Array, " K"]) -> Float[Array, " K"]:
    # Means over pictures can sum to less than one.
    total = jnp.sum(counts)
    return counts / jnp.where(total > 0, total, 1.0)
