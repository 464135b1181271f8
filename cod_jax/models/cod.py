"""CoD: condition codec and denoiser as one model."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.diffusion.flow import image_to_velocity
from cod_jax.models.condition_codec import ConditionCodec
from cod_jax.models.config import PATCH_SIZE, ModelConfig, Prediction
from cod_jax.models.dconv import DConv


class CoD(nnx.Module):
    """A diffusion codec: `codec` makes the condition, `denoiser` makes the picture from it.

    Args:
      config: The model's description.
      dtype: Dtype of the computation.
      rngs: Source of the initial values.
    """

    def __init__(self, config: ModelConfig, *, dtype: str, rngs: nnx.Rngs):
        self.prediction: Prediction = config.denoiser.prediction
        self.codec = ConditionCodec(config.codec, config.denoiser.hidden, dtype=dtype, rngs=rngs)
        self.denoiser = DConv(config.denoiser, dtype=dtype, rngs=rngs)

    def predict(
        self, x_t: Float[Array, "B H W 3"], t: Float[Array, " B"], condition: Float[Array, "B h w hidden"]
    ) -> Float[Array, "B H W 3"]:
        """The network's raw output at timestep t: the image in [-1, 1], or the velocity."""
        return self.denoiser(x_t, t, condition)

    def velocity(
        self, x_t: Float[Array, "B H W 3"], t: Float[Array, " B"], condition: Float[Array, "B h w hidden"]
    ) -> Float[Array, "B H W 3"]:
        """Velocity at timestep t, whatever the network predicts."""
        prediction = self.predict(x_t, t, condition)
        return prediction if self.prediction == "velocity" else image_to_velocity(prediction, x_t, t)

    def one_step(
        self,
        condition: Float[Array, "B h w hidden"],
        noise: Float[Array, "B H W 3"] | None = None,
        *,
        by_rows: bool = False,
    ) -> Float[Array, "B H W 3"]:
        """Image in about [-1, 1] by one step from t = 0, from zero noise unless `noise` is given.

        `by_rows` runs the pixel head row after row, see `PixelHead`.
        """
        if noise is None:
            batch, rows, columns, _ = condition.shape
            noise = jnp.zeros((batch, rows * PATCH_SIZE, columns * PATCH_SIZE, 3), jnp.float32)
        t = jnp.zeros((condition.shape[0],), jnp.float32)
        prediction = self.denoiser(noise, t, condition, by_rows=by_rows)
        return prediction + noise if self.prediction == "velocity" else prediction
