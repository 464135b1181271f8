"""LPIPS v0.1 from the official weights of its trunks and of its linear layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from cod_jax.features.lpips import LPIPS
from cod_jax.features.trunk import ALEXNET, VGG16, Stage
from cod_jax.interop.frozen_networks.files import OfficialFile, load_official
from cod_jax.interop.layouts import CONV, Layout
from cod_jax.interop.naming import Rule, Rules, params_from_state_dict, published_entries
from cod_jax.models.functional import Functional, Params

_URL = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
VGG16_FILE = OfficialFile(
    title="VGG16",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    names=("vgg16-397923af.pth",),
    sha256=("397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",),
)
# Of each trunk: the trunk itself, then the linear layers.
LPIPS_FILES = {
    "vgg": (
        VGG16_FILE._replace(title="LPIPS with VGG16"),
        OfficialFile(
            title="LPIPS with VGG16",
            url=_URL,
            names=("vgg.pth",),
            sha256=("a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",),
        ),
    ),
    "alex": (
        OfficialFile(
            title="LPIPS with AlexNet",
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            names=("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth"),
            sha256=("7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", "4df8aa71"),
        ),
        OfficialFile(
            title="LPIPS with AlexNet",
            url=_URL,
            names=("alex.pth",),
            sha256=("df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",),
        ),
    ),
}
STAGES = {"vgg": VGG16, "alex": ALEXNET}
# A vector there is the kernel of a 1x1 convolution with one output.
CHANNELS = Layout(lambda array: array[0, :, 0, 0], lambda array: array[None, :, None, None])


def load_lpips(folder: str | Path, trunk: Literal["vgg", "alex"] = "vgg", *, otherwise: str = "") -> Params:
    """Read the official weights of LPIPS v0.1: those of its trunk, a classifier of ImageNet, and its linear layers.

    Args:
        folder: Folder that holds vgg16-397923af.pth and vgg.pth, or alexnet-owt-7be5be79.pth (of an older release:
            alexnet-owt-4df8aa71.pth) and alex.pth.
        trunk: Which of the two.
        otherwise: What to do without the files; ends the message about a missing file.

    Returns:
        Nested float32 arrays, as `Functional` of an `LPIPS` with `VGG16` or `ALEXNET` takes them.

    Raises:
        FileNotFoundError: A file is not there; the message says where it comes from and where it belongs.
        UserError: A file is not the official one, or damaged.
    """
    stages = STAGES[trunk]
    return load_official(
        LPIPS_FILES[trunk], folder, otherwise, lambda weights: lpips_params_from_state_dict(weights, stages)
    )


def lpips_params_from_state_dict(state_dict: Mapping[str, np.ndarray], stages: Sequence[Stage] = VGG16) -> Params:
    """Return our parameters of the published state dicts of a trunk and of LPIPS v0.1, joined.

    Args:
        state_dict: Arrays by published name; those of the classifier behind the trunk may be among them and are not
            used.
        stages: The trunk.

    Raises:
        UserError: The arrays do not fit; the message lists what is missing, unexpected, or of another shape.
    """
    network = Functional(lambda rngs: LPIPS(stages, dtype="float32", rngs=rngs))
    return params_on_trunk(network, stages, Rule(r"weights/(\d+)", r"lin\1.model.1.weight", CHANNELS), state_dict)


def params_on_trunk(
    network: Functional, stages: Sequence[Stage], rule: Rule, state_dict: Mapping[str, np.ndarray]
) -> Params:
    """Return our parameters of a network that weighs the channels of a trunk.

    Args:
        network: The network.
        stages: Its trunk.
        rule: The naming of the weights of its channels.
        state_dict: Arrays by published name; those of the classifier behind the trunk are not used.

    Raises:
        UserError: The arrays do not fit.
    """
    given = {name: value for name, value in state_dict.items() if not name.startswith("classifier.")}
    return params_from_state_dict(
        network.shapes, published_entries(network.shapes, [rule, *_trunk_rules(stages)]), given
    )


def _trunk_rules(stages: Sequence[Stage]) -> Rules:
    """Return the naming of a trunk's convolutions: a published list, in which activations and poolings count."""
    rules: list[Rule] = []
    conv = index = 0
    for stage in stages:
        index += stage.pool > 0
        for _ in stage.widths:
            rules.append(Rule(f"convs/{conv}", f"features.{index}", CONV))
            conv, index = conv + 1, index + 2
    return rules
