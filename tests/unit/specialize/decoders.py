"""One-step decoders of tiny models."""

import functools

import jax
import numpy as np

from cod_jax.models import (
    ComputeConfig,
    Functional,
    ModelConfig,
)
from cod_jax.models.compute import Dtype
from cod_jax.specialize.folding import fold
from cod_jax.specialize.parts import OneStepDecoder
from tests.model_fixtures import (
    tiny_bundle,
    tiny_model_config,
)

SYMBOLS = np.array([[[3, 9, 1], [7, 2, 4]], [[15, 0, 0], [8, 8, 12]]], np.int32)[..., None]


LEVELS = np.zeros(2, np.int32)


def decoder(dtype: Dtype = "float32", config: ModelConfig | None = None) -> Functional[OneStepDecoder]:
    """Return the decoder of a model, by default of the tiny one."""
    config = config or tiny_model_config()
    return Functional(lambda rngs: OneStepDecoder(config, compute=ComputeConfig(dtype), rngs=rngs))


@functools.cache
def folded():
    """Return the folded encoder and decoder of the tiny model."""
    bundle = tiny_bundle()
    return fold(bundle.config, bundle.params)


def decoded(functional: Functional[OneStepDecoder], params, patches_per_chunk: int) -> np.ndarray:
    """Decode to an image that is not rounded to bytes, so that small differences show."""

    @jax.jit
    def run(params, symbols, level):
        return functional.bind(params).image(symbols, level, patches_per_chunk=patches_per_chunk)

    return np.asarray(run(params, SYMBOLS, LEVELS))
