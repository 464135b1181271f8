"""Modes "static" and "context", and fitting their tables."""

import numpy as np
import pytest

from cod_jax.coding.entropy import EntropyModel, Prior, context, entropy_models
from cod_jax.coding.entropy.fitting import fit_prior
from cod_jax.coding.range_coder import TOTAL
from tests.coding_fixtures import codebook, fitted, smooth_grid


def models(size: int) -> dict[str, EntropyModel]:
    """Return the entropy models of a codebook with its prior, by mode."""
    return {model.mode: model for model in entropy_models(codebook(size.bit_length() - 1), fitted(size))}


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
    rows, columns = shape
    uniform = np.random.default_rng(size).integers(0, size, (*shape, 1)).astype(np.int32)
    for symbols in (
        uniform,
        smooth_grid(rows, columns, size),
        np.zeros((*shape, 1), np.int32),
        np.full((*shape, 1), size - 1, np.int32),
    ):
        for model in models(size).values():
            decoded, level = model.decode(model.encode(symbols, level=0), rows=rows, columns=columns)
            assert (decoded.dtype, level) == (np.int32, 0)
            np.testing.assert_array_equal(decoded, symbols)


def test_neighbours_make_smaller_files_and_the_estimate_is_right():
    symbols = smooth_grid(40, 60, 16)
    sizes = {mode: len(model.encode(symbols, level=0)) for mode, model in models(16).items()}
    for mode, model in models(16).items():
        assert abs(sizes[mode] - model.estimated_bits(symbols, level=0) / 8) < 0.01 * sizes[mode] + 2
    assert sizes["raw"] == models(16)["raw"].payload_bytes(rows=40, columns=60) == symbols.size * 4 / 8
    assert sizes["context"] < 0.75 * sizes["static"] < 0.75 * sizes["raw"]


def test_similar_symbols_share_the_beginning_of_their_codes():
    codes = fitted(16).tables["codes"]
    codes = codes if codes[0] < 8 else 15 - codes
    # On a line, halves of halves are in order; each half may be turned around.
    assert (np.sort(codes[:8]) == np.arange(8)).all()


def test_counts_are_frequencies_of_at_least_one():
    grids = [np.array([[0, 0, 0, 1]], np.int32)[..., None]]
    counts = fit_prior(grids, np.zeros((4, 1))).tables["counts"]
    assert counts.sum() == TOTAL
    assert counts.min() >= 1
    np.testing.assert_allclose(counts / TOTAL, np.array([3.5, 1.5, 0.5, 0.5]) / 6, atol=1e-4)


def test_a_codebook_of_16_bits_has_counts_only():
    prior = fit_prior([np.array([[[5], [7]]], np.int32)], np.zeros((2**16, 1)))
    assert prior.tables.keys() == {"counts"}
    assert (prior.tables["counts"] == 1).all()
    _, static = entropy_models(codebook(16), prior)
    symbols = np.array([[65535, 0, 7]], np.int32)[..., None]
    decoded, _ = static.decode(static.encode(symbols, level=0), rows=1, columns=3)
    np.testing.assert_array_equal(decoded, symbols)


def test_without_symbols_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="no symbols to fit a prior to"):
        fit_prior([], np.zeros((4, 1)))


def test_extreme_tables_cannot_overflow():
    tables = {name: table.copy() for name, table in fitted(16).tables.items()}
    for name in ("bias", "pair"):
        tables[name][:] = np.iinfo(np.int16).max
    model = entropy_models(codebook(4), Prior(tables))[-1]
    symbols = smooth_grid(9, 9, 16)
    decoded, _ = model.decode(model.encode(symbols, level=0), rows=9, columns=9)
    np.testing.assert_array_equal(decoded, symbols)
