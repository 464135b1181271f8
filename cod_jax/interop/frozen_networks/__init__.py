"""Frozen networks from the weight files that their authors published."""

from cod_jax.interop.frozen_networks.by_name import load_frozen
from cod_jax.interop.frozen_networks.dinov2 import load_dinov2
from cod_jax.interop.frozen_networks.dists import load_dists
from cod_jax.interop.frozen_networks.inception import load_inception
from cod_jax.interop.frozen_networks.lpips import load_lpips
from cod_jax.interop.frozen_networks.sd_vae import load_sd_vae

__all__ = ["load_dinov2", "load_dists", "load_frozen", "load_inception", "load_lpips", "load_sd_vae"]
