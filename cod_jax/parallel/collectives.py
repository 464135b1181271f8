"""Collectives of a compiled program: what its devices send each other, read from the text of the compiler."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:body|calls|to_apply|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# Devices that exchange arrays with each other: as a list, as a grid, or by the names of mesh axes.
_LISTED, _GRID = re.compile(r"replica_groups=\{\{([\d,]*)\}"), re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind.

    Attributes:
        kind: One of `KINDS`.
        count: How many run in one call of the program.
        sent_bytes: Bytes that each device sends for them, if it sends along a ring: (n - 1) / n of the whole array for
            a gather among n devices, twice that for a reduction that all devices get.
    """

    kind: str
    count: int
    sent_bytes: int


def traffic(text: str) -> list[Traffic]:
    """Return the collectives of a compiled program, by kind.

    Loops count as often as they run, if the compiler knows. Of a branch both sides count.

    Args:
        text: The program as `jax.stages.Compiled.as_text` returns it.
    """
    entry, lines = _computations(text)
    counts: collections.Counter[str] = collections.Counter()
    sent: collections.Counter[str] = collections.Counter()
    for line, times in _walk(entry, lines, 1):
        if match := _COLLECTIVE.search(line):
            kind = match[2]
            counts[kind] += times
            sent[kind] += times * _sent_bytes(kind, match[1], bool(match[3]), _group_size(line))
    return [Traffic(kind, counts[kind], sent[kind]) for kind in KINDS if counts[kind]]


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """Return the name of the first computation, and the lines of all by name."""
    entry, name, lines = "", "", {}
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            lines[name] = []
            entry = name if match[1] else entry
        elif name:
            lines[name].append(line)
    return entry, lines


def _walk(name: str, lines: Mapping[str, list[str]], times: int) -> Iterator[tuple[str, int]]:
    """Iterate over the lines of a computation and of those that it calls, each with how often it runs."""
    for line in lines.get(name, []):
        yield line, times
        trips = int(match[1]) if " while(" in line and (match := _TRIPS.search(line)) else 1
        called = _CALLED.findall(line)
        for branches in _BRANCHES.findall(line):
            called += [branch.strip().removeprefix("%") for branch in branches.split(",")]
        for inner in called:
            yield from _walk(inner, lines, times * trips)


def _sent_bytes(kind: str, result: str, is_start: bool, group: int) -> int:
    sizes = [_size(kind, bits, shape) for kind, bits, shape in _ARRAY.findall(result)]
    # What starts a gather returns its input, too.
    size = max(sizes, default=0) if is_start else sum(sizes)
    share = (group - 1) / group
    factor = {"all-reduce": 2 * share, "reduce-scatter": group - 1, "collective-permute": 1.0}
    return round(size * factor.get(kind, share))


def _size(name: str, bits: str, shape: str) -> int:
    count = math.prod(int(size) for size in shape.split(",") if size)
    return count * (1 if name == "pred" else max(1, int(bits) // 8))


def _group_size(line: str) -> int:
    """Return how many devices take part in a collective together; 1 if the line does not say."""
    if match := _NAMED.search(line):
        sizes = dict(part.split("=") for part in match[1].split(","))
        return math.prod(int(sizes[name.strip()]) for name in match[2].split(","))
    if match := _GRID.search(line):
        return int(match[2])
    if match := _LISTED.search(line):
        return len(match[1].split(","))
    return 1
