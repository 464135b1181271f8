r"""Rate against quality of a codebook: bits per symbol, weight of the quantisation loss, and learning rate.

    cod sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir runs/rate \
        -- --config.data.source=PHOTOS

Symbols of a codebook have a fixed length, so `bottleneck.bits` alone decides how many bits a file has.
`objective.bottleneck.commitment_weight` decides how closely the encoder keeps to the code vectors. It is not lambda:
lambda, `objective.bottleneck.rate_weights`, decides the rate of a factorized bottleneck, see docs/rate.md.

12 runs. The learning rates suit configs/tiny.py, whose own is 1e-3. The published sizes train with 1e-4 and less:
change the rates in a copy of this file, or use configs/sweeps/bits.py, which keeps the rate of the config.
"""

from types import ModuleType
from typing import Any


def get_hyper(hyper: ModuleType) -> list[dict[str, Any]]:
    """Return every combination."""
    return hyper.product(
        [
            hyper.sweep("config.model.codec.bottleneck.bits", [4, 6, 8]),
            hyper.sweep("config.objective.bottleneck.commitment_weight", [0.25, 1.0]),
            hyper.sweep("config.optimizer.learning_rate", [3e-4, 1e-3]),
        ]
    )
