"""Models: typed descriptions, NNX modules, and their view as pure functions."""

from cod_jax.models.bottlenecks import CodebookConfig, FactorizedConfig
from cod_jax.models.cod import CoD
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.config import ConditionCodecConfig, ModelConfig
from cod_jax.models.dconv import DConvConfig
from cod_jax.models.ddt import DDTConfig
from cod_jax.models.functional import Functional, flatten_params, unflatten_params
from cod_jax.models.pixnerdit import PixNerDiTConfig

__all__ = [
    "CoD",
    "CodebookConfig",
    "ComputeConfig",
    "ConditionCodecConfig",
    "DConvConfig",
    "DDTConfig",
    "FactorizedConfig",
    "Functional",
    "ModelConfig",
    "PixNerDiTConfig",
    "build_model",
    "flatten_params",
    "unflatten_params",
]


def build_model(config: ModelConfig, compute: ComputeConfig | None = None) -> Functional[CoD]:
    """The model of a description as a pure function of its parameters; no memory is taken.

    Args:
        config: What to build.
        compute: How to compute it; by default in float32.
    """
    compute = compute or ComputeConfig()
    return Functional(lambda rngs: CoD(config, compute=compute, rngs=rngs))
