from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cod_jax.nn import attention
from cod_jax.nn.attention import SelfAttention, attend


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def layer() -> SelfAttention:
    return SelfAttention(8, 4, window=4, dtype="float32", rngs=nnx.Rngs(0))


def test_chunked_queries_give_what_all_at_once_gives(monkeypatch):
    q, k, v = (normal(seed, 2, 37, 8) for seed in range(3))
    whole = attend(q, k, v)
    monkeypatch.setattr(attention, "QUERY_CHUNK", 8)
    monkeypatch.setattr(attention, "MAX_WHOLE_QUERIES", 16)
    np.testing.assert_allclose(attend(q, k, v), whole, atol=1e-6)


def attend_in_chunks(layer: SelfAttention, x: jax.Array) -> jax.Array:
    return layer(x, "global")


def attend_in_windows(layer: SelfAttention, x: jax.Array) -> jax.Array:
    return layer(x, "window_masked")


@pytest.mark.parametrize("function", [attend_in_chunks, attend_in_windows])
def test_gradients_keep_no_weights_of_large_maps(monkeypatch, function):
    monkeypatch.setattr(attention, "QUERY_CHUNK", 16)
    monkeypatch.setattr(attention, "MAX_WHOLE_QUERIES", 64)
    layer = SelfAttention(8, 4, window=8, dtype="float32", rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    x = normal(0, 1, 32, 32, 8)

    def loss(params: nnx.State) -> jax.Array:
        return jnp.sum(function(nnx.merge(graph, params), x) ** 2)

    _, pullback = jax.vjp(loss, params)
    largest = max(leaf.size for leaf in jax.tree.leaves(pullback))
    # Kept are maps such as the queries; weights would be 32^4 numbers, or 8^4 for each of 16 windows.
    assert largest <= 3 * x.size


@pytest.mark.parametrize(
    ("platform", "kind", "capability", "expected"),
    [
        ("gpu", "NVIDIA H100 80GB HBM3", "9.0", True),
        ("gpu", "NVIDIA A100-SXM4-40GB", "8.0", True),
        ("gpu", "NVIDIA GeForce RTX 2080 Ti", "7.5", False),
        ("gpu", "AMD Instinct MI300X", "gfx942", False),
        ("tpu", "TPU v5p", None, False),
        ("cpu", "cpu", None, False),
    ],
)
def test_fused_attention_is_for_gpus_that_have_it(platform, kind, capability, expected):
    device = SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)
    assert attention._has_fused_attention(device) == expected


def test_maps_no_larger_than_a_window_attend_globally(layer):
    x = normal(0, 1, 4, 3, 8)
    for mode in ("window_published", "window_masked"):
        np.testing.assert_array_equal(layer(x, mode), layer(x, "global"))


def test_masked_windows_attend_within_each_window_alone(layer):
    x = normal(1, 1, 6, 5, 8)
    result = layer(x, "window_masked")
    # The normalisation runs over the whole map, so single windows start from its output.
    normed = layer.norm(x)
    for rows, columns in [((0, 4), (0, 4)), ((4, 6), (0, 4)), ((0, 4), (4, 5)), ((4, 6), (4, 5))]:
        part = normed[:, slice(*rows), slice(*columns)]
        flat = part.reshape(1, -1, 8)
        mixed = attend(layer.q(flat), layer.k(flat), layer.v(flat)).reshape(part.shape)
        expected = x[:, slice(*rows), slice(*columns)] + layer.out(mixed)
        np.testing.assert_allclose(result[:, slice(*rows), slice(*columns)], expected, atol=1e-5)


def test_published_windows_let_the_repeated_border_take_part(layer):
    x = normal(2, 1, 6, 5, 8)
    assert not np.allclose(layer(x, "window_published"), layer(x, "window_masked"), atol=1e-3)
    aligned = normal(3, 1, 8, 8, 8)
    np.testing.assert_allclose(layer(aligned, "window_published"), layer(aligned, "window_masked"), atol=1e-6)


def test_weights_are_float32_in_a_bfloat16_network():
    # 257 equal keys: in bfloat16 the sum of weights would stop growing at 256.
    q = jnp.zeros((1, 1, 4), jnp.bfloat16)
    k = jnp.zeros((1, 2049, 4), jnp.bfloat16)
    v = jnp.ones((1, 2049, 4), jnp.bfloat16)
    np.testing.assert_allclose(np.asarray(attend(q, k, v), np.float32), 1.0)
