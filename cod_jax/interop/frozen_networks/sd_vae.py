"""The autoencoder sd-vae-ft-ema from its official weights, whose tensors have three sets of names."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cod_jax.features.sd_vae import SDVAE, SDVAEConfig
from cod_jax.interop.frozen_networks.files import OfficialFile, load_official
from cod_jax.interop.layouts import CONV, CONV1X1, LINEAR, Layout
from cod_jax.interop.naming import Entry, Rule, Rules, params_from_state_dict, published_entries
from cod_jax.models.functional import Functional, Params

SD_VAE_FILE = OfficialFile(
    title="the VAE sd-vae-ft-ema",
    url="https://huggingface.co/stabilityai/sd-vae-ft-ema",
    names=(
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
        "vae-ft-ema-560000-ema-pruned.safetensors",
        "vae-ft-ema-560000-ema-pruned.ckpt",
    ),
)


class _Words(NamedTuple):
    """The words of one way to name the tensors; the defaults are those of the published file.

    Attributes:
        down: Levels of the encoder.
        up: Levels of the decoder.
        finest_first: Whether the decoder's levels are counted from the finest.
        block: Residual blocks of a level.
        shortcut: The 1x1 convolution beside a block.
        downsample: The layer behind an encoder's level.
        upsample: The layer behind a decoder's level.
        middle: Block, attention, block between the levels.
        attention: Norm, queries, keys, values and output of the attention.
        attention_layout: How the kernels of these correspond.
        norm_out: The last norm.
    """

    down: str = "down_blocks"
    up: str = "up_blocks"
    finest_first: bool = False
    block: str = "resnets"
    shortcut: str = "conv_shortcut"
    downsample: str = "downsamplers.0"
    upsample: str = "upsamplers.0"
    middle: tuple[str, str, str] = ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")
    attention: tuple[str, str, str, str, str] = ("group_norm", "query", "key", "value", "proj_attn")
    attention_layout: Layout = LINEAR
    norm_out: str = "conv_norm_out"


NAMINGS = {
    "published": _Words(),
    "diffusers": _Words(attention=("group_norm", "to_q", "to_k", "to_v", "to_out.0")),
    "original": _Words(
        down="down",
        up="up",
        finest_first=True,
        block="block",
        shortcut="nin_shortcut",
        downsample="downsample",
        upsample="upsample",
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
        attention=("norm", "q", "k", "v", "proj_out"),
        attention_layout=CONV1X1,
        norm_out="norm_out",
    ),
}


def load_sd_vae(folder: str | Path, *, otherwise: str = "") -> Params:
    """Read the official weights of sd-vae-ft-ema, or of its release "-original".

    Their authors publish no checksum of these files, so only names and shapes are checked.

    Args:
        folder: Folder that holds diffusion_pytorch_model.safetensors (or .bin, or vae-ft-ema-560000-ema-pruned.ckpt or
            .safetensors), or that file under any name.
        otherwise: What to do without the file; ends the message about a missing file.

    Returns:
        Nested float32 arrays, as `Functional` of an `SDVAE` with the default description takes them.

    Raises:
        FileNotFoundError: The file is not there; the message says where it comes from and where it belongs.
        UserError: The file holds something else, or is damaged.
    """
    return load_official([SD_VAE_FILE], folder, otherwise, sd_vae_params_from_state_dict)


def sd_vae_params_from_state_dict(state_dict: Mapping[str, np.ndarray], config: SDVAEConfig | None = None) -> Params:
    """Return our parameters of a state dict of Stable Diffusion's autoencoder.

    Three ways of naming are understood: that of the published file, that of current versions of diffusers, and that of
    the "-original" release, whose training-time entries (`loss.`, `model_ema.`) are left out.

    Args:
        state_dict: Arrays by published name.
        config: The network's description; sd-vae-ft-ema by default.

    Raises:
        UserError: The arrays do not fit; the message lists what is missing, unexpected, or of another shape, in the
            naming that fits best.
    """
    config = config or SDVAEConfig()
    shapes = Functional(lambda rngs: SDVAE(config, dtype="float32", rngs=rngs)).shapes
    given = {name: value for name, value in state_dict.items() if not name.startswith(("loss.", "model_ema."))}
    candidates = sd_vae_entries(shapes, len(config.widths)).values()
    return params_from_state_dict(
        shapes, max(candidates, key=lambda entries: len(entries.keys() & given.keys())), given
    )


def sd_vae_entries(shapes: Params, num_levels: int) -> dict[str, dict[str, Entry]]:
    """Return the place of every published tensor in each of `NAMINGS`.

    Args:
        shapes: Nested dict of our shapes.
        num_levels: Levels of encoder and decoder.
    """
    return {naming: published_entries(shapes, _rules(words, num_levels)) for naming, words in NAMINGS.items()}


def _rules(words: _Words, num_levels: int) -> Rules:
    rules: list[Rule] = [
        Rule("(encoder|decoder)/(conv_in|conv_out)", r"\1.\2", CONV),
        Rule("(encoder|decoder)/norm_out", rf"\1.{words.norm_out}"),
        Rule("to_moments", "quant_conv", CONV1X1),
        Rule("from_latent", "post_quant_conv", CONV1X1),
    ]
    for level in range(num_levels):
        number = num_levels - 1 - level if words.finest_first else level
        for ours, theirs, resample in (
            (f"encoder/levels/{level}", f"encoder.{words.down}.{level}", words.downsample),
            (f"decoder/levels/{level}", f"decoder.{words.up}.{number}", words.upsample),
        ):
            rules += _block_rules(rf"{ours}/blocks/(\d+)", rf"{theirs}.{words.block}.\1", words)
            rules.append(Rule(f"{ours}/resample/conv", f"{theirs}.{resample}.conv", CONV))
    block1, attention, block2 = (rf"\1.{word}" for word in words.middle)
    rules += _block_rules("(encoder|decoder)/middle/block1", block1, words)
    rules += _block_rules("(encoder|decoder)/middle/block2", block2, words)
    for ours, theirs in zip(("norm", "q", "k", "v", "out"), words.attention, strict=True):
        rules.append(
            Rule(f"(encoder|decoder)/middle/attention/{ours}", f"{attention}.{theirs}", words.attention_layout)
        )
    return rules


def _block_rules(ours: str, theirs: str, words: _Words) -> Rules:
    return (
        Rule(rf"{ours}/(norm1|norm2)", rf"{theirs}.\2"),
        Rule(rf"{ours}/(conv1|conv2)", rf"{theirs}.\2", CONV),
        Rule(rf"{ours}/shortcut", f"{theirs}.{words.shortcut}", CONV1X1),
    )
