"""The payload of mode diffc: every walk comes back, and what no encoder writes is refused."""

import dataclasses
import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cod_jax.coding import walk
from cod_jax.coding.range_coder import TOTAL
from cod_jax.coding.walk import Walk, read_walk, write_walk
from cod_jax.errors import UserError
from tests.coding_fixtures import some_walk
from tests.golden.folder import FOLDER, golden_coder

SYMBOLS = b"\x07symbols"


def _equal(one: Walk, other: Walk) -> bool:
    same_indices = np.array_equal(one.indices, other.indices)
    return same_indices and dataclasses.replace(one, indices=other.indices) == other


@given(
    bits=st.integers(1, 16),
    padding=st.integers(0, 15),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5)),
    first=st.integers(0, 150),
    changes=st.lists(st.one_of(st.integers(-1, 1), st.integers(-20, 20)), min_size=5, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    check=st.binary(min_size=4, max_size=4),
)
@settings(derandomize=True, deadline=None, database=None, max_examples=60)
def test_every_walk_comes_back(bits, padding, shape, first, changes, seed, check):
    grades = np.clip(np.cumsum([first, *changes]), 0, 150).tolist()[: shape[0]]
    indices = np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.int32)
    steps = Walk(bits, padding % bits, tuple(grades), indices, check)
    mode, symbols, found = read_walk(write_walk("predictive", SYMBOLS, steps))
    assert (mode, symbols) == ("predictive", SYMBOLS)
    assert _equal(found, steps)


def test_the_bytes_are_as_documented():
    steps = dataclasses.replace(some_walk(3, 200), bits=12, padding=4)
    data = write_walk("static", b"ab" * 100, steps)
    head = b"\x01" + b"\xc8\x01" + b"ab" * 100 + b"\xb4" + b"\xc8\x01" + b"\x03" + b"\x80\x81\x7f\x00"
    assert data.startswith(head)
    # A change of the rules makes all files unreadable.
    assert zlib.crc32(data[len(head) :]) == 2415008806


def test_files_of_earlier_versions_stay_readable():
    data = (FOLDER / "diffc.cod").read_bytes()
    picture = golden_coder().decode(data, max_pixels=2**20)
    assert picture.walk is not None
    assert _equal(picture.walk, some_walk())
    assert golden_coder().encode(picture.symbols, height=107, width=157, steps=picture.walk) == data
    plain = golden_coder().decode((FOLDER / "raw.cod").read_bytes(), max_pixels=2**20)
    np.testing.assert_array_equal(picture.symbols, plain.symbols)


def test_an_index_takes_about_the_bits_of_its_zipf_probability():
    steps = some_walk(40, 50)
    exponent = 1 + 1 / (8 + math.log(math.e + 1) / math.e)
    weights = np.arange(1, 2**12 + 1.0) ** -exponent
    expected = -np.log2(weights[steps.indices] / weights.sum()).sum() / 8
    head = len(
        write_walk("raw", b"", dataclasses.replace(steps, grades=steps.grades[:1], indices=steps.indices[:1, :1]))
    )
    assert len(write_walk("raw", b"", steps)) == pytest.approx(expected + head + 40 * 1.6 / 8, rel=0.02)


@pytest.mark.parametrize("bits", range(1, 17))
def test_the_zipf_tables_do_not_depend_on_how_a_machine_rounds(bits: int):
    for padding in range(bits):
        counts = walk.octave_counts(bits, padding)
        assert counts.sum() == TOTAL
        assert counts.min() >= 1
        exponent = walk.zipf_exponent(float(bits - padding))
        weights = [
            math.fsum(k**-exponent for k in range(2**j, min(2 ** (j + 1), 2**bits + 1))) for j in range(bits + 1)
        ]
        exact = np.array(weights) / math.fsum(weights) * (TOTAL - bits - 1)
        # No number is so close to the next integer that another logarithm or order of summing could change it.
        assert np.abs(exact - np.rint(exact)).min() > 1e-7
        assert np.abs(counts - 1 - np.floor(exact))[np.arange(bits + 1) != counts.argmax()].max(initial=0) == 0


def test_grades_grow_by_eighths_of_a_doubling():
    lengths = [walk.step_length(grade) for grade in range(224)]
    assert lengths[:18] == [8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36]
    assert lengths == sorted(set(lengths))
    for grade in (0, 1, 7, 8, 100, 223):
        assert walk.nearest_grade(float(walk.step_length(grade))) == grade
    assert walk.nearest_grade(0.0) == 0
    assert walk.nearest_grade(1e30) == 223


@pytest.mark.parametrize("kept", [0, 1, 5, 20, 24])
def test_indices_that_are_cut_off_are_refused(kept: int):
    data = write_walk("raw", SYMBOLS, some_walk())
    with pytest.raises(UserError, match=r"cut off|cannot stand for"):
        read_walk(data[:kept])


def test_most_cut_off_indices_are_refused_and_others_give_other_steps():
    steps = some_walk(30, 20)
    data = write_walk("raw", SYMBOLS, steps)
    for cut in range(1, 12):
        try:
            assert not _equal(read_walk(data[:-cut])[2], steps)
        except UserError:
            continue


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grades": (215, 215)}, "beyond the end of the schedule, to 2013265920 of 1073741824 units"),
        ({"grades": (255, 255)}, "grade 255, beyond the schedule"),
        ({"padding": 12}, "impossible"),
    ],
)
def test_steps_that_no_encoder_takes_are_refused(change: dict, message: str):
    steps = dataclasses.replace(some_walk(2, 3), **change)
    counts = walk.octave_counts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "octave_counts", lambda bits, padding: counts(bits, min(padding, bits - 1)))
        data = write_walk("raw", SYMBOLS, steps)
        with pytest.raises(UserError, match=message):
            read_walk(data)


def test_other_numbers_are_refused():
    data = write_walk("raw", SYMBOLS, some_walk())
    with pytest.raises(UserError, match="coded in mode 6, which this cod_jax does not know"):
        read_walk(b"\x06" + data[1:])
    at = 2 + len(SYMBOLS) + 1
    with pytest.raises(UserError, match="impossible"):
        read_walk(data[:at] + b"\x00" + data[at + 1 :])
    with pytest.raises(UserError, match="expected at most 65536 in its layout, got 2097151"):
        read_walk(data[:at] + b"\xff\xff\x7f" + data[at + 1 :])
    with pytest.raises(UserError, match="no encoder writes its steps so"):
        read_walk(data + b"\x00")
    with pytest.raises(UserError, match="no encoder writes its steps so"):  # 9 in two bytes
        read_walk(data[:at] + b"\x89\x00" + data[at + 1 :])


@pytest.mark.parametrize(("side", "steps"), [(512, 1000), (1024, 1000), (2048, 256), (4096, 64), (5000, 64)])
def test_the_largest_pictures_have_the_fewest_steps(side: int, steps: int):
    assert walk.most_steps(height=side, width=side, max_pixels=2**24) == steps


def test_few_bytes_cannot_ask_for_much_work():
    steps = Walk(12, 4, (60,) * 1000, np.zeros((1000, 400), np.int32), bytes(4))
    data = write_walk("raw", b"", steps)
    assert len(data) > 30_000
    with pytest.raises(UserError, match="cannot stand for 1000 steps of 400 indices"):
        read_walk(data[:20_000])


def test_a_check_has_a_byte_for_each_projection():
    values = np.array([0.0, 1 / 32, -1.0, 9.0])
    check = walk.state_check(values)
    assert check == bytes([128, 129, 96, 255])
    assert walk.check_distance(check, values) == 0
    assert walk.check_distance(check, values + np.array([0, 0.05, 0, 0])) == pytest.approx(1.6)
