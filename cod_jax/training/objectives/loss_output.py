"""Output of a loss besides its value."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float

# Arrays of a run that no gradient changes.
Buffers = dict[str, Any]


class LossOutput(NamedTuple):
    """Output of a loss besides its value.

    Attributes:
        terms: Unweighted loss terms.
        statistics: Means of the bottleneck's statistics over the batch, see `Quantized`; {} if they are not measured.
        candidates: Replacements for unused parameters of the bottleneck, see `BottleneckTraining.candidates`.
    """

    terms: dict[str, Float[Array, ""]]
    statistics: dict[str, Array] = {}  # noqa: RUF012 (never changed)
    candidates: Any = None
