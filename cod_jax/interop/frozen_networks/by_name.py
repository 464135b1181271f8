"""The frozen networks that a run needs, by the names that its config gives them."""

from collections.abc import Sequence
from functools import partial

from cod_jax import storage
from cod_jax.interop.frozen_networks.dinov2 import load_dinov2
from cod_jax.interop.frozen_networks.lpips import load_lpips
from cod_jax.interop.frozen_networks.sd_vae import load_sd_vae
from cod_jax.models.functional import Params

_LOADERS = {
    "dinov2": load_dinov2,
    "autoencoder": load_sd_vae,
    "lpips_vgg": partial(load_lpips, trunk="vgg"),
    "lpips_alex": partial(load_lpips, trunk="alex"),
}
# What to do without a network; ends the message about a missing file.
OTHERWISE = {
    "dinov2": "do without: in pre-training set objective.feature_alignment_weight and "
    "objective.condition_alignment_weight to 0, for the one-step codec choose losses=lpips or losses=plain after the "
    "config file",
    "autoencoder": "set model.denoiser.autoencoder to space_to_depth to try things out without it",
    "lpips_vgg": "set objective.reconstruction.lpips_vgg_weight to 0 to do without",
    "lpips_alex": "set objective.reconstruction.lpips_alex_weight to 0 to do without",
}


def load_frozen(names: Sequence[str], weights: str) -> dict[str, Params]:
    """Read the parameters of frozen networks, float32, by name.

    Args:
        names: "dinov2", "autoencoder" (sd-vae-ft-ema), "lpips_vgg", "lpips_alex"; may be empty.
        weights: Folder of the published files, or its address in remote storage; "" for none.

    Raises:
        FileNotFoundError: No folder is named, or a file is missing; the message says which, where it comes from, and
            what to set to do without.
        UserError: A file is damaged or another one, or there is nothing at the address.
    """
    if not weights and names:
        raise FileNotFoundError(
            f"this run needs the frozen network {names[0]!r}, and frozen.weights names no folder of weight files; "
            f"set --config.frozen.weights=FOLDER, or {OTHERWISE[names[0]]}"
        )
    if not names:
        return {}
    folder = storage.local_path(weights)
    return {name: _LOADERS[name](folder, otherwise=OTHERWISE[name]) for name in names}
