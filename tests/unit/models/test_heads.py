"""Training heads."""

import jax
import jax.numpy as jnp

from cod_jax.losses.terms import cosine_distance_per_image
from cod_jax.models.functional import Functional
from cod_jax.models.heads import FeatureHead


def test_fresh_heads_have_a_gradient_of_ordinary_size_where_the_condition_starts():
    # At zero: a head that made zero of it would have no direction, and a gradient of 1e8 under the cosine.
    head = Functional(lambda rngs: FeatureHead(8, 12, dtype="float32", rngs=rngs))
    params = head.init(jax.random.key(0))
    tokens = jax.random.normal(jax.random.key(1), (1, 2, 2, 12))

    def loss(condition: jax.Array) -> jax.Array:
        return jnp.sum(cosine_distance_per_image(head.bind(params)(condition), tokens))

    assert 0 < jnp.linalg.norm(jax.grad(loss)(jnp.zeros((1, 2, 2, 8)))) < 10
