import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.diffusion.flow import flow_target, guide, image_to_velocity, interpolate, sample_timesteps, shift_time
from cod_jax.diffusion.noise import seed_words, seeded_noise
from cod_jax.diffusion.samplers import sample, sampling_timesteps


def test_path_runs_from_noise_to_data():
    x, noise = jnp.full((2, 1, 1, 3), 5.0), jnp.full((2, 1, 1, 3), -1.0)
    path = interpolate(x, noise, jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(path[0], noise[0])
    np.testing.assert_array_equal(path[1], x[1])


def test_timesteps_are_logit_normal_and_shifted_towards_noise():
    t = sample_timesteps(jnp.array([0.0, 2.0]))
    np.testing.assert_allclose(t, [0.5, 1 / (1 + np.exp(-2))], rtol=1e-6)
    assert np.all(sample_timesteps(jnp.array([0.0, 2.0]), 3.0) < t)
    np.testing.assert_allclose(shift_time(np.array([0.0, 0.5, 1.0]), 3.0), [0.0, 0.25, 1.0])


def test_the_target_of_the_flow_points_from_noise_to_data():
    x, noise = jnp.full((2, 1, 1, 3), 5.0), jnp.full((2, 1, 1, 3), -1.0)
    t = jnp.array([0.25, 0.99])
    x_t = interpolate(x, noise, t)
    np.testing.assert_allclose(flow_target(x, x_t, t, "velocity"), x - noise, rtol=1e-4)
    clamped = flow_target(x, x_t, t, "image")
    np.testing.assert_allclose(clamped[0], 6.0, rtol=1e-6)
    np.testing.assert_allclose(clamped[1], 6.0 * 0.01 / 0.05, rtol=1e-4)
    # A perfect image prediction becomes exactly the target.
    np.testing.assert_array_equal(clamped, image_to_velocity(x, x_t, t))


def test_guidance_runs_from_the_unconditional_velocity_through_the_conditional_one():
    unconditional, conditional = jnp.full((1, 2), 1.0), jnp.full((1, 2), 3.0)
    for scale, expected in ((0.0, 1.0), (1.0, 3.0), (2.5, 6.0)):
        np.testing.assert_array_equal(guide(unconditional, conditional, scale), expected)


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


def test_noise_of_a_seed_never_changes():
    # Files are decoded with it: another version of JAX must give the same.
    expected = {
        0: [1.6226422, 2.0252647, -0.43359444, -0.07861735],
        2**40 + 5: [0.4262717, -0.6213356, -0.368384, -0.5108112],
    }
    for seed, values in expected.items():
        np.testing.assert_allclose(seeded_noise(seed_words(seed), (1, 2, 2, 1)).ravel(), values, rtol=1e-5)


def test_noise_depends_on_the_seed_only():
    words = seed_words(7)
    expected = np.asarray(seeded_noise(words, (2, 3)))
    np.testing.assert_array_equal(expected, jax.random.normal(jax.random.key(7, impl="threefry2x32"), (2, 3)))
    for setting in (True, False):
        with jax.threefry_partitionable(setting):
            np.testing.assert_array_equal(seeded_noise(words, (2, 3)), expected)
    with jax.enable_x64(True):
        assert seeded_noise(words, (2, 3)).dtype == jnp.float32
        np.testing.assert_array_equal(seeded_noise(words, (2, 3)), expected)
        large = jax.random.key(2**40 + 5, impl="threefry2x32")
        np.testing.assert_array_equal(jax.random.key_data(large), seed_words(2**40 + 5))
