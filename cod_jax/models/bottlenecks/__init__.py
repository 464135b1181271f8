"""Bottlenecks: one file per kind, behind the interface of `bottleneck.py`."""

from cod_jax.models.bottlenecks.bottleneck import (
    Bottleneck,
    BottleneckConfig,
    BottleneckTraining,
    Draws,
    Quantized,
    SymbolMap,
)
from cod_jax.models.bottlenecks.codebook import CodebookConfig, CodebookTraining
from cod_jax.models.bottlenecks.factorized import FactorizedConfig, FactorizedTraining

__all__ = [
    "Bottleneck",
    "BottleneckConfig",
    "BottleneckTraining",
    "CodebookConfig",
    "CodebookTraining",
    "Draws",
    "FactorizedConfig",
    "FactorizedTraining",
    "Quantized",
    "SymbolMap",
]
