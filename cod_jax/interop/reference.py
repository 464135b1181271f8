"""Build our models from a published class name, its arguments and its state dict."""

import dataclasses
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
from cod_jax.interop.names import CODEC_PREFIX, Entry, entries
from cod_jax.interop.published import CLASS_NAMES, reference_config, reference_with_noise_level
from cod_jax.model_folder.bundle import save_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import ModelConfig, build_model
from cod_jax.models.condition_codec import ConditionCodec
from cod_jax.models.functional import Functional, Params, flatten_params, mismatch_message, unflatten_params

__all__ = [
    "CLASS_NAMES",
    "ReferenceCodec",
    "ReferenceModel",
    "codec_functional",
    "load_reference",
    "params_from_state_dict",
    "published_entries",
    "reference_config",
    "state_dict_from_params",
]


class ReferenceCodec:
    """The condition codec of a published model; jitted, float32 with full-precision products."""

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def encode(self, image01: ArrayLike, windowed: bool = False) -> jax.Array:
        """Latents [B, h, w, 128] of image01 [B, H, W, 3]; `windowed` is the attention of CoD-Lite's inference."""
        return self._call("encode", image01, attention=_attention(windowed))

    def quantize(self, z: ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Straight-through code vectors [B, h, w, 128] and indices [B, h, w] of latents."""
        quantized = self._call("quantize", z)
        return quantized.values, quantized.indices

    def vq_loss(self, z: ArrayLike) -> jax.Array:
        """The quantisation loss of latents."""
        return self._call("quantize", z).loss

    def decode(self, z_q: ArrayLike, windowed: bool = False) -> jax.Array:
        """Condition [B, H/16, W/16, hidden] of code vectors."""
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
        """Velocity at x_t [B, H, W, 3] and timesteps t [B]."""
        return self._call("", "velocity", x_t, t, condition)

    def predict(self, x_t: ArrayLike, t: ArrayLike, condition: ArrayLike) -> jax.Array:
        """The network's raw output."""
        return self._call("", "predict", x_t, t, condition)

    def one_step(self, condition: ArrayLike, noise: ArrayLike | None = None) -> jax.Array:
        """Image in about [-1, 1] by one step from t = 0, from zero noise or from noise_level times `noise`."""
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
    """Our model of a published network with its weights.

    Args:
        class_name: "Codec" (only `model.codec`), "DConv", "PixNerDiT", "DDT" or "OneStepCoD" (a transformer if
            `num_groups` is given).
        init_args: Keyword arguments as in the published YAML files.
        state_dict: Arrays by published name without checkpoint prefix ("Codec": with or without "y_embedder.").

    Raises:
        UserError: An argument cannot be used, or the state dict has missing, unexpected or wrongly shaped entries; the
            message lists all three.
    """
    config, noise_level = reference_with_noise_level(class_name, init_args)
    if class_name == "Codec":
        functional = codec_functional(config)
        if not any(name.startswith(CODEC_PREFIX) for name in state_dict):
            state_dict = {CODEC_PREFIX + name: value for name, value in state_dict.items()}
    else:
        functional = build_model(config)
    params = params_from_state_dict(functional, config, state_dict)
    return ReferenceModel(config, functional, params, noise_level)


def codec_functional(config: ModelConfig) -> Functional[ConditionCodec]:
    """The condition codec alone as a pure function of its parameters."""

    def build(rngs: nnx.Rngs) -> ConditionCodec:
        return ConditionCodec(config.codec, config.denoiser.hidden, dtype="float32", rngs=rngs)

    return Functional(build)


def published_entries(functional: Functional[Any], config: ModelConfig) -> dict[str, tuple[Entry, tuple[int, ...]]]:
    """Published name -> (entry, published shape) of every tensor the configuration implies."""
    # A codec by itself has our names without "codec/"; the published ones are the same.
    lead = "" if "denoiser" in functional.shapes else "codec/"
    shapes = {lead + name: tuple(leaf.shape) for name, leaf in flatten_params(functional.shapes).items()}
    result = {}
    for entry in entries(shapes, config):
        shape = shapes[entry.name] if entry.layer is None else shapes[entry.name][1:]
        published_shape = entry.to_published(np.broadcast_to(np.float32(0), shape)).shape
        result[entry.published] = (dataclasses.replace(entry, name=entry.name.removeprefix(lead)), published_shape)
    return result


def params_from_state_dict(
    functional: Functional[Any], config: ModelConfig, state_dict: Mapping[str, np.ndarray]
) -> Params:
    """Our parameters, float32, from published arrays.

    Raises:
        UserError: With the missing, the unexpected and the wrongly shaped names.
    """
    expected = published_entries(functional, config)
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    wrong_shape = [
        f"{name} {tuple(state_dict[name].shape)} instead of {shape}"
        for name, (_, shape) in expected.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    if missing or unexpected or wrong_shape:
        raise UserError(mismatch_message(missing, unexpected, wrong_shape))
    shapes = flatten_params(functional.shapes)
    flat = {name: np.empty(leaf.shape, np.float32) for name, leaf in shapes.items()}
    for name, (entry, _) in expected.items():
        target = flat[entry.name] if entry.layer is None else flat[entry.name][entry.layer]
        target[...] = entry.to_ours(np.asarray(state_dict[name], np.float32))
    return unflatten_params({name: jnp.asarray(value) for name, value in flat.items()}, functional.shapes)


def state_dict_from_params(functional: Functional[Any], config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """Published arrays, float32, from our parameters: the opposite of `params_from_state_dict`.

    Raises:
        UserError: With the missing, the unexpected and the wrongly shaped names of ours.
    """
    functional.check(params)
    flat = {name: np.asarray(jax.device_get(value), np.float32) for name, value in flatten_params(params).items()}
    state_dict = {}
    for name, (entry, _) in published_entries(functional, config).items():
        array = flat[entry.name] if entry.layer is None else flat[entry.name][entry.layer]
        state_dict[name] = np.ascontiguousarray(entry.to_published(array))
    return state_dict
