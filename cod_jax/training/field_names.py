"""Names of fields as arguments of the trainer give them, and suggestions for those that do not exist."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cod_jax.errors import UserError
from cod_jax.training.config import flatten

PREFIX = "config."
_WHERE_FIELDS_ARE = (
    "configs/base.py lists the fields, and configs/presets.py those of other stages, denoisers and bottlenecks; an "
    "option after the colon of the config file chooses them, as in configs/tiny.py:bottleneck=factorized"
)
# How near a name must be to be suggested for another.
_ALIKE = 0.72
_MAX_SUGGESTIONS = 3


def field_of(argument: str) -> str:
    """Return the dotted name of the field that an argument, `--config.FIELD` or `--noconfig.FIELD`, sets."""
    name = argument.lstrip("-").partition("=")[0]
    return name.removeprefix("no").removeprefix(PREFIX)  # --noconfig.FIELD sets a field to false


def field_names(settings: Mapping[str, Any]) -> set[str]:
    """Return the dotted names of the fields and of the groups that contain them."""
    names = set(flatten(settings))
    for field in list(names):
        while field := field.rpartition(".")[0]:
            names.add(field)
    return names


def check_fields(stages: Sequence[Mapping[str, Any]], changes: Iterable[str]) -> None:
    """Refuse to change a field that no stage has, and suggest the fields that may be meant.

    Args:
        stages: Settings of each stage.
        changes: Arguments of the trainer.

    Raises:
        UserError: A field does not exist.
    """
    known = set().union(*map(field_names, stages))
    settable = list(dict.fromkeys(field for settings in stages for field in flatten(settings)))
    for argument in changes:
        if argument.startswith("--") and (field := field_of(argument)) not in known:
            near = " or ".join(f"--{PREFIX}{other}" for other in suggestions(field, settable))
            hint = f"did you mean {near}?" if near else _WHERE_FIELDS_ARE
            raise UserError(f"unknown field --{PREFIX}{field}; {hint}")


def suggestions(field: str, fields: Iterable[str]) -> list[str]:
    """Return the fields that a wrong name may stand for, at most three.

    Args:
        field: The wrong name.
        fields: The fields that there are, by dotted name.
    """
    # Something below a field, such as "seed.x", does not stand for the field.
    scores = {other: _likeness(field, other) for other in fields if not field.startswith(f"{other}.")}
    best = max(scores.values(), default=(0.0, 0.0))
    return [other for other, score in scores.items() if score == best and score[0] > 0][:_MAX_SUGGESTIONS]


def _likeness(field: str, other: str) -> tuple[float, float]:
    """Return how much a wrong name is like a field, and how much their groups are alike; (0, 0) if they are not.

    People write a name in another group, parts of a name, or its initials: `learning_rate`, `optimizer.warmup` and
    `optimizer.lr`. Otherwise the whole name and its last part must be near, since fields of one group share the rest.
    """
    group, _, name = field.rpartition(".")
    other_group, _, other_name = other.rpartition(".")
    groups = difflib.SequenceMatcher(None, group, other_group).ratio()
    inside = not group or f".{other_group}".endswith(f".{group}")
    initials = "".join(word[0] for word in other_name.split("_"))
    whole = difflib.SequenceMatcher(None, field, other).ratio()
    last = difflib.SequenceMatcher(None, name, other_name).ratio()
    if name == other_name:
        score = 1.0 if inside else 0.9
    elif _words(field) <= _words(other) or (inside and name == initials and len(name) > 1):
        score = 0.95
    else:
        score = whole if min(whole, last) >= _ALIKE else 0.0
    return score, groups if score else 0.0


def _words(field: str) -> set[str]:
    return set(re.split(r"[._]", field))
