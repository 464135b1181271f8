"""Operation counts of programs and peak rates of devices, for the model FLOPs utilisation."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# Peak dense bfloat16 operations per second of one JAX device, from the vendors' data sheets. Keys are the first words
# of its device kind, and the longest match counts. For other kinds no utilisation is reported.
PEAK_FLOPS_PER_SECOND = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}

# Bytes per second that one of these devices sends to its neighbours, over all its links together and in one direction,
# from the vendors' data sheets: NVLink of GPUs within a machine, the interconnect of TPUs.
SENT_BYTES_PER_SECOND = {
    "NVIDIA A100": 300e9,
    "NVIDIA H100": 450e9,
    "NVIDIA H200": 450e9,
    "NVIDIA B200": 900e9,
    "TPU v4": 300e9,
    "TPU v5 lite": 200e9,
    "TPU v5p": 600e9,
    "TPU v6 lite": 448e9,
}


def peak_flops_per_second(device_kind: str) -> float | None:
    """Return the peak bfloat16 rate of a device by its `device_kind`, or None if it is unknown."""
    matches = [kind for kind in PEAK_FLOPS_PER_SECOND if f"{device_kind} ".startswith((f"{kind} ", f"{kind}-"))]
    return PEAK_FLOPS_PER_SECOND[max(matches, key=len)] if matches else None


def count_flops(function: Callable[..., Any], *shapes: Any) -> int:
    """Return the operations of the matrix products and convolutions in one call; a multiply-add counts as two.

    The count uses the traced program, because the compiler's own analysis counts the body of a loop once. Work that a
    gradient repeats because of `jax.checkpoint` counts again.

    Args:
        function: A traceable function.
        *shapes: Its arguments as arrays or `jax.ShapeDtypeStruct`.
    """
    return _count(jax.make_jaxpr(function)(*shapes).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        output = equation.outvars[0].aval.shape if equation.outvars else ()  # pyright: ignore[reportAttributeAccessIssue]
        if name == "dot_general":
            (contracting, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
            total += 2 * math.prod(output) * math.prod(left[axis] for axis in contracting)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
            out_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(output) * math.prod(kernel) // out_features
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in equation.params["branches"])
        else:
            inner = sum(map(_count, _inner(equation.params)))
            total += inner * (equation.params["length"] if name == "scan" else 1)
    return total


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Iterate over the programs that an equation calls."""
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
