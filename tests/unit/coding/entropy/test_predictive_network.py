"""The networks of mode "predictive"."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from cod_jax.coding.entropy import PredictiveModel, predictive
from cod_jax.coding.entropy.predictive_network import Network, network_layout, signed_logs
from cod_jax.coding.entropy.predictive_terms import Known, weighted
from cod_jax.coding.symbols import LARGEST_SYMBOL
from cod_jax.errors import UserError
from tests.coding_fixtures import channels, random_network, related_channels
from tests.coding_fixtures import predictive as fitted


def _model(num_channels: int = 6) -> PredictiveModel:
    return dataclasses.replace(fitted(num_channels), network=random_network(num_channels, 2))


def _comes_back(model: PredictiveModel, symbols: np.ndarray, level: int) -> bytes:
    data = model.encode(symbols, level)
    decoded, found, again = model.decode_and_encode(data, rows=symbols.shape[0], columns=symbols.shape[1])
    assert (found, again) == (level, data)
    np.testing.assert_array_equal(decoded, symbols)
    return data


def test_logarithms_are_rounded_right():
    eighths = np.arange(-3000, 3000)
    expected = [round(12 * math.log2(1 + min(abs(n), 2047) / 8)) * np.sign(n) for n in eighths]
    np.testing.assert_array_equal(signed_logs(eighths.astype(float)), expected)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (17, 12)])
def test_any_symbols_come_back(shape: tuple[int, int]):
    uniform = np.random.default_rng(0).integers(-LARGEST_SYMBOL, LARGEST_SYMBOL + 1, (*shape, 6)).astype(np.int32)
    for symbols in (related_channels(*shape, 6, 1, seed=50), uniform):
        data = _comes_back(_model(), symbols, 1)
        assert abs(len(data) - _model().estimated_bits(symbols, 1) / 8) <= 0.01 * len(data) + 2
        assert data != fitted().encode(symbols, 1)


def _log(eighths: int) -> int:
    return int(np.sign(eighths)) * round(12 * math.log2(1 + min(abs(eighths), 2047) / 8))


def test_predictions_are_those_of_the_documented_sums():
    # In plain integers of Python, which do not overflow. Of channels 4 and 5 in odd rows the first place is (1, 0).
    model, symbols = _model(), related_channels(3, 4, 6, level=1, seed=5)
    network, (number, group) = model.network, (4, (4, 5))
    assert network is not None
    known = Known(symbols)
    batch = next(each for each in known.batches() if (each.first, each.kind, each.place[0]) == (4, 3, 5))
    weights = model.mean_weights[1, 3, 4:6], model.spread_weights[1, 3, 4:6]
    value, spread = weighted(*weights, known.terms(batch, model.sources[4:6]))
    eighths = predictive.eighths(value)[:, 0].astype(int)
    classes = predictive.places(model.spread_limits, spread)[:, 0].astype(int)

    inputs = []
    for first, last in [(0, 1), (1, 2), (2, 3), (3, 4)]:
        logs = np.array([[[_log(8 * int(s)) for s in c] for c in row] for row in symbols[..., first:last]])
        inputs += [*logs[1, 0], *abs(logs[1, 0]), *(abs(logs[0, 0]) + abs(logs[2, 0]) + abs(logs[1, 1]))]
    above, below, right = symbols[0, 0], symbols[2, 0], symbols[1, 1]
    inputs += [*classes, *map(_log, eighths)]
    inputs += [_log(8 * int(s)) for c in group for s in (above[c] + below[c], right[c])]
    inputs += [_log(8 * int(s)) for c in group for s in (abs(above[c]) + abs(below[c]), abs(right[c]))]
    rows = network.network_in[sum(3 * f + 6 for f in range(4)) :][: len(inputs)].astype(object)
    h1 = np.array(inputs, object) @ rows + network.network_levels[1, number] + network.network_kinds[3, number]
    h1 = np.array([min(max(x // 2**4, 0), 2**20) for x in h1], object)
    h2 = network.network_hidden[number].astype(object) @ h1 + network.network_hidden_bias[number]
    h2 = np.array([min(max(x // 2**12, 0), 2**20) for x in h2], object)
    found = next(
        coded for each, coded in model.predictions(Known(symbols), 1) if each.first == 4 and each.place[0] == 5
    )
    num = batch.place.size
    for channel in (0, 1):
        out = network.network_out[4 + channel].astype(object) @ h2 + network.network_out_bias[4 + channel]
        move = min(max(out[0] // 2**10, -(2**20)), 2**20) * min(int(spread[channel, 0]) + 205, 4096) // 2**12
        moved = (int(value[channel, 0]) + move + 256) // 512
        base = (moved + 4) // 8
        row = min(max(int(classes[channel]) + (out[1] + 2**21) // 2**22, 0), 47)
        assert found.base[channel * num] == base
        assert found.rows[channel * num] == 5 * row + abs(moved - 8 * base)


@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_weights_cannot_overflow(sign: int):
    symbols = np.full((5, 5, 6), sign * LARGEST_SYMBOL, np.int32)
    extreme = {
        name: np.full_like(table, np.iinfo(table.dtype).max if number % 2 else np.iinfo(table.dtype).min)
        for number, (name, table) in enumerate(vars(random_network(6, 2)).items())
    }
    _comes_back(dataclasses.replace(fitted(), network=Network(**extreme)), symbols, 0)
    # The largest sums: of the inputs of as many channels as a folder may name, and of two layers.
    assert 2**15 * (3 * 2**16 * 4 * 96 + 6 * 64 * 524272) < 2**53
    assert 64 * 2**20 * 2**15 + 2**31 < 2**53


def test_threads_of_other_work_stay_as_they_are():
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

    before = threads()
    _model().encode(related_channels(4, 4, 6), 0)
    assert threads() == before


def _changed(name: str, change: Any) -> dict[str, np.ndarray]:
    return {**_model().arrays(), name: change(_model().arrays()[name])}


@pytest.mark.parametrize(
    "tables",
    [
        {name: table for name, table in _model().arrays().items() if name != "network_out"},
        _changed("network_in", lambda table: table[:-1]),
        _changed("network_hidden", lambda table: table.astype(np.int32)),
    ],
)
def test_damaged_networks_are_refused(tables: dict[str, np.ndarray]):
    with pytest.raises(UserError, match=r"the tables network_[a-z]+ are missing, or not those of"):
        PredictiveModel.from_tables(channels(6, 2), tables)


def test_tables_are_those_of_the_layout():
    tables = _model().arrays()
    layout = network_layout(channels(6, 2))
    assert {name: (tables[name].shape, tables[name].dtype.type) for name in layout} == layout
    assert set(PredictiveModel.largest_tables(channels(6, 2))) == set(tables)
    again = PredictiveModel.from_tables(channels(6, 2), tables)
    assert again is not None
    symbols = related_channels(5, 6, 6)
    assert again.encode(symbols, 1) == _model().encode(symbols, 1)
