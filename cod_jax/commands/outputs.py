"""Plan where `cod compress` and `cod decompress` write, and refuse what may not be replaced."""

import dataclasses
import os
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from cod_jax import files
from cod_jax.errors import UserError

STREAM = "-"
"""Standard input or standard output, in the place of a file."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A file to read and what it becomes.

    Attributes:
        source: File to read; None is standard input.
        target: File to write; None is standard output.
        is_named: Whether the user gave the name of the target, rather than its folder or nothing.
    """

    source: Path | None
    target: Path | None
    is_named: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """The names of both for people."""
        return (
            STREAM if self.source is None else str(self.source),
            STREAM if self.target is None else str(self.target),
        )


def plan_outputs(
    inputs: Sequence[str],
    output: str | None,
    suffix: str,
    *,
    beside: str = "",
    find: Callable[[Path], Sequence[str]] | None = None,
) -> list[Conversion]:
    """Pair every input with the file it becomes.

    Inputs that differ in their suffix only keep it, as in a.jpg.cod and a.png.cod.

    Args:
        inputs: Files to read; "-" is standard input.
        output: None for beside each input; "-" for standard output; a name ending in `suffix` for a file; anything else
            for a folder.
        suffix: Suffix of the outputs.
        beside: What the names of outputs beside their inputs have before the suffix.
        find: Lists the files below a folder, relative to it, if inputs may be folders; the outputs keep their tree.

    Raises:
        UserError: The name of an input is empty; the output is a file of another kind, one file for several inputs, or
            the same for two inputs, or would replace an input; standard input or output beside other files; or a folder
            without such files.
    """
    if "" in inputs:
        raise UserError("the name of a file is empty; give the files to read")
    if STREAM in inputs or output == STREAM:
        return [_plan_stream(inputs, output, suffix)]
    sources, places = _expand(inputs, find)
    read = {os.path.realpath(path) for path in sources}
    if output is None:
        targets = [path.with_name(f"{path.name}{beside}{suffix}") for path in files.without_suffixes(sources)]
    elif _is_folder(output):
        if os.path.exists(output) and not os.path.isdir(output):
            raise UserError(f"-o {output} is a file, not a folder; end the name in {suffix} to write a file")
        folder = Path(output)
        targets = [folder / path.with_name(path.name + suffix) for path in files.without_suffixes(places)]
    else:
        _check_file_name(output, suffix)
        if len(sources) > 1:
            raise UserError(f"-o {output} is one file but there are {len(sources)} inputs; give a folder, ending in /")
        _check_not_read(Path(output), sources[0], read)
        return [Conversion(sources[0], Path(output), is_named=True)]

    taken: dict[str, Path] = {}
    for path, target in zip(sources, targets, strict=True):
        place = _check_not_read(target, path, read)
        if place in taken:
            raise UserError(
                f"{taken[place]} and {path} would both be written to {target}; convert them one by one with -o, or "
                "their folder with -r"
            )
        taken[place] = path
    return [Conversion(path, target) for path, target in zip(sources, targets, strict=True)]


def check_paths(conversion: Conversion, force: bool, is_ours: Callable[[Path], bool]) -> None:
    """Refuse an input that is not a file, and an output that may not be replaced.

    Args:
        conversion: What to read and write.
        force: Whether existing outputs may be replaced.
        is_ours: Whether a file at the place of an output is one that cod has written. Others are replaced only where
            the user has named the file.

    Raises:
        UserError: One of them cannot be used.
    """
    source, target = conversion.source, conversion.target
    if source is not None:
        if source.is_dir():
            raise UserError("is a folder; add -r to take the files in it")
        if not source.exists():
            raise UserError("does not exist; check the name")
        if not source.is_file():
            raise UserError("is not a regular file; give its content on standard input, as the file -")
    if target is None or not os.path.lexists(target):
        return
    if not force:
        raise UserError(f"{target} already exists; pass --force to replace it, or choose another output with -o")
    if not conversion.is_named and target.is_file() and target.stat().st_size and not is_ours(target):
        raise UserError(
            f"{target} was not written by cod, so --force does not replace it; name the file with -o, or move it away"
        )


def _plan_stream(inputs: Sequence[str], output: str | None, suffix: str) -> Conversion:
    if len(inputs) > 1:
        raise UserError(f"{STREAM} is one stream but there are {len(inputs)} inputs; convert it by itself")
    source = None if inputs[0] == STREAM else Path(inputs[0])
    if output in (None, STREAM):
        return Conversion(source, None)
    if _is_folder(output):
        raise UserError(f"standard input has no name; give one ending in {suffix} with -o, or -o {STREAM}")
    _check_file_name(output, suffix)
    return Conversion(source, Path(output), is_named=True)


def _is_folder(output: str) -> bool:
    return os.path.isdir(output) or output.endswith(("/", os.sep)) or not Path(output).suffix


def _check_file_name(output: str, suffix: str) -> None:
    if Path(output).suffix.lower() != suffix:
        raise UserError(f"-o {output}: end the name in {suffix} to write a file, or in / to write into a folder")


def _expand(inputs: Sequence[str], find: Callable[[Path], Sequence[str]] | None) -> tuple[list[Path], list[Path]]:
    """Return the files to read, and for each its place below an output folder."""
    sources: list[Path] = []
    places: list[Path] = []
    for name in inputs:
        path = Path(name)
        if find is None and not path.name:  # of . and /
            raise UserError(f"{name} is a folder; add -r to take the files in it")
        if find is None or not path.is_dir():
            sources.append(path)
            places.append(Path(path.name))
            continue
        found = find(path)
        if not found:
            raise UserError(f"{name} holds no files to take; give another folder")
        sources += [path / below for below in found]
        places += [Path(below) for below in found]
    return sources, places


def _check_not_read(target: Path, source: Path, read: Set[str]) -> str:
    place = os.path.realpath(target)
    if place in read:
        raise UserError(f"{source} would be written to {target}, which is an input; choose another output with -o")
    return place
