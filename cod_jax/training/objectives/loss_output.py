"""What a loss returns besides its value."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float

# Arrays that a run carries besides its parameters and that no gradient reaches.
Buffers = dict[str, Any]


class LossOutput(NamedTuple):
    """What a loss measures besides its value.

    Attributes:
        terms: Unweighted loss terms.
        statistics: Means of the bottleneck's statistics over the batch, see `Quantized`; {} where it is not measured.
        candidates: What may replace parameters of the bottleneck that are not in use, see `BottleneckTraining`.
    """

    terms: dict[str, Float[Array, ""]]
    statistics: dict[str, Array] = {}  # noqa: RUF012 (never changed)
    candidates: Any = None
