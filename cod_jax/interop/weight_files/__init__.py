"""Weight files of PyTorch models and safetensors files, read without PyTorch and without running code in them."""

from cod_jax.interop.weight_files.state_dict import read_checkpoint, read_state_dict

__all__ = ["read_checkpoint", "read_state_dict"]
