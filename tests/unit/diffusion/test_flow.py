import jax.numpy as jnp
import numpy as np

from cod_jax.diffusion.flow import flow_target, guide, image_to_velocity, interpolate, sample_timesteps, shift_time


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
