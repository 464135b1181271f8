"""Build our models from a published class name, its arguments and its state dict."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from cod_jax.errors import UserError
from cod_jax.interop import naming
from cod_jax.interop.cod_networks.condition_codec import PREFIX, codec_rules
from cod_jax.interop.cod_networks.description import class_of, noise_level, reference_config
from cod_jax.interop.naming import Entry, published_entries
from cod_jax.model_folder.bundle import save_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import ModelConfig, build_model
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.condition_codec import ConditionCodec
from cod_jax.models.functional import Functional, Params


class ReferenceCodec:
    """The condition codec of a published model; jitted, float32 with full-precision products."""

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def encode(self, image01: ArrayLike, windowed: bool = False) -> jax.Array:
        """Return latents [B, h, w, 128] of image01 [B, H, W, 3]; `windowed` attends as CoD-Lite does in use."""
        return self._call("encode", image01, attention=_attention(windowed))

    def quantize(self, z: ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Return straight-through code vectors [B, h, w, 128] and indices [B, h, w] of latents."""
        quantized = self._call("quantize", z)
        return quantized.values, quantized.symbols[..., 0]

    def vq_loss(self, z: ArrayLike) -> jax.Array:
        """Return the quantisation loss of latents."""
        return jnp.mean(self._call("quantize", z).penalty)

    def decode(self, z_q: ArrayLike, windowed: bool = False) -> jax.Array:
        """Return the condition [B, H/16, W/16, hidden] of code vectors."""
        return self._call("decode", z_q, attention=_attention(windowed))


class ReferenceModel:
    """A published network with our code behind it.

    Attributes:
        config: Our description of it.
        params: Our parameters.
        functional: The model as a pure function of its parameters.
        noise_level: Level of the noise that one-step decoding starts from.
        codec: Its condition codec.
    """

    def __init__(self, config: ModelConfig, functional: Functional[Any], params: Params, noise_level: float):
        self.config, self.functional, self.params = config, functional, params
        self.noise_level = noise_level
        is_codec = "denoiser" not in functional.shapes
        self.codec = ReferenceCodec(partial(self._call, "" if is_codec else "codec"))

    def _call(self, owner: str, method: str, *args: Any, **static: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            arrays = [jnp.asarray(arg) for arg in args]
            return _run(self.functional, owner, method, tuple(static.items()), self.params, *arrays)

    def velocity(self, x_t: ArrayLike, t: ArrayLike, condition: ArrayLike) -> jax.Array:
        """Return the velocity at x_t [B, H, W, 3] and timesteps t [B]."""
        return self._call("", "velocity", x_t, t, condition)

    def predict(self, x_t: ArrayLike, t: ArrayLike, condition: ArrayLike) -> jax.Array:
        """Return the network's raw output for x_t [B, H, W, 3] and t [B]."""
        return self._call("", "predict", x_t, t, condition)

    def one_step(self, condition: ArrayLike, noise: ArrayLike | None = None) -> jax.Array:
        """Return an image of about [-1, 1] after one step from t = 0.

        Args:
            condition: [B, H/16, W/16, hidden].
            noise: Standard normal numbers [B, H, W, 3], used times noise_level; zero noise by default.
        """
        return self._call(
            "", "one_step", condition, *([] if noise is None else [self.noise_level * jnp.asarray(noise)])
        )

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        training: Mapping[str, Any] | None = None,
        autoencoder: Params | None = None,
        decoding: DecodingConfig | None = None,
        force: bool = False,
    ) -> str:
        """Write a model folder that `cod` and `--config.init_from` take.

        Args:
            path: The folder.
            training: JSON values that say where the weights come from.
            autoencoder: Parameters of sd-vae-ft-ema, see `load_sd_vae`; a latent model needs them.
            decoding: How pictures are decoded unless something else is asked for; by default in one step.
            force: Replace a model folder that is there.

        Returns:
            The model's fingerprint.

        Raises:
            UserError: This is a condition codec without a denoiser, or a latent model without an autoencoder.
            FileExistsError: The folder exists.
        """
        if "denoiser" not in self.functional.shapes:
            raise UserError("a condition codec alone decodes no pictures; load the whole network to save it")
        return save_bundle(
            path,
            self.config,
            self.params,
            training={"weights": "imported"} if training is None else training,
            autoencoder=autoencoder,
            decoding=decoding,
            force=force,
        )


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(functional: Functional[Any], owner: str, method: str, static: tuple, params: Params, *args: jax.Array) -> Any:
    module = functional.bind(params)
    return getattr(getattr(module, owner) if owner else module, method)(*args, **dict(static))


def _attention(windowed: bool) -> str:
    return "window_published" if windowed else "global"


def load_reference(
    class_name: str, init_args: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]
) -> ReferenceModel:
    """Build our model of a published network with its weights.

    Args:
        class_name: "Codec" (only `model.codec`), "DConv", "PixNerDiT", "DDT" or "OneStepCoD" (a transformer if
            `num_groups` is given).
        init_args: Keyword arguments as in the published YAML files.
        state_dict: Arrays by published name without checkpoint prefix ("Codec": with or without "y_embedder.").

    Raises:
        UserError: An argument cannot be used, or the state dict has missing, unexpected or wrongly shaped entries; the
            message lists all three.
    """
    config = reference_config(class_name, init_args)
    if class_name == "Codec":
        functional = codec_functional(config)
        if not any(name.startswith(PREFIX) for name in state_dict):
            state_dict = {PREFIX + name: value for name, value in state_dict.items()}
    else:
        functional = build_model(config)
    params = params_from_state_dict(functional, config, state_dict)
    return ReferenceModel(config, functional, params, noise_level(class_name, init_args))


def codec_functional(config: ModelConfig) -> Functional[ConditionCodec]:
    """Return the condition codec alone as a pure function of its parameters."""

    def build(rngs: nnx.Rngs) -> ConditionCodec:
        return ConditionCodec(config.codec, config.denoiser, compute=ComputeConfig(), rngs=rngs)

    return Functional(build)


def network_entries(functional: Functional[Any], config: ModelConfig) -> dict[str, Entry]:
    """Return the place of every published tensor of a network, or of a condition codec alone, by published name."""
    if "denoiser" not in functional.shapes:
        return published_entries(functional.shapes, codec_rules(config, lead=""))
    return published_entries(functional.shapes, class_of(config, one_step=False).rules(config))


def params_from_state_dict(
    functional: Functional[Any], config: ModelConfig, state_dict: Mapping[str, np.ndarray]
) -> Params:
    """Return our parameters, float32, from published arrays.

    Raises:
        UserError: The arrays do not fit; the message lists what is missing, unexpected, or of another shape.
    """
    params = naming.params_from_state_dict(functional.shapes, network_entries(functional, config), state_dict)
    return jax.tree.map(jnp.asarray, params)


def state_dict_from_params(functional: Functional[Any], config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """Return published arrays, float32, from our parameters: the inverse of `params_from_state_dict`.

    Raises:
        UserError: With the missing, the unexpected and the wrongly shaped names of ours.
    """
    functional.check(params)
    return naming.state_dict_from_params(params, network_entries(functional, config))
