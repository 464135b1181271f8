"""Pictures of equal size computed together."""

from collections.abc import Callable, Sequence

import numpy as np

from cod_jax.errors import UserError


def in_batches(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    items: Sequence[np.ndarray],
    levels: Sequence[int],
    *,
    pixels_per_position: int,
    most_pixels: int,
    named: bool,
) -> list[np.ndarray]:
    """Call a function of batches and their quality levels with all items; those of equal shape are computed together.

    Batches hold `most_pixels` at most, or one item, and all of one shape have the same length, so that they
    compile once: the last is filled up with its last item. If `named`, an error says which items it is about.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.shape, []).append(place)
    results: dict[int, np.ndarray] = {}
    for (rows, columns, *_), same in places.items():
        largest = max(1, most_pixels // (rows * columns * pixels_per_position))
        num_batches = -(-len(same) // largest)
        length = -(-len(same) // num_batches)
        for start in range(0, len(same), length):
            batch = same[start : start + length]
            filled = batch + batch[-1:] * (length - len(batch))
            stacked = np.stack([items[place] for place in filled])
            try:
                output = function(stacked, np.array([levels[place] for place in filled], np.int32))
            except UserError as error:
                if not named:
                    raise
                names = ", ".join(f"[{place}]" for place in batch)
                raise UserError(f"item {names}: {error}") from error
            results.update(zip(batch, output, strict=False))
    return [results[place] for place in range(len(items))]
