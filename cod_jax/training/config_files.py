"""Reading of config files with their presets and with changed fields."""

import contextlib
import difflib
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

ALL_STAGES = "all"
_PREFIX = "config."
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
_WHERE_FIELDS_ARE = (
    "configs/base.py lists the fields, and configs/presets.py those of other stages, denoisers and bottlenecks; an "
    "option after the colon of the config file chooses them, as in configs/tiny.py:bottleneck=factorized"
)
_NO_NUMBER = re.compile(r"flag --(\S+?)=(.*): (?:invalid literal for (int)|could not convert string to (float))")
# How near a name must be to be suggested for another.
_ALIKE = 0.72


def read_settings(name: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a config file as nested plain values.

    Args:
        name: FILE[:PRESET].
        changes: Arguments `--config.FIELD=VALUE`, or `--config.FIELD` and `VALUE` as two arguments.

    Raises:
        UserError: The file cannot be used, a field does not exist, or a value has the wrong type.
    """
    config, changes = _load_config(name), _with_new_names(changes)
    _check_fields([config], changes)
    return _changed(config, changes)


def read_stages(name: str, changes: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the settings by stage if the preset is "all"; otherwise the settings have the name "".

    Args:
        name: FILE[:PRESET].
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
    configs = {stage: _load_config(f"{path}:{stage}{comma}{options}") for stage in stages}
    _check_fields(list(configs.values()), changes)
    return {stage: _changed(config, _changes_of(changes, _field_names(config))) for stage, config in configs.items()}


def _changed(config: config_dict.ConfigDict, changes: Sequence[str]) -> dict[str, Any]:
    """Return a config's values with changed fields, which keep the types of the config."""
    # Separate from absl's global flags, so that one process can call this several times.
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *changes])
    try:
        unnamed = values(["", *changes])[1:]
    except flags.Error as error:
        number = _NO_NUMBER.match(str(error))
        kind = {"int": "a whole number", "float": "a number"}
        text = f"--{number[1]} must be {kind[number[3] or number[4]]}, got {number[2]!r}" if number else str(error)
        raise UserError(text) from error
    if unnamed:
        raise UserError(f"unexpected argument {unnamed[0]!r}; settings are given as --config.FIELD=VALUE")
    return values.config.to_dict()


def _changes_of(changes: Sequence[str], names: set[str]) -> list[str]:
    """Return the changes without those of fields that only other stages have, such as a distillation's teacher."""
    kept: list[str] = []
    wanted = True
    for argument in changes:
        if argument.startswith("--"):
            wanted = _field(argument) in names
        if wanted:
            kept.append(argument)
    return kept


def _with_new_names(changes: Sequence[str]) -> list[str]:
    """Return changes with the fields' names of this version."""

    def renamed(argument: str) -> str:
        for old, new in _NEW_NAMES.items():
            if argument.startswith("--") and _field(argument).startswith(old):
                return argument.replace(old, new, 1)
        return argument

    return [renamed(argument) for argument in changes]


def _field(argument: str) -> str:
    """Return the dotted name of the field that an argument sets."""
    name = argument.lstrip("-").partition("=")[0]
    return name.removeprefix("no").removeprefix(_PREFIX)  # --noconfig.FIELD sets a field to false


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


def _field_names(config: config_dict.ConfigDict) -> set[str]:
    """Return the dotted names of the fields and of the groups that contain them."""
    fields = flatten(config.to_dict())
    return {*fields, *(field.rpartition(".")[0] for field in fields)}


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _check_fields(configs: Sequence[config_dict.ConfigDict], changes: Sequence[str]) -> None:
    """Refuse a field that none of these configs has, and suggest the nearest one.

    The last part of its name must be near too: fields of one group share the rest.
    """
    known = set().union(*map(_field_names, configs))
    settable = sorted(set().union(*(flatten(config.to_dict()) for config in configs)))
    for argument in changes:
        if argument.startswith("--") and (field := _field(argument)) not in known:
            others = [other for other in settable if not field.startswith(f"{other}.")]
            near = [
                other
                for other in difflib.get_close_matches(field, others, n=5, cutoff=_ALIKE)
                if difflib.SequenceMatcher(None, _last(field), _last(other)).ratio() >= _ALIKE
            ]
            hint = f"did you mean --{_PREFIX}{near[0]}?" if near else _WHERE_FIELDS_ARE
            raise UserError(f"unknown field --{_PREFIX}{field}; {hint}")
