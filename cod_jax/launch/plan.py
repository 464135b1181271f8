"""The plan of a sweep: from a sweep file to runs of the trainer, checked before the first one starts."""

import collections
import dataclasses
import hashlib
import itertools
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cod_jax.errors import UserError
from cod_jax.input.source import TFDS_PREFIX
from cod_jax.input.sources import open_source
from cod_jax.launch import hyper
from cod_jax.training.config import TrainConfig
from cod_jax.training.config_list import find_config

TRAINER = (sys.executable, "-m", "cod_jax.train")
PREFIX = "config."
# Longer names are cut; file systems take 255 bytes, and a run adds nothing to the name of its folder.
LONGEST_NAME = 150
# Values by dotted name, as the trainer reads them on its command line.
Point = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: Of the point and of its folder.
        workdir: Local folder of the run.
        arguments: Arguments of the trainer, without --workdir.
        settings: All settings that the arguments give.
    """

    name: str
    workdir: Path
    arguments: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def address(self) -> str:
        """The address of the checkpoints; "" if they are in the folder of the run."""
        return self.settings.get("checkpoint", {}).get("address", "")

    @property
    def command(self) -> list[str]:
        """The whole command line."""
        return [*TRAINER, *self.trainer_arguments]

    @property
    def trainer_arguments(self) -> list[str]:
        """All arguments of the trainer."""
        return [*self.arguments, f"--workdir={self.workdir}"]


def load_points(file: str) -> list[Point]:
    """Run `get_hyper` of a sweep file.

    Args:
        file: Path of the sweep file; those in configs/ that come with the package are found from everywhere.

    Returns:
        The points in order, without repetitions.

    Raises:
        UserError: The file is missing or cannot be used.
    """
    path = find_config(file)
    if path is None:
        raise UserError(f"there is no sweep file {file}; configs/sweeps/ holds one to start from")
    try:
        names = runpy.run_path(str(path))
        if "get_hyper" not in names:
            raise UserError("it does not define get_hyper(hyper); see configs/sweeps/rate.py")
        points = [{name: _text(value) for name, value in point.items()} for point in names["get_hyper"](hyper)]
    except UserError as error:
        raise UserError(f"sweep file {file} cannot be used: {error}") from error
    except (SyntaxError, ImportError, NameError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"sweep file {file} cannot be used: {type(error).__name__}: {error}") from error
    for name in itertools.chain.from_iterable(points):
        if not str(name).startswith(PREFIX):
            raise UserError(f"sweep file {file} sets {name}; write {PREFIX}{name}, as on the command line")
    if not any(points):
        raise UserError(f"sweep file {file} gives no points; see configs/sweeps/rate.py")
    return list({tuple(sorted(point.items())): point for point in points}.values())


def plan(
    points: Sequence[Point],
    config: str,
    workdir: Path,
    extra: Sequence[str],
    read_arguments: Callable[[Sequence[str]], Mapping[str, Any]],
    address: str = "",
) -> list[Run]:
    """Turn points into runs of the trainer, each with a folder of its own.

    Args:
        points: Values by dotted name.
        config: Config file with its preset, FILE[:OPTIONS].
        workdir: Folder of the sweep.
        extra: Further arguments of the trainer, the same for all points.
        read_arguments: Returns the settings that arguments of the trainer give, or raises a UserError.
        address: Address of remote storage below which each run keeps its checkpoints; "" keeps them in the folders.

    Raises:
        UserError: The trainer could not use the arguments of some point, or several points have one place for their
            checkpoints.
    """
    common = [f"--config={config}", *extra]
    _check_extra(extra, points)
    read_arguments(common)  # an error without the sweep is not blamed on a point
    runs = []
    for name, point in zip(point_names(points), points, strict=True):
        folder = _folder_name(name, workdir)
        arguments = [*common, *(f"--{field}={value}" for field, value in point.items())]
        arguments += [f"--config.checkpoint.address={address}/{folder}"] if address else []
        try:
            settings = TrainConfig.from_dict(read_arguments(arguments), trusted=True)
        except UserError as error:
            raise UserError(f"point {name}: {error}") from error
        runs.append(Run(folder, workdir / folder, tuple(arguments), settings.to_dict()))
    places = [run.address for run in runs if run.address]
    if len(set(places)) < len(places):
        raise UserError(
            f"several points would keep their checkpoints in {places[0]}; give --workdir the address instead"
        )
    return runs


def _folder_name(name: str, workdir: Path) -> str:
    """Return the name of a point's folder: where there is one named as by version 0.1, that one goes on."""
    old = re.sub(r"(^|,)bits=", r"\1codebook_bits=", name)
    return old if (workdir / old).is_dir() and not (workdir / name).exists() else name


def check_data(runs: Sequence[Run], *, here: bool) -> None:
    """Check that every run has training images.

    Args:
        runs: The points.
        here: Whether they will run on this machine: its images are looked for. Datasets of tensorflow-datasets are left
            to the trainer.

    Raises:
        UserError: A point does not name its images, or the folder that it names holds none.
        OSError: A folder that a point names is missing.
    """
    for run in runs:
        if not run.settings["data"]["source"]:
            raise UserError(
                f"point {run.name} has no data.source; add -- --config.data.source=FOLDER, a folder of photographs"
            )
    sources = [run.settings["data"][name] for run in runs for name in ("source", "validation_source")]
    for source in dict.fromkeys(sources):
        if here and source and not source.startswith(TFDS_PREFIX):
            open_source(source)


def point_names(points: Sequence[Point]) -> list[str]:
    """Return a folder name for each point: the fields that vary and their values, as in "bits=4,seed=0".

    The names are unique even without upper and lower case, and hold only letters, digits and "._+-=,~".

    Args:
        points: Values by dotted name; no two points are the same.
    """
    values = collections.defaultdict(list)
    for point in points:
        for field, value in point.items():
            values[field].append(value)
    varied = [field for field, seen in values.items() if len(seen) < len(points) or len(set(seen)) > 1]
    labels = {field: _label(field, values) for field in values}
    names = []
    for point in points:
        fields = [field for field in point if field in varied] or list(point)
        names.append(",".join(f"{labels[field]}={_safe(point[field])}" for field in fields) or "default")
    counts = collections.Counter(name.casefold() for name in names)
    return [
        name if counts[name.casefold()] == 1 and len(name) <= LONGEST_NAME else _with_digest(name, point)
        for name, point in zip(names, points, strict=True)
    ]


def _label(field: str, fields: Iterable[str]) -> str:
    """Return the shortest end of a dotted name that no other field has."""
    parts = field.split(".")
    for count in range(1, len(parts)):
        if sum(other.split(".")[-count:] == parts[-count:] for other in fields) == 1:
            return _safe(".".join(parts[-count:]))
    return _safe(field)


def _safe(text: str) -> str:
    """Return the text with "_" for every run of characters that a folder name should not have."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("_") or "empty"


def _with_digest(name: str, point: Point) -> str:
    described = json.dumps(point, sort_keys=True).encode()
    return f"{name[:LONGEST_NAME]}~{hashlib.sha256(described).hexdigest()[:8]}"


def _text(value: Any) -> str:
    """Return a value as the trainer reads it on its command line.

    Raises:
        UserError: The value cannot be given there.
    """
    if hasattr(value, "item"):
        value = value.item()  # a numpy number
    if isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, bool | int | float | str | tuple):
        raise UserError(f"expected numbers, text, booleans or tuples of them as values, got {value!r}")
    text = str(value)
    if "\n" in text:
        raise UserError(f"expected a value of one line, got {text!r}")
    return text


def _check_extra(extra: Sequence[str], points: Sequence[Point]) -> None:
    """Refuse arguments that the sweep decides."""
    swept = set(itertools.chain.from_iterable(points))
    for argument in extra:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in ("config", "workdir"):
            raise UserError(f"--{name} is an option of the sweep; give it before --")
        if argument.startswith("-") and name in swept:
            raise UserError(f"--{name} is given after -- but the sweep sets it; leave it out of one")
