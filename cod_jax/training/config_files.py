"""Reading of config files with their presets and with changed fields."""

import contextlib
import dataclasses
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from cod_jax.errors import UserError
from cod_jax.training.config import flatten
from cod_jax.training.config_list import find_config
from cod_jax.training.field_names import PREFIX, check_fields, field_names, field_of
from cod_jax.training.idle_fields import check_effects
from cod_jax.training.optimizer import OptimizerConfig

ALL_STAGES = "all"
# Names of version 0.1 and what they became; both work.
_NEW_NAMES = {
    "model.codec.codebook_bits": "model.codec.bottleneck.bits",
    "model.codec.factorized.": "model.codec.bottleneck.",
    "objective.reconstruction.commitment_weight": "objective.bottleneck.commitment_weight",
    "objective.reconstruction.rate_weights": "objective.bottleneck.rate_weights",
    "objective.commitment_weight": "objective.bottleneck.commitment_weight",
    "objective.rate_weights": "objective.bottleneck.rate_weights",
    "objective.revive_": "objective.bottleneck.revive_",
}
# Groups of fields that describe an optimizer.
_OPTIMIZERS = ("optimizer", "objective.critic_optimizer")
_REFUSED = re.compile(r"flag --config\.(\S+?)=(.*?): ", re.DOTALL)
_NO_VALUE = re.compile(r"Missing value for flag --config\.(\S+)")


def read_settings(name: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a config file as nested plain values.

    Args:
        name: FILE[:OPTIONS].
        changes: Arguments `--config.FIELD=VALUE`, or `--config.FIELD` and `VALUE` as two arguments.

    Raises:
        UserError: The file cannot be used, a field does not exist, or a value has the wrong type.
    """
    changes = _with_new_names(changes)
    config = _with_optimizer_fields(_load_config(name), changes)
    check_fields([config.to_dict()], changes)
    settings = _changed(config, changes)
    check_effects([settings], changes)
    return settings


def read_stages(name: str, changes: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the settings by stage if the preset is "all"; otherwise the settings have the name "".

    Args:
        name: FILE[:OPTIONS].
        changes: Arguments as for `read_settings`. A field that only some stages have is changed in those.

    Raises:
        UserError: As for `read_settings`, or the file has no stages.
    """
    path, _, preset = name.partition(":")
    first, comma, options = preset.partition(",")
    if first != ALL_STAGES:
        return {"": read_settings(name, changes)}
    stages = getattr(_load_module(path), "STAGES", None)
    if not stages:
        raise UserError(f"{path} has no stages; leave out :{ALL_STAGES}")
    changes = _with_new_names(changes)
    configs = {
        stage: _with_optimizer_fields(_load_config(f"{path}:{stage}{comma}{options}"), changes) for stage in stages
    }
    check_fields([config.to_dict() for config in configs.values()], changes)
    settings = {
        stage: _changed(config, _changes_of(changes, field_names(config.to_dict())))
        for stage, config in configs.items()
    }
    check_effects(list(settings.values()), changes)
    return settings


def _with_optimizer_fields(config: config_dict.ConfigDict, changes: Sequence[str]) -> config_dict.ConfigDict:
    """Return a config whose optimizers also have the fields of the kinds that changes choose, such as Muon's momentum.

    Raises:
        UserError: There is no such kind.
    """
    known = field_names(config.to_dict())
    for group in _OPTIMIZERS:
        chosen = _changes_of(changes, {f"{group}.kind"})
        value = chosen[-1].rpartition("=")[2] if chosen else ""
        if group not in known or not value or value.startswith("--"):  # an argument without a value is told later
            continue
        kind = OptimizerConfig.of_kind(value, f"config.{group}", trusted=True)
        target: Any = config
        for part in group.split("."):
            target = target[part]
        with target.unlocked():
            for field in dataclasses.fields(kind):
                if field.name not in target and field.default is not dataclasses.MISSING:
                    target[field.name] = field.default
    return config


def _changed(config: config_dict.ConfigDict, changes: Sequence[str]) -> dict[str, Any]:
    """Return a config's values with changed fields, which keep the types of the config."""
    # Separate from absl's global flags, so that one process can call this several times.
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *changes])
    try:
        unnamed = values(["", *changes])[1:]
    except flags.Error as error:
        raise UserError(_in_our_words(str(error), config)) from error
    if unnamed:
        raise UserError(f"unexpected argument {unnamed[0]!r}; settings are given as --config.FIELD=VALUE")
    return values.config.to_dict()


def _in_our_words(message: str, config: config_dict.ConfigDict) -> str:
    """Return an error of absl as a sentence that says what the field takes."""
    if missing := _NO_VALUE.match(message):
        return f"--{PREFIX}{missing[1]} has no value; write --{PREFIX}{missing[1]}=VALUE"
    refused = _REFUSED.match(message)
    if refused is None:
        return message
    field, value = refused.groups()
    default: Any = config
    for part in field.split("."):
        default = default[part]
    if isinstance(default, config_dict.ConfigDict):
        first = next(iter(flatten(default.to_dict())))
        return f"--{PREFIX}{field} is a group of fields; set one of them, as in --{PREFIX}{field}.{first}=VALUE"
    kinds = {bool: "True or False", int: "a whole number", float: "a number", tuple: "a tuple, such as \"('a', 'b')\""}
    return f"--{PREFIX}{field} must be {kinds.get(type(default), type(default).__name__)}, got {value!r}"


def _changes_of(changes: Sequence[str], names: set[str]) -> list[str]:
    """Return the changes without those of fields that only other stages have, such as a distillation's teacher."""
    kept: list[str] = []
    wanted = True
    for argument in changes:
        if argument.startswith("--"):
            wanted = field_of(argument) in names
        if wanted:
            kept.append(argument)
    return kept


def _with_new_names(changes: Sequence[str]) -> list[str]:
    """Return changes with the fields' names of this version."""

    def renamed(argument: str) -> str:
        for old, new in _NEW_NAMES.items():
            if argument.startswith("--") and field_of(argument).startswith(old):
                return argument.replace(old, new, 1)
        return argument

    return [renamed(argument) for argument in changes]


def _load_module(path: str) -> types.ModuleType:
    """Run a config file."""
    file = find_config(path)
    spec = importlib.util.spec_from_file_location("cod_jax_config", file) if file else None
    if file is None or spec is None or spec.loader is None:
        raise UserError(f"there is no config file {path}; cod train --help lists those to start from")
    # Config files import their neighbours as `configs.base`, from any current folder.
    if str(file.parent.parent) not in sys.path:
        sys.path.append(str(file.parent.parent))
    module = importlib.util.module_from_spec(spec)
    with _naming_file(path):
        spec.loader.exec_module(module)
    return module


def _load_config(name: str) -> config_dict.ConfigDict:
    """Run `get_config` of a file, with the preset after the colon."""
    path, *preset = name.split(":", 1)
    module = _load_module(path)
    with _naming_file(path):
        if preset and not inspect.signature(module.get_config).parameters:
            raise UserError(f"{path} has no options; leave out :{preset[0]}")
        return module.get_config(*preset)


@contextlib.contextmanager
def _naming_file(path: str) -> Iterator[None]:
    """Name the config file in errors that it raises."""
    try:
        yield
    except ValueError as error:  # config files raise this for unknown options
        raise UserError(str(error)) from error
    except (SyntaxError, ImportError, NameError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"config file {path} cannot be used: {type(error).__name__}: {error}") from error
