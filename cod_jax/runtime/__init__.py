"""Compiled models by JAX, numpy, Pillow, safetensors and the entropy coder alone.

`cod compile` makes their folders. Neither the model's code nor Flax is imported. `load` is `cod_jax.load` for these
folders only.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cod_jax.codec.loading import load_compiled as load

__all__ = ["load"]


def __getattr__(name: str):
    # The codec stands above this package and is offered here too, as it always was.
    if name == "load":
        from cod_jax.codec.loading import load_compiled

        return load_compiled
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
