"""DISTS from the official weights of its trunk and of its channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cod_jax.features.dists import DISTS
from cod_jax.features.trunk import VGG16, Stage
from cod_jax.interop.frozen_networks.files import OfficialFile, load_official
from cod_jax.interop.frozen_networks.lpips import CHANNELS, VGG16_FILE, params_on_trunk
from cod_jax.interop.naming import Rule
from cod_jax.models.functional import Functional, Params

DISTS_FILES = (
    VGG16_FILE._replace(title="DISTS"),
    OfficialFile(
        title="DISTS",
        url="https://github.com/dingkeyan93/DISTS/tree/master/DISTS_pytorch",
        names=("weights.pt",),
        sha256=("f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",),
    ),
)


def load_dists(folder: str | Path, *, otherwise: str = "") -> Params:
    """Read the official weights of DISTS: those of VGG16, and of its channels.

    Args:
        folder: Folder that holds vgg16-397923af.pth and weights.pt.
        otherwise: What to do without the files; ends the message about a missing file.

    Returns:
        Nested float32 arrays, as `Functional` of a `DISTS` takes them.

    Raises:
        FileNotFoundError: A file is not there; the message says where it comes from and where it belongs.
        UserError: A file is not the official one, or damaged.
    """
    return load_official(DISTS_FILES, folder, otherwise, dists_params_from_state_dict)


def dists_params_from_state_dict(state_dict: Mapping[str, np.ndarray], stages: Sequence[Stage] = VGG16) -> Params:
    """Return our parameters of the published state dicts of VGG16 and of DISTS, joined.

    Args:
        state_dict: Arrays by published name; those of the classifier behind the trunk may be among them and are not
            used.
        stages: The trunk.

    Raises:
        UserError: The arrays do not fit; the message lists what is missing, unexpected, or of another shape.
    """
    network = Functional(lambda rngs: DISTS(stages, dtype="float32", rngs=rngs))
    return params_on_trunk(network, stages, Rule("alpha|beta", r"\g<0>", CHANNELS), state_dict)
