"""Rate of a codebook's symbols with a gradient for the encoder; see docs/method.md, Bottlenecks.

The estimate predicts each symbol as files of mode "context" do: in their order, from the same four neighbours. It is a
training head, so exported models do not contain it. Their prior is fitted after training.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jaxtyping import Array, Float, Int

from cod_jax.coding.entropy.context import NUM_CLASSES, NUM_NEIGHBOURS, batches
from cod_jax.models.heads import FeatureHead

# The temperature is at least this share of the mean distance, so that equal code vectors give no endless gradient.
_MIN_TEMPERATURE = 1e-3
_TINY = 1e-12


class SymbolRate(nnx.Module):
    """Network from the values of four neighbours to the bits of each code.

    Args:
        size: Number of code vectors K.
        features: Channels of a code vector.
        rngs: Source of the initial values.
    """

    def __init__(self, size: int, features: int, *, rngs: nnx.Rngs):
        # A neighbour is its values and a 1, or zeros outside of the picture.
        inputs = NUM_NEIGHBOURS * (features + 1) + NUM_CLASSES
        self.layers = FeatureHead(inputs, size, dtype="float32", rngs=rngs)

    def __call__(self, values: Float[Array, "B h w F"]) -> Float[Array, "B h w K"]:
        """Return -log2 of the probability of each code, given the values of the neighbours, which should be about 1."""
        batch, rows, columns, features = values.shape
        places, kinds = _neighbours(rows, columns)
        known = jnp.concatenate([values, jnp.ones((batch, rows, columns, 1), values.dtype)], axis=-1)
        bordered = jnp.pad(known, ((0, 0), (0, 1), (0, 1), (0, 0))).reshape(batch, -1, features + 1)
        around = bordered[:, places].reshape(batch, rows, columns, -1)
        classes = jnp.broadcast_to(jax.nn.one_hot(kinds, NUM_CLASSES)[None], (batch, rows, columns, NUM_CLASSES))
        logits = self.layers(jnp.concatenate([around, classes], axis=-1))
        return -jax.nn.log_softmax(logits) / jnp.log(2.0)

    def bits(
        self,
        values: Float[Array, "B h w F"],
        symbols: Int[Array, "B h w 1"],
        codebook: Float[Array, "K F"],
        distances: Float[Array, "B h w K"],
    ) -> Float[Array, " B"]:
        """Return the bits of each picture.

        They are those of the symbols, whose gradient trains this network. The latents have two gradients: that of the
        expected bits of a soft choice of the code, and that of the bits of the neighbours, which are predicted from
        them. Code vectors have none.

        Args:
            values: Code vectors of the latents, with the gradient of the latents.
            symbols: Their symbols.
            codebook: Code vectors.
            distances: Squared distances of the latents from the code vectors, with the gradient of the latents.
        """
        scale = jnp.sqrt(jnp.mean(jax.lax.stop_gradient(codebook) ** 2, axis=0) + _TINY)
        bits = self(values / scale[None, None, None])
        hard = jnp.take_along_axis(bits, symbols, axis=-1)[..., 0]
        chosen = jax.nn.softmax(-distances / _temperature(jax.lax.stop_gradient(distances)))
        expected = jnp.sum(chosen * jax.lax.stop_gradient(bits), axis=-1)
        # Zero in value, so that what is reported is the rate of the symbols that a file holds.
        return jnp.sum(hard + expected - jax.lax.stop_gradient(expected), axis=(1, 2))


def _temperature(distances: Float[Array, "B h w K"]) -> Float[Array, "B 1 1 1"]:
    """Return for each picture how much nearer its latents are to the nearest code than to the second, on average.

    So a soft choice is between few codes, however large latents are and however many channels they have.
    """
    # Two minima take less time than the two smallest values by sorting.
    first = jax.nn.one_hot(jnp.argmin(distances, axis=-1), distances.shape[-1], dtype=bool)
    gap = jnp.mean(jnp.min(jnp.where(first, jnp.inf, distances), axis=-1) - jnp.min(distances, axis=-1), axis=(1, 2))
    least = _MIN_TEMPERATURE * jnp.mean(distances, axis=(1, 2, 3)) + _TINY
    return jnp.maximum(gap, least)[:, None, None, None]


@functools.cache
def _neighbours(rows: int, columns: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where the neighbours of each position are [h, w, 4] in a flat grid with a border, and its class [h, w]."""
    places = np.zeros((rows, columns, NUM_NEIGHBOURS), np.intp)
    kinds = np.zeros((rows, columns), np.intp)
    for batch in batches(rows, columns):
        kinds[batch.place] = batch.kind
        for direction, (row, column) in enumerate(batch.neighbours):
            # Index -1 is the border, which is last.
            places[(*batch.place, direction)] = row % (rows + 1) * (columns + 1) + column % (columns + 1)
    return places, kinds
