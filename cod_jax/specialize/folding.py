"""Folding of the constant parts of a one-step codec into its parameters; see docs/method.md, One-step codec.

Constant are the timestep 0, zero noise, the places of pixels in their patches, and the bins of a factorized bottleneck.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.models import CompactDenoiserConfig, Functional, ModelConfig, PixNerDiTConfig, compact, dconv, pixnerdit
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.models.functional import Params
from cod_jax.nn.embeddings import TimestepEmbedding, pixel_position_features


def fold(config: ModelConfig, params: Params) -> tuple[Params, Params]:
    """Split a model into an encoder and a one-step decoder.

    Args:
        config: The model's description; its denoiser works on pixels.
        params: Its parameters.

    Returns:
        Parameters of `SymbolEncoder` and of `OneStepDecoder`, float32. Products are computed in float64, so each number
        is rounded once. Unchanged parameters share their memory with `params`.
    """
    codec, denoiser = params["codec"], params["denoiser"]
    bottleneck = config.codec.bottleneck.fold(codec["bottleneck"], config.codec.latent_channels)
    encoder = {"encoder": codec["encoder"], "bottleneck": bottleneck}
    decoder = {
        "bottleneck": bottleneck,
        "decoder": codec["decoder"],
        **_fold_denoiser(config, denoiser),
    }
    return jax.tree.map(lambda value: np.asarray(value, np.float32), (encoder, decoder))


def _fold_denoiser(config: ModelConfig, denoiser: Params) -> Params:
    """Return the parameters of the trunk and of the head."""
    if isinstance(config.denoiser, CompactDenoiserConfig):
        return {"trunk": _fold_compact(denoiser), "head": _fold_refinement(denoiser)}
    fold_trunk = _fold_transformer if isinstance(config.denoiser, PixNerDiTConfig) else _fold_convolutions
    return {"trunk": fold_trunk(denoiser, config.denoiser.hidden), "head": _fold_head(denoiser["head"])}


def _fold_compact(denoiser: Params) -> Params:
    """Return the parameters of `trunks.CompactTrunk`."""
    drive = _silu(_timestep(denoiser["timestep"], compact.TIMESTEP_BASE))
    block = denoiser["blocks"]["block"]
    modulation = np.split(_modulation(block["modulation"], drive), 4, axis=-1)
    shift_mixer, scale_mixer, shift_mlp, scale_mlp = modulation
    folded = {name: layer for name, layer in block.items() if name != "modulation"}
    folded["expand"] = _after_modulation(block["expand"], shift_mixer, scale_mixer)
    folded["mlp_in"] = _after_modulation(block["mlp_in"], shift_mlp, scale_mlp)
    return {"blocks": {"block": folded}}


def _fold_refinement(denoiser: Params) -> Params:
    """Return the parameters of a `CompactDenoiser` after its blocks, without those for noise and texture."""
    left_out = ("blocks", "timestep", "patch_embed", "texture")
    folded = {name: layer for name, layer in denoiser.items() if name not in left_out}
    into = denoiser["refine_in"]
    return {**folded, "refine_in": {**into, "kernel": into["kernel"][: compact.REFINED_VALUES]}}


def _fold_convolutions(denoiser: Params, hidden: int) -> Params:
    """Return the parameters of `trunks.ConvolutionTrunk`."""
    drive = _silu(_timestep(denoiser["timestep"], dconv.TIMESTEP_BASE))
    return {
        "merge": _without_noise(denoiser["merge"], hidden),
        "blocks": {"block": _fold_blocks(denoiser["blocks"]["block"], drive)},
    }


def _fold_transformer(denoiser: Params, hidden: int) -> Params:
    """Return the parameters of `trunks.TransformerTrunk`."""
    timestep = _timestep(denoiser["timestep"], pixnerdit.TIMESTEP_BASE)
    block = denoiser["blocks"]["block"]
    return {
        "merge": _without_noise(denoiser["patch_embed"], hidden),
        "blocks": {"block": {**block, "modulation": {"values": _modulation(block["modulation"], _silu(timestep))}}},
        "timestep": timestep,
    }


def _timestep(timestep: Params, base: float) -> np.ndarray:
    """Return the embedding of t = 0, [hidden]."""
    make: dict[str, Any] = {"base": base, "uniform_bias": False, "dtype": "float32"}
    functional = Functional(lambda rngs: TimestepEmbedding(len(timestep["out"]["bias"]), **make, rngs=rngs))
    with jax.default_matmul_precision("highest"):
        return np.asarray(functional.bind(timestep)(jnp.zeros(1))[0])


def _silu(x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.silu(x), np.float64)


def _modulation(linear: Params, drive: np.ndarray) -> np.ndarray:
    """Return the output of the stacked adaLN layers, [layers, 6 hidden]."""
    # Layer by layer, because all layers of the largest models take gigabytes in float64.
    layers = zip(linear["kernel"], linear["bias"], strict=True)
    return np.stack([drive @ np.float64(kernel) + bias for kernel, bias in layers])


def _fold_blocks(block: Params, drive: np.ndarray) -> Params:
    """Fold adaLN into the stacked convolutional blocks, whose kernels are [layers, in, out] and biases [layers, out].

    The scale of a modulation goes into the rows of the next linear map's kernel, and the shift into its bias. A gate
    goes into the columns of the linear map before it.
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
    """Return the linear map of [noise, condition] without the noise, which adds zero."""
    return {"kernel": merge["kernel"][-hidden:], "bias": merge["bias"]}


def _fold_head(head: Params) -> Params:
    """Fold the embedding of [pixel, condition, position] into the pixel head's map of the condition.

    The pixels of zero noise add nothing. The positions are the same in every patch and become part of the bias.
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
