"""Condition codec and denoiser as one model, CoD."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.diffusion.flow import image_to_velocity
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.condition_codec import ConditionCodec
from cod_jax.models.config import ModelConfig
from cod_jax.models.denoiser import Denoised, Prediction


class CoD(nnx.Module):
    """A diffusion codec, whose `codec` makes the condition and whose `denoiser` makes the picture from it.

    "Image" below stands for pixels in [-1, 1], or for the latents of latent CoD.

    Args:
        config: The model's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: ModelConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        self.prediction: Prediction = config.denoiser.prediction
        self.patch_size, self.channels = config.patch_size, config.channels
        self.codec = ConditionCodec(config.codec, config.denoiser, compute=compute, rngs=rngs)
        self.denoiser = config.denoiser.build(compute=compute, rngs=rngs)

    def denoise(
        self,
        x_t: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Return the network's raw output at timestep t and, if requested, the state after a block; see `Denoiser`."""
        return self.denoiser(x_t, t, condition, features_after=features_after, by_rows=by_rows)

    def predict(
        self,
        x_t: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W C"]:
        """Return the network's raw output at timestep t, an image or a velocity."""
        return self.denoise(x_t, t, condition, by_rows=by_rows).prediction

    def to_velocity(
        self, prediction: Float[Array, "B H W C"], x_t: Float[Array, "B H W C"], t: Float[Array, " B"]
    ) -> Float[Array, "B H W C"]:
        """Return the velocity that corresponds to a raw output at x_t."""
        return prediction if self.prediction == "velocity" else image_to_velocity(prediction, x_t, t)

    def velocity(
        self,
        x_t: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W C"]:
        """Return the velocity at timestep t."""
        return self.to_velocity(self.predict(x_t, t, condition, by_rows=by_rows), x_t, t)

    def one_step(
        self,
        condition: Float[Array, "B h w hidden"],
        noise: Float[Array, "B H W C"] | None = None,
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W C"]:
        """Return the image after one step from t = 0.

        Args:
            condition: Condition on the patch grid.
            noise: Start of the step; zeros by default.
            by_rows: Run the pixel head row by row, see `PixelHead`.
        """
        batch, rows, columns, _ = condition.shape
        if noise is None:
            shape = (batch, rows * self.patch_size, columns * self.patch_size, self.channels)
            noise = jnp.zeros(shape, jnp.float32)
        prediction = self.denoiser(noise, jnp.zeros((batch,), jnp.float32), condition, by_rows=by_rows).prediction
        return prediction + noise if self.prediction == "velocity" else prediction
