"""The YAML files beside the published checkpoints, which say what network a checkpoint holds."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cod_jax.errors import UserError, quoted, reason_of
from cod_jax.interop.cod_networks.description import PREFIXES, PublishedNetwork, published_class
from cod_jax.interop.cod_networks.transformers import ONE_STEP_PIXNERDIT

# The longest of the published files has 4 kilobytes. PyYAML takes up to 30 microseconds for a byte.
MAX_YAML_BYTES = 2**14
# Where a file describes the network.
PLACES = ("denoiser", "net")
# Arguments that say how a network is trained or where its first weights come from, not what it is.
_WITHOUT_EFFECT = frozenset(
    {
        "deep_supervision",
        "fix_encoder",
        "learn_sigma",
        "load_ema",
        "net_ckpt_path",
        "pretrain_prefix",
        "use_checkpoint",
        "weight_path",
    }
)
# Training classes that add nothing to the network, with what they change of its defaults.
_ALIASES: dict[str, tuple[str, dict[str, Any]]] = {"FinetunedOneStepCoD": ("OneStepCoD", {"noise_level": 0.0})}
_PIXEL_AUTOENCODER = {"class_path": "cod.models.autoencoder.PixelAE", "init_args": {"scale": 1.0}}
_LATENT_AUTOENCODER = {
    "class_path": "cod.models.autoencoder.LatentAE",
    "init_args": {"precompute": False, "weight_path": "stabilityai/sd-vae-ft-ema"},
}
_CONDITIONER = {"class_path": "cod.models.autoencoder.PixelConditioner"}


class _Loader(yaml.SafeLoader):
    """Takes `*name` for a single value, as the published files use it for a width.

    Lists and mappings that repeat each other make a short file grow without bound.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("it repeats a list or mapping by *name, which only single values may be")
        return node


def read_network(path: str | os.PathLike[str]) -> PublishedNetwork:
    """Read which network a published YAML file describes.

    The network is `model.denoiser` or `model.net` with `class_path` and `init_args`. In the files of one-step CoD it is
    `model.init_args` beside `ckpt_prefix`. The rest of the file is ignored.

    Raises:
        UserError: There is no such file, it is not YAML, or it describes no network; the message is one line.
    """
    file = Path(path)
    content = _load(file)
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(model, Mapping):
        raise UserError(f"{file}: expected a section called model, got none; give the checkpoint's own YAML")
    prefix = content.get("ckpt_prefix")
    if prefix is not None and not isinstance(prefix, str):
        raise UserError(
            f"{file}: expected ckpt_prefix to be text, got {quoted(prefix)}; set it to what names begin "
            "with, such as net."
        )
    found = {name: model[name] for name in PLACES if isinstance(model.get(name), Mapping)}
    if len(found) > 1:
        raise UserError(f"{file}: has two networks, model.denoiser and model.net; remove the one you do not import")
    if found:
        ((name, section),) = found.items()
        where = f"model.{name}"
    elif isinstance(model.get("init_args"), Mapping):
        # The tool of one-step CoD knows one class only and does not name it.
        where, section = "model", {"class_path": ONE_STEP_PIXNERDIT.path, **model}
    else:
        raise UserError(f"{file}: has no network: neither model.denoiser nor model.net; give the checkpoint's own YAML")
    class_path = section.get("class_path")
    if not isinstance(class_path, str):
        raise UserError(f"{file}: {where} has no class_path; give the checkpoint's own YAML")
    class_name = class_path.rpartition(".")[2]
    init_args = _init_args(section, f"{file}: {where}")
    if class_name in _ALIASES:
        class_name, changed = _ALIASES[class_name]
        init_args = {**changed, **init_args}
    if where == "model":
        init_args.setdefault("num_groups", 12)
    return PublishedNetwork(class_name, init_args, prefix)


def network_yaml(network: PublishedNetwork) -> str:
    """Return the text of a YAML file that tells the published tools which network a checkpoint holds."""
    record = published_class(network.class_name, network.init_args)
    section: dict[str, Any] = {"class_path": record.path, "init_args": dict(network.init_args)}
    match record.section:
        case "":
            model = section
        case "net":
            model = {"net": section}
        case _:
            is_latent = record.to_config(network.init_args).is_latent
            model = {
                "latent": is_latent,
                "denoiser": section,
                "vae": _LATENT_AUTOENCODER if is_latent else _PIXEL_AUTOENCODER,
                "conditioner": _CONDITIONER,
            }
    # The other tools find the usual names without it, and the published trainer takes no such key.
    needs_prefix = not record.section or network.checkpoint_prefix not in (None, *PREFIXES)
    prefix = {"ckpt_prefix": network.checkpoint_prefix or ""} if needs_prefix else {}
    return yaml.safe_dump({**prefix, "model": model}, sort_keys=False)


def _load(file: Path) -> Any:
    if file.is_dir():
        raise UserError(f"{file}: is a folder; name the YAML file in it")
    if not file.exists():
        raise UserError(f"{file}: there is no such YAML file; check the path")
    if file.stat().st_size > MAX_YAML_BYTES:
        raise UserError(
            f"{file}: expected the YAML file of a network, at most {MAX_YAML_BYTES} bytes, got {file.stat().st_size}; "
            "check the path"
        )
    try:
        return yaml.load(file.read_bytes(), _Loader)
    # PyYAML raises its own errors, and lets others through, such as those of ill-formed numbers, dates and tags.
    except Exception as error:
        raise UserError(
            f"{file}: cannot be read as YAML ({reason_of(error)}); give the checkpoint's own YAML"
        ) from error


def _init_args(section: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return the arguments that say what the network is."""
    arguments: dict[str, Any] = {}
    # What a class passes on to the class it extends is set apart in files that the published trainer saved.
    for name in ("dict_kwargs", "init_args"):
        given = section.get(name)
        if given is None:
            continue
        if not isinstance(given, Mapping) or not all(isinstance(argument, str) for argument in given):
            raise UserError(f"{where}.{name} is not a list of named arguments; give the checkpoint's own YAML")
        arguments |= given
    return {
        name: value
        for name, value in arguments.items()
        if name not in _WITHOUT_EFFECT and not (isinstance(value, Mapping) and "class_path" in value)
    }
