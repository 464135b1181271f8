"""The record that describes one published class: its arguments, its names in a checkpoint, and how it is decoded."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cod_jax.errors import UserError, quoted
from cod_jax.interop.cod_networks.condition_codec import codec_arguments, codec_config
from cod_jax.interop.naming import Rules
from cod_jax.model_folder.bundle import default_decoding
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import ModelConfig
from cod_jax.models.denoiser import DenoiserConfig

REQUIRED = object()
PREDICTIONS = {"x": "image", "v": "velocity"}
_LARGEST_NUMBER = 1_000_000
# Names come from untrusted files, so messages show only this much of them.
_MESSAGE_LENGTH = 80


@dataclasses.dataclass(frozen=True)
class PublishedClass:
    """One published network class.

    Attributes:
        name: Its name, without the modules.
        path: Its name with the modules, as YAML files give it.
        section: Where YAML files describe it: below `model.denoiser`, below `model.net`, or `model` itself.
        prefix: What the published tools expect its names in a checkpoint to begin with.
        arguments: Keyword arguments with their defaults; `REQUIRED` stands for a whole number without default.
        denoiser: The class of our description.
        fields: Fields of our description that are arguments there: ours, theirs.
        later_blocks: Our field for the blocks behind the first `num_cond_blocks` of `num_blocks`; "" where there is
            no such argument.
        rules: The naming of a model's parameters.
        attention: How its condition codec attends in use.
        reads_prediction: Whether the class does what its argument `pred` says; the others predict velocities.
        one_step: Whether it decodes in one step.
    """

    name: str
    path: str
    section: Literal["denoiser", "net", ""]
    prefix: str
    arguments: Mapping[str, Any]
    denoiser: Callable[..., DenoiserConfig]
    fields: Mapping[str, str]
    later_blocks: str
    rules: Callable[[ModelConfig], Rules]
    attention: Literal["global", "window_published"] = "global"
    reads_prediction: bool = True
    one_step: bool = False

    def checked(self, init_args: Mapping[str, Any]) -> dict[str, Any]:
        """Return all arguments, those that are not given at their defaults.

        Raises:
            UserError: An argument is unknown, missing, or of another type.
        """
        unknown = sorted(set(init_args) - set(self.arguments))
        if unknown:
            names = ", ".join(unknown)[:_MESSAGE_LENGTH]
            raise UserError(f"{self.name} has no argument {names}; its arguments are {', '.join(self.arguments)}")
        arguments = {**self.arguments, **init_args}
        missing = sorted(name for name, value in arguments.items() if value is REQUIRED)
        if missing:
            raise UserError(f"{self.name} needs the arguments {', '.join(missing)}")
        return {name: self._checked(name, value) for name, value in arguments.items()}

    def _checked(self, name: str, value: Any) -> Any:
        default = self.arguments[name]
        kind = int if default is REQUIRED else type(default)
        allowed = (int, float) if kind is float else kind
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{self.name} expects {name} to be of type {kind.__name__}, got {quoted(value)}")
        if kind in (int, float) and not abs(value) <= _LARGEST_NUMBER:
            raise UserError(f"{self.name} expects {name} to be at most {_LARGEST_NUMBER}, got {quoted(value)}")
        return float(value) if kind is float else value

    def to_config(self, init_args: Mapping[str, Any]) -> ModelConfig:
        """Return our description of the class with these arguments.

        Raises:
            UserError: An argument is unknown, missing, or cannot be used.
        """
        arguments = self.checked(init_args)
        fields: dict[str, Any] = {ours: arguments[theirs] for ours, theirs in self.fields.items()}
        if self.later_blocks:
            fields[self.later_blocks] = arguments["num_blocks"] - arguments["num_cond_blocks"]
            fields["prediction"] = self._prediction(arguments["pred"])
        codec = dataclasses.replace(codec_config(arguments), attention=self.attention)
        config = ModelConfig(codec, self.denoiser(**fields))
        for name, needed in (("patch_size", config.patch_size), ("in_channels", config.channels)):
            if arguments.get(name, needed) != needed:
                raise UserError(f"{self.name} expects {name} to be {needed}, got {arguments[name]}")
        return config

    def _prediction(self, pred: str) -> str:
        if pred not in PREDICTIONS:
            raise UserError(f"{self.name} expects pred to be one of {', '.join(PREDICTIONS)}, got {quoted(pred)}")
        if pred != "v" and not self.reads_prediction:
            raise UserError(f"pred is {pred}, but {self.name} does not read it and predicts velocities; remove pred")
        return PREDICTIONS[pred]

    def to_arguments(self, config: ModelConfig) -> dict[str, Any]:
        """Return the arguments nearest to one of our descriptions; the inverse of `to_config` where it has one.

        Raises:
            UserError: The model has another kind of codec, or no codebook.
        """
        denoiser = config.denoiser
        arguments = {theirs: getattr(denoiser, ours) for ours, theirs in self.fields.items()}
        arguments |= codec_arguments(config.codec)
        arguments |= {
            "in_channels": config.channels,
            "patch_size": config.patch_size,
            "num_blocks": denoiser.num_blocks + getattr(denoiser, self.later_blocks),
        }
        if self.reads_prediction:
            arguments["pred"] = next(name for name, ours in PREDICTIONS.items() if ours == denoiser.prediction)
        if self.one_step:
            arguments["noise_level"] = 0.0
        return arguments

    def decoding(self, config: ModelConfig) -> DecodingConfig:
        """Return the steps, guidance and sampler with which the published code decodes."""
        return default_decoding(config, one_step=self.one_step)
