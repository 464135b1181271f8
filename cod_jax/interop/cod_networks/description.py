"""Which published network a model is, and which model a published network is."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cod_jax.errors import UserError, quoted
from cod_jax.interop.cod_networks.dconv import CODEC, DCONV, ONE_STEP_DCONV
from cod_jax.interop.cod_networks.record import PublishedClass
from cod_jax.interop.cod_networks.transformers import DDT, ONE_STEP_PIXNERDIT, PIXNERDIT
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models.config import ConditionCodecConfig, ModelConfig
from cod_jax.models.functional import flatten_params

CLASSES = (CODEC, DCONV, PIXNERDIT, DDT, ONE_STEP_DCONV, ONE_STEP_PIXNERDIT)
CLASS_NAMES = tuple(dict.fromkeys(each.name for each in CLASSES))

# What a network's names begin with in a checkpoint; the first that is there wins. In order: the moving average and the
# raw weights of pre-trained models, one-step models, and plain names.
PREFIXES = ("ema_denoiser.", "denoiser.", "net.", "")


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


def published_class(class_name: str, init_args: Mapping[str, Any]) -> PublishedClass:
    """Return the record of a published class.

    Args:
        class_name: Its name. "OneStepCoD" names two classes: the transformer is the one with `num_groups`.
        init_args: Its keyword arguments.

    Raises:
        UserError: There is no such class.
    """
    named = [each for each in CLASSES if each.name == class_name]
    if not named:
        raise UserError(f"class {quoted(class_name)} is not supported; use one of {', '.join(CLASS_NAMES)}")
    has_heads = "num_groups" in init_args
    return next((each for each in named if ("num_groups" in each.arguments) == has_heads), named[0])


def reference_config(class_name: str, init_args: Mapping[str, Any]) -> ModelConfig:
    """Return our description of a published network.

    Args:
        class_name: "Codec", "DConv", "PixNerDiT", "DDT" or "OneStepCoD" (a transformer if `num_groups` is given).
        init_args: Keyword arguments as in the published YAML files; missing ones take the class's defaults. For "Codec"
            the denoiser of the result only carries the condition's width.

    Raises:
        UserError: The class or an argument is unknown, an argument is missing, or has an unusable value.
    """
    return published_class(class_name, init_args).to_config(init_args)


def noise_level(class_name: str, init_args: Mapping[str, Any]) -> float:
    """Return the level of the noise that one-step decoding starts from, 1 for classes without that argument."""
    return published_class(class_name, init_args).checked(init_args).get("noise_level", 1.0)


def published_decoding(network: PublishedNetwork) -> DecodingConfig:
    """Return the steps, guidance and sampler with which the published code decodes a network.

    Raises:
        UserError: Its one step starts from noise, where ours starts from none.
    """
    record = published_class(network.class_name, network.init_args)
    config = record.to_config(network.init_args)
    level = noise_level(network.class_name, network.init_args)
    if record.one_step and level:
        default = "" if "noise_level" in network.init_args else ", the default of the class"
        raise UserError(
            f"expected noise_level to be 0, got {level:g}{default}: a one-step decoder starts from noise there and "
            "from none here, so pictures would differ; import a network with noise_level 0, or decode this one in "
            "Python with load_reference"
        )
    return record.decoding(config)


def published_network(config: ModelConfig, *, one_step: bool, any_attention: bool = False) -> PublishedNetwork:
    """Return the published class and arguments of one of our models, the inverse of `reference_config`.

    Args:
        config: What the model is.
        one_step: Whether it is to be a one-step decoder that starts from zero noise, or a denoiser to sample with.
        any_attention: Whether the published code may attend otherwise than the model does in use.

    Raises:
        UserError: No published class can be this model; the message names the field that is why.
    """
    record = class_of(config, one_step=one_step)
    init_args = record.to_arguments(config)
    try:
        implied = record.to_config(init_args)
    except UserError as error:
        raise UserError(f"there is no published {record.name} like this model: {error}") from error
    _check_same(config, implied, record.name, any_attention)
    return PublishedNetwork(record.name, init_args, record.prefix)


def class_of(config: ModelConfig, *, one_step: bool) -> PublishedClass:
    """Return the record of the published class with a model's kind of denoiser.

    Raises:
        UserError: There is none.
    """
    for record in CLASSES:
        if record is not CODEC and record.denoiser is type(config.denoiser) and record.one_step == one_step:
            return record
    if one_step and config.is_latent:
        raise UserError("there is no published one-step decoder of latents; write the model as a denoiser")
    raise UserError(
        f"this model cannot be written: no published class has a denoiser of kind {config.denoiser.kind}; choose a CoD "
        "or CoD-Lite"
    )


def _check_same(config: ModelConfig, implied: ModelConfig, class_name: str, any_attention: bool) -> None:
    """Refuse a model that is not the one that its published arguments imply."""
    if isinstance(config.codec, ConditionCodecConfig) and config.codec.is_deep:
        # The deep decoder has no choice of depth: the field is not read.
        config = dataclasses.replace(config, codec=dataclasses.replace(config.codec, decoder_depth=3))
    ours, theirs = (flatten_params(each.to_dict()) for each in (config, implied))
    for name, value in ours.items():
        is_attention = name == "codec/attention"
        if theirs.get(name) == value or (is_attention and any_attention):
            continue
        way_out = "; --any-attention writes the same weights for that attention" if is_attention else ""
        raise UserError(
            f"this model cannot be written: its {name.replace('/', '.')} is {value}, and that of the published "
            f"{class_name} is always {theirs.get(name)}{way_out}"
        )
