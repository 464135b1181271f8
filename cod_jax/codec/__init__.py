"""The codec for users: pictures to bytes and back, with a model folder or a compiled one.

`Codec` has the checks, lists and limits; an engine computes: `model_engine` with the model's code, `compiled_engine`
with compiled programs and without Flax. Each is imported only when a folder needs it. `kept` has the compiled forms
that commands keep of model folders.
"""

from typing import TYPE_CHECKING

from cod_jax.coding.sizes import MAX_PIXELS

if TYPE_CHECKING:
    from cod_jax.codec.codec import Codec
    from cod_jax.codec.loading import from_bundle, load, load_compiled

__all__ = ["MAX_PIXELS", "Codec", "from_bundle", "load", "load_compiled"]


def __getattr__(name: str):
    if name == "Codec":
        from cod_jax.codec.codec import Codec

        return Codec
    if name in __all__:
        from cod_jax.codec import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
