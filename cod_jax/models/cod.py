"""CoD: condition codec and denoiser as one model."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.diffusion.flow import image_to_velocity
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.condition_codec import ConditionCodec
from cod_jax.models.config import ModelConfig
from cod_jax.models.denoiser import Denoised, Prediction


class CoD(nnx.Module):
    """A diffusion codec: `codec` makes the condition, `denoiser` makes the picture from it.

    "Image" is what the denoiser works on: pixels in [-1, 1], or the latents of latent CoD.

    Args:
        config: The model's description.
        compute: How it is computed.
        rngs: Source of the initial values.
    """

    def __init__(self, config: ModelConfig, *, compute: ComputeConfig, rngs: nnx.Rngs):
        self.prediction: Prediction = config.denoiser.prediction
        self.patch_size, self.channels = config.patch_size, config.channels
        self.codec = ConditionCodec(
            config.codec,
            config.denoiser.hidden,
            dtype=compute.dtype,
            kernel_init=config.denoiser.codec_init,
            rngs=rngs,
        )
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
        """The network's raw output at timestep t, and the state after a block if asked for; see `Denoiser`."""
        return self.denoiser(x_t, t, condition, features_after=features_after, by_rows=by_rows)

    def predict(
        self,
        x_t: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W C"]:
        """The network's raw output at timestep t: the image, or the velocity."""
        return self.denoise(x_t, t, condition, by_rows=by_rows).prediction

    def to_velocity(
        self, prediction: Float[Array, "B H W C"], x_t: Float[Array, "B H W C"], t: Float[Array, " B"]
    ) -> Float[Array, "B H W C"]:
        """The velocity that a raw output at x_t stands for."""
        return prediction if self.prediction == "velocity" else image_to_velocity(prediction, x_t, t)

    def velocity(
        self,
        x_t: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W C"]:
        """Velocity at timestep t, whatever the network predicts."""
        return self.to_velocity(self.predict(x_t, t, condition, by_rows=by_rows), x_t, t)

    def one_step(
        self,
        condition: Float[Array, "B h w hidden"],
        noise: Float[Array, "B H W C"] | None = None,
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W C"]:
        """Image by one step from t = 0, from zero noise unless `noise` is given.

        `by_rows` runs the pixel head row after row, see `PixelHead`.
        """
        batch, rows, columns, _ = condition.shape
        if noise is None:
            shape = (batch, rows * self.patch_size, columns * self.patch_size, self.channels)
            noise = jnp.zeros(shape, jnp.float32)
        prediction = self.denoiser(noise, jnp.zeros((batch,), jnp.float32), condition, by_rows=by_rows).prediction
        return prediction + noise if self.prediction == "velocity" else prediction
