"""Descriptions as frozen dataclasses, which are built from plain values, validated, and chosen by kind."""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from cod_jax.errors import UserError
from cod_jax.plugins import resolve

Config = TypeVar("Config")


class Part:
    """A description that comes in several kinds; a direct subclass, such as `DenoiserConfig`, is a family of kinds.

    A family has the kinds that it lists and accepts "package.module:Class" for a subclass in another package. Members
    are frozen dataclasses whose field `kind` holds their name.

    Attributes:
        FAMILY: Module and class of each kind in this package by name; the first is the default.
        kind: Name of the kind.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {}
    kind: Any  # members narrow it to the names they take

    @classmethod
    def of_kind(cls, kind: Any, where: str, *, trusted: bool) -> type[Any]:
        """Return the class of a kind.

        Args:
            kind: Name of a kind, or "package.module:Class".
            where: Dotted name of the description, for messages.
            trusted: Whether classes of other packages may be imported; see `plugins.resolve`.

        Raises:
            UserError: There is no such kind, or it may not be imported.
        """
        if isinstance(kind, str) and kind in cls.FAMILY:
            return resolve(cls.FAMILY[kind], cls, trusted=True)
        if isinstance(kind, str) and ":" in kind:
            found = resolve(kind, cls, trusted=trusted)
            if not dataclasses.is_dataclass(found):
                raise UserError(f"{where}.kind must name a dataclass, got {kind}; decorate the class or name another")
            return found
        raise UserError(
            f"{where}.kind must be one of {', '.join(cls.FAMILY)}, or package.module:Class for your own, got {kind!r}"
        )


def require(condition: bool, message: str) -> None:
    """Raise a `UserError` with this message unless the condition holds.

    Raises:
        UserError: The condition does not hold.
    """
    if not condition:
        raise UserError(message)


def require_range(config: Any, largest: Mapping[str, int]) -> None:
    """Check that fields are between 1 and a limit.

    Args:
        config: A description.
        largest: Limit of each field by name.

    Raises:
        UserError: A field is outside its range.
    """
    for name, limit in largest.items():
        value = getattr(config, name)
        require(1 <= value <= limit, f"{name} must be between 1 and {limit}, got {value}")


def require_at_least(config: Any, smallest: int, *names: str) -> None:
    """Check that fields are not below a limit.

    Raises:
        UserError: A field is below the limit.
    """
    for name in names:
        value = getattr(config, name)
        require(value >= smallest, f"{name} must be at least {smallest}, got {value}")


def from_mapping(cls: type[Config], values: Any, where: str, *, trusted: bool = False) -> Config:
    """Build a (nested) description from plain values.

    Args:
        cls: A dataclass whose fields are plain values, tuples or descriptions; or a family of them, whose kind the
            values name.
        values: Field names and values; missing fields take their defaults.
        where: Dotted name of this mapping, for messages.
        trusted: Whether kinds of other packages may be imported; see `plugins.resolve`.

    Raises:
        UserError: A field is unknown, has the wrong type, or is refused by the dataclass. The message starts with the
            dotted name.
    """
    if not dataclasses.is_dataclass(cls) and issubclass(cls, Part):
        if not isinstance(values, Mapping):
            raise UserError(f"{where} must hold a kind and its fields, got {values!r}")
        default = next(iter(cls.FAMILY), None)
        return from_mapping(
            cls.of_kind(values.get("kind", default), where, trusted=trusted), values, where, trusted=trusted
        )
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must hold the fields {', '.join(fields)}, got {values!r}")
    types_of = get_type_hints(cls)  # also of classes whose annotations are strings
    arguments = {}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            of_kind = f" of kind {values['kind']}" if "kind" in values else ""
            hint = f"did you mean {where}.{near[0]}?" if near else f"known fields{of_kind} are {', '.join(fields)}"
            raise UserError(f"unknown field {where}.{name}; {hint}")
        arguments[name] = _converted(types_of[name], value, f"{where}.{name}", trusted)
    missing = [name for name, field in fields.items() if name not in arguments and _is_required(field)]
    if missing:
        raise UserError(f"{where} must hold {', '.join(missing)} too, got {', '.join(arguments) or 'nothing'}")
    try:
        return cls(**arguments)
    except ValueError as error:  # classes of other packages need not know UserError
        raise UserError(f"{where}: {error}") from error


def _converted(kind: Any, value: Any, where: str, trusted: bool) -> Any:
    if isinstance(kind, types.UnionType):
        (other,) = (member for member in get_args(kind) if member is not types.NoneType)
        return None if value is None else _converted(other, value, where, trusted)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list or a tuple, got {value!r}")
        items = get_args(kind)
        items = items[:1] * len(value) if items[-1] is Ellipsis else items
        if len(items) != len(value):
            raise UserError(f"{where} must have {len(items)} values, got {value!r}")
        return tuple(
            _converted(item, part, f"{where}[{index}]", trusted)
            for index, (item, part) in enumerate(zip(items, value, strict=True))
        )
    if _is_description(kind):
        if isinstance(value, kind):
            return value
        return from_mapping(kind, value, where, trusted=trusted)  # pyright: ignore[reportArgumentType]
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise UserError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{where} must fit a float, got a number of {len(str(value))} digits") from None
    if kind in (int, float, str, bool) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise UserError(f"{where} must be of type {kind.__name__}, got {value!r}")
    if isinstance(value, float) and kind is float and not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, got {value}")
    return tuple(value) if isinstance(value, list) else value


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_description(kind: Any) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, Part))
