"""A judge of two students that neither has seen: which one's pictures look more like real ones?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cod_jax.losses.adversarial import discriminator_loss
from cod_jax.models.discriminator import Discriminator, PatchDiscriminatorConfig
from cod_jax.nn.spectral_norm import init_singular_vectors, spectral_normalize

STEPS = 200
BATCH = 32


def judge(
    train: tuple[np.ndarray, np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[float, float]:
    """Train a discriminator on real pictures against the union of both students' and give their mean logits.

    Args:
      train: Pictures in [-1, 1], [N, S, S, 3], and what the first and the second student make of them.
      test: What the students make of other pictures.
      seed: Of the discriminator's initial values and of the order of the pictures.
    """
    discriminator = Discriminator(PatchDiscriminatorConfig(widths=(16, 32, 64)))
    params = discriminator.functional.init(jax.random.key(seed))
    vectors = init_singular_vectors(params, jax.random.key(seed + 1))
    optimizer = optax.adam(1e-3, b1=0.5)
    state = optimizer.init(params)
    generator = np.random.default_rng(seed)

    @jax.jit
    def step(params: Any, vectors: Any, state: Any, real: jax.Array, fake: jax.Array):
        def loss(params: Any):
            logits = discriminator.logits(params, vectors, jnp.concatenate([real, fake]), {})
            return discriminator_loss(*jnp.split(logits, 2))

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        params = optax.apply_updates(params, updates)
        return params, spectral_normalize(params, vectors, train=True)[1], state

    real, first, second = train
    for _ in range(STEPS):
        rows = generator.integers(0, len(real), (2, BATCH))
        from_first = generator.random(BATCH)[:, None, None, None] < 0.5
        fake = np.where(from_first, first[rows[1]], second[rows[1]])
        params, vectors, state = step(params, vectors, state, real[rows[0]], fake)
    pictures = map(jnp.asarray, test)
    logits = [float(jnp.mean(discriminator.logits(params, vectors, x, {}))) for x in pictures]
    return logits[0], logits[1]


def in_batches(function: Callable[[jax.Array], jax.Array], images: np.ndarray, size: int = 32) -> np.ndarray:
    """A jitted function of pictures, batch by batch."""
    return np.concatenate(
        [np.asarray(function(jnp.asarray(images[i : i + size]))) for i in range(0, len(images), size)]
    )
