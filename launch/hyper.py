"""The words of a sweep file: each gives a list of points, and a point is a dict of fields and their values.

A sweep file defines `get_hyper(hyper)` and is handed this module:

    def get_hyper(hyper):
        return hyper.product([
            hyper.sweep("config.model.codec.codebook_bits", [4, 8]),
            hyper.sweep("config.optimizer.learning_rate", [1e-4, 3e-4]),
        ])
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from cod_jax.errors import UserError

Point = dict[str, Any]
Points = list[Point]


def sweep(name: str, values: Iterable[Any]) -> Points:
    """One point for each value of a field.

    Args:
        name: Dotted name, "config.FIELD".
        values: At least one.

    Raises:
        UserError: There is no list of values.
    """
    if isinstance(values, str):
        raise UserError(f"the values of {name} are the text {values!r}; give a list")
    points = [{name: value} for value in values]
    if not points:
        raise UserError(f"{name} has no values; give at least one")
    return points


def fixed(name: str, value: Any, length: int = 1) -> Points:
    """Points that all have the same value of a field.

    Args:
        name: Dotted name, "config.FIELD".
        value: The value.
        length: Number of points, for `zipit`; in a `product` 1 is right.
    """
    return sweep(name, [value] * length)


def product(sweeps: Sequence[Points]) -> Points:
    """Every combination; the last sweep varies fastest.

    Raises:
        UserError: Two of the sweeps set one field.
    """
    return [_merged(parts) for parts in itertools.product(*sweeps)]


def zipit(sweeps: Sequence[Points]) -> Points:
    """The first points of all sweeps together, then the second ones, and so on.

    Raises:
        UserError: The sweeps differ in length, or two of them set one field.
    """
    lengths = [len(points) for points in sweeps]
    if len(set(lengths)) > 1:
        raise UserError(f"zipit got sweeps of {', '.join(map(str, lengths))} points; they must be equally long")
    return [_merged(parts) for parts in zip(*sweeps, strict=True)]


def chainit(sweeps: Sequence[Points]) -> Points:
    """The points of all sweeps, one sweep after the other."""
    return list(itertools.chain.from_iterable(sweeps))


def _merged(parts: Iterable[Point]) -> Point:
    merged: Point = {}
    for part in parts:
        for name, value in part.items():
            if name in merged:
                raise UserError(f"two sweeps that are combined set {name}; leave it out of one")
            merged[name] = value
    return merged
