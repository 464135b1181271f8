"""Mode "predictive", and fitting its tables."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from cod_jax.coding.entropy import FactorizedModel, PredictiveModel, predictive, predictive_terms
from cod_jax.coding.entropy.predictive_fitting import fit_predictive
from cod_jax.coding.range_coder import TOTAL, RangeEncoder
from cod_jax.coding.symbols import LARGEST_SYMBOL
from cod_jax.errors import UserError
from tests.coding_fixtures import channel_tables, channels, related_channels
from tests.coding_fixtures import predictive as fitted

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (5, 8), (17, 33)]


def _comes_back(model: PredictiveModel, symbols: np.ndarray, level: int) -> int:
    """Check that symbols come back, and coded again give the same; return the length of their payload."""
    data = model.encode(symbols, level)
    rows, columns, _ = symbols.shape
    decoded, found, again = model.decode_and_encode(data, rows=rows, columns=columns)
    assert (decoded.dtype, found, again) == (np.int32, level, data)
    np.testing.assert_array_equal(decoded, symbols)
    return len(data)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", [0, 1])
def test_any_symbols_come_back_and_the_estimate_is_right(shape: tuple[int, int], level: int):
    uniform = np.random.default_rng(0).integers(-LARGEST_SYMBOL, LARGEST_SYMBOL + 1, (*shape, 6)).astype(np.int32)
    extremes = np.where(uniform > 0, LARGEST_SYMBOL, -LARGEST_SYMBOL).astype(np.int32)
    for symbols in (related_channels(*shape, 6, level, seed=50), uniform, extremes):
        num_bytes = _comes_back(fitted(), symbols, level)
        assert abs(num_bytes - fitted().estimated_bits(symbols, level) / 8) <= 0.01 * num_bytes + 2
    # Zeros at the end of a payload are cut off, and of these symbols it has nothing else.
    assert _comes_back(fitted(), np.zeros_like(uniform), level) == 1


@pytest.mark.parametrize("shape", [(5, 8), (17, 33)])
def test_costs_of_single_symbols_add_up_to_the_estimate(shape: tuple[int, int]):
    symbols = related_channels(*shape, 6, 1, seed=50) // 16
    costs = fitted().costs(symbols, 1)
    differences = (symbols - costs.base) * costs.sign
    assert np.abs(differences).max() <= predictive.MAX_DIFFERENCE
    bits = costs.table[costs.rows, differences + predictive.MAX_DIFFERENCE].astype(np.float64)
    assert bits.sum() == pytest.approx(fitted().estimated_bits(symbols, 1), rel=1e-5)


@pytest.mark.parametrize("num_channels", [1, 2, 30])
def test_any_number_of_channels_comes_back(num_channels: int):
    _comes_back(fitted(num_channels, 1), related_channels(7, 6, num_channels), 0)


def test_neighbours_and_channels_before_make_files_smaller():
    symbols = related_channels(40, 60, 6, level=1, seed=99)
    size = len(fitted().encode(symbols, 1))
    shares = [np.unique(channel, return_counts=True)[1] / channel.size for channel in symbols.reshape(-1, 6).T]
    independent = sum(-(share * np.log2(share)).sum() * 40 * 60 / 8 for share in shares)
    assert size < 0.85 * independent


def test_channels_are_in_groups_that_look_at_earlier_groups_only():
    assert predictive_terms.channel_groups(9) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 9)]
    groups = predictive_terms.channel_groups(400)
    assert [first for first, _ in groups] == [0, *[last for _, last in groups[:-1]]]
    assert groups[-1][1] == 400
    for first, last in predictive_terms.channel_groups(6):
        assert fitted().sources[first:last].max() < max(first, 1)


def test_a_symbol_never_depends_on_what_is_coded_later():
    symbols = related_channels(6, 7, 6, seed=3)
    all_known, model = predictive_terms.Known(symbols), fitted()
    known = predictive_terms.Known(np.zeros_like(symbols))
    for batch, of_all in zip(known.batches(), all_known.batches(), strict=True):
        sources = model.sources[batch.first : batch.last]
        for terms, expected in zip(known.terms(batch, sources), all_known.terms(of_all, sources), strict=True):
            np.testing.assert_array_equal(terms, expected)
        known.set(batch, all_known.at(of_all))
    np.testing.assert_array_equal(known.symbols(), symbols)


def test_large_batches_are_computed_in_parts_with_the_same_result(monkeypatch):
    symbols = related_channels(12, 20, 6, seed=4)
    data = fitted().encode(symbols, 0)
    monkeypatch.setattr(predictive_terms, "MAX_PART", 7)
    assert fitted().encode(symbols, 0) == data
    _comes_back(fitted(), symbols, 0)


def test_predictions_are_those_of_the_documented_sums():
    # In plain integers of Python, which do not overflow.
    model, symbols = fitted(), related_channels(3, 4, 6, level=1, seed=5).astype(object)
    batch = list(predictive_terms.Known(symbols.astype(np.int32)).batches())[-1]
    assert (batch.first, batch.last, batch.kind) == (4, 6, 3)
    # Of the last batch, edges in odd rows, the first is at (1, 0): above (0, 0), below (2, 0), right (1, 1), no left.
    channel, row, column = 4, 1, 0
    around = [symbols[0, 0], symbols[2, 0], np.zeros(6, object), symbols[1, 1]]
    sources = [symbols[row, column, source] if source >= 0 else 0 for source in model.sources[channel]]
    pairs = [around[0][channel] + around[1][channel], around[2][channel] + around[3][channel]]
    magnitudes = [abs(around[0][channel]) + abs(around[1][channel]), abs(around[2][channel]) + abs(around[3][channel])]
    energy = [sum(min(abs(value), 3) for value in symbols[y, x, :4]) for y, x in np.ndindex(3, 4)]
    energies = [
        sum(min(abs(neighbour[each]), 3) for neighbour in around for each in (4, 5)),
        energy[4 * row + column],
        sum(energy[4 * y + x] for y in (0, 1, 2) for x in (0, 1)),
    ]
    spread_terms = [1, *magnitudes, *map(abs, sources), *energies]
    value = sum(int(w) * t for w, t in zip(model.mean_weights[1, 3, channel], [*pairs, *sources], strict=True))
    spread = sum(int(w) * t for w, t in zip(model.spread_weights[1, 3, channel], spread_terms, strict=True))
    known = predictive_terms.Known(symbols.astype(np.int32))
    # After the last batch the energies would be those of all groups.
    at = next(at for at in known.batches() if (at.first, at.kind) == (4, 3) and at.place[0] == 5 * row)
    weights = model.mean_weights[1, 3, 4:6], model.spread_weights[1, 3, 4:6]
    values, spreads = predictive_terms.weighted(*weights, known.terms(at, model.sources[4:6]))
    coded = predictive.coded_by(values, predictive.places(model.spread_limits, spreads))
    assert (values[0, 0], spreads[0, 0]) == (value, spread)
    eighths = (value + 256) // 512
    base = (eighths + 4) // 8
    assert (coded.base[0], coded.mirrored[0]) == (base, eighths < 8 * base)
    assert coded.rows[0] == 5 * sum(limit <= spread for limit in model.spread_limits) + abs(eighths - 8 * base)


@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_tables_cannot_overflow(sign: int):
    symbols = np.full((9, 9, 6), sign * LARGEST_SYMBOL, np.int32)
    extreme = dataclasses.replace(
        fitted(),
        mean_weights=np.full_like(fitted().mean_weights, np.iinfo(np.int16).max),
        spread_weights=np.full_like(fitted().spread_weights, np.iinfo(np.int32).max),
    )
    for model in (extreme, dataclasses.replace(extreme, mean_weights=-extreme.mean_weights)):
        _comes_back(model, symbols, 0)
    # The largest sums of as many channels as a folder may name are numbers that float64 holds.
    num_channels = 2**16
    largest = 2**31 * (1 + 4 * LARGEST_SYMBOL + 8 * LARGEST_SYMBOL + 3 * (4 * 64 + 10 * num_channels))
    assert largest < 2**53


@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_are_exact_with_the_largest_numbers(sign: int):
    # Odd ones, whose sum has all its digits.
    generator, num = np.random.default_rng(0), 50
    mean = generator.choice([-(2**15) + 1, 2**15 - 1], (3, 10)).astype(np.int16)
    spread = generator.integers(2**31 - 99, 2**31, (3, 14)).astype(np.int32)
    largest = {"pairs": 2, "magnitudes": 2, "sources": 8}
    arrays = {name: generator.integers(2**16 - 99, 2**16, (3, terms, num)) for name, terms in largest.items()}
    energies = sign * generator.integers(2**18, 2**19, (3, num))
    terms = predictive_terms.Terms(*(array.astype(float) for array in (*arrays.values(), energies)))
    value, width = predictive_terms.weighted(mean, spread, terms)
    ones = np.ones((3, 1, num), np.int64)
    of_value = np.concatenate([arrays["pairs"], arrays["sources"]], axis=1)
    shared = np.broadcast_to(energies, (3, 3, num))
    of_width = np.concatenate([ones, arrays["magnitudes"], arrays["sources"], shared], axis=1)
    np.testing.assert_array_equal(value, (mean[..., None].astype(np.int64) * of_value).sum(axis=1))
    np.testing.assert_array_equal(width, (spread[..., None].astype(np.int64) * of_width).sum(axis=1))


def _changed(**changes: Any) -> dict[str, np.ndarray]:
    tables = {name: table.copy() for name, table in fitted().arrays().items()}
    for name, change in changes.items():
        tables[name] = change(tables[name])
    return tables


def _with(place: tuple[int, ...], value: int) -> Any:
    def change(table: np.ndarray) -> np.ndarray:
        table[place] = value
        return table

    return change


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (_changed(sources=lambda table: table[:5]), "the tables sources are missing, or not those of symbols -32767"),
        (_changed(mean_weights=lambda table: table.astype(np.int32)), "the tables mean_weights are missing"),
        (_changed(spread_limits=lambda table: table[:0]), "the tables spread_limits are missing"),
        (_changed(sources=_with((0, 0), 0)), "the prior looks at channels that are not known yet"),
        (_changed(sources=_with((3, 1), 3)), "the prior looks at channels that are not known yet"),
        (_changed(sources=_with((5, 0), 4)), "the prior looks at channels that are not known yet"),
        (_changed(sources=_with((5, 0), -2)), "the prior looks at channels that are not known yet"),
        (_changed(spread_weights=_with((1, 2, 3, 4), -1)), "a negative spread or a probability of zero"),
        (_changed(outcomes=_with((47, 4, 15), 0)), "a negative spread or a probability of zero"),
        (_changed(spread_limits=_with((20,), 0)), "expected the spread limits of the prior to increase"),
    ],
)
def test_damaged_tables_are_refused(tables: dict[str, np.ndarray], message: str):
    with pytest.raises(UserError, match=message):
        PredictiveModel.from_tables(channels(6, 2), tables)


def test_tables_for_other_symbols_are_not_taken():
    assert PredictiveModel.from_tables(channels(5, 2), FactorizedModel((channel_tables(),) * 2).arrays()) is None
    with pytest.raises(UserError, match="are missing, or not those of symbols -32767 to 32767 of 1 levels"):
        PredictiveModel.from_tables(channels(6, 1), fitted().arrays())
    with pytest.raises(UserError, match="expected symbols of 6 channels, got 5"):
        fitted().encode(np.zeros((2, 2, 5), np.int32), 0)


def test_damaged_payloads_are_decoded_to_symbols_in_range_or_refused():
    generator = np.random.default_rng(4)
    intact = fitted().encode(related_channels(3, 4, 6, level=1, seed=8), 1)
    num_refused = num_changed = 0
    for number in range(80):
        if number % 2:
            data = bytes([1]) + generator.bytes(int(generator.integers(0, 60)))
        else:
            place = int(generator.integers(1, len(intact)))
            data = intact[:place] + generator.bytes(1) + intact[place + 1 :] + bytes(number % 3)
        try:
            decoded, level, again = fitted().decode_and_encode(data, rows=3, columns=4)
        except UserError:
            num_refused += 1
        else:
            assert (decoded.shape, level) == ((3, 4, 6), 1)
            assert np.abs(decoded).max() <= LARGEST_SYMBOL
            # What was coded while reading is what the symbols are coded to, also where that is not the payload.
            assert again == fitted().encode(decoded, level)
            num_changed += again != data
    assert num_refused < 60
    assert num_changed > 30
    for data in (b"", b"\2"):
        with pytest.raises(UserError, match="names a quality level that its model does not have"):
            fitted().decode(data, rows=3, columns=4)


def test_a_difference_that_no_symbol_has_is_refused():
    # Every bit is a one, down to the last of the excess.
    tables = dataclasses.replace(fitted(1, 1), outcomes=np.full_like(fitted(1, 1).outcomes, TOTAL - 1))
    encoder = RangeEncoder()
    encoder.encode_bits(np.ones(16, np.int32), np.full(16, TOTAL - 1))
    encoder.encode_bits(np.ones(36, np.int32), np.full(36, TOTAL // 2))
    with pytest.raises(UserError, match="the coded symbols are damaged; get the file again"):
        tables.decode(encoder.finish(), rows=1, columns=1)


@pytest.mark.parametrize("likeliest", ["zeros", "others"])
def test_the_least_bytes_are_below_the_likeliest_payload(likeliest: str):
    ones = 60 if likeliest == "zeros" else TOTAL - 60
    model = dataclasses.replace(fitted(6, 1), outcomes=np.full_like(fitted(6, 1).outcomes, ones))
    symbols = np.zeros((200, 200, 6), np.int32)
    least = model.least_bytes(rows=200, columns=200)
    assert least == 200 * 200 * 6 * 60 // (8 * TOTAL)
    if likeliest == "zeros":
        assert least <= model.estimated_bits(symbols, 0) / 8
    assert model.least_bytes(rows=20, columns=20) == 0


def test_a_level_without_symbols_cannot_be_fitted():
    grids = [related_channels(8, 8, 2)]
    with pytest.raises(UserError, match="there are no symbols of quality 2 to fit a prior to; give more pictures"):
        fit_predictive(grids, [0], channels(2, 2))


def test_tables_fitted_to_few_or_even_symbols_code_all_others():
    model = fit_predictive([np.zeros((2, 3, 3), np.int32)], [0], channels(3))
    for symbols in (np.zeros((5, 5, 3), np.int32), related_channels(5, 5, 3), np.full((5, 5, 3), 9000, np.int32)):
        _comes_back(model, symbols, 0)
