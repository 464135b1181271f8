"""The ceilings of a device: how fast it multiplies matrices and copies memory, measured beside what is compared.

Williams, Waterman and Patterson 2009, "Roofline": a program with F operations on B bytes takes at least
max(F / matrix rate, B / copy rate).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cod_jax.models.compute import Dtype

# Side of the matrices, and numbers in the copied array: large enough to keep a device busy, and no larger.
_CPU_SIZES = (1024, 2**24)
_ACCELERATOR_SIZES = (8192, 2**28)
CEILINGS = ("matrix_product", "copy")


def calls(dtype: "Dtype") -> dict[str, Callable[[], Any]]:
    """Return calls to time, by the names in `CEILINGS`; each returns when its work is done.

    Args:
        dtype: Dtype of the matrices.
    """
    import jax
    import jax.numpy as jnp

    from cod_jax.models.compute import matmul_precision

    side, length = _sizes(jax.default_backend())
    matrix = jax.block_until_ready(jnp.full((side, side), 0.5, dtype))
    array = jax.block_until_ready(jnp.zeros(length, jnp.float32))
    product, copy = jax.jit(jnp.dot), jax.jit(lambda x: x + 1)

    def multiply() -> Any:
        with jax.default_matmul_precision(matmul_precision(dtype)):
            return jax.block_until_ready(product(matrix, matrix))

    return {"matrix_product": multiply, "copy": lambda: jax.block_until_ready(copy(array))}


def rates(timings: Mapping[str, Mapping[str, Any]], platform: str) -> dict[str, float]:
    """Return the ceilings from the timings of `calls`.

    Args:
        timings: By name, as `timing.time_calls` returns them.
        platform: JAX's name of the platform.

    Returns:
        "flops_per_second" of the matrix product, a multiply-add counting as two, and "bytes_per_second" of the copy,
        each byte read and written counting.
    """
    side, length = _sizes(platform)
    product, copy = (timings[name]["median_seconds"] for name in CEILINGS)
    return {"flops_per_second": 2 * side**3 / product, "bytes_per_second": 2 * 4 * length / copy}


def compared(seconds: float, flops: float, num_bytes: float | None, ceiling: Mapping[str, float]) -> dict[str, Any]:
    """Return what a program reaches of the ceilings.

    Args:
        seconds: Time of a call.
        flops: Its operations, see `training.flops.count_flops`.
        num_bytes: Bytes that it reads and writes by the compiler's estimate; None where there is none. The estimate
            counts the body of a loop once.
        ceiling: See `rates`.

    Returns:
        JSON values: "flops", "bytes", "flops_per_second", "share_of_matrix_product", and "share_of_roofline".
    """
    bound = max(flops / ceiling["flops_per_second"], (num_bytes or 0) / ceiling["bytes_per_second"])
    return {
        "flops": flops,
        "bytes": num_bytes,
        "flops_per_second": flops / seconds,
        "share_of_matrix_product": flops / seconds / ceiling["flops_per_second"],
        "share_of_roofline": bound / seconds,
    }


def bytes_of(compiled: Any) -> float | None:
    """Return the bytes that a compiled program reads and writes, by the compiler's estimate, or None."""
    analysis = compiled.cost_analysis()
    one = analysis[0] if isinstance(analysis, list) and analysis else analysis
    value = one.get("bytes accessed") if isinstance(one, dict) else None
    return None if value is None else float(value)


def _sizes(platform: str) -> tuple[int, int]:
    return _CPU_SIZES if platform == "cpu" else _ACCELERATOR_SIZES
