"""Digests of arrays: other arrays, names, shapes and headers have others, and what was stored once stays the same."""

import jax.numpy as jnp
import numpy as np

from cod_jax.coding.digests import digest_arrays
from cod_jax.training.frozen import _digest

ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int16)}


def header(name: str, array: np.ndarray) -> bytes:
    """Return what stands before the numbers of an array."""
    return f"{name} {array.shape} ".encode()


def test_every_change_gives_another_digest():
    others = [
        {**ARRAYS, "w": ARRAYS["w"].T},
        {**ARRAYS, "w": ARRAYS["w"].reshape(3, 2)},
        {**ARRAYS, "b": -ARRAYS["b"]},
        {"v": ARRAYS["w"], "b": ARRAYS["b"]},
    ]
    digests = [digest_arrays(arrays, header) for arrays in (ARRAYS, *others)]
    digests += [digest_arrays(ARRAYS, header, start=b"x"), digest_arrays(ARRAYS, lambda name, _: name.encode())]
    assert len(set(digests)) == len(digests)


def test_order_and_layout_in_memory_do_not_matter():
    shuffled = {"b": ARRAYS["b"].astype(">i2"), "w": np.asfortranarray(ARRAYS["w"])}
    assert digest_arrays(shuffled, header) == digest_arrays(ARRAYS, header)


def test_the_digests_in_checkpoints_stay_the_same():
    params = {
        "b": {"w": ARRAYS["w"].T, "h": np.asarray([1.5, -2], jnp.bfloat16)},
        "a": np.float32(2).reshape(()),
        "e": np.zeros((0, 3), np.float32),
    }
    assert _digest(params, {"k": 1}) == "7733c7699c265b92a6e6dee66ef1d12d69797e5c95ac8569f1b22a6a2e4fdc26"
