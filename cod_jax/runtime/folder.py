"""Folders of compiled models: their content, and how it is checked.

A folder holds `compiled.json`: what the folder is, size and SHA-256 of every other file, and a SHA-256 of itself. The
weights of encoder and decoder, and the prior of the symbols if the model has one, are safetensors. Each part, platform
and range of sizes has a serialised StableHLO program. No file is Python.

Programs are read by native code of JAX that is not made for hostile input. So a folder must be trusted, or its SHA-256
be known: that of the description stands for all files, each of which is compared with it before it is used.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from cod_jax import files
from cod_jax.coding.symbols import LARGEST_SYMBOL, MAX_BITS, SymbolFormat
from cod_jax.errors import UserError, quoted

FORMAT = "cod_jax compiled model"
VERSION = 2
DESCRIPTION_FILE = "compiled.json"
MAX_DESCRIPTION_BYTES = 2**20
# The entry of the description that holds the checksum of all others.
CHECKSUM = "sha256"

Part = Literal["encode", "decode"]
Platform = Literal["cpu", "cuda", "rocm", "tpu"]
Dtype = Literal["float32", "bfloat16"]
WEIGHTS_FILES: dict[Part, str] = {"encode": "encode.safetensors", "decode": "decode.safetensors"}
PRIOR_FILE = "prior.safetensors"
# Far beyond those of any sensible model: priors of a codebook have 3 megabytes at most, and programs a few.
MAX_PRIOR_BYTES = MAX_PROGRAM_BYTES = 2**26
# In both files of weights, with a factorized bottleneck: the width of every bin, [levels, channels]. Folders of
# version 0.1 say nothing else about its symbols.
BINS = "bottleneck/step"
# About how much temporary memory a pixel takes at least in the encoder of CoD-Lite; folders name less where it is less.
ENCODING_BYTES_PER_PIXEL = 500

# First and last number of a range; None stands for a range without end.
Range = tuple[int, int | None]
ANY: Range = (1, None)

_AGAIN = "copy the folder again, or make it again with cod compile"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The pictures that a program is for, counted in cells of `size_multiple` x `size_multiple` pixels.

    Attributes:
        rows: Rows of cells.
        columns: Columns of cells.
        cells: Rows times columns.
    """

    rows: Range = ANY
    columns: Range = ANY
    cells: Range = ANY

    def __contains__(self, grid: tuple[int, int]) -> bool:
        """Return whether pictures of (rows, columns) cells are among them."""
        rows, columns = grid
        numbers = ((rows, self.rows), (columns, self.columns), (rows * columns, self.cells))
        return all(first <= number and (last is None or number <= last) for number, (first, last) in numbers)


@dataclasses.dataclass(frozen=True)
class Program:
    """One serialised program.

    Attributes:
        part: Whether it encodes or decodes.
        platform: Where it runs.
        sizes: The pictures it is for.
        file: Its file in the folder.
    """

    part: Part
    platform: Platform
    sizes: Sizes
    file: str


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """The size of a file, and its SHA-256 as 64 hex digits."""

    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Description:
    """The description of a compiled model.

    Attributes:
        weights_fingerprint: 64 hex digits that name the model it was made from, without its prior.
        pitch: Pixels per symbol in each direction.
        size_multiple: Both sides of what the programs take are multiples of this many pixels.
        dtype: Dtype of the computation.
        jax_version: Release of JAX that made the programs; older ones may not read them.
        programs: The programs.
        files: Every file beside this description.
        symbols: The symbols of the model; None in folders of version 0.1 of a factorized bottleneck.
        encoding_bytes_per_pixel: About how much temporary memory the encoder takes for a pixel, rather less than more.
        reach: How many cells of `size_multiple` pixels encoder and decoder see around each; None of models that see
            farther, and in older folders.
    """

    weights_fingerprint: str
    pitch: int
    size_multiple: int
    dtype: Dtype
    jax_version: str
    programs: tuple[Program, ...]
    files: dict[str, FileFacts]
    symbols: SymbolFormat | None = None
    encoding_bytes_per_pixel: int = ENCODING_BYTES_PER_PIXEL
    reach: tuple[int, int] | None = None

    @property
    def takes_levels(self) -> bool:
        """Whether programs take quality levels; see `takes_levels`."""
        return self.symbols is None or takes_levels(self.symbols)

    @property
    def platforms(self) -> list[str]:
        """The platforms that the programs run on."""
        return sorted({program.platform for program in self.programs})

    @property
    def sha256(self) -> str:
        """64 hex digits that stand for the folder: the checksum of the description, which has those of all files."""
        return checksum_of(self._values())

    def to_json(self) -> bytes:
        """Return the content of `compiled.json`."""
        return (json.dumps({**self._values(), CHECKSUM: self.sha256}, indent=2) + "\n").encode()

    def _values(self) -> dict[str, Any]:
        values = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        values |= {"codebook_bits": 0}
        if self.encoding_bytes_per_pixel == ENCODING_BYTES_PER_PIXEL:
            del values["encoding_bytes_per_pixel"]
        if self.reach is None:
            del values["reach"]
        if not self.takes_levels:
            values["codebook_bits"] = values.pop("symbols")["last"].bit_length()
        elif self.symbols is None:
            del values["symbols"]
        return values


def takes_levels(symbols: SymbolFormat) -> bool:
    """Return whether programs take pictures, or symbols [B, h, w, C], with the quality levels [B].

    Symbols of fixed length have one channel and one level, and the programs take pictures, or symbols [B, h, w], alone:
    so the first compiled folders were made, and their form stays.
    """
    return symbols.bits is None


def facts_of(data: bytes) -> FileFacts:
    """Describe the content of a file."""
    return FileFacts(len(data), hashlib.sha256(data).hexdigest())


def checksum_of(values: dict[str, Any]) -> str:
    """Return the SHA-256 of a description without its checksum, as JSON of one form, in 64 hex digits.

    Raises:
        UserError: A number is not finite.
    """
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_description(folder: Path, sha256: str = "") -> Description:
    """Read and check `compiled.json`; every file it names must be there with its size.

    Args:
        folder: The folder.
        sha256: What `Description.sha256` must be, 64 hex digits; "" where the folder is trusted.

    Raises:
        UserError: The path is not the folder of a compiled model, or the folder is damaged, from another version, or
            not the one of the SHA-256.
    """
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UserError(
            f"expected a SHA-256 of 64 hex digits in lower case, got {quoted(sha256)}; cod info {folder} prints it"
        )
    file = folder / DESCRIPTION_FILE
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"compiled model {folder} {what}; give a folder written by cod compile")
    if not file.is_file():
        raise UserError(
            f"expected {folder} to hold {DESCRIPTION_FILE}; cod compile makes a compiled model from a model folder"
        )
    if file.stat().st_size > MAX_DESCRIPTION_BYTES:
        raise UserError(f"{file} is longer than {MAX_DESCRIPTION_BYTES} bytes, so it is damaged; {_AGAIN}")
    try:
        values = json.loads(file.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); {_AGAIN}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{file} does not describe a compiled model; give a folder written by cod compile")
    if values.get("version") != VERSION:
        raise UserError(
            f"{folder} has version {quoted(values.get('version'))} of the format and this cod_jax reads version "
            f"{VERSION}; make it again with cod compile of this cod_jax"
        )
    try:
        if values.pop(CHECKSUM, None) != checksum_of(values):
            raise UserError("its checksum is wrong")
        description = _description(values)
        if description.sha256 != checksum_of(values):
            raise UserError("it has entries that are not known")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); {_AGAIN}") from error
    if sha256 and description.sha256 != sha256:
        raise UserError(
            f"expected {folder} to have the SHA-256 {sha256}, got {description.sha256}; it is another folder or was "
            "changed: get it again"
        )
    for name, facts in description.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; {_AGAIN}")
        if path.stat().st_size != facts.num_bytes:
            raise UserError(f"{path} has {path.stat().st_size} bytes instead of {facts.num_bytes}; {_AGAIN}")
    return description


def read_file(folder: Path, description: Description, name: str) -> bytes:
    """Read a file of a folder.

    Raises:
        UserError: Its checksum is not the one in the description.
        OSError: It cannot be read.
    """
    data = files.read_bytes(folder / name)
    _compare(facts_of(data), folder, description, name)
    return data


def check_file(folder: Path, description: Description, name: str) -> None:
    """Check a file of a folder without keeping its content.

    Raises:
        UserError: Its checksum is not the one in the description.
        OSError: It cannot be read.
    """
    with (folder / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts = FileFacts(file.tell(), digest)
    _compare(facts, folder, description, name)


def _compare(facts: FileFacts, folder: Path, description: Description, name: str) -> None:
    if facts != description.files[name]:
        raise UserError(f"{folder / name} is damaged: its checksum is wrong; {_AGAIN}")


def _description(values: dict[str, Any]) -> Description:
    """Return the description of checked values.

    Raises:
        UserError: One of them is missing or unusable; the text names it.
    """
    listed = _of_type(values, "files", dict)
    described = {
        _file_name(name): FileFacts(_whole(facts, "num_bytes", 0, 2**63), _matching(facts, "sha256", "[0-9a-f]{64}"))
        for name, facts in listed.items()
    }
    programs = []
    for program in _of_type(values, "programs", list):
        sizes = _of_type(program, "sizes", dict)
        ranges = {field.name: _range(sizes, field.name) for field in dataclasses.fields(Sizes)}
        part, platform = _chosen(program, "part", Part), _chosen(program, "platform", Platform)
        programs.append(Program(part, platform, Sizes(**ranges), _of_type(program, "file", str)))
    for name in (*WEIGHTS_FILES.values(), *(program.file for program in programs)):
        if name not in described:
            raise UserError(f"{name!r} is not among its files")
    limits = {PRIOR_FILE: MAX_PRIOR_BYTES, **{program.file: MAX_PROGRAM_BYTES for program in programs}}
    for name, most in limits.items():
        if name in described and described[name].num_bytes > most:
            raise UserError(f"{name} has more than {most} bytes")
    pitch, size_multiple = _whole(values, "pitch", 1, 1024), _whole(values, "size_multiple", 1, 1024)
    if size_multiple % pitch:
        raise UserError(f"size_multiple {size_multiple} is not a multiple of pitch {pitch}")
    return Description(
        weights_fingerprint=_matching(values, "weights_fingerprint", "[0-9a-f]{64}"),
        pitch=pitch,
        size_multiple=size_multiple,
        dtype=_chosen(values, "dtype", Dtype),
        jax_version=_matching(values, "jax_version", r"\d{1,4}\.\d{1,4}\.\d{1,4}"),
        programs=tuple(programs),
        files=described,
        symbols=_symbols(values),
        encoding_bytes_per_pixel=_whole(
            {"encoding_bytes_per_pixel": ENCODING_BYTES_PER_PIXEL, **values}, "encoding_bytes_per_pixel", 1, 2**20
        ),
        reach=_reach(values),
    )


def _reach(description: dict[str, Any]) -> tuple[int, int] | None:
    if "reach" not in description:
        return None
    value = _of_type(description, "reach", list)
    if len(value) != 2 or not all(type(number) is int and 0 <= number <= 2**16 for number in value):
        _refuse("reach", value)
    return value[0], value[1]


def _symbols(description: dict[str, Any]) -> SymbolFormat | None:
    bits = _whole(description, "codebook_bits", 0, MAX_BITS)
    if "symbols" not in description:
        return SymbolFormat(1, 0, 2**bits - 1) if bits else None
    values = description["symbols"]
    first, last = (_whole(values, name, -LARGEST_SYMBOL, LARGEST_SYMBOL) for name in ("first", "last"))
    if first > last:
        raise UserError(f"the symbols are {first} to {last}")
    return SymbolFormat(_whole(values, "num_channels", 1, 2**16), first, last, _whole(values, "num_levels", 1, 256))


def _refuse(name: str, value: Any) -> NoReturn:
    raise UserError(f"{name} is {str(value)[:80]!r}")


def _of_type(values: Any, name: str, kind: type) -> Any:
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, kind) and not isinstance(value, bool) else _refuse(name, value)


def _whole(values: Any, name: str, first: int, last: int) -> int:
    value = _of_type(values, name, int)
    return value if first <= value <= last else _refuse(name, value)


def _matching(values: Any, name: str, pattern: str) -> str:
    value = _of_type(values, name, str)
    return value if re.fullmatch(pattern, value, re.ASCII) else _refuse(name, value)


def _chosen(values: Any, name: str, choices: Any) -> Any:
    value = _of_type(values, name, str)
    return value if value in get_args(choices) else _refuse(name, value)


def _range(values: Any, name: str) -> Range:
    value = _of_type(values, name, list)
    kinds = [type(number) for number in value]
    if kinds not in ([int, int], [int, type(None)]):
        _refuse(name, value)
    return value[0], value[1]


def _file_name(name: str) -> str:
    # Only files of the folder itself: no separators, no parent, nothing hidden.
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}", name) else _refuse("file", name)
