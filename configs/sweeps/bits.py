r"""Bits per symbol alone, for any config with a codebook.

    cod sweep --sweep configs/sweeps/bits.py --config configs/lite.py --workdir runs/lite_bits \
        --slurm runs/lite_bits/slurm -- --config.data.source=PHOTOS --config.frozen.weights=WEIGHTS

3 runs, each with the learning rate of its config. `model.codec.pitch` stays, so the rates are as 4 to 6 to 8.
"""

from types import ModuleType
from typing import Any


def get_hyper(hyper: ModuleType) -> list[dict[str, Any]]:
    """Return one point for each number of bits."""
    return hyper.sweep("config.model.codec.bottleneck.bits", [4, 6, 8])
