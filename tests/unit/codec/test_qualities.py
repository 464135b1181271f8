"""Models without a codebook and with several qualities, by both engines."""

from typing import Any

import numpy as np
import pytest

from cod_jax.codec import Codec, checks
from cod_jax.coding import container, stream
from cod_jax.errors import UserError
from tests.model_fixtures import gradient_image
from tests.unit.codec.pixels import levels_apart


def test_every_quality_comes_back(factorized: Codec, factorized_model: Codec):
    picture = gradient_image(20, 40)
    assert factorized.num_levels == 2
    assert factorized.fingerprint == factorized_model.fingerprint
    assert "8 channels for 16x16 pixels" in repr(factorized)
    small, best = (factorized.compress(picture, quality=quality) for quality in (1, 2))
    assert factorized.compress(picture) == best
    assert len(small) < len(best)
    for level, data in enumerate((small, best)):
        assert data == factorized_model.compress(picture, quality=level + 1)
        file = container.read(data)
        assert (file.mode, file.payload[0]) == ("factorized", level)
        symbols = factorized.encode(picture, level=level)
        assert symbols.shape == (2, 3, 8)
        decoded = factorized.decompress(data)
        assert decoded.shape == (20, 40, 3)
        np.testing.assert_array_equal(decoded, factorized.decode(symbols, level=level)[:20, :40])
        assert levels_apart(decoded, factorized_model.decompress(data)) <= 1
    np.testing.assert_array_equal(factorized.encode(picture), factorized.encode(picture, level=1))


def test_pictures_of_a_batch_have_levels_of_their_own(factorized: Codec):
    picture = gradient_image(20, 40)
    symbols = factorized.encode(np.stack([picture, picture]), level=[0, 1])
    for level in (0, 1):
        np.testing.assert_array_equal(symbols[level], factorized.encode(picture, level=level))
    assert not np.array_equal(symbols[0], symbols[1])
    # The same symbols stand for other latents at another level.
    assert levels_apart(*factorized.decode(symbols[[1, 1]], level=[0, 1])) > 1
    files = [factorized.compress(picture, quality=quality) for quality in (1, 2)]
    for one, data in zip(factorized.decompress(files), files, strict=True):
        assert levels_apart(one, factorized.decompress(data)) <= 1


def test_a_quality_or_layout_that_the_model_does_not_have_is_refused(factorized: Codec):
    picture = gradient_image(16, 16)
    unusable: list[Any] = [0, 3, 1.0, True]
    for quality in unusable:
        with pytest.raises(UserError, match=f"quality must be between 1 and 2 for this model, got {quality}"):
            factorized.compress(picture, quality=quality)
    published: tuple[stream.Layout, ...] = ("legacy-lite", "legacy-cod")
    for layout in published:
        for call in (factorized.compress, lambda data, layout: factorized.decompress(b"\x10\0\x10\0\0", layout=layout)):
            with pytest.raises(UserError, match=f"no codebook, and {layout} holds the symbols of one"):
                call(picture, layout=layout)


def test_levels_that_the_model_does_not_have_are_refused(factorized: Codec):
    picture, symbols = gradient_image(16, 16), np.zeros((1, 1, 8), np.int32)
    for level in (7, 2, -1):
        message = f"level must be between 0 and 1 for this model, got {level}"
        with pytest.raises(UserError, match=message):
            factorized.encode(picture, level=level)
        with pytest.raises(UserError, match=message):
            factorized.decode(symbols, level=level)


@pytest.mark.parametrize("level", [True, 1.0, "1", [0], 2**70])
def test_a_level_is_a_whole_number(level: Any):
    with pytest.raises(UserError, match="expected level to be a whole number, got "):
        checks.checked_levels(level, num_levels=2, num_pictures=None)


def test_symbols_that_the_model_does_not_have_are_refused(factorized: Codec):
    symbols = np.zeros((1, 1, 8), np.int32)
    for other in (symbols[..., 1:], symbols[..., 0]):
        with pytest.raises(
            UserError, match=r"expected integer symbols \[rows, columns, 8\] or \[batch, rows, columns, 8"
        ):
            factorized.decode(other)
    with pytest.raises(UserError, match="expected symbols from -32767 to 32767, got 32768 to 32768"):
        factorized.decode(symbols + 2**15)
