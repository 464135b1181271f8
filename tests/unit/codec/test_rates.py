"""Choosing the quality by the size of the file."""

from typing import Any

import numpy as np
import pytest

from cod_jax.codec import Codec, rates
from cod_jax.errors import UserError
from tests.model_fixtures import gradient_image


@pytest.mark.parametrize("max_bytes", [10, 11, 25, 40, 1000])
def test_the_best_file_within_a_limit_is_found_in_few_tries(max_bytes: int):
    sizes = [10, 12, 20, 25, 26, 31, 39, 40]
    tried: list[int] = []

    def write(level: int) -> bytes:
        tried.append(level)
        return bytes([level]) * sizes[level]

    best = rates.best_within(write, len(sizes), max_bytes)
    assert best[0] == max(level for level, size in enumerate(sizes) if size <= max_bytes)
    assert len(tried) <= 4


def test_a_limit_below_the_lowest_quality_is_refused():
    with pytest.raises(UserError, match="expected a file of at most 9 bytes, got 10 at the lowest quality; allow more"):
        rates.best_within(lambda level: bytes(10 + level), 4, 9)


def test_pictures_take_the_best_quality_within_a_limit(factorized: Codec):
    picture = gradient_image(20, 40)
    small, best = (factorized.compress(picture, quality=quality) for quality in (1, 2))
    assert factorized.compress(picture, max_bytes=len(best)) == best
    assert factorized.compress(picture, max_bytes=len(best) - 1) == small
    bpp = 8 * len(small) / (20 * 40)
    assert factorized.compress(picture, bpp=bpp + 1e-6) == small
    assert factorized.compress([picture, picture], max_bytes=len(best)) == [best, best]
    with pytest.raises(UserError, match=f"expected a file of at most {len(small) - 1} bytes, got {len(small)} at the"):
        factorized.compress(picture, max_bytes=len(small) - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 1, "bpp": 0.1}, "expected one of quality, bpp, max_bytes and total_bytes, got quality and bpp"),
        ({"bpp": 0.1, "max_bytes": 5}, "got bpp and max_bytes; keep one of them"),
        ({"bpp": 0.0}, "bits per pixel must be a positive number, got 0.0"),
        ({"bpp": float("nan")}, "bits per pixel must be a positive number, got nan"),
        ({"max_bytes": 0}, "max_bytes must be a positive whole number, got 0"),
        ({"total_bytes": 1.5}, "total_bytes must be a positive whole number, got 1.5"),
        ({"total_bytes": 9}, "total_bytes is for a list of pictures, got a single one; use max_bytes"),
    ],
)
def test_unusable_limits_are_refused(factorized_model: Codec, options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        factorized_model.compress(gradient_image(16, 16), **options)


def test_limits_are_numbers_of_any_type(factorized: Codec):
    picture = gradient_image(16, 16)
    best = factorized.compress(picture)
    limits: list[dict[str, Any]] = [{"max_bytes": np.int64(5000)}, {"bpp": np.float32(200)}, {"bpp": 1e308}]
    for limit in limits:
        assert factorized.compress(picture, **limit) == best
    with pytest.raises(UserError, match="effort must be a whole number from 0 to 10000, got -5"):
        factorized.compress_at_levels(picture, effort=-5)


def test_a_set_of_pictures_keeps_within_a_number_of_bytes(factorized: Codec):
    pictures = [gradient_image(20, 40), gradient_image(20, 40)[::-1]]
    trials = [factorized.compress_at_levels(picture) for picture in pictures]
    for picture, files in zip(pictures, trials, strict=True):
        assert [one.quality for one in files] == [1, 2]
        for one in files:
            assert one.data == factorized.compress(picture, quality=one.quality)
            difference = picture.astype(int) - factorized.decompress(one.data)
            assert one.squared_error == (difference**2).sum()
    smallest = sum(min(len(one.data) for one in files) for files in trials)
    found = factorized.compress(pictures, total_bytes=smallest + 1)
    assert sum(map(len, found)) <= smallest + 1
    best = [min(files, key=lambda one: one.squared_error).data for files in trials]
    assert factorized.compress(pictures, total_bytes=10000) == best
    assert factorized.compress([], total_bytes=1) == []
    with pytest.raises(UserError, match=f"expected at least {smallest} bytes for 2 pictures"):
        factorized.compress(pictures, total_bytes=smallest - 1)
