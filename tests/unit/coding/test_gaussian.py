"""The generator of shared random numbers: known answers, counters beyond 2^31, and the distribution of the numbers."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cod_jax.coding.gaussian import UNIT, host_words, normal_from_word, threefry2x32, word, words

MASK = 2**32 - 1
# Compiled once, where single operations would be compiled one by one.
_threefry, _normal, _words = jax.jit(threefry2x32), jax.jit(normal_from_word), jax.jit(words, static_argnums=3)


def _exact_threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Return Threefry-2x32 of Python's integers, which cannot overflow."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + keys[0]) & MASK, (counter[1] + keys[1]) & MASK
    for block in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            x = (x + y) & MASK
            y = x ^ ((y << rotation | y >> 32 - rotation) & MASK)
        x = (x + keys[(block + 1) % 3]) & MASK
        y = (y + keys[(block + 2) % 3] + block + 1) & MASK
    return x, y


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # From the known answers of Random123.
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((MASK, MASK), (MASK, MASK), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_generator_is_threefry(key, counter, expected):
    found = _threefry((word(key[0]), word(key[1])), (word(counter[0]), word(counter[1])))
    assert tuple(map(int, found)) == expected == _exact_threefry(key, counter)


def test_no_counter_overflows_beyond_two_to_the_31():
    # The last candidate of 2^16, and values of which candidate times values is far above 2^32.
    rows, pairs = np.array([2**16 - 1, 3], np.uint32), np.array([2**31 - 1, 2**31, 2**31 + 5, 2**32 - 1], np.uint32)
    counter = np.broadcast_arrays(rows[:, None], pairs[None])
    found = _threefry((word(1000), word(2**31 + 2)), (jnp.asarray(counter[0]), jnp.asarray(counter[1])))
    expected = [[_exact_threefry((1000, 2**31 + 2), (int(row), int(pair))) for pair in pairs] for row in rows]
    np.testing.assert_array_equal(np.stack(found, axis=-1), expected)
    assert len(np.unique(np.stack(found))) == 2 * rows.size * pairs.size


def test_words_come_in_pairs_and_rows_do_not_depend_on_each_other():
    streams, rows = jnp.asarray([[4, 4, 9]], jnp.uint32), jnp.asarray([[7, 8, 7]], jnp.uint32)
    found = np.asarray(_words(word(3), streams, rows, 5))
    assert found.shape == (1, 3, 5)
    for place in range(3):
        for number in range(5):
            pair = _exact_threefry((3, int(streams[0, place])), (int(rows[0, place]), number // 2))
            assert found[0, place, number] == pair[number % 2]
    np.testing.assert_array_equal(host_words(3, 4, 4), np.asarray(_words(word(3), word(4), word(0), 5))[:4])


def test_the_normal_numbers_are_the_documented_integers():
    found = np.asarray(_normal(jnp.asarray([0, MASK, 0x7F807F80, 0x01020304, 0xDEADBEEF], jnp.uint32)))
    exact = []
    for value in (0, MASK, 0x7F807F80, 0x01020304, 0xDEADBEEF):
        x = 64 * sum(value.to_bytes(4, "big")) + ((value * 0x9E3779B1 & MASK) >> 26) - 32671
        square = x * x >> 15
        factor = 13668 + ((1500 + (2326 * square >> 15)) * square >> 15)
        exact.append(x * factor + 2**14 >> 15)
    assert found.tolist() == exact
    # A change of the rule makes all files unreadable.
    assert zlib.crc32(np.asarray(_normal(_words(word(1), word(2), word(3), 4096))).tobytes()) == 1882649373


def test_the_numbers_are_normal():
    numbers = np.asarray(_normal(jnp.asarray(host_words(5, 6, 2**18)))) * UNIT
    assert scipy.stats.kstest(numbers, "norm").pvalue > 0.01
    assert abs(numbers.mean()) < 3 / 2**9
    assert abs(numbers.var() - 1) < 3 * 2**0.5 / 2**9
    assert abs(scipy.stats.kurtosis(numbers)) < 0.05
