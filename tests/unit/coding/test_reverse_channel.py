"""Candidates, layout and choice of reverse channel coding, against direct computation and exact distributions."""

import jax
import numpy as np
import pytest
import scipy.stats

from cod_jax.coding import reverse_channel
from cod_jax.coding.gaussian import UNIT, host_words, normal_from_word, word, words
from cod_jax.coding.reverse_channel import Layout, choose, draw, projections, start_noise

_normals = jax.jit(lambda *key: normal_from_word(words(*key)), static_argnums=3)


def _candidates(layout: Layout, step: int, chunk: int) -> np.ndarray:
    """Return all candidates of a chunk [K, length], as docs/bitstream.md has them."""
    mask = host_words(step, reverse_channel.MASKS, layout.num_chunks)[chunk] & np.uint32(2**layout.bits - 1)
    rows = np.arange(2**layout.bits, dtype=np.uint32) ^ mask
    books = np.full_like(rows, chunk // layout.sharing)
    by_index = np.asarray(_normals(word(step), books, rows, layout.length)) * UNIT
    positions = np.arange(chunk, layout.num_values, layout.num_chunks)
    signs = 1 - 2.0 * (host_words(step, reverse_channel.SIGNS, layout.num_values) >> 31)
    return by_index[:, : positions.size] * signs[positions]


def _values_of_chunk(layout: Layout, step: int, chunk: int) -> np.ndarray:
    order = np.argsort(host_words(0, reverse_channel.ORDER, layout.num_values), kind="stable")
    rotation = int(host_words(step, reverse_channel.ROTATION, 1)[0]) % layout.num_values
    return np.roll(order, -rotation)[chunk :: layout.num_chunks]


@pytest.mark.parametrize("layout", [Layout(101, 3, 4), Layout(64, 64, 1), Layout(10, 1, 2)], ids=str)
def test_drawn_candidates_are_the_documented_ones(layout: Layout):
    indices = np.random.default_rng(0).integers(0, 2**layout.bits, layout.num_chunks)
    drawn = draw(layout, 5, indices)
    for chunk in range(layout.num_chunks):
        expected = _candidates(layout, 5, chunk)[indices[chunk]]
        np.testing.assert_array_equal(drawn[_values_of_chunk(layout, 5, chunk)], expected.astype(np.float32))


@pytest.mark.parametrize("layout", [Layout(9001, 2, 9), Layout(301, 7, 10)], ids=str)
def test_the_choice_is_the_first_arrival(layout: Layout):
    mean = np.random.default_rng(1).standard_normal(layout.num_values).astype(np.float32) * 0.1
    chosen = choose(layout, 2, mean)
    arrivals = np.random.Generator(np.random.Philox(key=2))
    for start in range(0, layout.num_chunks, layout.sharing):
        here = range(start, min(start + layout.sharing, layout.num_chunks))
        times = np.log(np.cumsum(arrivals.standard_exponential((2**layout.bits, len(here))), axis=0))
        for place, chunk in enumerate(here):
            scores = _candidates(layout, 2, chunk) @ mean[_values_of_chunk(layout, 2, chunk)]
            costs = np.sort(times[:, place] - scores)
            if costs[1] - costs[0] > 1e-4:  # rounding may decide between closer ones
                assert chosen[chunk] == np.argmin(times[:, place] - scores)
    np.testing.assert_array_equal(chosen, choose(layout, 2, mean))


def test_chunks_of_one_codebook_differ():
    layout = Layout(4000, 4, 10)
    assert layout.sharing == 4
    drawn = draw(layout, 1, np.zeros(4, np.int32))
    chunks = [drawn[_values_of_chunk(layout, 1, chunk)] for chunk in range(4)]
    correlations = np.corrcoef(np.abs(chunks)) - np.eye(4)
    assert np.abs(correlations).max() < 0.15


def test_samples_are_distributed_like_the_posterior():
    """With 2^6 times as many candidates as the divergence asks for, each value is normal around its mean."""
    layout = Layout(2**14, 2**10, 8)
    mean = np.full(layout.num_values, np.sqrt(2 * np.log(2) * 2 / layout.length), np.float32)
    mean[::2] *= -1
    rest = np.concatenate([draw(layout, step, choose(layout, step, mean)) - mean for step in (1, 2)])
    toward = rest * np.sign(np.tile(mean, 2))
    assert abs(toward.mean()) < 4 / rest.size**0.5
    assert abs(rest.var() - 1) < 4 * (2 / rest.size) ** 0.5
    assert scipy.stats.kstest(rest, "norm").pvalue > 0.001


def test_a_tilt_makes_up_for_few_candidates():
    layout = Layout(2**15, 2**9, 8)
    mean = np.full(layout.num_values, np.sqrt(2 * np.log(2) * 5 / layout.length), np.float32)
    plain, tilted = (np.mean(draw(layout, 1, choose(layout, 1, mean, tilt=tilt))) / mean[0] for tilt in (1.0, 1.5))
    assert plain < 0.95
    assert abs(tilted - 1) < 0.04


def test_projections_tell_by_how_much_states_differ():
    state = start_noise(20000)
    noise = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    assert np.abs(projections(state, 4)).max() < 4
    difference = projections(state + 0.01 * noise, 4) - projections(state, 4)
    assert 0 < np.abs(difference).max() < 0.04
