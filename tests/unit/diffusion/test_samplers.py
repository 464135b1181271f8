import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.diffusion.samplers import sample, sample_path, sampling_timesteps


def linear_field(x, t, condition):
    return condition - x


@pytest.mark.parametrize(("method", "error"), [("euler", 2e-2), ("adams", 1e-3)])
def test_samplers_solve_a_linear_equation(method, error):
    noise, target = jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3))
    result = sample(linear_field, noise, target, num_steps=50, method=method, last_step=None)
    exact = 1 - np.exp(-1)
    assert np.abs(result - exact).max() < error


def test_one_step_goes_all_the_way():
    np.testing.assert_array_equal(sampling_timesteps(1), [0, 1])
    noise, target = jnp.full((1, 1, 1, 3), 3.0), jnp.ones((1, 1, 1, 3))
    np.testing.assert_allclose(sample(linear_field, noise, target, num_steps=1), target)


def test_guidance_applies_inside_its_interval_only():
    def field(x, t, condition):
        return condition

    noise = jnp.zeros((1, 1, 1, 1))
    condition, unconditional = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))

    def end_of_path(interval):
        arguments = {"num_steps": 4, "guidance_scale": 3.0, "guidance_interval": interval, "last_step": None}
        return float(sample(field, noise, condition, unconditional, **arguments).squeeze())

    seen = [end_of_path(interval) for interval in [(0.1, 1.0), (2.0, 3.0)]]
    # Of four equal steps the first, at t = 0, lies outside (0.1, 1).
    np.testing.assert_allclose(seen, [0.25 + 0.75 * 3, 1.0], rtol=1e-6)


def test_sampling_is_float32_under_a_bfloat16_network():
    def field(x, t, condition):
        assert x.dtype == jnp.float32
        return jnp.full(x.shape, 1 / 256, jnp.bfloat16)

    start = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    result = jax.jit(lambda x: sample(field, x, x, num_steps=64, last_step=None))(start)
    # Steps of 2^-14 would vanish if 1 + step were rounded to bfloat16.
    np.testing.assert_allclose(result, 1 + 1 / 256, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps to be at least 1, got 0"),
        ({"last_step": 0.0}, "last_step above 0 and at most 1, got 0.0"),
        ({"time_shift": -1.0}, "positive time_shift, got -1.0"),
        ({"method": "adams", "order": 0}, "order to be at least 1, got 0"),
        ({"guidance_scale": 2.0}, "needs an unconditional condition"),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    noise = jnp.zeros((1, 1, 1, 3))
    with pytest.raises(ValueError, match=message):
        sample(linear_field, noise, noise, **arguments)


def test_a_traced_guidance_scale_is_the_same_as_a_number():
    def field(x, t, condition):
        return condition - x

    noise = jnp.full((1, 1, 1, 3), 0.3)
    condition, unconditional = jnp.ones((1, 1, 1, 3)), jnp.full((1, 1, 1, 3), -1.0)

    @jax.jit
    def traced(guidance_scale):
        return sample(field, noise, condition, unconditional, num_steps=5, guidance_scale=guidance_scale)

    for guidance_scale in (0.0, 1.0, 3.5):
        expected = sample(field, noise, condition, unconditional, num_steps=5, guidance_scale=guidance_scale)
        np.testing.assert_allclose(traced(guidance_scale), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="needs an unconditional condition"):
        jax.jit(lambda scale: sample(field, noise, condition, guidance_scale=scale))(1.0)


@pytest.mark.parametrize("method", ["euler", "adams"])
def test_a_path_has_every_state_and_where_it_seems_to_lead(method):
    noise, target = jnp.full((1, 2, 2, 3), -2.0), jnp.ones((1, 2, 2, 3))
    path = sample_path(linear_field, noise, target, num_steps=5, method=method)
    np.testing.assert_array_equal(path.timesteps, sampling_timesteps(5))
    assert (path.states.shape, path.estimates.shape) == ((6, 1, 2, 2, 3), (5, 1, 2, 2, 3))
    np.testing.assert_array_equal(path.states[0], noise)
    np.testing.assert_array_equal(path.states[-1], sample(linear_field, noise, target, num_steps=5, method=method))
    # Along the velocity of each state until t = 1.
    left = 1 - path.timesteps[:-1, None, None, None, None]
    expected = path.states[:-1] + left * (target[None] - path.states[:-1])
    np.testing.assert_allclose(path.estimates, expected, rtol=1e-6)


def test_a_path_with_guidance_is_that_of_the_sampler():
    def field(x, t, condition):
        return condition * (1 + t[:, None, None, None]) - x

    noise, condition = jnp.ones((2, 1, 1, 1)), jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    arguments = {"num_steps": 5, "guidance_scale": 3.0}
    path = sample_path(field, noise, condition, jnp.zeros((2, 1, 1, 1)), **arguments)
    expected = sample(field, noise, condition, jnp.zeros((2, 1, 1, 1)), **arguments)
    np.testing.assert_allclose(path.states[-1], expected, rtol=1e-6)
