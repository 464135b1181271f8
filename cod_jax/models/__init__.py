"""Models: typed descriptions, NNX modules, and their view as pure functions."""

from cod_jax.models.bottlenecks import CodebookConfig, FactorizedConfig
from cod_jax.models.cod import CoD
from cod_jax.models.cod_codec import ConditionCodecConfig
from cod_jax.models.compact import CompactCodecConfig, CompactDenoiserConfig
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.config import ModelConfig
from cod_jax.models.dconv import DConvConfig
from cod_jax.models.ddt import DDTConfig
from cod_jax.models.functional import Functional, flatten_params, unflatten_params
from cod_jax.models.pixnerdit import PixNerDiTConfig

__all__ = [
    "CoD",
    "CodebookConfig",
    "CompactCodecConfig",
    "CompactDenoiserConfig",
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
    """Return a model as a pure function of its parameters, without allocating any.

    Args:
        config: The model's description.
        compute: Settings of the computation; by default float32.
    """
    compute = compute or ComputeConfig()
    return Functional(lambda rngs: CoD(config, compute=compute, rngs=rngs))
