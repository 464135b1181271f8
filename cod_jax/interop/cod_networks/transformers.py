"""The published networks of CoD, which are transformers: on pixels, in one step too, and on latents."""

import dataclasses
from typing import cast

from cod_jax.interop.cod_networks.condition_codec import ARGUMENTS, codec_rules
from cod_jax.interop.cod_networks.dconv import TIMESTEP_RULES
from cod_jax.interop.cod_networks.record import REQUIRED, PublishedClass
from cod_jax.interop.layouts import LINEAR, QKV, pixel_major
from cod_jax.interop.naming import Rule, Rules
from cod_jax.models import DDTConfig, ModelConfig, PixNerDiTConfig

_ARGUMENTS = {
    **ARGUMENTS,
    "in_channels": 4,
    "num_groups": 12,
    "hidden_size": 1152,
    "num_blocks": REQUIRED,
    "num_cond_blocks": REQUIRED,
    "patch_size": 2,
    "pred": "v",
}
_FIELDS = {"hidden": "hidden_size", "num_blocks": "num_cond_blocks", "num_heads": "num_groups"}


def _block_rules(block: str, first_layer: int = 0) -> Rules:
    theirs = "blocks.{layer}"
    return (
        Rule(f"{block}/modulation", f"{theirs}.adaLN_modulation.0", LINEAR, first_layer=first_layer),
        Rule(f"{block}/(norm1|norm2)", rf"{theirs}.\1", first_layer=first_layer),
        Rule(f"{block}/attention/(q_norm|k_norm)", rf"{theirs}.attn.\1", first_layer=first_layer),
        Rule(f"{block}/attention/out", f"{theirs}.attn.proj", LINEAR, first_layer=first_layer),
        Rule(f"{block}/attention/qkv", f"{theirs}.attn.qkv.weight", QKV, first_layer=first_layer),
        Rule(f"{block}/mlp/gate", f"{theirs}.mlp.w1", LINEAR, first_layer=first_layer),
        Rule(f"{block}/mlp/value", f"{theirs}.mlp.w3", LINEAR, first_layer=first_layer),
        Rule(f"{block}/mlp/out", f"{theirs}.mlp.w2", LINEAR, first_layer=first_layer),
    )


def _shared_rules(config: ModelConfig) -> Rules:
    return (
        *codec_rules(config),
        *TIMESTEP_RULES,
        Rule("denoiser/patch_embed", "s_embedder.proj", LINEAR),
        *_block_rules("denoiser/blocks/block"),
    )


def _pixnerdit_rules(config: ModelConfig) -> Rules:
    denoiser = cast(PixNerDiTConfig, config.denoiser)
    block, first = "denoiser/head/blocks/block", denoiser.num_blocks
    return (
        *_shared_rules(config),
        Rule("denoiser/head/condition", "y_embedder_x", *pixel_major(denoiser.hidden_pixel, is_conv=False)),
        Rule("denoiser/head/embed", "x_embedder.embedder.0", LINEAR),
        Rule(f"{block}/generate", "blocks.{layer}.param_generator1.0", LINEAR, first_layer=first),
        Rule(f"{block}/norm", "blocks.{layer}.norm", first_layer=first),
        Rule("denoiser/head/norm_out", "final_layer.norm"),
        Rule("denoiser/head/out", "final_layer.linear", LINEAR),
    )


def _ddt_rules(config: ModelConfig) -> Rules:
    return (
        *_shared_rules(config),
        Rule("denoiser/decoder_embed", "x_embedder.proj", LINEAR),
        *_block_rules("denoiser/decoder_blocks/block", config.denoiser.num_blocks),
        Rule("denoiser/modulation", "final_layer.adaLN_modulation.0", LINEAR),
        Rule("denoiser/out", "final_layer.linear", LINEAR),
    )


PIXNERDIT = PublishedClass(
    name="PixNerDiT",
    path="cod.models.pixel_dit.PixNerDiT",
    section="denoiser",
    prefix="ema_denoiser.",
    arguments={**_ARGUMENTS, "hidden_size_x": 64, "nerf_mlpratio": 4},
    denoiser=PixNerDiTConfig,
    fields={**_FIELDS, "hidden_pixel": "hidden_size_x", "pixel_mlp_ratio": "nerf_mlpratio"},
    later_blocks="num_pixel_blocks",
    rules=_pixnerdit_rules,
    reads_prediction=False,
)
# Its tool reads the whole section `model` and a prefix from the file.
ONE_STEP_PIXNERDIT = dataclasses.replace(
    PIXNERDIT,
    name="OneStepCoD",
    path="downstream.finetuned_one_step_cod.OneStepCoD",
    section="",
    prefix="net.",
    arguments={**PIXNERDIT.arguments, "pred": "x", "noise_level": 0.0},
    reads_prediction=True,
    one_step=True,
)
DDT = PublishedClass(
    name="DDT",
    path="cod.models.latent_dit.DDT",
    section="denoiser",
    prefix="ema_denoiser.",
    arguments=_ARGUMENTS,
    denoiser=DDTConfig,
    fields=_FIELDS,
    later_blocks="num_decoder_blocks",
    rules=_ddt_rules,
    reads_prediction=False,
)
