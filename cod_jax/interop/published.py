"""The published network classes and their arguments, matched to our descriptions in both directions."""

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import Any

from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import default_decoding
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models.config import (
    LATENT_CHANNELS,
    LATENT_PATCH_SIZE,
    PATCH_SIZE,
    ConditionCodecConfig,
    DConvConfig,
    DDTConfig,
    DenoiserConfig,
    ModelConfig,
    PixNerDiTConfig,
)

_CODEC_ARGUMENTS = {"ds": 32, "codebook_bits": 4, "up2x": False, "light": False}
_REQUIRED = object()
_TRANSFORMER_ARGUMENTS = {
    **_CODEC_ARGUMENTS,
    "in_channels": 4,
    "num_groups": 12,
    "hidden_size": 1152,
    "num_blocks": _REQUIRED,
    "num_cond_blocks": _REQUIRED,
    "patch_size": 2,
}
# Defaults of the published classes for arguments that a YAML file leaves out.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "Codec": {"ch": 1152, **_CODEC_ARGUMENTS},
    "DConv": {
        **_CODEC_ARGUMENTS,
        "pred": "x",
        "in_channels": 3,
        "patch_size": PATCH_SIZE,
        "hidden_size": 1152,
        "hidden_size_x": 32,
        "num_blocks": _REQUIRED,
        "num_cond_blocks": _REQUIRED,
        "mlp_ratio": 4.0,
        "bottleneck_dim": 128,
    },
    "PixNerDiT": {**_TRANSFORMER_ARGUMENTS, "pred": "v", "hidden_size_x": 64, "nerf_mlpratio": 4},
    "DDT": {**_TRANSFORMER_ARGUMENTS, "pred": "v"},
}
ONE_STEP = "OneStepCoD"
# One name for two classes: the convolutional decoder, and the transformer, which is the one with `num_groups`.
_ONE_STEP_ARGUMENTS = {
    "DConv": {**_ARGUMENTS["DConv"], "noise_level": 1.0},
    "PixNerDiT": {**_ARGUMENTS["PixNerDiT"], "pred": "x", "noise_level": 0.0},
}
# What a network's names begin with in a checkpoint, the first that is there wins: moving average and raw weights of the
# pre-trained models, the one-step models, and plain names.
PREFIXES = ("ema_denoiser.", "denoiser.", "net.", "")
CLASS_NAMES = (*_ARGUMENTS, ONE_STEP)
_LARGEST_NUMBER = 1_000_000
# Of a value from a file in a message: the file is a stranger's.
_MESSAGE_LENGTH = 80
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 1, _MESSAGE_LENGTH
_PREDICTIONS = {"x": "image", "v": "velocity"}
_KINDS = {"dconv": "DConv", "pixnerdit": "PixNerDiT", "ddt": "DDT"}


@dataclasses.dataclass(frozen=True)
class PublishedNetwork:
    """A network as the published code describes it.

    Attributes:
        class_name: Name of its class, without the modules.
        init_args: Keyword arguments of the class.
        checkpoint_prefix: What its names begin with in a checkpoint; None where the description does not say so.
    """

    class_name: str
    init_args: Mapping[str, Any]
    checkpoint_prefix: str | None


def reference_config(class_name: str, init_args: Mapping[str, Any]) -> ModelConfig:
    """Our description of a published network.

    Args:
        class_name: "Codec", "DConv", "PixNerDiT", "DDT" or "OneStepCoD" (a transformer if `num_groups` is given).
        init_args: Keyword arguments as in the published YAML files; missing ones take the class's defaults. For "Codec"
            the denoiser of the result only carries the condition's width.

    Raises:
        UserError: The class or an argument is unknown, an argument is missing, or has an unusable value.
    """
    return reference_with_noise_level(class_name, init_args)[0]


def reference_with_noise_level(class_name: str, init_args: Mapping[str, Any]) -> tuple[ModelConfig, float]:
    """Our description, and the level of the noise that one-step decoding starts from; see `reference_config`."""
    if class_name not in CLASS_NAMES:
        raise UserError(f"class {_short(class_name)} is not supported; known are {', '.join(CLASS_NAMES)}")
    kind = class_name
    if class_name == ONE_STEP:
        kind = "PixNerDiT" if "num_groups" in init_args else "DConv"
    defaults = _ONE_STEP_ARGUMENTS[kind] if class_name == ONE_STEP else _ARGUMENTS[kind]
    arguments = _checked_arguments(class_name, defaults, init_args)
    noise_level = float(arguments.get("noise_level", 1.0))
    codec = _codec_config(arguments)
    if kind == "Codec":
        return ModelConfig(codec, DConvConfig(hidden=arguments["ch"])), noise_level
    patch_size, channels = (LATENT_PATCH_SIZE, LATENT_CHANNELS) if kind == "DDT" else (PATCH_SIZE, 3)
    what = "latents, 4 channels" if kind == "DDT" else "RGB pixels, 3 channels"
    if arguments["patch_size"] != patch_size:
        raise UserError(f"patch_size is {arguments['patch_size']}; {class_name} works on patches of {patch_size}")
    if arguments["in_channels"] != channels:
        raise UserError(f"in_channels is {arguments['in_channels']}; {class_name} works on {what}")
    if arguments["pred"] not in _PREDICTIONS:
        raise UserError(f"pred is {_short(arguments['pred'])}; it must be one of {', '.join(_PREDICTIONS)}")
    if class_name in ("PixNerDiT", "DDT") and arguments["pred"] != "v":
        raise UserError(f"pred is x, which {class_name} does not read: it always predicts velocities; remove pred")
    if kind == "DConv":
        codec = dataclasses.replace(codec, attention="window_published")
    return ModelConfig(codec, _denoiser_config(kind, arguments)), noise_level


def published_decoding(network: PublishedNetwork) -> DecodingConfig:
    """The steps, guidance and sampler with which the published code decodes a network.

    Raises:
        UserError: Its one step starts from noise, where ours starts from none.
    """
    config, noise_level = reference_with_noise_level(network.class_name, network.init_args)
    one_step = network.class_name == ONE_STEP
    if one_step and noise_level:
        default = "" if "noise_level" in network.init_args else ", the default of the class"
        raise UserError(
            f"noise_level is {noise_level:g}{default}: this one-step decoder starts from noise, those here from none, "
            "and would decode other pictures; import one with noise_level 0, or decode it in Python with load_reference"
        )
    return default_decoding(config, one_step=one_step)


def published_network(config: ModelConfig, *, one_step: bool, any_attention: bool = False) -> PublishedNetwork:
    """The published class and arguments of one of our descriptions, the opposite of `reference_config`.

    Args:
        config: What the model is.
        one_step: Whether it is to be a one-step decoder that starts from zero noise, or a denoiser to sample with.
        any_attention: Whether the published code may attend otherwise than the model does in use.

    Raises:
        UserError: The published class cannot be made so; the sentence says which field is why.
    """
    kind = _KINDS[config.denoiser.kind]
    if one_step and kind == "DDT":
        raise UserError("there is no published one-step decoder of latents; write the model as a denoiser")
    class_name = ONE_STEP if one_step else kind
    prefix = "net." if one_step else "ema_denoiser."
    network = PublishedNetwork(class_name, _init_args(kind, config, one_step), prefix)
    expected = config
    if config.codec.is_deep:
        # The deep decoder has no choice of depth: the field is not read.
        expected = dataclasses.replace(expected, codec=dataclasses.replace(expected.codec, decoder_depth=3))
    try:
        implied = reference_config(class_name, network.init_args)
    except UserError as error:
        raise UserError(f"there is no published {class_name} like this model: {error}") from error
    ours, theirs = _flat(expected.to_dict()), _flat(implied.to_dict())
    if any_attention:
        ours["codec.attention"] = theirs["codec.attention"]
    for field, value in ours.items():
        if theirs.get(field) != value:
            way_out = ""
            if field == "codec.attention":
                way_out = "; --any-attention writes the same weights for that attention"
            raise UserError(
                f"this model cannot be written: its {field} is {value}, and that of the published {class_name} is "
                f"always {theirs.get(field)}{way_out}"
            )
    return network


def _init_args(kind: str, config: ModelConfig, one_step: bool) -> dict[str, Any]:
    """Every argument that the published class has; whether their values say all is for the caller to check."""
    codec, denoiser = config.codec, config.denoiser
    up2x = codec.input_stride == 2
    arguments: dict[str, Any] = {
        "in_channels": config.channels,
        "patch_size": config.patch_size,
        "hidden_size": denoiser.hidden,
        "num_cond_blocks": denoiser.num_blocks,
    }
    match denoiser:
        case DConvConfig():
            num_later_blocks = denoiser.num_pixel_blocks
            arguments |= {
                "hidden_size_x": denoiser.hidden_pixel,
                "mlp_ratio": denoiser.mlp_ratio,
                "bottleneck_dim": denoiser.bottleneck_width,
            }
        case PixNerDiTConfig():
            num_later_blocks = denoiser.num_pixel_blocks
            arguments |= {
                "num_groups": denoiser.num_heads,
                "hidden_size_x": denoiser.hidden_pixel,
                "nerf_mlpratio": denoiser.pixel_mlp_ratio,
            }
        case DDTConfig():
            num_later_blocks = denoiser.num_decoder_blocks
            arguments |= {"num_groups": denoiser.num_heads}
    arguments |= {
        "num_blocks": denoiser.num_blocks + num_later_blocks,
        "ds": codec.pitch if up2x else 2 * codec.pitch,
        "codebook_bits": codec.codebook_bits,
        "up2x": up2x,
        "light": codec.decoder_depth == 2 and not codec.is_deep,
    }
    # CoD's pre-training classes swallow `pred` without reading it: they predict velocities.
    if one_step or kind == "DConv":
        arguments["pred"] = next(name for name, ours in _PREDICTIONS.items() if ours == denoiser.prediction)
    if one_step:
        arguments["noise_level"] = 0.0
    return arguments


def _short(value: Any) -> str:
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no numbers of more than 4300 digits
        return "a number of very many digits"
    return text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 3] + "..."


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _checked_arguments(class_name: str, defaults: Mapping[str, Any], init_args: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(init_args) - set(defaults))
    if unknown:
        names = ", ".join(unknown)[:_MESSAGE_LENGTH]
        raise UserError(f"{class_name} has no argument {names}; known are {', '.join(defaults)}")
    arguments = {**defaults, **init_args}
    missing = sorted(name for name, value in arguments.items() if value is _REQUIRED)
    if missing:
        raise UserError(f"{class_name} needs the arguments {', '.join(missing)}")
    for name, value in arguments.items():
        kind = int if defaults[name] is _REQUIRED else type(defaults[name])
        allowed = (int, float) if kind is float else kind
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{name} is {_short(value)}; {class_name} takes a value of type {kind.__name__}")
        if kind in (int, float) and not abs(value) <= _LARGEST_NUMBER:
            raise UserError(f"{name} is {_short(value)}; {class_name} takes a number up to {_LARGEST_NUMBER} there")
    return arguments


def _denoiser_config(kind: str, arguments: Mapping[str, Any]) -> DenoiserConfig:
    num_later_blocks = arguments["num_blocks"] - arguments["num_cond_blocks"]
    shared = {
        "hidden": arguments["hidden_size"],
        "num_blocks": arguments["num_cond_blocks"],
        "prediction": _PREDICTIONS[arguments["pred"]],
    }
    match kind:
        case "DConv":
            return DConvConfig(
                hidden_pixel=arguments["hidden_size_x"],
                num_pixel_blocks=num_later_blocks,
                bottleneck_width=arguments["bottleneck_dim"],
                mlp_ratio=float(arguments["mlp_ratio"]),
                **shared,
            )
        case "PixNerDiT":
            return PixNerDiTConfig(
                num_heads=arguments["num_groups"],
                hidden_pixel=arguments["hidden_size_x"],
                num_pixel_blocks=num_later_blocks,
                pixel_mlp_ratio=arguments["nerf_mlpratio"],
                **shared,
            )
        case _:
            return DDTConfig(num_heads=arguments["num_groups"], num_decoder_blocks=num_later_blocks, **shared)


def _codec_config(arguments: Mapping[str, Any]) -> ConditionCodecConfig:
    ds, up2x = arguments["ds"], arguments["up2x"]
    if ds not in (4, 8, 16, 32, 128):
        raise UserError(f"ds is {ds}; it must be one of 4, 8, 16, 32, 128")
    if ds < 32 and not up2x:
        raise UserError(f"ds {ds} exists with up2x only; set up2x to true")
    return ConditionCodecConfig(
        pitch=ds if up2x else ds // 2,
        input_stride=2 if up2x else 1,
        codebook_bits=arguments["codebook_bits"],
        decoder_depth=2 if arguments["light"] else 3,
    )
