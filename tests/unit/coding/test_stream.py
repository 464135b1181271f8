"""Files of symbols: modes, models, damage, and files of earlier versions."""

import dataclasses
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cod_jax import images
from cod_jax.coding import bits as bit_packing
from cod_jax.coding import container, legacy, stream
from cod_jax.coding.entropy import ChannelTables, FactorizedModel, Prior
from cod_jax.coding.fingerprints import OtherModelError
from cod_jax.coding.range_coder import TOTAL, least_bytes
from cod_jax.coding.sizes import ceil_grid
from cod_jax.coding.stream import SymbolCoder
from tests.coding_fixtures import channel_tables, channels, codebook, counts_only, fitted, predictive, smooth_grid
from tests.golden.folder import FOLDER, PICTURE, golden_channel_coder, golden_coder, symbols_hash
from tests.model_fixtures import tiny_codec

GOLDEN: dict[str, Any] = json.loads((FOLDER / "files.json").read_text())
# One of each mode; with networks, mode predictive takes longer.
OF_EACH_MODE = sorted(name for name, facts in GOLDEN.items() if facts["layout"] == "cod" and name != "networks")
MAX_PIXELS = 2**24
CHANGES = (1, 2, 4, 8, 16, 32, 64, 128, 0x5A, 0xFF)
BITS = codebook(4)
CODER = SymbolCoder("ab" * 32, 16, BITS, fitted(16))


def _decode(data: bytes, coder: SymbolCoder = CODER, **options: Any) -> stream.CodedPicture:
    return coder.decode(data, **{"max_pixels": MAX_PIXELS, **options})


def _decode_or_none(file: container.Container, coder: SymbolCoder) -> stream.CodedPicture | None:
    try:
        return _decode(container.write(file), coder)
    except ValueError:
        return None


def _encode(symbols: np.ndarray, coder: SymbolCoder = CODER, **options: Any) -> bytes:
    rows, columns = symbols.shape[:2]
    size = {"height": rows * coder.pitch, "width": columns * coder.pitch}
    return coder.encode(symbols, **{**size, **options})


def _golden_coder(name: str) -> SymbolCoder:
    return golden_channel_coder(name) if name in ("factorized", "predictive", "networks") else golden_coder()


@pytest.mark.parametrize("name", GOLDEN)
def test_files_of_earlier_versions_stay_readable(name: str):
    facts = GOLDEN[name]
    data = (FOLDER / f"{name}.cod").read_bytes()
    picture = _decode(data, _golden_coder(name), layout=facts["layout"])
    assert (picture.height, picture.width, picture.covers_all) == (facts["height"], facts["width"], True)
    assert picture.level == facts.get("level", 0)
    assert symbols_hash(picture.symbols) == facts["symbols"]
    # The same symbols give the same bytes: those of the picture come from a folder without a prior.
    writer = SymbolCoder("0" * 64, 16, BITS) if name == PICTURE else _golden_coder(name)
    size = {"height": facts["height"], "width": facts["width"], "level": picture.level}
    assert writer.encode(picture.symbols, layout=facts["layout"], **size) == data


# Of the wide file nothing is left, because zeros at the end of a payload are cut off.
@pytest.mark.parametrize("name", sorted({"raw", "static", "context", "factorized", "predictive", PICTURE}))
def test_the_bits_of_files_are_those_that_the_tables_predict(name: str):
    data, coder = (FOLDER / f"{name}.cod").read_bytes(), _golden_coder(name)
    file, picture = container.read(data), _decode(data, coder)
    assert picture.mode == file.mode
    bits = coder.symbol_bits(picture)
    assert bits.shape == picture.symbols.shape
    assert (bits > 0).all()
    named = 1 if file.mode in ("factorized", "predictive") else 0  # the byte that names the level
    assert abs(len(file.payload) - named - bits.sum() / 8) <= 2


def test_a_picture_of_an_earlier_version_looks_the_same():
    decoded = tiny_codec().decompress((FOLDER / f"{PICTURE}.cod").read_bytes())
    expected = images.to_uint8_rgb(FOLDER / f"{PICTURE}.png")
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", OF_EACH_MODE)
def test_a_change_of_any_byte_is_refused(name: str):
    data = (FOLDER / f"{name}.cod").read_bytes()
    for place in range(len(data)):
        for change in CHANGES:
            with pytest.raises(ValueError, match=r"\w"):
                _decode(data[:place] + bytes([data[place] ^ change]) + data[place + 1 :], _golden_coder(name))


@pytest.mark.parametrize("layout", ["legacy-lite", "legacy-cod"])
def test_a_change_of_any_byte_of_a_published_layout_is_refused_or_another_picture(layout: stream.Layout):
    # Without a checksum a change cannot always be seen, but no bit is passed over.
    data = (FOLDER / f"{layout}.cod").read_bytes()
    num_refused = 0
    for place in range(len(data)):
        for change in CHANGES:
            changed = data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
            try:
                picture = _decode(changed, golden_coder(), layout=layout)
            except ValueError:
                num_refused += 1
                continue
            if picture.covers_all:
                size = {"height": picture.height, "width": picture.width}
                assert _encode(picture.symbols, golden_coder(), layout=layout, **size) == changed
            else:
                assert bit_packing.pack(picture.symbols, 4) == changed[legacy.HEADER_BYTES :]
    assert num_refused >= 30  # of the 40 changes of the sides


@pytest.mark.parametrize("name", OF_EACH_MODE)
def test_changed_payloads_with_a_right_checksum_are_refused_or_other_symbols(name: str):
    # Nobody but an attacker writes these: no crash, symbols that the model has, and the only payload for them.
    coder = _golden_coder(name)
    file = container.read((FOLDER / f"{name}.cod").read_bytes())
    changed = bytearray(file.payload)
    original = _decode(container.write(file), coder)
    seen = {f"{original.level} {symbols_hash(original.symbols)}"}
    # A payload of mode predictive takes much longer to read.
    for place in range(0, len(changed), 4 if name == "predictive" else 1):
        for change in (1, 0x5A, 0x80):
            changed[place] ^= change
            picture = _decode_or_none(dataclasses.replace(file, payload=bytes(changed)), coder)
            changed[place] ^= change
            if picture is None:
                continue
            assert coder.symbols.first <= picture.symbols.min() <= picture.symbols.max() <= coder.symbols.last
            symbols = f"{picture.level} {symbols_hash(picture.symbols)}"
            assert symbols not in seen
            seen.add(symbols)


@pytest.mark.parametrize("name", ["raw", "static", "context", "wide", "factorized", "predictive"])
@pytest.mark.parametrize("end", [b"\0", b"\0" * 200 + b"\1"], ids=["zero", "far"])
def test_bytes_that_no_symbol_needs_are_refused(name: str, end: bytes):
    # A decoder stops after the last symbol and would not see them.
    file = container.read((FOLDER / f"{name}.cod").read_bytes())
    longer = container.write(dataclasses.replace(file, payload=file.payload + end))
    message = "expected .* bytes for .* symbols of 4 bits" if name == "raw" else "no encoder makes such a payload of"
    with pytest.raises(ValueError, match=message):
        _decode(longer, _golden_coder(name))


def test_a_level_alone_may_be_the_payload():
    tables = ChannelTables(np.zeros(1, np.int32), np.full(1, 2, np.int32), np.array([[65535, 1]], np.int32))
    some = SymbolCoder("ab" * 32, 16, channels(1, 2), Prior.of(FactorizedModel((tables, tables))))
    data = _encode(np.zeros((1, 1, 1), np.int32), some)
    assert container.read(data).payload == b"\0"
    assert _decode(data, some).level == 0


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    pitch=st.sampled_from([4, 8, 16, 32]),
    has_prior=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(derandomize=True, deadline=None, database=None, max_examples=60)
def test_symbols_of_any_size_come_back(height: int, width: int, pitch: int, has_prior: bool, seed: int):
    some = SymbolCoder("cd" * 32, pitch, BITS, fitted(16) if has_prior else None)
    grid = ceil_grid(height=height, width=width, pitch=pitch)
    uniform = np.random.default_rng(seed).integers(0, 16, (*grid, 1)).astype(np.int32)
    indices = uniform if seed % 2 else smooth_grid(*grid, 16, seed)
    data = some.encode(indices, height=height, width=width)
    picture = _decode(data, some)
    assert (picture.height, picture.width, picture.covers_all) == (height, width, True)
    np.testing.assert_array_equal(picture.symbols, indices)
    assert len(data) <= 12 + bit_packing.packed_size(indices.size, 4)


def test_the_smallest_mode_is_taken():
    uniform = np.random.default_rng(0).integers(0, 16, (8, 8, 1)).astype(np.int32)
    assert container.read(_encode(uniform)).mode == "raw"
    assert container.read(_encode(smooth_grid(8, 8, 16))).mode == "context"
    static = SymbolCoder("ab" * 32, 16, BITS, counts_only(16))
    assert container.read(_encode(np.full((8, 8, 1), 7, np.int32), static)).mode == "static"
    assert container.read(_encode(smooth_grid(8, 8, 16), SymbolCoder("ab" * 32, 16, BITS))).mode == "raw"


def test_a_file_names_its_model_and_its_prior():
    without, other = SymbolCoder("ab" * 32, 16, BITS), SymbolCoder("cd" * 32, 16, BITS, fitted(16))
    refitted = SymbolCoder("ab" * 32, 16, BITS, counts_only(16))
    assert len({each.fingerprint for each in (CODER, without, other, refitted)}) == 4
    data = _encode(smooth_grid(8, 8, 16))
    for reader in (without, other, refitted):
        message = f"with the model of fingerprint {CODER.fingerprint[:8]}, and this one has {reader.fingerprint[:8]};"
        with pytest.raises(OtherModelError, match=message) as caught:
            _decode(data, reader)
        assert (caught.value.model, caught.value.mode) == (CODER.fingerprint[:8], "context")


def test_files_of_mode_raw_are_read_whatever_the_prior():
    without = SymbolCoder("ab" * 32, 16, BITS)
    refitted = SymbolCoder("ab" * 32, 16, BITS, counts_only(16))
    uniform = np.random.default_rng(0).integers(0, 16, (8, 8, 1)).astype(np.int32)
    for writer in (CODER, refitted, without):
        data = _encode(uniform, writer)
        file = container.read(data)
        assert (file.mode, file.model) == ("raw", "ab" * 4)
        for reader in (CODER, refitted, without):
            np.testing.assert_array_equal(_decode(data, reader).symbols, uniform)
    # They once named the prior too.
    once = container.write(dataclasses.replace(file, model=container.model_id(CODER.fingerprint)))
    np.testing.assert_array_equal(_decode(once).symbols, uniform)
    other = SymbolCoder("cd" * 32, 16, BITS, fitted(16))
    message = "the model of fingerprint abababab, and this one has cdcdcdcd;"
    with pytest.raises(OtherModelError, match=message) as caught:
        _decode(data, other)
    assert (caught.value.model, caught.value.mode) == ("abababab", "raw")


def test_files_of_other_modes_name_the_prior():
    without = SymbolCoder("ab" * 32, 16, BITS)
    indices = np.random.default_rng(0).integers(0, 16, (8, 8, 1)).astype(np.int32)
    static = dataclasses.replace(container.read(_encode(indices, without)), mode="static")
    with pytest.raises(OtherModelError):
        _decode(container.write(static))


@pytest.mark.parametrize("integer", [int, np.int64, np.uint8])
def test_a_quality_is_an_integer_of_any_type(integer: type):
    qualities = [stream.checked_quality(integer(quality), 3) for quality in (1, 2, 3)]
    assert qualities == [1, 2, 3]
    assert {type(quality) for quality in qualities} == {int}
    for quality in (integer(0), integer(4)):
        with pytest.raises(ValueError, match="quality must be between 1 and 3 for this model, got"):
            stream.checked_quality(quality, 3)


@pytest.mark.parametrize("quality", [True, np.True_, 1.0, np.float32(1), "1"])
def test_a_quality_that_is_no_integer_is_refused(quality: Any):
    with pytest.raises(ValueError, match=r"this model has one quality level only, got .*; leave the quality out"):
        stream.checked_quality(quality, 1)


@pytest.mark.parametrize(
    ("mode", "payload", "message"),
    [
        ("raw", bytes(31), "expected 32 bytes for 64 symbols of 4 bits, got 31"),
        ("raw", bytes(33), "expected 32 bytes for 64 symbols of 4 bits, got 33"),
        ("static", b"\1" * 32, "no encoder makes such a payload of 32 bytes"),
        ("context", b"\1\0", "no encoder makes such a payload of 2 bytes"),
        ("factorized", b"\1", "coded in mode factorized, which its model does not have"),
    ],
)
def test_payloads_that_no_encoder_makes_are_refused(mode: container.Mode, payload: bytes, message: str):
    data = container.write(container.Container(128, 128, mode, CODER.fingerprint[:8], payload))
    with pytest.raises(ValueError, match=message):
        _decode(data)


def test_modes_without_tables_are_refused():
    static = SymbolCoder("ab" * 32, 16, BITS, counts_only(16))
    data = container.write(container.Container(128, 128, "context", static.fingerprint[:8], b"\1"))
    with pytest.raises(ValueError, match="coded in mode context, which its model does not have"):
        _decode(data, static)


def test_a_factorized_bottleneck_has_its_own_mode_and_levels():
    tables = ChannelTables(
        np.array([-1, 0], np.int32),
        np.array([4, 2], np.int32),
        np.array([[1, 2, 3, 65530], [65535, 1, 0, 0]], np.int32),
    )
    indices = np.random.default_rng(0).integers(-3, 4, (3, 5, 2)).astype(np.int32)
    for levels in (1, 2):
        some = SymbolCoder("ab" * 32, 16, channels(2, levels), Prior.of(FactorizedModel((tables,) * levels)))
        assert some.num_levels == levels
        data = _encode(indices, some, level=levels - 1, height=48, width=80)
        file = container.read(data)
        assert file.mode == "factorized"
        picture = _decode(data, some)
        assert picture.level == levels - 1
        np.testing.assert_array_equal(picture.symbols, indices)
        damaged: list[tuple[container.Mode, bytes]] = [
            ("raw", bytes(30)),
            ("static", b"\1"),
            ("factorized", file.payload + b"\0"),
        ]
        for mode, payload in damaged:
            other = container.write(container.Container(48, 80, mode, file.model, payload))
            with pytest.raises(ValueError, match=r"its model does not have|no encoder makes such a payload"):
                _decode(other, some)
    for payload in (b"", b"\2", b"\xff\1"):
        other = container.write(container.Container(48, 80, "factorized", file.model, payload))
        with pytest.raises(ValueError, match="names a quality level that its model does not have"):
            _decode(other, some)
    with pytest.raises(ValueError, match=r"expected symbols \(3, 5, 2\) for 80x48 pixels at pitch 16, got \(3, 5, 1\)"):
        _encode(indices[..., :1], some, height=48, width=80)
    with pytest.raises(ValueError, match="the model has no codebook, and legacy-cod holds the symbols of one"):
        _encode(indices, some, layout="legacy-cod", height=48, width=80)


def test_the_limit_on_pixels_comes_before_the_symbols():
    data = container.write(container.Container(2**24, 2**24, "static", CODER.fingerprint[:8], b"\1"))
    with pytest.raises(ValueError, match="16777216x16777216 is more than the limit of 16777216 pixels; if the file"):
        _decode(data)
    data = _encode(smooth_grid(8, 8, 16))
    with pytest.raises(ValueError, match="128x128 is more than the limit of 16383 pixels"):
        _decode(data, max_pixels=128 * 128 - 1)
    assert _decode(data, max_pixels=128 * 128).height == 128
    # A picture of one row is computed in cells of 16 rows.
    thin = container.write(container.Container(1, 2**24, "static", CODER.fingerprint[:8], b"\1"))
    with pytest.raises(ValueError, match="16777216x1 is more than the limit"):
        _decode(thin)


@pytest.mark.parametrize("mode", ["raw", "static", "context", "factorized", "predictive"])
def test_a_tiny_file_of_a_huge_picture_allocates_nothing(mode: container.Mode):
    coder = _golden_coder(mode)
    tracemalloc.start()
    try:
        for height, width in ((2**24, 2**24), (1, 2**24), (2**24, 1), (4096, 4097)):
            file = container.Container(height, width, mode, container.model_id(coder.fingerprint), b"\1")
            with pytest.raises(ValueError, match=f"{width}x{height} is more than the limit of 16777216 pixels"):
                _decode(container.write(file), coder)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


def test_what_does_not_fit_the_picture_is_not_written():
    with pytest.raises(ValueError, match=r"expected symbols \(9, 8, 1\) for 128x129 pixels at pitch 16, got"):
        _encode(smooth_grid(8, 8, 16), height=129)
    with pytest.raises(ValueError, match="expected symbols from 0 to 15 for 4 bits, got 16 to 16"):
        _encode(np.full((8, 8, 1), 16, np.int32))
    with pytest.raises(ValueError, match="sides of 1 to 16777216"):
        _encode(smooth_grid(8, 8, 16), height=0)
    with pytest.raises(ValueError, match="expected a layout cod, legacy-lite, legacy-cod, got 'lite'"):
        stream.checked_layout("lite")


def _with_payload(coder: SymbolCoder, mode: container.Mode, side: int, payload: bytes) -> bytes:
    name = coder.fingerprints.of_mode(mode)[:8]
    return container.write(container.Container(side, side, mode, name, payload))


@pytest.mark.parametrize(
    ("mode", "side"),
    [("static", 4096), ("context", 4096), ("factorized", 4096), ("factorized", 1024), ("predictive", 4096)],
)
def test_few_bytes_do_not_stand_for_many_symbols(mode: container.Mode, side: int, monkeypatch):
    priors = {"factorized": Prior.of(FactorizedModel((channel_tables(64),))), "predictive": Prior.of(predictive(64, 1))}
    coder = SymbolCoder("ab" * 32, 8, channels(64), priors[mode]) if mode in priors else CODER
    coder = dataclasses.replace(coder, pitch=4)
    (model,) = (model for model in coder.models if model.mode == mode)
    monkeypatch.setattr(type(model), "decode", lambda *_, **__: pytest.fail("it was decoded"))
    # An empty payload stands for the first symbol of every table, at any size.
    with pytest.raises(ValueError, match=r"0 bytes cannot stand for the symbols of \d+x\d+ pixels, which take \d+ at"):
        _decode(_with_payload(coder, mode, side, b""), coder)


def test_symbols_that_take_few_bytes_are_padded_with_zeros():
    tables = channel_tables(64)
    coder = SymbolCoder("ab" * 32, 16, channels(64), Prior.of(FactorizedModel((tables,))))
    symbols = np.broadcast_to(tables.offsets, (48, 48, 64)).astype(np.int32)
    data = _encode(symbols, coder)
    payload = container.read(data).payload
    assert len(payload) == coder.models[0].least_bytes(rows=48, columns=48) > 1000
    assert not any(payload)
    np.testing.assert_array_equal(_decode(data, coder).symbols, symbols)
    for other in (payload[:-1], payload + b"\0"):
        with pytest.raises(ValueError, match=r"cannot stand for|no encoder makes such a payload"):
            _decode(_with_payload(coder, "factorized", 768, other), coder)
    # Symbols as they occur are longer by far, and small pictures may be as short as they are.
    assert coder.models[0].least_bytes(rows=40, columns=40) == 0


@given(shares=st.lists(st.floats(0.001, 1), min_size=2, max_size=9))
@settings(derandomize=True, deadline=None, database=None)
def test_the_least_bytes_are_below_those_of_the_likeliest_symbols(shares: list[float]):
    counts = np.maximum(1, np.floor(np.array(shares) / sum(shares) * (TOTAL - 9))).astype(np.int64)
    counts[0] += TOTAL - counts.sum()
    num_symbols = 2**20
    least = least_bytes(num_symbols, counts.max(keepdims=True))
    assert least <= -num_symbols * np.log2(counts.max() / TOTAL) / 8
