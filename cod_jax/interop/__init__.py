"""Published weights: reading their files without running code, and building models from them."""

from cod_jax.interop.cod_networks.reference import ReferenceModel, load_reference
from cod_jax.interop.frozen_networks import load_dinov2, load_dists, load_inception, load_lpips, load_sd_vae
from cod_jax.interop.weight_files import read_checkpoint, read_state_dict

__all__ = [
    "ReferenceModel",
    "load_dinov2",
    "load_dists",
    "load_inception",
    "load_lpips",
    "load_reference",
    "load_sd_vae",
    "read_checkpoint",
    "read_state_dict",
]
