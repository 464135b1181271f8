"""What the denoiser works on: the pixels themselves, or the latents of a frozen autoencoder (spec section 2, DDT)."""

import jax
from jaxtyping import Array, Float

from cod_jax.features.latent_standin import SpaceToDepthProjection
from cod_jax.features.sd_vae import LATENT_SCALE, SDVAE, SDVAEConfig
from cod_jax.models.compute import Dtype
from cod_jax.models.config import ModelConfig
from cod_jax.models.functional import Functional, Params


class Space:
    """Pictures in [-1, 1] to what a model denoises, and back.

    Args:
        config: The model's description.
        dtype: Dtype of an autoencoder's computation.
        vae: What "sd_vae" stands for; another one than the published serves tests.

    Attributes:
        functional: The autoencoder as a pure function of its parameters, or None where there is nothing to load.
    """

    def __init__(self, config: ModelConfig, dtype: Dtype = "float32", vae: SDVAEConfig | None = None):
        self._autoencoder = config.denoiser.autoencoder
        self._projection = SpaceToDepthProjection()
        self.functional: Functional[SDVAE] | None = None
        if self._autoencoder == "sd_vae":
            vae = vae or SDVAEConfig()
            self.functional = Functional(lambda rngs: SDVAE(vae, dtype=dtype, rngs=rngs))

    def encode(
        self, params: Params, image: Float[Array, "B H W 3"], noise: Float[Array, "B h w C"] | None = None
    ) -> Float[Array, "B h w C"]:
        """What the model denoises, for images in [-1, 1]; without gradient.

        Args:
            params: The autoencoder's, {} where it has none.
            image: The images.
            noise: Standard normal, like the result, for a sample of the latents as the published models are trained on;
                without it, their mean. It plays no part in other spaces.
        """
        if self.functional is not None:
            moments = self.functional.bind(params).encode_moments(image)
            latents = moments.mean if noise is None else moments.sample(noise)
            return jax.lax.stop_gradient(latents * LATENT_SCALE)
        return self._projection.encode(image) if self._autoencoder == "space_to_depth" else image

    def decode(self, params: Params, values: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Images of about [-1, 1] for what the model denoised. `params` are the autoencoder's."""
        if self.functional is not None:
            return self.functional.bind(params).decode(values / LATENT_SCALE)
        return self._projection.decode(values) if self._autoencoder == "space_to_depth" else values
