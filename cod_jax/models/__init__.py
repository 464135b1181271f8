"""Models: typed descriptions, NNX modules, and their view as pure functions."""

from cod_jax.models.cod import CoD
from cod_jax.models.config import ConditionCodecConfig, DConvConfig, ModelConfig
from cod_jax.models.functional import Functional, flatten_params, unflatten_params

__all__ = [
    "CoD",
    "ConditionCodecConfig",
    "DConvConfig",
    "Functional",
    "ModelConfig",
    "build_model",
    "flatten_params",
    "unflatten_params",
]


def build_model(config: ModelConfig, dtype: str = "float32") -> Functional[CoD]:
    """The model of a description as a pure function of its parameters; no memory is taken.

    Args:
      config: What to build.
      dtype: Dtype of the computation, "float32" or "bfloat16"; parameters are float32.
    """
    return Functional(lambda rngs: CoD(config, dtype=dtype, rngs=rngs))
