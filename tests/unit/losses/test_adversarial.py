import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.losses.adversarial import discriminator_loss, fake_hinge_loss, generator_loss, real_hinge_loss
from cod_jax.losses.distribution_matching import distribution_matching_loss


def test_hinges_stop_pushing_beyond_one():
    logits = jnp.array([-3.0, 0.0, 0.5, 4.0])
    np.testing.assert_allclose(real_hinge_loss(logits), (4 + 1 + 0.5 + 0) / 4)
    np.testing.assert_allclose(fake_hinge_loss(logits), (0 + 1 + 1.5 + 5) / 4)
    np.testing.assert_allclose(jax.grad(real_hinge_loss)(logits), [-0.25, -0.25, -0.25, 0])
    np.testing.assert_allclose(jax.grad(fake_hinge_loss)(logits), [0, 0.25, 0.25, 0.25])


def test_discriminator_and_generator_losses():
    real, fake = jnp.array([0.5, -1.0]), jnp.array([0.25])
    np.testing.assert_allclose(discriminator_loss(real, fake), 0.5 * (1.25 + 1.25))
    np.testing.assert_allclose(generator_loss(fake), -0.25)
    assert generator_loss(fake.astype(jnp.bfloat16)).dtype == jnp.float32


def images(seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((2, 4, 3, 3)).astype(np.float32))


def test_distribution_matching_leads_from_the_critic_to_the_teacher():
    reconstruction, teacher, critic = images(0), images(1), images(2)
    loss, gradients = jax.value_and_grad(distribution_matching_loss, argnums=(0, 1, 2))(reconstruction, teacher, critic)
    distance = np.abs(reconstruction - teacher).mean(axis=(1, 2, 3), keepdims=True)
    direction = np.asarray(critic - teacher) / distance
    np.testing.assert_allclose(loss, np.mean(direction**2), rtol=1e-5)
    np.testing.assert_allclose(gradients[0], 2 * direction / direction.size, rtol=1e-4, atol=1e-7)
    assert not np.any(gradients[1])
    assert not np.any(gradients[2])


def test_distribution_matching_leaves_out_what_is_not_finite():
    reconstruction, critic = images(0), images(2)
    teacher = images(1).at[0].set(reconstruction[0])  # nothing to divide by
    critic = critic.at[1, 0, 0, 0].set(jnp.nan)
    loss, gradient = jax.value_and_grad(distribution_matching_loss)(reconstruction, teacher, critic)
    assert np.isfinite(loss)
    assert not np.any(gradient[0])
    assert gradient[1, 0, 0, 0] == 0
    assert np.count_nonzero(gradient[1]) == gradient[1].size - 1
