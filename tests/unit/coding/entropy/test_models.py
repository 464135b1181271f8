"""Which entropy models a prior offers, and those of other packages."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cod_jax.coding import container
from cod_jax.coding.entropy import (
    ENTROPY_MODELS,
    EntropyModel,
    FactorizedModel,
    FixedLengthModel,
    Prior,
    SymbolFormat,
    Tables,
    entropy_models,
)
from cod_jax.coding.stream import CodedPicture, SymbolCoder
from cod_jax.errors import UserError
from tests.coding_fixtures import (
    channel_tables,
    channels,
    codebook,
    counts_only,
    fitted,
    predictive,
    related_channels,
    smooth_grid,
)

FACTORIZED = Prior.of(FactorizedModel((channel_tables(), channel_tables())))


class Reversed(EntropyModel):
    """An entropy model of another package: eight bits a symbol and a byte for the level, from back to front."""

    def __init__(self, num_channels: int):
        self.num_channels = num_channels

    @classmethod
    def from_tables(cls, symbols: SymbolFormat, tables: Tables) -> "Reversed | None":
        return cls(int(tables["channels"][0])) if "channels" in tables else None

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"channels": np.array([self.num_channels], np.int32)}

    def encode(self, symbols: npt.NDArray[np.int32], level: int) -> bytes:
        return bytes([level]) + symbols.astype(np.int8).tobytes()[::-1]

    def decode(self, data: bytes, *, rows: int, columns: int) -> tuple[npt.NDArray[np.int32], int]:
        if len(data) < 1 + rows * columns * self.num_channels:
            raise UserError("the payload is cut off")
        numbers = np.frombuffer(data[:0:-1], np.int8)[: rows * columns * self.num_channels]
        return numbers.astype(np.int32).reshape(rows, columns, self.num_channels), data[0]


@pytest.mark.parametrize(
    ("symbols", "prior", "modes"),
    [
        (codebook(4), None, ["raw"]),
        (codebook(4), counts_only(16), ["raw", "static"]),
        (codebook(4), fitted(16), ["raw", "static", "context"]),
        (channels(5, 2), FACTORIZED, ["factorized"]),
        (channels(6, 2), Prior.of(predictive()), ["predictive"]),
        (channels(5, 2), Prior({**FACTORIZED.tables, **predictive(5).arrays()}), ["factorized", "predictive"]),
        (channels(3, 2), Prior.of(Reversed(3)), ["custom"]),
        (codebook(4), Prior.of(Reversed(1)), ["raw", "custom"]),
    ],
)
def test_a_prior_offers_its_modes_and_comes_back(symbols: SymbolFormat, prior: Prior | None, modes: list[str]):
    models = entropy_models(symbols, prior)
    assert [model.mode for model in models] == modes
    again = Prior.of(*models)
    assert (again.fingerprint(), again.kind) == ((prior or Prior({})).fingerprint(), prior.kind if prior else "")


def test_the_modes_stand_in_files_in_the_order_of_the_models():
    # Those of other packages, and mode "diffc", which codes no symbols by tables.
    others = (EntropyModel.mode, "diffc")
    assert [mode for mode in container.MODES if mode not in others] == [model.mode for model in ENTROPY_MODELS]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("counts", lambda table: table * 2, "expected the counts of the prior to be positive numbers that add up to"),
        ("counts", lambda table: table - table.min(), "expected the counts of the prior"),
        ("counts", lambda table: table.astype(np.int64), "the tables counts are missing, or not those of symbols of 4"),
        ("codes", lambda table: table * 0, "expected the codes of the prior to be a permutation"),
        ("codes", lambda table: table + 1, "expected the codes of the prior to be a permutation"),
        ("pair", lambda table: table[:, :2], "the tables pair are missing"),
        ("probabilities", lambda table: table * 0, "a probability of zero"),
        ("other", lambda _: np.zeros(3, np.int32), "the tables other are unknown, or not those of symbols of 4 bits"),
        ("bias", lambda _: None, "the tables bias are missing"),
    ],
)
def test_tables_that_cannot_be_coded_with_are_refused(name: str, change: Any, message: str):
    tables = dict(fitted(16).tables)
    changed = {**tables, name: change(tables.get(name))}
    with pytest.raises(UserError, match=message):
        entropy_models(codebook(4), Prior({key: value for key, value in changed.items() if value is not None}))


@pytest.mark.parametrize(
    ("symbols", "prior", "message"),
    [
        (codebook(5), fitted(16), "the tables counts are missing, or not those of symbols of 5 bits"),
        (channels(5, 2), None, "no tables code the symbols -32767 to 32767 of 2 levels and 5 channels; load the model"),
        (channels(5, 2), fitted(16), "the tables bias, codes, counts, pair, probabilities are unknown, or not those"),
        (channels(5, 1), FACTORIZED, r"expected tables of \(levels, channels\) \(1, 5\) for the .*, got \(2, 5\)"),
        (channels(4, 2), FACTORIZED, r"expected tables of \(levels, channels\) \(2, 4\) for the .*, got \(2, 5\)"),
        (codebook(4), FACTORIZED, "the tables counts are missing, or not those of symbols of 4 bits"),
        (SymbolFormat(1, 0, 9), counts_only(16), "the tables counts are unknown"),
        (codebook(4), Prior.of(predictive()), "the tables mean_weights, .* are unknown, or not those of symbols of 4"),
        (codebook(4), Prior({}, "no_such_package.models:Mine"), "the model needs no_such_package.models:Mine; install"),
        (
            codebook(4),
            Prior({}, f"{__name__}:SymbolFormat"),
            "to be a subclass of cod_jax.coding.entropy.model",
        ),
    ],
)
def test_a_prior_of_another_model_is_refused(symbols: SymbolFormat, prior: Prior | None, message: str):
    with pytest.raises(UserError, match=message):
        entropy_models(symbols, prior)


@pytest.mark.parametrize("name", ["offsets", "lengths", "counts"])
@pytest.mark.parametrize(
    "change", [lambda table: table[0], lambda table: table[:0], lambda table: table.astype(np.int16)]
)
def test_channel_tables_of_another_form_are_refused(name: str, change: Any):
    tables = {**FACTORIZED.tables, name: change(FACTORIZED.tables[name])}
    with pytest.raises(UserError, match=r"expected the tables offsets and lengths|expected int32 tables"):
        entropy_models(channels(5, 2), Prior(tables))


def test_the_fingerprint_names_every_number_and_the_kind():
    prior = fitted(16)
    fingerprints = {prior.fingerprint(), counts_only(16).fingerprint()}
    for name, table in prior.tables.items():
        changed = table.copy()
        changed.reshape(-1)[-1] ^= 1
        fingerprints.add(Prior({**prior.tables, name: changed}).fingerprint())
    fingerprints |= {Prior(prior.tables, kind).fingerprint() for kind in ("a.b:C", "a.b:D")}
    assert len(fingerprints) == 2 + 5 + 2


def test_a_model_of_another_package_codes_pictures():
    symbols = channels(3, 2)
    coder = SymbolCoder("ab" * 32, 16, symbols, Prior.of(Reversed(3)))
    grid = np.random.default_rng(0).integers(-100, 100, (2, 5, 3)).astype(np.int32)
    data = coder.encode(grid, height=20, width=80, level=1)
    file = container.read(data)
    assert (file.mode, file.model) == ("custom", coder.fingerprint[:8])
    picture = coder.decode(data, max_pixels=2**20)
    assert picture.level == 1
    np.testing.assert_array_equal(picture.symbols, grid)
    # What it decodes is checked as of any other: the level, the symbols, and that this is their only payload.
    for payload in (b"\2" + file.payload[1:], file.payload + b"\0"):
        damaged = container.write(container.Container(20, 80, "custom", file.model, payload))
        with pytest.raises(UserError, match="no encoder makes such a payload of"):
            coder.decode(damaged, max_pixels=2**20)
    codes = SymbolCoder("ab" * 32, 16, codebook(4), Prior.of(Reversed(1)))
    longer = container.Container(128, 128, "custom", codes.fingerprint[:8], b"\0" * 65)
    with pytest.raises(UserError, match="no encoder makes such a payload of 65 bytes"):
        codes.decode(container.write(longer), max_pixels=2**20)
    assert container.read(codes.encode(smooth_grid(8, 8, 16), height=128, width=128)).mode == "raw"


def test_what_an_entropy_model_does_not_say_follows_from_its_payloads():
    symbols = np.zeros((2, 3, 1), np.int32)
    assert Reversed(1).estimated_bits(symbols, level=0) == 8 * 7
    assert Reversed(1).payload_bytes(rows=2, columns=3) is None
    assert FixedLengthModel(4).arrays() == {}
    coder = SymbolCoder("ab" * 32, 16, channels(3, 2), Prior.of(Reversed(3)))
    picture = CodedPicture(16, 16, np.zeros((1, 1, 3), np.int32), covers_all=True, mode="custom")
    with pytest.raises(UserError, match=r"Reversed does not tell the bits of a symbol; define Reversed.symbol_bits"):
        coder.symbol_bits(picture)


@pytest.mark.parametrize(
    ("model", "symbols"),
    [
        (entropy_models(codebook(4), fitted(16))[-1], smooth_grid(9, 7, 16)),
        (predictive(), related_channels(9, 7, 6)),
    ],
    ids=["context", "predictive"],
)
def test_the_last_symbol_changes_its_own_bits_only(model: EntropyModel, symbols: npt.NDArray[np.int32]):
    # Of the last batch, and in the last group of channels: nothing is coded by what it is.
    last = (1, 0, -1)
    changed = symbols.copy()
    changed[last] = 15 - changed[last]
    before, after = model.symbol_bits(symbols, 0), model.symbol_bits(changed, 0)
    assert before is not None
    assert after is not None
    differs = before != after
    assert differs[last]
    assert differs.sum() == 1
    difference = (len(model.encode(changed, 0)) - len(model.encode(symbols, 0))) * 8
    assert abs(after.sum() - before.sum() - difference) <= 16
