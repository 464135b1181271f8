import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cod_jax.nn.embeddings import patchify, unpatchify
from cod_jax.nn.layers import DepthwiseConv
from cod_jax.nn.stack import Stack


def test_depthwise_conv_equals_a_grouped_convolution():
    layer = DepthwiseConv(6, dtype="float32", rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(6.0)
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 6))
    expected = jax.lax.conv_general_dilated(
        x,
        layer.kernel[...][:, :, None],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    )
    np.testing.assert_allclose(layer(x), expected + jnp.arange(6.0)[None, None, None], atol=1e-5)


def test_patchify_is_row_major_and_undone_by_unpatchify():
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    patches = patchify(x, 2)
    assert patches.shape == (2, 2, 3, 4, 3)
    np.testing.assert_array_equal(patches[1, 1, 2], x[1, 2:4, 4:6].reshape(4, 3))
    np.testing.assert_array_equal(unpatchify(patches, 2), x)


class Affine(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (3,)), axes=("embed",))

    def __call__(self, x: jax.Array, offset: jax.Array) -> jax.Array:
        return x * self.weight[...] + offset


def test_stack_runs_differently_initialised_blocks_in_order():
    stack = Stack(Affine, 4, rngs=nnx.Rngs(0))
    weights = stack.block.weight[...]
    assert weights.shape == (4, 3)
    assert len(np.unique(np.asarray(weights))) == 12
    assert stack.block.weight.get_metadata()["axes"] == ("layers", "embed")
    expected = x = jnp.ones((3,))
    for weight in weights:
        expected = expected * weight + 0.5
    np.testing.assert_allclose(stack(x, jnp.float32(0.5)), expected, rtol=1e-6)
