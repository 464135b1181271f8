"""Priors of symbols: static and context mode, and fitting them."""

import functools

import numpy as np
import pytest

from cod_jax.coding import context, prior, prior_fit
from cod_jax.coding.prior import SymbolPrior
from cod_jax.coding.range_coder import TOTAL


def smooth_grid(rows: int, columns: int, size: int, seed: int = 0) -> np.ndarray:
    """Symbols that resemble their neighbours."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((rows + 8, columns + 8))
    for axis in (0, 1):
        values = np.apply_along_axis(lambda line: np.convolve(line, np.ones(9) / 3, "valid"), axis, values)
    levels = np.floor((values / 4 + 0.5) * size)
    return np.clip(levels, 0, size - 1).astype(np.int32)


@functools.cache
def fitted(size: int) -> SymbolPrior:
    grids = [smooth_grid(20, 30, size, seed) for seed in range(1, 9)]
    return prior_fit.fit_prior(grids, np.arange(size, dtype=np.float32)[:, None])


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (5, 8), (16, 16), (17, 3), (1, 33), (70, 41)])
def test_batches_hold_every_symbol_once_and_neighbours_come_first(shape: tuple[int, int]):
    rows, columns = shape
    when = np.full((rows + 1, columns + 1), -1)  # the border is known from the beginning
    when[:rows, :columns] = 10**6
    for number, batch in enumerate(context.batches(rows, columns)):
        assert len(batch.neighbours) == context.NUM_NEIGHBOURS
        assert 0 <= batch.kind < context.NUM_CLASSES
        for place in batch.neighbours:
            assert (when[place] < number).all()
        assert (when[batch.place] == 10**6).all()
        when[batch.place] = number
    assert when.max() < 10**6


def test_neighbours_are_at_equal_distance_in_four_directions():
    grid = np.arange(9 * 9, dtype=np.int32).reshape(9, 9)
    bordered = context.with_border(grid, -1)
    *_, corners, horizontal, vertical = context.batches(9, 9)
    row, column = 3, 5
    index = row // 2 * 4 + column // 2
    assert [bordered[place].reshape(-1)[index] - grid[row, column] for place in corners.neighbours] == [-10, 10, -8, 8]
    # At row 0 there is nothing above.
    assert [bordered[place].reshape(-1)[0] for place in horizontal.neighbours] == [
        -1,
        grid[1, 1],
        grid[0, 0],
        grid[0, 2],
    ]
    assert [bordered[place].reshape(-1)[0] for place in vertical.neighbours] == [grid[0, 0], grid[2, 0], -1, grid[1, 1]]
    assert (corners.kind, horizontal.kind, vertical.kind) == (0, 3, 3)


@pytest.mark.parametrize("size", [2, 16, 256])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 4), (33, 20)])
def test_any_symbols_come_back(size: int, shape: tuple[int, int]):
    tables = fitted(size)
    assert tables.context is not None
    rows, columns = shape
    uniform = np.random.default_rng(size).integers(0, size, shape).astype(np.int32)
    for symbols in (
        uniform,
        smooth_grid(rows, columns, size),
        np.zeros(shape, np.int32),
        np.full(shape, size - 1, np.int32),
    ):
        data = prior.encode_static(tables, symbols)
        np.testing.assert_array_equal(prior.decode_static(tables, data, rows=rows, columns=columns), symbols)
        data = prior.encode_context(tables.context, symbols)
        np.testing.assert_array_equal(prior.decode_context(tables.context, data, rows=rows, columns=columns), symbols)


def test_neighbours_make_smaller_files_and_the_estimate_is_right():
    tables, symbols = fitted(16), smooth_grid(40, 60, 16)
    assert tables.context is not None
    sizes = {
        "static": len(prior.encode_static(tables, symbols)),
        "context": len(prior.encode_context(tables.context, symbols)),
    }
    estimated = prior.estimated_bits(tables, symbols)
    for mode, num_bytes in sizes.items():
        assert abs(num_bytes - estimated[mode] / 8) < 0.01 * num_bytes + 2
    assert sizes["context"] < 0.75 * sizes["static"] < 0.75 * symbols.size * 4 / 8


def test_similar_symbols_share_the_beginning_of_their_codes():
    tables = fitted(16).context
    assert tables is not None
    codes = tables.codes if tables.codes[0] < 8 else 15 - tables.codes
    # On a line, halves of halves are in order; each half may be turned around.
    assert (np.sort(codes[:8]) == np.arange(8)).all()


def test_counts_are_frequencies_of_at_least_one():
    grids = [np.array([[0, 0, 0, 1]], np.int32)]
    counts = prior_fit.fit_prior(grids, np.zeros((4, 1))).counts
    assert counts.sum() == TOTAL
    assert counts.min() >= 1
    np.testing.assert_allclose(counts / TOTAL, np.array([3.5, 1.5, 0.5, 0.5]) / 6, atol=1e-4)


def test_a_codebook_of_16_bits_has_counts_only():
    tables = prior_fit.fit_prior([np.array([[5, 7]], np.int32)], np.zeros((2**16, 1)))
    assert tables.context is None
    assert (tables.counts == 1).all()
    symbols = np.array([[65535, 0, 7]], np.int32)
    data = prior.encode_static(tables, symbols)
    np.testing.assert_array_equal(prior.decode_static(tables, data, rows=1, columns=3), symbols)


def test_without_symbols_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="no symbols to fit a prior to"):
        prior_fit.fit_prior([], np.zeros((4, 1)))


def test_the_fingerprint_names_every_number():
    arrays = fitted(16).to_arrays()
    fingerprints = {fitted(16).fingerprint()}
    for name, table in arrays.items():
        changed = table.copy()
        changed.reshape(-1)[-1] ^= 1
        other = {**arrays, name: changed}
        counts = other.pop("counts")
        fingerprints.add(SymbolPrior(counts, prior.ContextTables(**other)).fingerprint())
    assert len(fingerprints) == 6
    assert SymbolPrior(arrays["counts"]).fingerprint() not in fingerprints


def test_tables_come_back_from_arrays():
    tables = prior.from_arrays(fitted(16).to_arrays(), 4)
    assert tables.fingerprint() == fitted(16).fingerprint()
    assert tables.bits == 4
    counts_only = prior.from_arrays({"counts": fitted(16).counts}, 4)
    assert counts_only.context is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("counts", lambda table: table * 2, "counts of the prior are not positive numbers that add up to 65536"),
        ("counts", lambda table: table - table.min(), "counts of the prior"),
        ("counts", lambda table: table.astype(np.int64), "the tables counts of the prior are missing, unknown, or not"),
        ("codes", lambda table: table * 0, "codes of the prior are no permutation"),
        ("codes", lambda table: table + 1, "codes of the prior are no permutation"),
        ("pair", lambda table: table[:, :2], "the tables pair of the prior"),
        ("probabilities", lambda table: table * 0, "a probability of zero"),
        ("other", lambda _: np.zeros(3), "the tables other of the prior"),
        ("bias", lambda _: None, "the tables bias of the prior"),
    ],
)
def test_tables_that_cannot_be_coded_with_are_refused(name: str, change, message: str):
    arrays = fitted(16).to_arrays()
    changed = {**arrays, name: change(arrays.get(name))}
    with pytest.raises(ValueError, match=message):
        prior.from_arrays({key: value for key, value in changed.items() if value is not None}, 4)


def test_tables_of_other_symbols_are_refused():
    with pytest.raises(ValueError, match="or not those of symbols of 5 bits"):
        prior.from_arrays(fitted(16).to_arrays(), 5)


def test_extreme_tables_cannot_overflow():
    arrays = {name: table.copy() for name, table in fitted(16).to_arrays().items()}
    for name in ("bias", "pair"):
        arrays[name][:] = np.iinfo(np.int16).max
    tables = prior.from_arrays(arrays, 4).context
    assert tables is not None
    symbols = smooth_grid(9, 9, 16)
    data = prior.encode_context(tables, symbols)
    np.testing.assert_array_equal(prior.decode_context(tables, data, rows=9, columns=9), symbols)
