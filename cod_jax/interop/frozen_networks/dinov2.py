"""DINOv2 ViT-B/14 from its official weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cod_jax.features.dinov2 import DINOv2, DINOv2Config
from cod_jax.interop.frozen_networks.files import OfficialFile, load_official
from cod_jax.interop.layouts import LINEAR, PATCH, Layout
from cod_jax.interop.naming import Rule, params_from_state_dict, published_entries
from cod_jax.models.functional import Functional, Params

DINOV2_FILE = OfficialFile(
    title="DINOv2 ViT-B/14",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
    names=("dinov2_vitb14_pretrain.pth",),
    sha256=("0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",),
)
RULES = (
    Rule("cls_token", "cls_token", Layout(lambda array: array[0, 0], lambda array: array[None, None])),
    Rule("positions", "pos_embed", Layout(lambda array: array[0], lambda array: array[None])),
    Rule("patch_embed", "patch_embed.proj", PATCH),
    Rule("blocks/block/(norm1|norm2)", r"blocks.{layer}.\1"),
    Rule("blocks/block/qkv", "blocks.{layer}.attn.qkv", LINEAR),
    Rule("blocks/block/project", "blocks.{layer}.attn.proj", LINEAR),
    Rule("blocks/block/scale([12])", r"blocks.{layer}.ls\1.gamma"),
    Rule("blocks/block/mlp_in", "blocks.{layer}.mlp.fc1", LINEAR),
    Rule("blocks/block/mlp_out", "blocks.{layer}.mlp.fc2", LINEAR),
    Rule("norm", "norm"),
)


def load_dinov2(folder: str | Path, *, otherwise: str = "") -> Params:
    """Read the official weights of DINOv2 ViT-B/14.

    Args:
        folder: Folder that holds dinov2_vitb14_pretrain.pth, or that file under any name.
        otherwise: What to do without the file, such as "set the weight of the alignment loss to 0"; ends the message
            about a missing file.

    Returns:
        Nested float32 arrays, as `Functional` of a `DINOv2` with the default description takes them.

    Raises:
        FileNotFoundError: The file is not there; the message says where it comes from and where it belongs.
        UserError: The file is not the official one, or damaged.
    """
    return load_official([DINOV2_FILE], folder, otherwise, dinov2_params_from_state_dict)


def dinov2_params_from_state_dict(state_dict: Mapping[str, np.ndarray], config: DINOv2Config | None = None) -> Params:
    """Return our parameters of a published state dict of DINOv2 without registers.

    Args:
        state_dict: Arrays by published name; `mask_token` may be among them and is not used.
        config: The network's description; ViT-B/14 by default.

    Raises:
        UserError: The arrays do not fit; the message lists what is missing, unexpected, or of another shape.
    """
    shapes = Functional(lambda rngs: DINOv2(config or DINOv2Config(), dtype="float32", rngs=rngs)).shapes
    given = {name: value for name, value in state_dict.items() if name != "mask_token"}
    return params_from_state_dict(shapes, published_entries(shapes, RULES), given)
