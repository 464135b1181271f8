import jax
import jax.numpy as jnp
import pytest

from cod_jax.training.flops import count_flops, peak_flops_per_second

F32 = jnp.float32


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, F32)


def test_products_and_convolutions_are_counted_through_loops_and_checkpoints():
    def function(weights, x, kernel, image):
        def body(carry, weight):
            return jnp.tanh(carry @ weight), None

        y = jax.lax.scan(jax.checkpoint(body), x, weights)[0]
        dimensions = ("NHWC", "HWIO", "NHWC")
        z = jax.lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=dimensions)
        return jnp.sum(y) + jnp.sum(jax.jit(jnp.sin)(z))

    arguments = shape(5, 8, 8), shape(4, 8), shape(3, 3, 2, 6), shape(1, 16, 16, 2)
    expected = 5 * 2 * 4 * 8 * 8 + 2 * (8 * 8 * 6) * (3 * 3 * 2)
    assert count_flops(function, *arguments) == expected


def test_what_a_gradient_computes_again_counts_again():
    def loss(weights, x, product):
        return jnp.sum(product(weights, x))

    def gradients(product):
        return lambda weights, x: jax.grad(loss, argnums=(0, 1))(weights, x, product)

    def product(weights, x):
        return jnp.tanh(x @ weights)

    arguments, one = (shape(8, 8), shape(4, 8)), 2 * 4 * 8 * 8
    assert count_flops(gradients(product), *arguments) == 3 * one
    assert count_flops(gradients(jax.checkpoint(product)), *arguments) == 4 * one


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA B200", 2250e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("NVIDIA L40", None),
        ("cpu", None),
    ],
)
def test_peak_rates_of_known_devices(kind, peak):
    assert peak_flops_per_second(kind) == peak
