import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cod_jax.nn.embeddings import patchify, unpatchify
from cod_jax.nn.layers import DepthwiseConv, Padding
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


def test_depthwise_conv_repeats_the_border_where_it_is_told_to():
    layer = DepthwiseConv(3, padding="edge", dtype="float32", rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.full((3, 3, 3), 1 / 9)
    even = jnp.full((1, 4, 5, 3), 2.0)
    np.testing.assert_allclose(layer(even), even, rtol=1e-6)
    x = np.random.default_rng(0).standard_normal((1, 2, 2, 3)).astype(np.float32)
    corner = (4 * x[0, 0, 0] + 2 * x[0, 0, 1] + 2 * x[0, 1, 0] + x[0, 1, 1]) / 9
    np.testing.assert_allclose(layer(jnp.asarray(x))[0, 0, 0], corner, rtol=1e-5)


@pytest.mark.parametrize("padding", ["zero", "edge"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (2, 6), (5, 1), (6, 2), (11, 3), (16, 4)])
def test_the_gradients_of_depthwise_conv_are_those_of_its_formula(padding: Padding, height: int, width: int):
    layer = DepthwiseConv(4, padding=padding, dtype="float32", rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    x, weights = jax.random.normal(jax.random.key(1), (2, 2, height, width, 4))

    def formula(params, x):
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge" if padding == "edge" else "constant")
        parts = [
            padded[:, i : i + height, j : j + width] * params["kernel"][...][i, j][None, None, None]
            for i in range(3)
            for j in range(3)
        ]
        return jnp.sum(weights * (sum(parts) + params["bias"][...][None, None, None]))

    def layer_sum(params, x):
        return jnp.sum(weights * nnx.merge(graph, params)(x))

    given = jax.jit(jax.grad(layer_sum, (0, 1)))(params, x)
    expected = jax.jit(jax.grad(formula, (0, 1)))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), given, expected)


def test_the_gradients_of_depthwise_conv_have_the_dtypes_of_what_they_belong_to():
    layer = DepthwiseConv(4, dtype="bfloat16", rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    x = jnp.ones((1, 3, 3, 4))
    gradients = jax.grad(lambda params, x: jnp.sum(nnx.merge(graph, params)(x).astype(jnp.float32)), (0, 1))(params, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {np.dtype("float32")}


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
