"""Functions that a sweep file builds its points with.

A point is a dict of field names and values: one run of the trainer. A sweep file defines `get_hyper(hyper)`, is handed
this module, and returns a list of points:

    def get_hyper(hyper):
        return hyper.product([
            hyper.sweep("config.model.codec.bottleneck.bits", [4, 8]),
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
    """Make one point for each value of a field.

    Args:
        name: Dotted name, "config.FIELD".
        values: At least one.

    Raises:
        UserError: The values are a text, or there are none.
    """
    if isinstance(values, str):
        raise UserError(f"expected a list of values for {name}, got the text {values!r}")
    points = [{name: value} for value in values]
    if not points:
        raise UserError(f"{name} has no values; give at least one")
    return points


def fixed(name: str, value: Any, length: int = 1) -> Points:
    """Make points that all have the same value of a field.

    Args:
        name: Dotted name, "config.FIELD".
        value: The value.
        length: Number of points. `zipit` needs as many as its other sweeps have; `product` needs one.
    """
    return sweep(name, [value] * length)


def product(sweeps: Sequence[Points]) -> Points:
    """Combine every point of each sweep with every point of the others; the last sweep varies fastest.

    Raises:
        UserError: Two of the sweeps set the same field.
    """
    return [_merged(parts) for parts in itertools.product(*sweeps)]


def zipit(sweeps: Sequence[Points]) -> Points:
    """Combine the first points of all sweeps, then the second points, and so on.

    Raises:
        UserError: The sweeps differ in length, or two of them set the same field.
    """
    lengths = [len(points) for points in sweeps]
    if len(set(lengths)) > 1:
        raise UserError(f"zipit needs sweeps of equal length, got {', '.join(map(str, lengths))} points")
    return [_merged(parts) for parts in zip(*sweeps, strict=True)]


def chainit(sweeps: Sequence[Points]) -> Points:
    """Return the points of all sweeps, one sweep after the other."""
    return list(itertools.chain.from_iterable(sweeps))


def _merged(parts: Iterable[Point]) -> Point:
    merged: Point = {}
    for part in parts:
        for name, value in part.items():
            if name in merged:
                raise UserError(f"two of the combined sweeps set {name}; leave it out of one")
            merged[name] = value
    return merged
