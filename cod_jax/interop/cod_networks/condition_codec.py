"""The condition codec of every published network: its arguments and names.

All have a codebook; only here does it matter what a model has instead.
"""

from collections.abc import Mapping
from typing import Any

from cod_jax.errors import UserError
from cod_jax.interop.layouts import CONV, CONV1X1
from cod_jax.interop.naming import Rule, Rules
from cod_jax.models import CodebookConfig, ConditionCodecConfig, ModelConfig, cod_codec
from cod_jax.models.codec_config import CodecConfig

ARGUMENTS = {"ds": 32, "codebook_bits": 4, "up2x": False, "light": False}
PREFIX = "y_embedder."


def codec_config(arguments: Mapping[str, Any]) -> ConditionCodecConfig:
    """Return our description of a codec with all of `ARGUMENTS`.

    Raises:
        UserError: There is no such codec.
    """
    ds, up2x = arguments["ds"], arguments["up2x"]
    if ds not in (4, 8, 16, 32, 128):
        raise UserError(f"expected ds to be one of 4, 8, 16, 32, 128, got {ds}")
    if ds < 32 and not up2x:
        raise UserError(f"ds {ds} exists with up2x only; set up2x to true")
    return ConditionCodecConfig(
        pitch=ds if up2x else ds // 2,
        input_stride=2 if up2x else 1,
        bottleneck=CodebookConfig(bits=arguments["codebook_bits"]),
        decoder_depth=2 if arguments["light"] else 3,
    )


def codec_arguments(codec: CodecConfig) -> dict[str, Any]:
    """Return the `ARGUMENTS` nearest to a codec; its other fields are for the caller to compare.

    Raises:
        UserError: It is of a kind that is not published, or has no codebook.
    """
    if not isinstance(codec, cod_codec.ConditionCodecConfig):
        raise UserError("this model cannot be written: its codec is not of kind cod, as the published ones are")
    if not isinstance(codec.bottleneck, CodebookConfig):
        raise UserError(
            f"this model cannot be written: its bottleneck is {codec.bottleneck.kind}, the published ones have "
            "codebooks"
        )
    up2x = codec.input_stride == 2
    return {
        "ds": codec.pitch if up2x else 2 * codec.pitch,
        "codebook_bits": codec.bottleneck.bits,
        "up2x": up2x,
        "light": codec.decoder_depth == 2 and not codec.is_deep,
    }


def codec_rules(config: ModelConfig, lead: str = "codec/") -> Rules:
    """Return the naming of a model's condition codec; `lead` is what our names begin with."""
    return [Rule(f"{lead}{ours}", f"{PREFIX}{theirs}", *layout) for ours, theirs, *layout in _rules(config.codec.pitch)]


def _rules(pitch: int) -> list[tuple]:
    level, down = r"encoder/levels/(\d+)/(\d+)", r"encoder.down_block_\1.\2"
    middle, mid = r"encoder/middle/(\d+)", r"encoder.mid_block.\1"
    layers, block = r"decoder/layers/(\d+)", r"decoder.block.\1"
    return [
        ("encoder/conv_in", "encoder.conv_in", CONV),
        (f"{level}/(norm|norm1|norm2)", rf"{down}.\3"),
        (f"{level}/(conv|conv1|conv2)", rf"{down}.\3", CONV),
        (f"{level}/shortcut", f"{down}.nin_shortcut", CONV1X1),
        (f"{level}/out", f"{down}.proj_out", CONV1X1),
        (f"{level}/(q|k|v)", rf"{down}.\3", CONV1X1),
        (f"{middle}/(norm|norm1|norm2)", rf"{mid}.\2"),
        (f"{middle}/(conv1|conv2)", rf"{mid}.\2", CONV),
        (f"{middle}/out", f"{mid}.proj_out", CONV1X1),
        (f"{middle}/(q|k|v)", rf"{mid}.\2", CONV1X1),
        ("(encoder|decoder)/norm_out", r"\1.norm_out"),
        ("encoder/conv_out", "encoder.conv_out", CONV),
        ("bottleneck/codebook", "bottleneck.embedding.weight"),
        ("decoder/conv_in", "decoder.conv_in", CONV),
        (rf"{layers}/((?:block/)?norm\d?)", rf"{block}.\2"),
        (rf"{layers}/((?:block/)?conv\d)", rf"{block}.\2", CONV),
        (f"{layers}/out", f"{block}.proj_out", CONV1X1),
        (f"{layers}/(q|k|v)", rf"{block}.\2", CONV1X1),
        (r"decoder/output/1/block/(norm\d)", r"decoder.ada.block.\1"),
        (r"decoder/output/1/block/(conv\d)", r"decoder.ada.block.\1", CONV),
        (r"decoder/output/1/(norm\d)", r"decoder.conv_out.1.\1"),
        (r"decoder/output/1/(conv\d)", r"decoder.conv_out.1.\1", CONV),
        ("decoder/output/2", "decoder.conv_out.2", CONV),
        # At the finest pitch more layers follow this one.
        ("decoder/output/0", "decoder.conv_out.0" if pitch == 4 else "decoder.conv_out", CONV),
    ]
