"""Noise that is drawn from a seed, the same on every device."""

# jax.numpy is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32


def seed_words(seed: int) -> UInt32[np.ndarray, "2"]:
    """Return the upper and the lower 32 bits of a seed from 0 to 2^63 - 1, the key of `seeded_noise`.

    `jax.random.key` would drop the upper bits unless 64-bit numbers are enabled. Below 2^32 both give the same key.
    """
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def seeded_noise(words: UInt32[Array | np.ndarray, "2"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Return standard normal noise, float32, from the words of a seed.

    The generator is JAX's counter-based threefry2x32: each number depends on the seed and its position only. Its
    integers are the same on every device. The inverse error function of them is the same up to rounding.
    """
    key = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
    # JAX can also order the same integers differently. Decoding relies on this order, whichever the user has set.
    with jax.threefry_partitionable(True):
        return jax.random.normal(key, shape, jnp.float32)
