"""Parameters of a one-step codec with all that is constant at t = 0 and zero noise folded in (spec section 5)."""

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.models import Functional, ModelConfig
from cod_jax.models.config import PATCH_SIZE
from cod_jax.models.dconv import TIMESTEP_BASE
from cod_jax.models.functional import Params
from cod_jax.nn.embeddings import TimestepEmbedding, pixel_position_features


def fold(config: ModelConfig, params: Params) -> tuple[Params, Params]:
    """Split a model into what encodes and what decodes in one step.

    Args:
      config: The model's description; its denoiser is a DConv.
      params: Its parameters.

    Returns:
      Parameters of `SymbolEncoder` and of `OneStepDecoder`, float32. Products are made in float64, so each number is
      rounded once.
    """
    codec, denoiser = params["codec"], params["denoiser"]
    encoder = {"codec": {name: codec[name] for name in codec if name != "decoder"}}
    decoder = {
        "codec": {name: codec[name] for name in codec if name != "encoder"},
        "merge": _without_noise(denoiser["merge"], config.denoiser.hidden),
        "blocks": {"block": _fold_blocks(denoiser["blocks"]["block"], _drive(denoiser["timestep"]))},
        "head": _fold_head(denoiser["head"]),
    }
    return jax.tree.map(np.float32, (encoder, decoder))


def _drive(timestep: Params) -> np.ndarray:
    """What drives every adaLN layer at t = 0: SiLU of the timestep's embedding, [hidden]."""
    make = {"base": TIMESTEP_BASE, "uniform_bias": False, "dtype": "float32"}
    functional = Functional(lambda rngs: TimestepEmbedding(len(timestep["out"]["bias"]), **make, rngs=rngs))
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.nn.silu(functional.bind(timestep)(jnp.zeros(1)))[0], np.float64)


def _fold_blocks(block: Params, drive: np.ndarray) -> Params:
    """The stacked condition blocks without adaLN: kernels are [layers, in, out], biases [layers, out].

    Of `modulate(x)` followed by a linear map the scale goes into the rows of its kernel and the shift into its bias; a
    gate goes into the columns of the linear map before it.
    """
    modulation = drive @ np.float64(block["modulation"]["kernel"]) + block["modulation"]["bias"]
    shift_mixer, scale_mixer, gate_mixer, shift_mlp, scale_mlp, gate_mlp = np.split(modulation, 6, axis=-1)
    folded = {name: layer for name, layer in block.items() if name != "modulation"}
    folded["expand"] = _after_modulation(block["expand"], shift_mixer, scale_mixer)
    folded["project"] = _before_gate(block["project"], gate_mixer)
    folded["mlp_in"] = _after_modulation(block["mlp_in"], shift_mlp, scale_mlp)
    folded["mlp_out"] = _before_gate(block["mlp_out"], gate_mlp)
    return folded


def _after_modulation(linear: Params, shift: np.ndarray, scale: np.ndarray) -> Params:
    kernel = np.float64(linear["kernel"])
    bias = linear["bias"] + (shift[:, None] @ kernel)[:, 0]
    return {"kernel": (1 + scale[..., None]) * kernel, "bias": bias}


def _before_gate(linear: Params, gate: np.ndarray) -> Params:
    return {"kernel": linear["kernel"] * gate[:, None], "bias": linear["bias"] * gate}


def _without_noise(merge: Params, hidden: int) -> Params:
    """The merge of patch embedding and condition without the former: zero noise embeds to zero, without a bias."""
    return {"kernel": merge["kernel"][-hidden:], "bias": merge["bias"]}


def _fold_head(head: Params) -> Params:
    """The pixel head, its map of the condition followed by the embedding of [pixel, condition, position].

    The pixels of zero noise add nothing, and the positions are the same in every patch: they become part of the bias.
    """
    embed, project = head["embed"], head["project"]
    kernel = np.float64(embed["kernel"]) @ project["kernel"]
    bias = np.float64(embed["bias"]) @ project["kernel"] + project["bias"]
    positions = np.asarray(pixel_position_features(PATCH_SIZE), np.float64)
    features = kernel.shape[1]
    of_condition, of_position = kernel[3 : 3 + features], kernel[3 + features :]

    condition = head["condition"]
    shape = (-1, PATCH_SIZE**2, features)
    folded_kernel = condition["kernel"].reshape(shape) @ of_condition
    folded_bias = condition["bias"].reshape(shape) @ of_condition + positions @ of_position + bias
    folded = {name: layer for name, layer in head.items() if name not in ("embed", "project")}
    folded["condition"] = {
        "kernel": folded_kernel.reshape(condition["kernel"].shape),
        "bias": folded_bias.reshape(condition["bias"].shape),
    }
    return folded
