"""Names and array layouts of the published state dicts, matched to ours in both directions."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from cod_jax.models.config import ModelConfig

Layout = Literal["vector", "linear", "conv1x1", "conv", "depthwise", "patch", "pixel_condition", "qkv"]

CODEC_PREFIX = "y_embedder."

Rules = tuple[tuple[str, str, Layout], ...]

# Ours on the left, theirs on the right; the first rule that matches a module's path wins.
_CODEC: Rules = (
    (r"codec/encoder/conv_in", "y_embedder.encoder.conv_in", "conv"),
    (r"codec/encoder/levels/(\d+)/(\d+)/(norm|norm1|norm2)", r"y_embedder.encoder.down_block_\1.\2.\3", "vector"),
    (r"codec/encoder/levels/(\d+)/(\d+)/(conv|conv1|conv2)", r"y_embedder.encoder.down_block_\1.\2.\3", "conv"),
    (r"codec/encoder/levels/(\d+)/(\d+)/shortcut", r"y_embedder.encoder.down_block_\1.\2.nin_shortcut", "conv1x1"),
    (r"codec/encoder/levels/(\d+)/(\d+)/out", r"y_embedder.encoder.down_block_\1.\2.proj_out", "conv1x1"),
    (r"codec/encoder/levels/(\d+)/(\d+)/(q|k|v)", r"y_embedder.encoder.down_block_\1.\2.\3", "conv1x1"),
    (r"codec/encoder/middle/(\d+)/(norm|norm1|norm2)", r"y_embedder.encoder.mid_block.\1.\2", "vector"),
    (r"codec/encoder/middle/(\d+)/(conv1|conv2)", r"y_embedder.encoder.mid_block.\1.\2", "conv"),
    (r"codec/encoder/middle/(\d+)/out", r"y_embedder.encoder.mid_block.\1.proj_out", "conv1x1"),
    (r"codec/encoder/middle/(\d+)/(q|k|v)", r"y_embedder.encoder.mid_block.\1.\2", "conv1x1"),
    (r"codec/(encoder|decoder)/norm_out", r"y_embedder.\1.norm_out", "vector"),
    (r"codec/encoder/conv_out", "y_embedder.encoder.conv_out", "conv"),
    (r"codec/bottleneck", "y_embedder.bottleneck", "vector"),
    (r"codec/decoder/conv_in", "y_embedder.decoder.conv_in", "conv"),
    (r"codec/decoder/layers/(\d+)/((?:block/)?norm\d?)", r"y_embedder.decoder.block.\1.\2", "vector"),
    (r"codec/decoder/layers/(\d+)/((?:block/)?conv\d)", r"y_embedder.decoder.block.\1.\2", "conv"),
    (r"codec/decoder/layers/(\d+)/out", r"y_embedder.decoder.block.\1.proj_out", "conv1x1"),
    (r"codec/decoder/layers/(\d+)/(q|k|v)", r"y_embedder.decoder.block.\1.\2", "conv1x1"),
    (r"codec/decoder/output/1/block/(norm\d)", r"y_embedder.decoder.ada.block.\1", "vector"),
    (r"codec/decoder/output/1/block/(conv\d)", r"y_embedder.decoder.ada.block.\1", "conv"),
    (r"codec/decoder/output/1/(norm\d)", r"y_embedder.decoder.conv_out.1.\1", "vector"),
    (r"codec/decoder/output/1/(conv\d)", r"y_embedder.decoder.conv_out.1.\1", "conv"),
    (r"codec/decoder/output/2", "y_embedder.decoder.conv_out.2", "conv"),
    (r"codec/decoder/output/0", "y_embedder.decoder.conv_out", "conv"),
)
_TIMESTEP: Rules = (
    (r"denoiser/timestep/hidden", "t_embedder.mlp.0", "linear"),
    (r"denoiser/timestep/out", "t_embedder.mlp.2", "linear"),
)
_DCONV: Rules = (
    (r"denoiser/patch_embed", "s_embedder.proj1", "patch"),
    (r"denoiser/merge", "s_embedder.proj2", "conv1x1"),
    (r"denoiser/blocks/block/modulation", "blocks.{layer}.adaLN_modulation.1", "linear"),
    (r"denoiser/blocks/block/expand", "blocks.{layer}.conv1", "conv1x1"),
    (r"denoiser/blocks/block/depthwise", "blocks.{layer}.conv2", "depthwise"),
    (r"denoiser/blocks/block/project", "blocks.{layer}.conv3", "conv1x1"),
    (r"denoiser/blocks/block/channel_gate", "blocks.{layer}.ca.1", "conv1x1"),
    (r"denoiser/blocks/block/mlp_in", "blocks.{layer}.conv4", "conv1x1"),
    (r"denoiser/blocks/block/mlp_out", "blocks.{layer}.conv5", "conv1x1"),
    (r"denoiser/head/condition", "y_embedder_x", "pixel_condition"),
    (r"denoiser/head/drive", "dec_net.cond_embed", "linear"),
    (r"denoiser/head/embed", "x_embedder.embedder.0", "linear"),
    (r"denoiser/head/project", "dec_net.input_proj", "linear"),
    (r"denoiser/head/blocks/(\d+)/norm", r"dec_net.res_blocks.\1.in_ln", "vector"),
    (r"denoiser/head/blocks/(\d+)/modulation", r"dec_net.res_blocks.\1.adaLN_modulation.1", "linear"),
    (r"denoiser/head/blocks/(\d+)/mlp_in", r"dec_net.res_blocks.\1.mlp.0", "linear"),
    (r"denoiser/head/blocks/(\d+)/mlp_out", r"dec_net.res_blocks.\1.mlp.2", "linear"),
    (r"denoiser/head/norm_out", "final_layer.norm", "vector"),
    (r"denoiser/head/out", "final_layer.linear", "linear"),
)


def _transformer_blocks(ours: str, layer: str) -> Rules:
    theirs = f"blocks.{{{layer}}}"
    return (
        (rf"{ours}/modulation", f"{theirs}.adaLN_modulation.0", "linear"),
        (rf"{ours}/(norm1|norm2)", rf"{theirs}.\1", "vector"),
        (rf"{ours}/attention/(q_norm|k_norm)", rf"{theirs}.attn.\1", "vector"),
        (rf"{ours}/attention/out", f"{theirs}.attn.proj", "linear"),
        (rf"{ours}/attention", f"{theirs}.attn", "qkv"),
        (rf"{ours}/mlp/gate", f"{theirs}.mlp.w1", "linear"),
        (rf"{ours}/mlp/value", f"{theirs}.mlp.w3", "linear"),
        (rf"{ours}/mlp/out", f"{theirs}.mlp.w2", "linear"),
    )


_PIXNERDIT: Rules = (
    (r"denoiser/patch_embed", "s_embedder.proj", "linear"),
    *_transformer_blocks("denoiser/blocks/block", "layer"),
    (r"denoiser/head/condition", "y_embedder_x", "pixel_condition"),
    (r"denoiser/head/embed", "x_embedder.embedder.0", "linear"),
    (r"denoiser/head/blocks/block/generate", "blocks.{later_layer}.param_generator1.0", "linear"),
    (r"denoiser/head/blocks/block/norm", "blocks.{later_layer}.norm", "vector"),
    (r"denoiser/head/norm_out", "final_layer.norm", "vector"),
    (r"denoiser/head/out", "final_layer.linear", "linear"),
)
_DDT: Rules = (
    (r"denoiser/patch_embed", "s_embedder.proj", "linear"),
    (r"denoiser/decoder_embed", "x_embedder.proj", "linear"),
    *_transformer_blocks("denoiser/blocks/block", "layer"),
    *_transformer_blocks("denoiser/decoder_blocks/block", "later_layer"),
    (r"denoiser/modulation", "final_layer.adaLN_modulation.0", "linear"),
    (r"denoiser/out", "final_layer.linear", "linear"),
)
_RULES: dict[str, Rules] = {
    "dconv": (*_CODEC, *_TIMESTEP, *_DCONV),
    "pixnerdit": (*_CODEC, *_TIMESTEP, *_PIXNERDIT),
    "ddt": (*_CODEC, *_TIMESTEP, *_DDT),
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "codebook": "embedding.weight", "qkv": "qkv.weight"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a published state dict and its place in our parameters.

    Attributes:
        published: Name in the state dict, without a checkpoint prefix.
        name: Flat name of our parameter.
        layer: Index into the leading axis of a stacked parameter, or None.
        layout: How the arrays correspond.
        channels: Channels per pixel, for the layouts that interleave them with pixels.
        is_conv: Whether the published kernel of such a layout is a 1x1 convolution's.
    """

    published: str
    name: str
    layer: int | None
    layout: Layout
    channels: int
    is_conv: bool

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Our layout of a published array."""
        match self.layout:
            case "linear":
                return array.T
            case "conv1x1":
                return array[:, :, 0, 0].T
            case "conv":
                return array.transpose(2, 3, 1, 0)
            case "depthwise":
                return array[:, 0].transpose(1, 2, 0)
            case "patch":
                return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
            case "pixel_condition":
                by_channel = array.reshape(self.channels, -1, *array.shape[1:])
                swapped = by_channel.swapaxes(0, 1).reshape(array.shape[0], -1)
                return swapped[:, 0] if array.ndim == 1 else swapped.T
            case "qkv":
                return array.T.reshape(array.shape[1], 3, -1)
            case _:
                return array

    def to_published(self, array: np.ndarray) -> np.ndarray:
        """Published layout of one of our arrays (of one layer, where the parameter is stacked)."""
        match self.layout:
            case "linear":
                return array.T
            case "conv1x1":
                return array.T[:, :, None, None]
            case "conv":
                return array.transpose(3, 2, 0, 1)
            case "depthwise":
                return array.transpose(2, 0, 1)[:, None]
            case "patch":
                side = round((array.shape[0] // 3) ** 0.5)
                return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
            case "pixel_condition":
                rows = array.T if array.ndim == 2 else array
                by_pixel = rows.reshape(-1, self.channels, *rows.shape[1:])
                swapped = by_pixel.swapaxes(0, 1).reshape(rows.shape)
                return swapped[:, :, None, None] if array.ndim == 2 and self.is_conv else swapped
            case "qkv":
                return array.reshape(array.shape[0], -1).T
            case _:
                return array


def entries(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> list[Entry]:
    """Every tensor of the published state dict of a model.

    Args:
        shapes: Flat names and shapes of our parameters.
        config: The model's description.

    Raises:
        KeyError: A parameter has no published counterpart.
    """
    result = []
    # What is per pixel does not exist in latent models.
    channels = getattr(config.denoiser, "hidden_pixel", 0)
    is_conv = config.denoiser.kind == "dconv"
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition("/")
        published, layout = _published_module(module, config)
        if leaf == "bias" and layout != "pixel_condition":
            layout = "vector"
        suffix = f"{published}.{_LEAVES[leaf]}"
        if "layer}" in suffix:
            for layer in range(shape[0]):
                numbered = suffix.format(layer=layer, later_layer=config.denoiser.num_blocks + layer)
                result.append(Entry(numbered, name, layer, layout, channels, is_conv))
        else:
            result.append(Entry(suffix, name, None, layout, channels, is_conv))
    return result


def _published_module(module: str, config: ModelConfig) -> tuple[str, Layout]:
    if module == "codec/decoder/output/0" and config.codec.pitch == 4:
        return "y_embedder.decoder.conv_out.0", "conv"
    for pattern, replacement, layout in _RULES[config.denoiser.kind]:
        match = re.fullmatch(pattern, module)
        if match:
            return match.expand(replacement).replace("/", "."), layout
    raise KeyError(f"parameter {module} has no published name")
