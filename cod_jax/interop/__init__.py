"""Published weight files: reading them without running code, and models built from them."""

from cod_jax.interop.reference import ReferenceModel, load_reference

__all__ = ["ReferenceModel", "load_reference"]
