"""The released checkpoints, which hold a network among everything that was trained beside it."""

import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cod_jax.errors import UserError, quoted
from cod_jax.interop.cod_networks.description import PREFIXES, PublishedNetwork
from cod_jax.interop.cod_networks.reference import ReferenceModel, load_reference
from cod_jax.interop.weight_files import read_state_dict

WeightsKind = Literal["ema", "raw"]

# The modules of the networks; plain names of other modules are not the network's.
_MODULES = frozenset(
    {"y_embedder", "y_embedder_x", "t_embedder", "s_embedder", "x_embedder", "blocks", "dec_net", "final_layer"}
)
_CACHED = re.compile(r"blocks\.\d+\.block\.")
_LORA = re.compile(r"(^|\.)(lora_[AB]|base_layer|modules_to_save)\.")


@dataclasses.dataclass(frozen=True)
class NetworkWeights:
    """The tensors of one network in a checkpoint.

    Attributes:
        tensors: Arrays by published name without prefix.
        prefix: What their names begin with in the checkpoint.
        left_out: How many entries of other modules there are, by the beginning of their names.
    """

    tensors: dict[str, np.ndarray]
    prefix: str
    left_out: dict[str, int]

    @property
    def kind(self) -> str:
        """Kind of weights: "ema", "raw", or "unnamed" where the file does not say."""
        if not self.prefix:
            return "unnamed"
        return "ema" if self.prefix.startswith("ema") else "raw"


@dataclasses.dataclass(frozen=True)
class PublishedCheckpoint:
    """A released checkpoint as one of our models.

    Attributes:
        model: The model.
        facts: Where its weights come from, for the model folder.
        left_out: How many entries of other modules there are, by the beginning of their names.
    """

    model: ReferenceModel
    facts: dict[str, Any]
    left_out: dict[str, int]


def load_published(
    path: str | os.PathLike[str], network: PublishedNetwork, *, kind: WeightsKind | None = None, key: str = ""
) -> PublishedCheckpoint:
    """Build our model from a released checkpoint.

    Args:
        path: A torch or safetensors file; nothing in it is run.
        network: What its YAML file says.
        kind: Take the moving average or the raw weights; by default the moving average where there is one.
        key: Which dict of tensors to take where the file holds several, see `read_state_dict`.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file is damaged or refused, or does not hold this network; then the message lists what is
            missing, unexpected, or of another shape.
    """
    file = Path(path)
    weights = select_network(read_state_dict(file, key), file, kind=kind, prefix=network.checkpoint_prefix)
    _check_values(weights.tensors, file)
    try:
        model = load_reference(network.class_name, network.init_args, weights.tensors)
    except UserError as error:
        raise UserError(
            f"{file}: does not hold the {network.class_name} that the YAML file describes: {error}; give the YAML file "
            "that belongs to the checkpoint"
        ) from error
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    facts = {
        "source": file.name,
        "source_sha256": sha256,
        "class": network.class_name,
        "weights": weights.kind,
    }
    return PublishedCheckpoint(model, facts, weights.left_out)


def select_network(
    state_dict: Mapping[str, np.ndarray], file: Path, *, kind: WeightsKind | None, prefix: str | None
) -> NetworkWeights:
    """Return the network's tensors out of all in a checkpoint.

    Args:
        state_dict: Arrays by name as in the file.
        file: For messages.
        kind: See `load_published`.
        prefix: What the names begin with, where it is known.

    Raises:
        UserError: The requested weights are not there, or they are not a plain network.
    """
    present = [name for name in PREFIXES if any(_belongs(entry, name) for entry in state_dict)]
    candidates = present if prefix is None else [prefix]
    if kind is not None:
        candidates = [name for name in candidates if name.startswith("ema") == (kind == "ema")]
    chosen = next((name for name in candidates if any(_belongs(entry, name) for entry in state_dict)), None)
    if chosen is None:
        wanted = f"{kind} weights of a network" if kind else "network"
        begins = f" with names that begin with {quoted(prefix)}, as the YAML file says" if prefix else ""
        found = ", ".join(quoted(name) for name in list(_beginnings(state_dict))[:10]) or "nothing"
        raise UserError(f"{file}: holds no {wanted}{begins}; its names begin with {found}")
    tensors = {name.removeprefix(chosen): value for name, value in state_dict.items() if _belongs(name, chosen)}
    if any(map(_CACHED.match, tensors)):
        raise UserError(
            f"{file}: its condition blocks are cached (names such as blocks.0.block.*): the published code replaces "
            "their timestep modulation by constants that it does not store, which cannot be undone; give the file as "
            "it was published, or save it before eval() is called"
        )
    if any(map(_LORA.search, tensors)):
        raise UserError(
            f"{file}: its layers hold LoRA updates that are not merged; merge them with the tool that trained them "
            "and give the merged file"
        )
    return NetworkWeights(tensors, chosen, _beginnings(name for name in state_dict if not _belongs(name, chosen)))


def _belongs(name: str, prefix: str) -> bool:
    return name.startswith(prefix) if prefix else name.partition(".")[0] in _MODULES


def _beginnings(names: Any) -> dict[str, int]:
    """Count names by their first part."""
    return dict(Counter(head + dot for head, dot, _ in (name.partition(".") for name in names)))


def _check_values(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    wrong = [name for name, value in tensors.items() if value.dtype.kind != "f"]
    if wrong:
        raise UserError(
            f"{file}: expected {quoted(wrong[0])} to hold real numbers, got type {tensors[wrong[0]].dtype}; give a "
            "checkpoint of the published trainer"
        )
    broken = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{file}: {len(broken)} tensors hold NaN or infinity, such as {quoted(broken[0])}; download it again"
        )
