"""Distribution matching distillation (Yin et al. 2024) as a loss of the reconstruction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def distribution_matching_loss(
    reconstruction: Float[Array, "B H W C"],
    teacher_image: Float[Array, "B H W C"],
    critic_image: Float[Array, "B H W C"],
) -> Float[Array, ""]:
    """A squared error whose gradient leads from the critic's image of a noised reconstruction to the teacher's.

    With r the reconstruction, g = ((r - teacher) - (r - critic)) / mean|r - teacher|, the mean over each image (Yin et
    al. 2024, equations 7 and 8), the loss is mean((r - sg(r - g))^2), whose gradient in r is 2 g / r.size.

    Args:
        reconstruction: Images in [-1, 1].
        teacher_image: The teacher's images for the noised reconstructions; no gradient flows there.
        critic_image: The critic's; no gradient flows there.
    """
    r, teacher, critic = (
        jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (reconstruction, teacher_image, critic_image)
    )
    distance = jnp.mean(jnp.abs(r - teacher), axis=(1, 2, 3), keepdims=True)
    direction = ((r - teacher) - (r - critic)) / distance
    # Not a number or infinite where a network diverged, or where the reconstruction is the teacher's image already.
    direction = jnp.where(jnp.isfinite(direction), direction, 0.0)
    # r - sg(r - g) without the rounding of r - g, which is large beside g.
    return jnp.mean((reconstruction.astype(jnp.float32) - r + direction) ** 2)
