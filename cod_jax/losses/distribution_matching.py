"""Distribution matching distillation (Yin et al. 2024), as a loss of the reconstruction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def distribution_matching_loss(
    reconstruction: Float[Array, "B H W C"],
    teacher_image: Float[Array, "B H W C"],
    critic_image: Float[Array, "B H W C"],
) -> Float[Array, ""]:
    """Return a squared error whose gradient points from the critic's image of a noised reconstruction to the teacher's.

    Let r be the reconstruction and g = ((r - teacher) - (r - critic)) / mean|r - teacher|, the mean over each image
    (Yin et al. 2024, equations 7 and 8). The loss is mean((r - sg(r - g))^2); its gradient in r is 2 g / r.size.

    Args:
        reconstruction: Images in [-1, 1].
        teacher_image: Images that the teacher predicts from the noised reconstructions; they get no gradient.
        critic_image: Images that the critic predicts from the same; they get no gradient.
    """
    r, teacher, critic = (
        jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (reconstruction, teacher_image, critic_image)
    )
    distance = jnp.mean(jnp.abs(r - teacher), axis=(1, 2, 3), keepdims=True)
    direction = ((r - teacher) - (r - critic)) / distance
    # It is not finite where a network diverged, or where the reconstruction already equals the teacher's image.
    direction = jnp.where(jnp.isfinite(direction), direction, 0.0)
    # This is r - sg(r - g) without the rounding error of r - g, which is large compared with g.
    return jnp.mean((reconstruction.astype(jnp.float32) - r + direction) ** 2)
