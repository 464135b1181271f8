"""Parameters of a one-step codec with all that is constant in it folded in (spec section 5).

Constant are the timestep 0, zero noise, the places of pixels in their patches, and the bins of a factorized bottleneck.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.models import Functional, ModelConfig, PixNerDiTConfig, dconv, pixnerdit
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.models.functional import Params
from cod_jax.nn.embeddings import TimestepEmbedding, pixel_position_features


def fold(config: ModelConfig, params: Params) -> tuple[Params, Params]:
    """Split a model into what encodes and what decodes in one step.

    Args:
        config: The model's description; its denoiser works on pixels.
        params: Its parameters.

    Returns:
        Parameters of `SymbolEncoder` and of `OneStepDecoder`, float32. Products are made in float64, so each number is
        rounded once; what stays as it is shares its memory with `params`.
    """
    codec, denoiser = params["codec"], params["denoiser"]
    bottleneck = config.codec.bottleneck.fold(codec["bottleneck"], config.codec.latent_channels)
    fold_trunk = _fold_transformer if isinstance(config.denoiser, PixNerDiTConfig) else _fold_convolutions
    encoder = {"encoder": codec["encoder"], "bottleneck": bottleneck}
    decoder = {
        "bottleneck": bottleneck,
        "decoder": codec["decoder"],
        "trunk": fold_trunk(denoiser, config.denoiser.hidden),
        "head": _fold_head(denoiser["head"]),
    }
    return jax.tree.map(lambda value: np.asarray(value, np.float32), (encoder, decoder))


def _fold_convolutions(denoiser: Params, hidden: int) -> Params:
    """What `trunks.ConvolutionTrunk` has."""
    drive = _silu(_timestep(denoiser["timestep"], dconv.TIMESTEP_BASE))
    return {
        "merge": _without_noise(denoiser["merge"], hidden),
        "blocks": {"block": _fold_blocks(denoiser["blocks"]["block"], drive)},
    }


def _fold_transformer(denoiser: Params, hidden: int) -> Params:
    """What `trunks.TransformerTrunk` has."""
    timestep = _timestep(denoiser["timestep"], pixnerdit.TIMESTEP_BASE)
    block = denoiser["blocks"]["block"]
    return {
        "merge": _without_noise(denoiser["patch_embed"], hidden),
        "blocks": {"block": {**block, "modulation": {"values": _modulation(block["modulation"], _silu(timestep))}}},
        "timestep": timestep,
    }


def _timestep(timestep: Params, base: float) -> np.ndarray:
    """The embedding of t = 0, [hidden]."""
    make: dict[str, Any] = {"base": base, "uniform_bias": False, "dtype": "float32"}
    functional = Functional(lambda rngs: TimestepEmbedding(len(timestep["out"]["bias"]), **make, rngs=rngs))
    with jax.default_matmul_precision("highest"):
        return np.asarray(functional.bind(timestep)(jnp.zeros(1))[0])


def _silu(x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.silu(x), np.float64)


def _modulation(linear: Params, drive: np.ndarray) -> np.ndarray:
    """What the stacked adaLN layers say, [layers, 6 hidden]."""
    # Layer after layer: those of the largest models take gigabytes in float64.
    layers = zip(linear["kernel"], linear["bias"], strict=True)
    return np.stack([drive @ np.float64(kernel) + bias for kernel, bias in layers])


def _fold_blocks(block: Params, drive: np.ndarray) -> Params:
    """The stacked convolutional blocks without adaLN: kernels are [layers, in, out], biases [layers, out].

    Of `modulate(x)` followed by a linear map the scale goes into the rows of its kernel and the shift into its bias; a
    gate goes into the columns of the linear map before it.
    """
    modulation = _modulation(block["modulation"], drive)
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
    """The linear map of [noise, condition] without the former, whose part is zero."""
    return {"kernel": merge["kernel"][-hidden:], "bias": merge["bias"]}


def _fold_head(head: Params) -> Params:
    """The pixel head, its map of the condition followed by the embedding of [pixel, condition, position].

    The pixels of zero noise add nothing, and the positions are the same in every patch: they become part of the bias.
    """
    kernel, bias = (np.asarray(head["embed"][name], np.float64) for name in ("kernel", "bias"))
    if "project" in head:  # CoD-Lite embeds with two linear maps in a row
        project = head["project"]
        kernel, bias = kernel @ project["kernel"], bias @ project["kernel"] + project["bias"]
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
