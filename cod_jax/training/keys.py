"""Random keys beside those of a split."""

import jax


def side_key(key: jax.Array, number: int) -> jax.Array:
    """Return a key that no split of the same key has, and no step.

    In JAX `split(key, n)[i]` is `fold_in(key, i)`, and step n uses `fold_in(key, n)`. So these numbers count down from
    the largest.

    Args:
        key: The key that is split as well.
        number: Which of its side keys, from 0.
    """
    return jax.random.fold_in(key, 2**32 - 1 - number)
