"""Published weight files: reading them without running code, and models built from them."""

from cod_jax.interop.reference import ReferenceModel, load_reference
from cod_jax.interop.torch_file import read_checkpoint, read_state_dict

__all__ = ["ReferenceModel", "load_reference", "read_checkpoint", "read_state_dict"]
