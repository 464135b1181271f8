"""Read a pickle of plain containers without running anything in it.

A pickle is a program for a small stack machine. Python's own unpickler can be told which names it may look up, but
still lets a file set attributes, reserve memory for any memo index and build values that crash when hashed.
This one knows only the instructions that such containers need; a name in the file is a label, and calling it looks up
a function in a table of the caller's. What other names stand for is not made: a `Skipped` takes its place.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cod_jax.errors import UserError
from cod_jax.interop.weight_files.raw_values import DAMAGED

# A state dict takes about 30 instructions and 200 bytes a tensor, so this is for 50,000 tensors.
MAX_INSTRUCTIONS = 1_500_000
# A file may build a name from long text again and again.
MAX_NAME = 200
# Numbers beyond this may be chosen such that a dict takes a time that grows with the square of its size.
MAX_KEY = 2**31
ADVICE = 'save the tensors alone, torch.save(model.state_dict(), "weights.pth"), and read that file'


_Functions = Mapping[str, Callable[[tuple[Any, ...]], Any] | None]


class Name(NamedTuple):
    """A global that the pickle names, as "module.attribute"."""

    text: str


class Skipped:
    """A value that is not read, and what is added to it.

    It equals itself only, so as a key of a dict it does no harm.

    Attributes:
        what: What it would be, such as "argparse.Namespace".
    """

    def __init__(self, what: str):
        self.what = what

    def __repr__(self) -> str:
        return f"<skipped {self.what}>"


# Instructions followed by one number; followed by a length and as many bytes; and those that push a constant.
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
_MEMO_PUT = {b"q": "<B", b"r": "<I"}
_MEMO_GET = {b"h": "<B", b"j": "<I"}
_FRAMING = {b"\x80": "<B", b"\x95": "<Q"}
_TEXTS = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q", b"T": "<i", b"U": "<B"}
_BYTES = {b"B": "<I", b"C": "<B", b"\x8e": "<Q", b"\x96": "<Q"}
_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
    b")": tuple,
    b"]": list,
    b"}": dict,
    b"\x8f": lambda: Skipped("set"),
}
_TUPLE_SIZES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


class PicklePosition:
    """Bytes and how far they have been read."""

    def __init__(self, data: bytes, position: int = 0):
        self.data = data
        self.position = position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if not 0 <= count <= len(self.data) - self.position:
            raise UserError(f"its list of contents ends early; {DAMAGED}")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, code: str) -> Any:
        """Return the next number of a `struct` code."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def line(self) -> str:
        """Return the text up to the next line end."""
        end = self.data.find(b"\n", self.position, self.position + 1000)
        if end < 0:
            raise UserError(f"its list of contents ends early; {DAMAGED}")
        text = self.take(end - self.position)
        self.position += 1
        return to_text(text)


def to_text(data: bytes) -> str:
    """Decode UTF-8.

    Raises:
        UserError: It is not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"a name in it is not UTF-8 text; {DAMAGED}") from None


class _Stack:
    """The machine's stack; `marks` holds what lies below each mark."""

    def __init__(self):
        self.items: list[Any] = []
        self.marks: list[list[Any]] = []

    def pop(self) -> Any:
        if not self.items:
            raise UserError(f"its list of contents is not a valid pickle; {DAMAGED}")
        return self.items.pop()

    def top(self) -> Any:
        if not self.items:
            raise UserError(f"its list of contents is not a valid pickle; {DAMAGED}")
        return self.items[-1]

    def to_fill(self, kind: type) -> Any:
        """Return the container at the top, or None if what is put into it is passed over."""
        top = self.top()
        if isinstance(top, Skipped):
            return None
        if not isinstance(top, kind):
            raise UserError(
                f"its list of contents needs a {kind.__name__} to fill, got {type(top).__name__}; {DAMAGED}"
            )
        return top

    def mark(self) -> None:
        self.marks.append(self.items)
        self.items = []

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise UserError(f"its list of contents is not a valid pickle; {DAMAGED}")
        items, self.items = self.items, self.marks.pop()
        return items


def load_plain_pickle(
    source: PicklePosition,
    functions: _Functions,
    load_persistent: Callable[[Any], Any],
) -> Any:
    """Read one pickle at the position of `source` and leave the position behind it.

    Args:
        source: Bytes and position.
        functions: The names that stand for something; called with the tuple of arguments, or not at all where None.
        load_persistent: Turns a persistent id into a value.

    Returns:
        What the pickle holds; what other names stand for is `Skipped`.

    Raises:
        UserError: The pickle is damaged, or uses an instruction that is not known; the text names it.
    """
    stack = _Stack()
    memo: dict[int, Any] = {}
    for _ in range(MAX_INSTRUCTIONS):
        op = source.take(1)
        if op == b".":
            value = stack.pop()
            if stack.items or stack.marks:
                raise UserError(f"its list of contents is not a valid pickle; {DAMAGED}")
            return value
        if op in _MEMO_PUT:
            memo[source.number(_MEMO_PUT[op])] = stack.top()
        elif op == b"\x94":
            memo[len(memo)] = stack.top()
        elif op in _MEMO_GET:
            number = source.number(_MEMO_GET[op])
            if number not in memo:
                raise UserError(f"its list of contents refers to a value that it has not stored; {DAMAGED}")
            stack.items.append(memo[number])
        elif op in _FRAMING:
            source.number(_FRAMING[op])
        elif not _run_scalar(op, source, stack):
            if op == b"c":
                module, attribute = source.line(), source.line()
                stack.items.append(_name(module, attribute))
            elif op == b"\x93":
                attribute, module = stack.pop(), stack.pop()
                stack.items.append(_name(module, attribute))
            elif op in (b"R", b"\x81", b"\x92"):
                if op == b"\x92":
                    stack.pop()  # arguments by name, which nothing that is known here has
                arguments, name = stack.pop(), stack.pop()
                stack.items.append(_call(name, arguments, functions))
            elif op == b"Q":
                stack.items.append(load_persistent(stack.pop()))
            else:
                _run_container(op, stack)
    raise UserError(f"its list of contents has more than {MAX_INSTRUCTIONS} instructions; {ADVICE}")


def _name(module: Any, attribute: Any) -> Name:
    if not isinstance(module, str) or not isinstance(attribute, str) or len(module) + len(attribute) > MAX_NAME:
        raise UserError(f"its list of contents has a name that is not short text; {DAMAGED}")
    return Name(f"{module}.{attribute}")


def _call(name: Any, arguments: Any, functions: _Functions) -> Any:
    if isinstance(name, Skipped):
        return name
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise UserError(f"its list of contents calls something else than a name with arguments; {DAMAGED}")
    function = functions.get(name.text)
    return Skipped(name.text) if function is None else function(arguments)


def _run_scalar(op: bytes, source: PicklePosition, stack: _Stack) -> bool:
    """Push the number, text, bytes or constant of `op`, or return False for another instruction."""
    if op in _NUMBERS:
        stack.items.append(source.number(_NUMBERS[op]))
    elif op == b"\x8a":
        stack.items.append(int.from_bytes(source.take(source.number("<B")), "little", signed=True))
    elif op in _TEXTS:
        stack.items.append(to_text(source.take(source.number(_TEXTS[op]))))
    elif op in _BYTES:
        stack.items.append(source.take(source.number(_BYTES[op])))
    elif op in _CONSTANTS:
        stack.items.append(_CONSTANTS[op]())
    else:
        return False
    return True


def _run_container(op: bytes, stack: _Stack) -> None:
    if op == b"(":
        stack.mark()
    elif op == b"t":
        items = stack.pop_to_mark()
        stack.items.append(tuple(items))
    elif op in _TUPLE_SIZES:
        items = [stack.pop() for _ in range(_TUPLE_SIZES[op])]
        stack.items.append(tuple(reversed(items)))
    elif op in (b"a", b"e"):
        items = [stack.pop()] if op == b"a" else stack.pop_to_mark()
        target = stack.to_fill(list)
        if target is not None:
            target.extend(items)
    elif op in (b"s", b"u"):
        items = [stack.pop(), stack.pop()][::-1] if op == b"s" else stack.pop_to_mark()
        target = stack.to_fill(dict)
        if target is not None:
            set_items(target, items)
    elif op == b"b":
        # The only attributes of a state dict are version numbers of its modules.
        stack.pop()
        stack.to_fill(dict)
    elif op == b"\x90":
        stack.pop_to_mark()
        stack.to_fill(Skipped)
    elif op == b"\x91":
        stack.pop_to_mark()
        stack.items.append(Skipped("frozenset"))
    elif op == b"0":
        stack.pop()
    elif op == b"1":
        stack.pop_to_mark()
    else:
        raise UserError(f"it uses the pickle instruction {op!r}, which plain tensors do not need; {ADVICE}")


def set_items(target: dict[Any, Any], items: list[Any]) -> None:
    """Put [key, value, key, value, ...] into `target`; keys other than text, None and small numbers are `Skipped`."""
    if len(items) % 2:
        raise UserError(f"its list of contents has a key without a value; {DAMAGED}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        is_plain = isinstance(key, str | None) or (isinstance(key, int) and abs(key) < MAX_KEY)
        target[key if is_plain else Skipped(key.text if isinstance(key, Name) else type(key).__name__)] = value
