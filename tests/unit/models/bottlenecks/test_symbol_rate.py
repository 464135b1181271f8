"""Rates of a codebook's symbols whose gradient reaches the encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.coding.entropy.context import batches
from cod_jax.errors import UserError
from cod_jax.models import CodebookConfig
from cod_jax.models.bottlenecks import CodebookTraining, FactorizedTraining
from cod_jax.models.functional import Functional, Params
from tests.model_fixtures import numpy_params

CONFIG = CodebookConfig(bits=2)
TRAINING = CodebookTraining(rate_weight=0.1)
ROWS, COLUMNS = 4, 5
CODES = np.array([[-3.0], [-1.0], [1.0], [3.0]], np.float32)
CHEAP = (0.0, 0.0, 3.0, 0.0)
RATE = TRAINING.build_rate(CONFIG, 1)
QUANTIZER = Functional(lambda rngs: CONFIG.build(1, pitch=8, rngs=rngs))


def network(logits: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> Params:
    """Return a network that predicts the same at every position, with these logits."""
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), RATE.shapes)
    params["layers"]["out"]["bias"] = np.array(logits, np.float32)
    return params


def total_bits(z: jax.Array, codebook: jax.Array, params: Params) -> jax.Array:
    quantizer = QUANTIZER.bind({"codebook": codebook})
    quantized = quantizer(z, jnp.zeros(z.shape[:1], jnp.int32))
    return jnp.sum(TRAINING.estimated_bits(RATE.bind(params), quantizer, z, quantized))


with_gradients = jax.jit(jax.value_and_grad(total_bits, argnums=(0, 1)))


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    return 2 * np.random.default_rng(0).standard_normal((1, ROWS, COLUMNS, 1), np.float32)


def test_the_bits_are_those_of_the_symbols(z):
    assert float(with_gradients(z, CODES, network())[0]) == pytest.approx(2 * z.size)
    symbols = np.abs(z - CODES[:, 0]).argmin(axis=-1)
    logits = (0.0, 2.0, 0.0, -1.0)
    costs = -np.log2(np.exp(logits) / np.exp(logits).sum())
    assert float(with_gradients(z, CODES, network(logits))[0]) == pytest.approx(costs[symbols].sum(), rel=1e-5)


def test_latents_are_drawn_to_codes_that_are_cheap(z):
    _, (gradient, of_codes) = with_gradients(z, CODES, network(CHEAP))
    # The third code, at 1, is cheap: latents below it are to grow, those above to shrink.
    near = np.abs(z - 1) < 2
    np.testing.assert_array_equal(np.sign(gradient)[near], np.sign(z - 1)[near])
    np.testing.assert_array_equal(of_codes, 0)
    # Where all cost the same, nothing is gained by another code.
    np.testing.assert_allclose(with_gradients(z, CODES, network())[1][0], 0, atol=1e-6)


def test_the_size_of_latents_does_not_matter(z):
    (bits, (gradient, _)), (scaled_bits, (scaled, _)) = (
        with_gradients(scale * z, scale * CODES, network(CHEAP)) for scale in (1, 100)
    )
    assert float(bits) == pytest.approx(float(scaled_bits), rel=1e-5)
    np.testing.assert_allclose(100 * scaled, gradient, rtol=1e-3, atol=1e-5)


def test_equal_code_vectors_give_a_finite_gradient(z):
    _, (gradient, _) = with_gradients(z, np.ones_like(CODES), network(CHEAP))
    assert np.all(np.abs(gradient) < 1e3)


def test_neighbours_are_drawn_to_values_that_predict(z):
    params = jax.tree.map(np.asarray, numpy_params(RATE.shapes))
    still = {**params, "layers": {**params["layers"], "layer0": network()["layers"]["layer0"]}}
    assert np.any(np.abs(with_gradients(z, CODES, params)[1][0] - with_gradients(z, CODES, still)[1][0]) > 1e-3)


def test_symbols_are_predicted_from_those_that_a_file_has_before_them():
    order = np.zeros((ROWS, COLUMNS), int)
    for number, batch in enumerate(batches(ROWS, COLUMNS)):
        order[batch.place] = number
    rate = RATE.bind(jax.tree.map(jnp.asarray, numpy_params(RATE.shapes)))
    num = ROWS * COLUMNS
    # In each copy the value of one position is another.
    changed = np.concatenate([np.zeros((1, num)), np.eye(num)]).reshape(-1, ROWS, COLUMNS, 1)
    bits = np.asarray(jax.jit(rate)(changed.astype(np.float32)))
    depends = (bits[1:] != bits[:1]).any(axis=-1).reshape(ROWS, COLUMNS, ROWS, COLUMNS)
    assert not depends[order[:, :, None, None] >= order].any()
    # Of the last batch each has the four next to it.
    assert np.argwhere(depends[:, :, 1, 2]).tolist() == [[0, 2], [1, 1], [1, 3], [2, 2]]


def test_latents_learn_to_use_fewer_bits():
    x = np.random.default_rng(1).standard_normal((4, ROWS, COLUMNS, 1)).astype(np.float32)
    optimizer = optax.adam(0.02)

    def loss(params: Params, rate_weight: jax.Array) -> jax.Array:
        quantizer = QUANTIZER.bind({"codebook": params["codes"]})
        quantized = quantizer(params["z"], jnp.zeros((4,), jnp.int32))
        bits = total_bits(params["z"], params["codes"], params["rate"])
        return jnp.sum((quantized.values - x) ** 2) + jnp.sum(quantized.penalty) + rate_weight * bits

    @jax.jit
    def trained(rate_weight: jax.Array) -> Params:
        def step(_: int, carry: tuple[Params, optax.OptState]) -> tuple[Params, optax.OptState]:
            updates, state = optimizer.update(jax.grad(loss)(carry[0], rate_weight), carry[1])
            return optax.apply_updates(carry[0], updates), state  # pyright: ignore[reportReturnType]

        params = {"codes": jnp.asarray(CODES / 2), "z": jnp.asarray(x), "rate": jax.tree.map(jnp.asarray, network())}
        return jax.lax.fori_loop(0, 200, step, (params, optimizer.init(params)))[0]

    def entropy(params: Params) -> float:
        symbols = np.abs(np.asarray(params["z"]) - np.asarray(params["codes"])[:, 0]).argmin(axis=-1)
        shares = np.bincount(symbols.ravel(), minlength=4) / symbols.size
        return -sum(share * np.log2(share) for share in shares if share)

    assert entropy(trained(2.0)) < entropy(trained(0.0)) - 0.5


def test_the_rate_is_for_codebooks_whose_files_use_neighbours():
    TRAINING.check(CodebookConfig(bits=8))
    CodebookTraining().check(CodebookConfig(bits=9))
    with pytest.raises(UserError, match="rate_weight needs a codebook of at most 8 bits, got 9; set"):
        TRAINING.check(CodebookConfig(bits=9))
    with pytest.raises(UserError, match=r"rate_weight must be at least 0, got -0\.1"):
        CodebookTraining(rate_weight=-0.1)
    assert CodebookTraining().estimated_rate_weight == FactorizedTraining().estimated_rate_weight == 0
