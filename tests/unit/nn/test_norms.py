import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.nn.norms import GroupNorm, LayerNorm, RMSNorm, layer_norm


def test_group_norm_follows_its_definition():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 5, 4, 12))
    norm = GroupNorm(12, 3)
    norm.scale[...] = jnp.linspace(0.5, 2, 12)
    norm.bias[...] = jnp.linspace(-1, 1, 12)
    grouped = np.asarray(x, np.float64).reshape(2, 20, 3, 4)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    std = np.sqrt(grouped.var(axis=(1, 3), keepdims=True) + 1e-6)
    expected = ((grouped - mean) / std).reshape(2, 5, 4, 12) * np.linspace(0.5, 2, 12) + np.linspace(-1, 1, 12)
    np.testing.assert_allclose(norm(x), expected, atol=1e-5)


@pytest.mark.parametrize("norm", [GroupNorm(8, 2), LayerNorm(8), RMSNorm(8), layer_norm])
def test_statistics_are_float32_under_bfloat16(norm):
    # Deviations of a hundredth around 10 vanish in bfloat16 products and sums, but not in the input itself.
    x = jax.random.normal(jax.random.key(1), (1, 16, 16, 8)).astype(jnp.bfloat16)
    reference = np.asarray(norm(x.astype(jnp.float32)))
    result = norm(x)
    assert result.dtype == jnp.bfloat16
    # Only the rounding of the result to 8 bits of mantissa is left.
    np.testing.assert_allclose(np.asarray(result, np.float32), reference, rtol=2**-8, atol=2**-9)
    shifted = (x.astype(jnp.float32) + 300).astype(jnp.bfloat16)
    reference = np.asarray(norm(shifted.astype(jnp.float32)))
    np.testing.assert_allclose(np.asarray(norm(shifted), np.float32), reference, rtol=2**-8, atol=2**-9)


def test_groups_without_variation_pass_no_gradient_to_the_input():
    # The first group is even, the second is not.
    x = jnp.concatenate([jnp.full((1, 4, 4, 2), 0.5), jax.random.normal(jax.random.key(0), (1, 4, 4, 2))], axis=-1)
    norm = GroupNorm(4, 2)
    weights = jax.random.normal(jax.random.key(1), x.shape)
    gradient = jax.grad(lambda x: jnp.sum(norm(x) * weights))(x)
    assert not np.any(gradient[..., :2])
    assert np.all(gradient[..., 2:])


def test_gradient_of_a_chain_of_group_norms_of_zeros_is_finite():
    norm = GroupNorm(4, 2)

    def chain(x):
        for _ in range(20):
            x = x + norm(x)
        return jnp.sum(x)

    np.testing.assert_array_equal(jax.grad(chain)(jnp.zeros((1, 4, 4, 4))), 1)
