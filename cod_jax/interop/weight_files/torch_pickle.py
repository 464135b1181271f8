"""The list of contents of a torch file: a pickle in which tensors are descriptions, without their numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

from cod_jax.errors import UserError, quoted
from cod_jax.interop.weight_files.plain_pickle import (
    ADVICE,
    Name,
    PicklePosition,
    Skipped,
    load_plain_pickle,
    set_items,
)
from cod_jax.interop.weight_files.raw_values import BFLOAT16, DAMAGED, is_shape

# One list can be made into a dict again and again by few instructions.
MAX_PAIRS = 1_000_000

_STORAGES = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": BFLOAT16,
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
    "torch.ComplexFloatStorage": "c8",
    "torch.ComplexDoubleStorage": "c16",
}


class Storage(NamedTuple):
    """A vector of `num_values` values in record `key`; a tensor may use those from `first` up to `stop`."""

    key: str
    code: str
    num_values: int
    first: int
    stop: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_torch_pickle(source: PicklePosition, storages: dict[str, Storage] | None = None) -> Any:
    """Read one pickle; tensors become `Tensor`, and the storages they use are added to `storages`."""

    def load_persistent(value: Any) -> Storage:
        storage = _to_storage(value)
        if storages is not None and storages.setdefault(storage.key, storage).code != storage.code:
            raise UserError(f"storage {quoted(storage.key)} has two element types; {DAMAGED}")
        return storage

    functions = {
        "_codecs.encode": lambda _: Skipped("bytes"),
        "collections.OrderedDict": _make_ordered_dict(),
        "torch.Size": _size,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
    }
    return load_plain_pickle(source, functions, load_persistent)


def _to_storage(value: Any) -> Storage:
    """Check ("storage", type, key, device, number of values[, None or (key, first, number)])."""
    if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] != "storage":
        raise UserError(f"expected only tensors to be stored apart, got something else; {ADVICE}")
    kind, key, num_values = value[1], value[2], value[4]
    if isinstance(kind, Name) and kind.text not in _STORAGES:
        raise UserError(f"a tensor has elements of {quoted(kind.text)}, which are not read; {ADVICE}")
    if not isinstance(kind, Name) or not isinstance(key, str) or not is_shape([num_values]):
        raise UserError(f"a tensor's storage is described wrongly; {DAMAGED}")
    first, count = 0, num_values
    if len(value) == 6 and value[5] is not None:
        view = value[5]
        if not isinstance(view, tuple) or len(view) != 3 or not all(is_shape([n]) for n in view[1:]):
            raise UserError(f"a tensor's storage is described wrongly; {DAMAGED}")
        first, count = view[1], view[2]
    if first + count > num_values:
        raise UserError(f"a tensor lies outside its storage {quoted(key)}; {DAMAGED}")
    return Storage(key, _STORAGES[kind.text], num_values, first, first + count)


def _make_ordered_dict() -> Callable[[tuple[Any, ...]], dict[Any, Any]]:
    """Return the function for OrderedDict: from nothing, or from a list of [key, value] as Python 2 wrote it."""
    pairs_left = MAX_PAIRS

    def ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
        nonlocal pairs_left
        pairs = arguments[0] if arguments else []
        if len(arguments) > 1 or not isinstance(pairs, list):
            raise UserError(f"an OrderedDict in it is not made from pairs; {DAMAGED}")
        pairs_left -= len(pairs)
        if pairs_left < 0:
            raise UserError(f"its dicts repeat their entries to more than {MAX_PAIRS}; {ADVICE}")
        result: dict[Any, Any] = {}
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise UserError(f"an OrderedDict in it is not made from pairs; {DAMAGED}")
            set_items(result, list(pair))
        return result

    return ordered_dict


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    if len(arguments) != 1 or not is_shape(arguments[0]):
        raise UserError(f"a torch.Size in it is not a list of sizes; {DAMAGED}")
    return tuple(arguments[0])


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Tensor:
    """Check (storage, offset, shape, strides) against the size of the storage."""
    if len(arguments) != 4:
        raise UserError(f"a tensor is described wrongly; {DAMAGED}")
    storage, offset, shape, strides = arguments
    if not isinstance(storage, Storage) or not is_shape([offset]) or not is_shape(shape):
        raise UserError(f"a tensor is described wrongly; {DAMAGED}")
    if not isinstance(strides, list | tuple) or len(strides) != len(shape) or not all(is_shape([n]) for n in strides):
        raise UserError(f"the strides of a tensor do not fit its shape; {DAMAGED}")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.stop - storage.first:
        raise UserError(
            f"a tensor of shape {tuple(shape)} reaches value {last} of a storage with "
            f"{storage.stop - storage.first}; {DAMAGED}"
        )
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_tensor_v2(arguments: tuple[Any, ...]) -> Tensor:
    """Take the first four of (..., requires_grad, hooks[, flags]); flags mean a lazily conjugated or negated view."""
    if len(arguments) not in (6, 7) or (len(arguments) == 7 and arguments[6]):
        raise UserError(f"a tensor is a lazy view with flags; {ADVICE}")
    return _rebuild_tensor(arguments[:4])


def _rebuild_parameter(arguments: tuple[Any, ...]) -> Tensor | Skipped:
    if arguments and isinstance(arguments[0], Skipped):
        return arguments[0]
    if len(arguments) != 3 or not isinstance(arguments[0], Tensor):
        raise UserError(f"a parameter is described wrongly; {DAMAGED}")
    return arguments[0]
