"""Compiled programs run by jaxlib alone, because importing JAX takes longer than coding a picture.

jaxlib offers this to JAX and may change it with any release, so `works` tries it before anything is kept for it. Where
it does not work, programs run with JAX. For one thread of a process.
"""

import contextlib
import dataclasses
import functools
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Shaped:
    """Shape and dtype of an array; JAX's classes for that cannot be had without JAX."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    weak_type: bool = False


class _Runtime:
    """The processor, as XLA sees it."""

    def __init__(self):
        # JAX's own setting when it is imported: the log of the libraries below is for their authors.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        from jaxlib import _jax, xla_client  # pyright: ignore[reportAttributeAccessIssue]

        class OneDevice(xla_client.SingleDeviceSharding):
            """Where arrays are, with what placing them asks of JAX's own class."""

            memory_kind = None

            def _to_xla_hlo_sharding(self, num_dimensions: int) -> Any:
                del num_dimensions
                return xla_client.HloSharding.replicate()

        if "jax" not in sys.modules:  # which sets its own, also when it is imported later
            _jax.jax_jit.set_enable_x64_state(_jax.config.Config("enable_x64", False))
        self._client_library = xla_client
        self._client = xla_client.make_cpu_client()
        self._device = self._client.local_devices()[0]
        self._sharding = OneDevice(self._device)

    def put(self, array: npt.NDArray[Any]) -> Any:
        """Return an array as programs take it."""
        shaped = Shaped(array.shape, array.dtype)
        return self._client_library.batched_device_put(shaped, self._sharding, [array], [self._device], True)

    def load(self, content: bytes) -> Any:
        """Return a serialized program that can be run."""
        devices = self._client_library.DeviceList((self._device,))
        return self._client.deserialize_executable(content, executable_devices=devices)

    def run(self, program: Any, arguments: Sequence[Any], returned: Shaped) -> npt.NDArray[Any]:
        """Run a program that returns one array."""
        handler = self._client_library.array_result_handler(returned, self._sharding, True, True)
        results = program.execute_sharded(list(arguments), with_tokens=False).consume_with_handlers([handler])
        results[0].block_until_ready()
        return np.asarray(memoryview(results[0]))


@functools.cache
def _runtime() -> _Runtime:
    return _Runtime()


def put(array: npt.NDArray[Any]) -> Any:
    """Return an array as `Program` takes it, for arguments of many calls."""
    return _runtime().put(array)


class Program:
    """A compiled program of arrays that returns one array.

    Args:
        content: The program, as `compiled` returns it.
        returned: The array that it returns.
    """

    def __init__(self, content: bytes, returned: Shaped):
        self._program, self._returned = _runtime().load(content), returned

    def __call__(self, *arguments: Any) -> npt.NDArray[Any]:
        """Run the program on numpy arrays, or what `put` made of them."""
        placed = [put(argument) if isinstance(argument, np.ndarray) else argument for argument in arguments]
        return _runtime().run(self._program, placed, self._returned)


def compiled(name: str, function: Callable[..., Any], arguments: Sequence[Shaped]) -> tuple[bytes, Shaped]:
    """Compile a function of arrays that returns one array, with JAX.

    Args:
        name: A name for it.
        function: The function.
        arguments: Shapes and dtypes to compile for.

    Returns:
        What `Program` takes.
    """
    import jax

    def program(*taken: Any) -> Any:
        return function(*taken)

    # A name that JAX's cache does not know: what it has read cannot be written again.
    program.__name__ = f"{name}_{secrets.token_hex(8)}".replace("-", "_")
    shapes = [jax.ShapeDtypeStruct(argument.shape, argument.dtype) for argument in arguments]
    with _without_cache():
        lowered = jax.jit(program, keep_unused=True).lower(*shapes)
        executable = lowered.compile().runtime_executable()
    returned: Any = lowered.out_info
    content = executable.client.serialize_executable(executable)  # pyright: ignore[reportOptionalMemberAccess]
    return content, Shaped(tuple(returned.shape), np.dtype(returned.dtype))


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Keep JAX from writing what is compiled to its own cache."""
    import jax

    setting = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[setting]
    jax.config.update(setting, float("inf"))
    try:
        yield
    finally:
        jax.config.update(setting, before)


@functools.cache
def works() -> bool:
    """Return whether this jaxlib can be used so, by running a small program; this imports JAX."""

    def small(first: Any, second: Any) -> Any:
        return first * second[0].astype(first.dtype)

    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([3, 0], np.uint8)
    try:
        made = compiled("small", small, [Shaped(array.shape, array.dtype) for array in (first, second)])
        computed = Program(*made)(put(first), second)
    except Exception:  # noqa: BLE001 (whatever another release of jaxlib raises)
        return False
    return np.array_equal(computed, 3 * first)
