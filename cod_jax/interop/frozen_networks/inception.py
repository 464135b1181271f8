"""Inception-v3 of the Fréchet distance from its official weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cod_jax.features.inception import Inception
from cod_jax.interop.frozen_networks.files import OfficialFile, load_official
from cod_jax.interop.layouts import CONV
from cod_jax.interop.naming import Rule, params_from_state_dict, published_entries
from cod_jax.models.functional import Functional, Params

INCEPTION_FILE = OfficialFile(
    title="Inception-v3 of FID",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    # The second is the same file in the releases of torch-fidelity.
    names=("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    sha256=("6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",),
)
_FINE = ("branch1x1", "branch5x5_1", "branch5x5_2", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", "branch_pool")
_MIDDLE = (
    "branch1x1",
    *(f"branch7x7_{number}" for number in range(1, 4)),
    *(f"branch7x7dbl_{number}" for number in range(1, 6)),
    "branch_pool",
)
_COARSE = (
    "branch1x1",
    *(f"branch3x3_{part}" for part in ("1", "2a", "2b")),
    *(f"branch3x3dbl_{part}" for part in ("1", "2", "3a", "3b")),
    "branch_pool",
)
_BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _FINE),
    "Mixed_6a": ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _MIDDLE),
    "Mixed_7a": ("branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{number}" for number in range(1, 5))),
    **dict.fromkeys(("Mixed_7b", "Mixed_7c"), _COARSE),
}
# Of the layers in the order of the network.
PUBLISHED_NAMES = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    *(f"{block}.{layer}" for block, layers in _BLOCKS.items() for layer in layers),
)
_RULES = [
    rule
    for number, name in enumerate(PUBLISHED_NAMES)
    for rule in (
        Rule(f"layers/{number}/kernel", f"{name}.conv.weight", CONV),
        Rule(f"layers/{number}/scale", f"{name}.bn.weight"),
        Rule(f"layers/{number}/bias", f"{name}.bn.bias"),
        Rule(f"layers/{number}/mean", f"{name}.bn.running_mean"),
        Rule(f"layers/{number}/variance", f"{name}.bn.running_var"),
    )
]


def load_inception(folder: str | Path, *, otherwise: str = "") -> Params:
    """Read the official weights of the Inception-v3 that the Fréchet distance is measured with.

    Args:
        folder: Folder that holds pt_inception-2015-12-05-6726825d.pth (in the releases of torch-fidelity:
            weights-inception-2015-12-05-6726825d.pth), or that file under any name.
        otherwise: What to do without the file; ends the message about a missing file.

    Returns:
        Nested float32 arrays, as `Functional` of an `Inception` takes them.

    Raises:
        FileNotFoundError: The file is not there; the message says where it comes from and where it belongs.
        UserError: The file is not the official one, or damaged.
    """
    return load_official([INCEPTION_FILE], folder, otherwise, inception_params_from_state_dict)


def inception_params_from_state_dict(state_dict: Mapping[str, np.ndarray]) -> Params:
    """Return our parameters of the published state dict.

    Args:
        state_dict: Arrays by published name; the classifier and the counts of batches may be among them and are not
            used.

    Raises:
        UserError: The arrays do not fit; the message lists what is missing, unexpected, or of another shape.
    """
    network = Functional(lambda rngs: Inception(dtype="float32", rngs=rngs))
    given = {
        name: value
        for name, value in state_dict.items()
        if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
    }
    return params_from_state_dict(network.shapes, published_entries(network.shapes, _RULES), given)
