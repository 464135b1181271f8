"""How a model is computed, which changes neither its parameters nor, apart from rounding, its results."""

import dataclasses
from typing import Literal

from cod_jax.nn.stack import Remat

Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """Settings of the computation.

    Attributes:
        dtype: Dtype of the computation; parameters are float32.
        remat: What the backward pass computes again: "none"; "dots", all but matrix products with weights; "full",
            everything inside a block. It saves memory and costs time.
        unroll: Whether equal blocks are compiled one after the other instead of as a loop: longer to compile.
    """

    dtype: Dtype = "float32"
    remat: Remat = "none"
    unroll: bool = False


def matmul_precision(dtype: Dtype) -> str:
    """Return the precision of matrix products in a network that computes in `dtype`.

    It is for `jax.default_matmul_precision`. In float32 it is the highest: in TF32 the symbols of a picture would
    depend on the device. Products of bfloat16 numbers are exact either way, and XLA has faster kernels for those that
    do not ask for more; the float32 products that matter in a bfloat16 network ask for the highest themselves.
    """
    return "highest" if dtype == "float32" else "default"
