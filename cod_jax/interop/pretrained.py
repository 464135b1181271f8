"""Parameters of the frozen networks from the weight files that their authors published."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cod_jax.errors import UserError
from cod_jax.features.dinov2 import DINOv2, DINOv2Config
from cod_jax.features.lpips import ALEXNET, LPIPS, VGG16, Stage
from cod_jax.features.sd_vae import SDVAE, SDVAEConfig
from cod_jax.interop.torch_file import read_state_dict
from cod_jax.models.functional import Functional, Params, flatten_params, mismatch_message, unflatten_params


class _Official(NamedTuple):
    """Where the weights of a published network come from.

    Attributes:
        title: What messages call the network.
        url: The file, or the page that holds it.
        names: Names of the files; all hold the same weights, the first is the one to recommend.
        sha256: Checksums of the files, or as many of their first digits as are published; none where none is.
    """

    title: str
    url: str
    names: tuple[str, ...]
    sha256: tuple[str, ...] = ()


_DINOV2 = _Official(
    title="DINOv2 ViT-B/14",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
    names=("dinov2_vitb14_pretrain.pth",),
    sha256=("0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",),
)
_SD_VAE = _Official(
    title="the VAE sd-vae-ft-ema",
    url="https://huggingface.co/stabilityai/sd-vae-ft-ema",
    names=(
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
        "vae-ft-ema-560000-ema-pruned.safetensors",
        "vae-ft-ema-560000-ema-pruned.ckpt",
    ),
)
_LPIPS_URL = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
# Trunk and linear layers.
_LPIPS = {
    "vgg": (
        _Official(
            title="LPIPS with VGG16",
            url="https://download.pytorch.org/models/vgg16-397923af.pth",
            names=("vgg16-397923af.pth",),
            sha256=("397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",),
        ),
        _Official(
            title="LPIPS with VGG16",
            url=_LPIPS_URL,
            names=("vgg.pth",),
            sha256=("a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",),
        ),
    ),
    "alex": (
        _Official(
            title="LPIPS with AlexNet",
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            names=("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth"),
            sha256=("7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", "4df8aa71"),
        ),
        _Official(
            title="LPIPS with AlexNet",
            url=_LPIPS_URL,
            names=("alex.pth",),
            sha256=("df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",),
        ),
    ),
}
_LPIPS_STAGES = {"vgg": VGG16, "alex": ALEXNET}

# Replaced one after the other: ours by theirs.
_LEAVES = {"/kernel": ".weight", "/scale": ".weight", "/": "."}
_DINOV2_NAMES = {
    "positions": "pos_embed",
    "patch_embed": "patch_embed.proj",
    "blocks/block/": "",
    "qkv": "attn.qkv",
    "project": "attn.proj",
    "scale1": "ls1.gamma",
    "scale2": "ls2.gamma",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
    **_LEAVES,
}
_SD_VAE_NAMES = {
    "/blocks/": ".resnets.",
    "encoder/levels": "encoder.down_blocks",
    "decoder/levels": "decoder.up_blocks",
    "shortcut": "conv_shortcut",
    "middle/block1": "mid_block.resnets.0",
    "middle/block2": "mid_block.resnets.1",
    "attention/norm": "attention/group_norm",
    "attention/q": "attention/query",
    "attention/k": "attention/key",
    "attention/v": "attention/value",
    "attention/out": "attention/proj_attn",
    "middle/attention": "mid_block.attentions.0",
    "norm_out": "conv_norm_out",
    "to_moments": "quant_conv",
    "from_latent": "post_quant_conv",
    **_LEAVES,
}
# Replaced one after the other: names of the published file by those of the two others.
_DIFFUSERS_NAMES = {".query": ".to_q", ".key": ".to_k", ".value": ".to_v", ".proj_attn": ".to_out.0"}
_ORIGINAL_NAMES = {
    "down_blocks": "down",
    "up_blocks": "up",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "resnets": "block",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm",
    ".query": ".q",
    ".key": ".k",
    ".value": ".v",
    "proj_attn": "proj_out",
}


class _Slot(NamedTuple):
    """Where a published tensor belongs: our parameter, the index into its stacked axis, and the published shape."""

    name: str
    layer: int | None
    shape: tuple[int, ...]


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
    return _load([_DINOV2], folder, otherwise, dinov2_params_from_state_dict)


def load_sd_vae(folder: str | Path, *, otherwise: str = "") -> Params:
    """Read the official weights of sd-vae-ft-ema, or of its release "-original".

    No checksum of these files is published by their authors: names and shapes are checked.

    Args:
        folder: Folder that holds diffusion_pytorch_model.safetensors (or .bin, or vae-ft-ema-560000-ema-pruned.ckpt or
            .safetensors), or that file under any name.
        otherwise: What to do without the file; ends the message about a missing file.

    Returns:
        Nested float32 arrays, as `Functional` of an `SDVAE` with the default description takes them.

    Raises:
        FileNotFoundError: The file is not there; the message says where it comes from and where it belongs.
        UserError: The file holds something else, or is damaged.
    """
    return _load([_SD_VAE], folder, otherwise, sd_vae_params_from_state_dict)


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
    stages = _LPIPS_STAGES[trunk]
    return _load(_LPIPS[trunk], folder, otherwise, lambda state_dict: lpips_params_from_state_dict(state_dict, stages))


def dinov2_params_from_state_dict(state_dict: Mapping[str, np.ndarray], config: DINOv2Config | None = None) -> Params:
    """Our parameters of a published state dict of DINOv2 without registers; `mask_token` may be there and is unused.

    Args:
        state_dict: Arrays by published name.
        config: The network's description; ViT-B/14 by default.

    Raises:
        UserError: With the missing, the unexpected and the wrongly shaped names.
    """
    config = config or DINOv2Config()
    shapes = Functional(lambda rngs: DINOv2(config, dtype="float32", rngs=rngs)).shapes
    slots: dict[str, _Slot] = {}
    for name, leaf in flatten_params(shapes).items():
        published = _replaced(name, _DINOV2_NAMES)
        if name.startswith("blocks/"):
            shape = _torch_shape(name, leaf.shape[1:])
            slots |= {f"blocks.{layer}.{published}": _Slot(name, layer, shape) for layer in range(config.num_blocks)}
        elif name == "patch_embed/kernel":
            slots[published] = _Slot(name, None, (config.width, 3, config.patch_size, config.patch_size))
        elif name in ("cls_token", "positions"):
            slots[published] = _Slot(name, None, (1, leaf.size // config.width, config.width))
        else:
            slots[published] = _Slot(name, None, _torch_shape(name, leaf.shape))
    return _params(shapes, slots, {name: value for name, value in state_dict.items() if name != "mask_token"})


def sd_vae_params_from_state_dict(state_dict: Mapping[str, np.ndarray], config: SDVAEConfig | None = None) -> Params:
    """Our parameters of a state dict of Stable Diffusion's autoencoder.

    Three ways of naming are understood: that of the published file, that of current versions of diffusers, and that of
    the "-original" release, whose training-time entries (`loss.`, `model_ema.`) are left out.

    Args:
        state_dict: Arrays by published name.
        config: The network's description; sd-vae-ft-ema by default.

    Raises:
        UserError: With the missing, the unexpected and the wrongly shaped names, in the naming that fits best.
    """
    config = config or SDVAEConfig()
    shapes = Functional(lambda rngs: SDVAE(config, dtype="float32", rngs=rngs)).shapes
    given = {name: value for name, value in state_dict.items() if not name.startswith(("loss.", "model_ema."))}
    candidates = sd_vae_slots(shapes, len(config.widths))
    return _params(shapes, max(candidates, key=lambda slots: len(slots.keys() & given.keys())), given)


def lpips_params_from_state_dict(state_dict: Mapping[str, np.ndarray], stages: Sequence[Stage] = VGG16) -> Params:
    """Our parameters of the published state dicts of a trunk and of LPIPS v0.1, joined.

    Args:
        state_dict: Arrays by published name; those of the classifier behind the trunk may be there and are unused.
        stages: The trunk.

    Raises:
        UserError: With the missing, the unexpected and the wrongly shaped names.
    """
    shapes = Functional(lambda rngs: LPIPS(stages, dtype="float32", rngs=rngs)).shapes
    flat = flatten_params(shapes)
    slots: dict[str, _Slot] = {}
    # The published trunk is a list in which activations and poolings count.
    conv = index = 0
    for number, stage in enumerate(stages):
        index += stage.pool > 0
        for _ in stage.widths:
            for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
                name = f"convs/{conv}/{ours}"
                slots[f"features.{index}.{theirs}"] = _Slot(name, None, _torch_shape(name, flat[name].shape))
            conv, index = conv + 1, index + 2
        name = f"weights/{number}"
        slots[f"lin{number}.model.1.weight"] = _Slot(name, None, (1, *flat[name].shape, 1, 1))
    given = {name: value for name, value in state_dict.items() if not name.startswith("classifier.")}
    return _params(shapes, slots, given)


def sd_vae_slots(shapes: Params, num_levels: int) -> tuple[dict[str, _Slot], ...]:
    """Published names and shapes, and our parameters they belong to, in each of the three ways of naming."""
    published: dict[str, _Slot] = {}
    diffusers: dict[str, _Slot] = {}
    original: dict[str, _Slot] = {}
    for name, leaf in flatten_params(shapes).items():
        resampling = "downsamplers.0" if name.startswith("encoder") else "upsamplers.0"
        dotted = _replaced(name.replace("resample", resampling), _SD_VAE_NAMES)
        shape = _torch_shape(name, leaf.shape)
        if name.endswith("kernel") and leaf.ndim == 2:
            as_conv = (*shape, 1, 1)
            shape = shape if "attention" in name else as_conv
        else:
            as_conv = shape
        published[dotted] = _Slot(name, None, shape)
        diffusers[_replaced(dotted, _DIFFUSERS_NAMES)] = _Slot(name, None, shape)
        renamed = _replaced(dotted, _ORIGINAL_NAMES)
        # This release counts the decoder's levels from the finest.
        renamed = re.sub(r"(?<=decoder\.up\.)\d+", lambda level: str(num_levels - 1 - int(level[0])), renamed)
        original[renamed] = _Slot(name, None, as_conv)
    return published, diffusers, original


def _replaced(name: str, replacements: Mapping[str, str]) -> str:
    for ours, theirs in replacements.items():
        name = name.replace(ours, theirs)
    return name


def _torch_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Published shape of one of our arrays: kernels [in, out] are (out, in), [h, w, in, out] are (out, in, h, w)."""
    if not name.endswith("kernel"):
        return shape
    return (shape[-1], shape[-2], *shape[:-2])


def _params(shapes: Params, slots: Mapping[str, _Slot], given: Mapping[str, np.ndarray]) -> Params:
    """Our parameters of published arrays that must fit the slots completely."""
    missing = [name for name in slots if name not in given]
    unexpected = [name for name in given if name not in slots]
    wrong_shape = [
        f"{name} {given[name].shape} instead of {slot.shape}"
        for name, slot in slots.items()
        if name in given and given[name].shape != slot.shape
    ]
    if missing or unexpected or wrong_shape:
        raise UserError(mismatch_message(missing, unexpected, wrong_shape))
    flat = {name: np.empty(leaf.shape, np.float32) for name, leaf in flatten_params(shapes).items()}
    for name, slot in slots.items():
        ours = flat[slot.name] if slot.layer is None else flat[slot.name][slot.layer]
        array = given[name]
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        ours[...] = array.reshape(ours.shape)
    return unflatten_params(flat, shapes)


def _load(
    officials: Sequence[_Official], folder: str | Path, otherwise: str, convert: Callable[[dict[str, np.ndarray]], Any]
) -> Params:
    """Read one network, which may come in several files."""
    paths = [_find(official, folder, otherwise) for official in officials]
    state_dict: dict[str, np.ndarray] = {}
    for official, path in zip(officials, paths, strict=True):
        _check_sha256(official, path)
        state_dict |= read_state_dict(path)
    try:
        return convert(state_dict)
    except UserError as error:
        raise UserError(f"{' and '.join(map(str, paths))}: is not {officials[0].title}: {error}") from error


def _check_sha256(official: _Official, path: Path) -> None:
    if not official.sha256:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(official.sha256):
        raise UserError(
            f"{path}: its SHA-256 is {found}, that of the official file is {' or '.join(official.sha256)}; download it "
            f"again from {official.url}"
        )


def _find(official: _Official, folder: str | Path, otherwise: str) -> Path:
    """The first of the official files in a folder, or the file itself."""
    path = Path(folder)
    if path.is_file():
        return path
    for name in official.names:
        if (path / name).is_file():
            return path / name
    needed = " or ".join(official.names)
    place = f"there is none in {path}" if path.is_dir() else f"there is no such file or folder as {path}"
    raise FileNotFoundError(
        f"{official.title} needs {needed}, and {place}; download it from {official.url} and put it there"
        + (f", or {otherwise}" if otherwise else "")
    )
