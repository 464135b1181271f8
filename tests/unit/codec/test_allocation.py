"""Choosing a level for each picture of a set."""

import itertools

import numpy as np
import pytest

from cod_jax.codec.allocation import allocate
from cod_jax.errors import UserError


def total(table: np.ndarray, levels: list[int]) -> float:
    return float(sum(row[level] for row, level in zip(table, levels, strict=True)))


def best_by_trying_all(sizes: np.ndarray, errors: np.ndarray, limit: int) -> float:
    """Return the least sum of errors within a limit."""
    every = itertools.product(range(sizes.shape[1]), repeat=len(sizes))
    return min(total(errors, list(levels)) for levels in every if total(sizes, list(levels)) <= limit)


def random_tables(seed: int, *, is_smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes and errors of four pictures at four levels; those of a codec, or any numbers."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, (4, 4))
    errors = rng.integers(0, 500, (4, 4)).astype(float)
    if is_smooth:
        sizes = np.cumsum(sizes, axis=1)
        errors = rng.uniform(500, 5000, (4, 1)) / sizes ** rng.uniform(0.3, 1.5, (4, 1))
    return sizes, errors


def dearest_edge(sizes: np.ndarray, errors: np.ndarray) -> float:
    """Return more than any edge of a hull is worth."""
    return float((errors.max(axis=1) - errors.min(axis=1)).max())


@pytest.mark.parametrize("is_smooth", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_the_error_is_near_the_least_and_the_bytes_within_the_limit(seed: int, is_smooth: bool):
    sizes, errors = random_tables(seed, is_smooth=is_smooth)
    smallest, largest = int(sizes.min(axis=1).sum()), int(sizes.max(axis=1).sum())
    excess = []
    for limit in np.linspace(smallest, largest, 7).astype(int).tolist():
        levels = allocate(sizes.tolist(), errors.tolist(), limit)
        assert total(sizes, levels) <= limit
        least = best_by_trying_all(sizes, errors, limit)
        excess.append(total(errors, levels) - least)
        assert 0 <= excess[-1] + 1e-9 <= dearest_edge(sizes, errors) + 2e-9
    # With bytes for everything nothing is left to gain.
    assert excess[-1] == pytest.approx(0)


@pytest.mark.parametrize("seed", range(10))
def test_on_a_corner_of_the_hull_nothing_is_better(seed: int):
    sizes, errors = random_tables(seed, is_smooth=True)
    for price in (0.5, 2.0, 10.0, 50.0):
        levels = (errors + price * sizes).argmin(axis=1).tolist()
        limit = int(total(sizes, levels))
        found = allocate(sizes.tolist(), errors.tolist(), limit)
        assert total(errors, found) == pytest.approx(total(errors, levels))
        assert total(errors, found) == pytest.approx(best_by_trying_all(sizes, errors, limit))


def test_bytes_go_where_they_gain_most():
    # The second picture gains ten times as much for its bytes; equal pictures would get one level each.
    sizes, errors = [[10, 20], [10, 20]], [[100.0, 90.0], [1000.0, 900.0]]
    assert allocate(sizes, errors, 30) == [0, 1]
    assert allocate(sizes, errors, 40) == [1, 1]
    assert allocate(sizes, errors, 29) == [0, 0]


def test_what_is_left_goes_to_what_still_fits():
    # The steepest edge does not fit, the other one does. The middle level of the third is not on its hull.
    sizes, errors = [[10, 50], [10, 15], [10, 13, 30]], [[900.0, 0.0], [30.0, 20.0], [90.0, 89.0, 9.0]]
    padded = [row + row[-1:] * (3 - len(row)) for row in sizes], [row + row[-1:] * (3 - len(row)) for row in errors]
    assert allocate(*padded, 36) == [0, 1, 0]
    assert allocate(*padded, 38) == [0, 1, 1]


def test_a_larger_file_that_is_worse_is_never_taken():
    assert allocate([[10, 20, 30]], [[5.0, 7.0, 5.0]], 100) == [0]


def test_too_few_bytes_are_refused_with_the_least_that_would_do():
    with pytest.raises(UserError, match="expected at least 30 bytes for 2 pictures, which the smallest"):
        allocate([[12, 10], [20, 30]], [[0.0, 0.0], [0.0, 0.0]], 29)
    assert allocate([[12, 10], [20, 30]], [[0.0, 1.0], [0.0, 0.0]], 30) == [1, 0]
