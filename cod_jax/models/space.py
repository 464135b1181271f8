"""Space that the denoiser works in: pixels, or latents of a frozen autoencoder; see docs/method.md, Denoisers."""

import jax
from jaxtyping import Array, Float

from cod_jax.features.latent_standin import SpaceToDepthProjection
from cod_jax.features.sd_vae import LATENT_SCALE, SDVAE, SDVAEConfig
from cod_jax.models.compute import Dtype
from cod_jax.models.config import ModelConfig
from cod_jax.models.functional import Functional, Params


class Space:
    """Map between pictures in [-1, 1] and the values that a model denoises.

    Args:
        config: The model's description.
        dtype: Dtype of an autoencoder's computation.
        vae: Description of "sd_vae", by default the published one; tests use a small network.

    Attributes:
        functional: The autoencoder as a pure function of its parameters, or None if it has none.
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
        """Return the values to denoise for images in [-1, 1], without gradient.

        Args:
            params: Parameters of the autoencoder, {} if it has none.
            image: Images.
            noise: Standard normal, with the shape of the result. It makes the VAE sample its latents, as the published
                models are trained; without it the result is their mean. Other spaces ignore it.
        """
        if self.functional is not None:
            moments = self.functional.bind(params).encode_moments(image)
            latents = moments.mean if noise is None else moments.sample(noise)
            return jax.lax.stop_gradient(latents * LATENT_SCALE)
        return self._projection.encode(image) if self._autoencoder == "space_to_depth" else image

    def decode(self, params: Params, values: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return images of about [-1, 1] for denoised values, given the autoencoder's parameters."""
        if self.functional is not None:
            return self.functional.bind(params).decode(values / LATENT_SCALE)
        return self._projection.decode(values) if self._autoencoder == "space_to_depth" else values
