"""Settings of a model's computation, which change its results by rounding only."""

import dataclasses
from typing import Literal

from cod_jax.nn.stack import Remat

Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """Settings of the computation.

    Attributes:
        dtype: Dtype of the computation; parameters are float32.
        remat: Work that the backward pass repeats to save memory: "none"; "dots", everything but matrix products with
            weights; "full", everything inside a block.
        unroll: Whether equal blocks are compiled one by one instead of as a loop, which takes longer to compile.
    """

    dtype: Dtype = "float32"
    remat: Remat = "none"
    unroll: bool = False


def matmul_precision(dtype: Dtype) -> str:
    """Return the argument of `jax.default_matmul_precision` for a network that computes in `dtype`.

    Float32 needs the highest precision, because with TF32 the symbols of a picture would depend on the device. Products
    of bfloat16 numbers are exact either way, and XLA has faster kernels for the default precision. The float32 products
    that matter in a bfloat16 network ask for the highest precision themselves.
    """
    return "highest" if dtype == "float32" else "default"
