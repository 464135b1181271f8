"""The published networks of CoD-Lite, which are convolutional."""

import dataclasses
from typing import cast

from cod_jax.interop.cod_networks.condition_codec import ARGUMENTS, codec_rules
from cod_jax.interop.cod_networks.record import REQUIRED, PublishedClass
from cod_jax.interop.layouts import CONV1X1, DEPTHWISE, LINEAR, PATCH, pixel_major
from cod_jax.interop.naming import Rule, Rules
from cod_jax.models import DConvConfig, ModelConfig
from cod_jax.models.denoiser import PATCH_SIZE

TIMESTEP_RULES = (
    Rule("denoiser/timestep/hidden", "t_embedder.mlp.0", LINEAR),
    Rule("denoiser/timestep/out", "t_embedder.mlp.2", LINEAR),
)


def _rules(config: ModelConfig) -> Rules:
    denoiser = cast(DConvConfig, config.denoiser)
    block = "denoiser/blocks/block"
    pixel, dec = r"denoiser/head/blocks/(\d+)", r"dec_net.res_blocks.\1"
    return (
        *codec_rules(config),
        *TIMESTEP_RULES,
        Rule("denoiser/patch_embed", "s_embedder.proj1", PATCH),
        Rule("denoiser/merge", "s_embedder.proj2", CONV1X1),
        Rule(f"{block}/modulation", "blocks.{layer}.adaLN_modulation.1", LINEAR),
        Rule(f"{block}/expand", "blocks.{layer}.conv1", CONV1X1),
        Rule(f"{block}/depthwise", "blocks.{layer}.conv2", DEPTHWISE),
        Rule(f"{block}/project", "blocks.{layer}.conv3", CONV1X1),
        Rule(f"{block}/channel_gate", "blocks.{layer}.ca.1", CONV1X1),
        Rule(f"{block}/mlp_in", "blocks.{layer}.conv4", CONV1X1),
        Rule(f"{block}/mlp_out", "blocks.{layer}.conv5", CONV1X1),
        Rule("denoiser/head/condition", "y_embedder_x", *pixel_major(denoiser.hidden_pixel, is_conv=True)),
        Rule("denoiser/head/drive", "dec_net.cond_embed", LINEAR),
        Rule("denoiser/head/embed", "x_embedder.embedder.0", LINEAR),
        Rule("denoiser/head/project", "dec_net.input_proj", LINEAR),
        Rule(f"{pixel}/norm", f"{dec}.in_ln"),
        Rule(f"{pixel}/modulation", f"{dec}.adaLN_modulation.1", LINEAR),
        Rule(f"{pixel}/mlp_in", f"{dec}.mlp.0", LINEAR),
        Rule(f"{pixel}/mlp_out", f"{dec}.mlp.2", LINEAR),
        Rule("denoiser/head/norm_out", "final_layer.norm"),
        Rule("denoiser/head/out", "final_layer.linear", LINEAR),
    )


DCONV = PublishedClass(
    name="DConv",
    path="cod.models.pixel_cnn.DConv",
    section="denoiser",
    prefix="ema_denoiser.",
    arguments={
        **ARGUMENTS,
        "pred": "x",
        "in_channels": 3,
        "patch_size": PATCH_SIZE,
        "hidden_size": 1152,
        "hidden_size_x": 32,
        "num_blocks": REQUIRED,
        "num_cond_blocks": REQUIRED,
        "mlp_ratio": 4.0,
        "bottleneck_dim": 128,
    },
    denoiser=DConvConfig,
    fields={
        "hidden": "hidden_size",
        "num_blocks": "num_cond_blocks",
        "hidden_pixel": "hidden_size_x",
        "mlp_ratio": "mlp_ratio",
        "bottleneck_width": "bottleneck_dim",
    },
    later_blocks="num_pixel_blocks",
    rules=_rules,
    attention="window_published",
)
ONE_STEP_DCONV = dataclasses.replace(
    DCONV,
    name="OneStepCoD",
    path="finetuned_one_step_codec.models.models.OneStepCoD",
    section="net",
    prefix="net.",
    arguments={**DCONV.arguments, "noise_level": 1.0},
    one_step=True,
)
# The condition codec alone, of either family; its denoiser only carries the width of the condition.
CODEC = PublishedClass(
    name="Codec",
    path="",
    section="",
    prefix="y_embedder.",
    arguments={"ch": 1152, **ARGUMENTS},
    denoiser=DConvConfig,
    fields={"hidden": "ch"},
    later_blocks="",
    rules=codec_rules,
)
