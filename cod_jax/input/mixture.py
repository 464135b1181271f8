"""A mixture of several sources, each with its share of the training images."""

import math
import zlib
from collections.abc import Callable, Sequence

from cod_jax.errors import UserError
from cod_jax.input.source import Source

PREFIX = "mix:"


class MixedSource(Source):
    """Images of several sources, one source after the other.

    Attributes:
        location: "mix:WEIGHT=SOURCE,WEIGHT=SOURCE", for messages.
        names: Names of all images, each after the number of its source. Which images are held out does not depend on
            the mixture.
        has_names: Whether all sources have names.
    """

    def __init__(self, location: str, open_part: Callable[[str], Source]) -> None:
        self.location = location
        weights, places = _parse(location)
        self._weights = weights
        self._parts = [open_part(place) for place in places]
        self.names = [f"{number}/{name}" for number, part in enumerate(self._parts) for name in part.names]
        self.has_names = all(part.has_names for part in self._parts)
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part.names))

    def identity(self, indices: Sequence[int]) -> dict[str, int]:
        """Return checksums of what the sources return; see `Source.identity`."""
        parts = [
            part.identity([index - start for index in mine])
            for part, start, mine in zip(self._parts, self._starts, self._split(indices), strict=False)
        ]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: zlib.crc32(repr([part.get(name) for part in parts]).encode()) for name in names}

    def epoch(self, indices: Sequence[int]) -> list[int]:
        """Return the images of an epoch, in which each source has its share: some come several times.

        Every image comes at least once, and those of one source exactly once.

        Raises:
            UserError: A source has no images to train on.
        """
        split = self._split(indices)
        if empty := [place for place, mine in zip(_parse(self.location)[1], split, strict=True) if not mine]:
            raise UserError(f"{self.location}: {empty[0]} holds no images to train on; leave it out of the mixture")
        total = max(len(mine) / weight for mine, weight in zip(split, self._weights, strict=True))
        images: list[int] = []
        for mine, weight in zip(split, self._weights, strict=True):
            whole, rest = divmod(round(weight * total), len(mine))
            # The images that come once more are spread over the source.
            images += list(mine) * whole + [mine[number * len(mine) // rest] for number in range(rest)]
        return images

    def read(self, index: int) -> bytes:
        """Return the encoded image at an index.

        Raises:
            UserError: It is damaged.
            OSError: It cannot be read.
        """
        number = next(number for number, end in enumerate(self._starts[1:]) if index < end)
        return self._parts[number].read(index - self._starts[number])

    def _split(self, indices: Sequence[int]) -> list[list[int]]:
        """Return the indices of each source, those of the mixture."""
        split: list[list[int]] = [[] for _ in self._parts]
        number = 0
        for index in sorted(indices):
            while index >= self._starts[number + 1]:
                number += 1
            split[number].append(index)
        return split


def _parse(location: str) -> tuple[list[float], list[str]]:
    """Return the weights, whose sum is 1, and the places of the sources."""
    weights, places = [], []
    for part in location.removeprefix(PREFIX).split(","):
        text, separator, place = part.partition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not separator or not place or not 0 < weight < math.inf:
            raise UserError(
                f"expected {PREFIX}WEIGHT=SOURCE,WEIGHT=SOURCE with weights above 0, such as "
                f"{PREFIX}2=photos,1=shards, got {location!r}"
            )
        weights.append(weight)
        places.append(place)
    return [weight / sum(weights) for weight in weights], places
