"""Coders between pictures and files: a model, another codec, or a folder of finished results."""

import abc
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cod_jax import codec as codecs
from cod_jax import files, images
from cod_jax.codec import Codec
from cod_jax.coding.describe import describe_file
from cod_jax.errors import UserError
from cod_jax.image_search import find_files
from cod_jax.model_folder import included
from cod_jax.model_folder.abilities import abilities
from cod_jax.model_folder.decoding import checked_seed
from cod_jax.model_folder.places import is_compiled

Pixels = npt.NDArray[np.uint8]
CARD = "README.md"
NO_GUIDANCE = (
    "the model has not learned pictures without a condition, which guidance leads away from; it is measured with "
    "guidance 1 only"
)
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")


class Coder(abc.ABC):
    """Makes files of pictures and pictures of files; it goes to other processes, so it holds plain values only.

    Attributes:
        compiles: Whether the first picture of a size takes longer, because a program is compiled for it.
    """

    compiles: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def suffix(self) -> str:
        """The suffix of the files."""

    @abc.abstractmethod
    def encode(self, pixels: Pixels, settings: Mapping[str, Any], stem: str) -> bytes | None:
        """Return the file of a picture [H, W, 3]; None where there is a decoded picture and no file.

        Args:
            pixels: The original.
            settings: Those of the rate.
            stem: The name of the picture without its suffix.
        """

    @abc.abstractmethod
    def decode(self, data: bytes, settings: Mapping[str, Any], stem: str, size: tuple[int, int]) -> Pixels:
        """Return the picture of a file.

        Args:
            data: The file.
            settings: Those of the rate.
            stem: The name of the picture without its suffix.
            size: Width and height of the original.
        """

    def payload_bytes(self, data: bytes) -> int | None:
        """Return the length of a file without its header and checksum; None if that is not known."""
        return None


@dataclasses.dataclass(frozen=True)
class Model(Coder):
    """A model folder or a compiled folder.

    Attributes:
        path: The folder.
        max_pixels: Larger pictures are refused; None for the codec's own limit.
    """

    compiles: ClassVar[bool] = True
    path: str
    max_pixels: int | None = None

    @property
    def suffix(self) -> str:
        """The suffix of its files."""
        return ".cod"

    def codec(self) -> Codec:
        """Return the codec, which a process loads once."""
        return _load(self)

    def encode(self, pixels: Pixels, settings: Mapping[str, Any], stem: str) -> bytes:
        """Return the file of a picture [H, W, 3]."""
        return self.codec().compress(pixels, quality=settings["quality"])

    def decode(self, data: bytes, settings: Mapping[str, Any], stem: str, size: tuple[int, int]) -> Pixels:
        """Return the picture of a file."""
        chosen = {name: settings[name] for name in ("steps", "guidance", "sampler", "seed")}
        return self.codec().decompress(data, **chosen)

    def payload_bytes(self, data: bytes) -> int | None:
        """Return the length of the coded symbols."""
        return describe_file(data, layout="cod")["payload_bytes"]


@functools.lru_cache(maxsize=1)
def _load(model: Model) -> Codec:
    if model.max_pixels is None:
        return codecs.load(model.path)
    return codecs.load(model.path, max_pixels=model.max_pixels)


def describe(model: Model, decodings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a plan and a report have to know of a model.

    Args:
        model: The model.
        decodings: Steps, guidance, sampler and seed of each curve, where they are not the model's own.

    Returns:
        JSON values: `about` (the facts of `cod info --json`, and the text of the model's card as `card`), `num_levels`,
        `decodings` with every setting, each that gives other pictures; `can_guide`, which is false if guidance was
        left out of these, because the model cannot be guided; and `devices`, the names of the devices that the model
        runs on.

    Raises:
        UserError: The folder is damaged, or a setting is out of range.
    """
    import jax

    from cod_jax.model_folder.describe import describe_compiled, describe_model

    codec, path = model.codec(), Path(model.path)
    facts = describe_compiled(path) if is_compiled(path) else describe_model(path)
    used: dict[Any, dict[str, Any]] = {}
    for chosen in decodings:
        decoding = codec.decoding.override(**{name: chosen.get(name) for name in ("steps", "guidance", "sampler")})
        codec.engine.check_decoding(decoding)
        settings = {
            "steps": decoding.num_steps,
            "guidance": decoding.guidance_scale,
            "sampler": decoding.sampler,
            "seed": checked_seed(chosen.get("seed", 0)),
        }
        # Guidance has no effect on one step.
        key = (decoding.num_steps, decoding.guidance_scale if decoding.num_steps > 1 else None)
        used.setdefault(key, settings)
    different = list(used.values())
    kept = different if abilities(facts.get("training", {})).knows_null else _without_guidance(different)
    return {
        "about": {**facts, "fingerprint": codec.fingerprint, "card": _card(path)},
        "num_levels": codec.num_levels,
        "decodings": kept,
        "can_guide": kept == different,
        "devices": [device.device_kind for device in jax.devices()],
    }


def _without_guidance(decodings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the decodings with guidance 1 where it has an effect, each once."""
    plain = [one if one["steps"] == 1 else {**one, "guidance": 1.0} for one in decodings]
    return [one for index, one in enumerate(plain) if one not in plain[:index]]


def _card(path: Path) -> str | None:
    """Return the text beside a model that says what it is for; included models share a file with a section for each."""
    if included.is_included(path):
        text = (included.FOLDER / CARD).read_text(encoding="utf-8")
        _, _, section = text.partition(f"\n## {path.name}\n")
        return section.partition("\n## ")[0].strip() or None
    card = path / CARD
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None


@dataclasses.dataclass(frozen=True)
class Results(Coder):
    """A folder of another codec's results: one subfolder per rate, in it coded files beside decoded pictures.

    Attributes:
        folder: The folder.
    """

    folder: str

    @property
    def suffix(self) -> str:
        """The suffix of the copies of its files."""
        return ".bin"

    def rates(self) -> list[str]:
        """Return the names of the subfolders.

        Raises:
            UserError: There are none.
        """
        try:
            found = sorted(entry.name for entry in Path(self.folder).iterdir() if entry.is_dir())
        except OSError as error:
            raise UserError(f"{self.folder} cannot be read ({error.strerror}); give a folder of results") from error
        found = [name for name in found if not name.startswith(".")]
        if not found:
            raise UserError(f"expected {self.folder} to hold a subfolder per rate, got none; make one for each rate")
        return found

    def sha256(self) -> str:
        """Return the SHA-256 of names and contents of all files of the rates: of other files it is another one.

        Raises:
            OSError: The folder cannot be read.
        """
        digest = hashlib.sha256()
        for name in find_files(self.folder, ""):
            if "/" in name:
                digest.update(os.fsencode(name) + b"\0" + _sha256(Path(self.folder) / name))
        return digest.hexdigest()

    def encode(self, pixels: Pixels, settings: Mapping[str, Any], stem: str) -> bytes | None:
        """Return the file that is there, None if there is a decoded picture only.

        Raises:
            UserError: There is neither, or more than one of a kind.
        """
        coded, _ = self._find(settings["folder"], stem)
        return None if coded is None else coded.read_bytes()

    def decode(self, data: bytes, settings: Mapping[str, Any], stem: str, size: tuple[int, int]) -> Pixels:
        """Return the decoded picture that is there.

        Raises:
            UserError: There is none, or it has another size.
        """
        _, path = self._find(settings["folder"], stem)
        pixels = images.to_uint8_rgb(path)
        if (found := (pixels.shape[1], pixels.shape[0])) != size:
            raise UserError(f"expected {path} to have {size[0]}x{size[1]} pixels, got {found[0]}x{found[1]}")
        return pixels

    def _find(self, rate: str, stem: str) -> tuple[Path | None, Path]:
        """Return the coded file and the decoded picture of a picture.

        A lossless picture is taken for the decoded one. Where there is none, one file that is read as a picture, such
        as a JPEG, is both.
        """
        place = Path(self.folder) / rate / stem
        found = [path for path in sorted(place.parent.glob(f"{_literal(place.name)}.*")) if path.is_file()]
        # photo.1.png is the result of another picture, and so is photo.1.bin beside it.
        others = {path.stem for path in found if path.suffix.lower() in files.IMAGE_SUFFIXES} - {place.name}
        found = [path for path in found if path.stem not in others]
        lossless = [path for path in found if path.suffix.lower() in LOSSLESS]
        others = [path for path in found if path not in lossless]
        if not lossless and len(others) == 1 and others[0].suffix.lower() in files.IMAGE_SUFFIXES:
            return others[0], others[0]
        if len(lossless) != 1 or len(others) > 1:
            raise UserError(
                f"expected a decoded picture {place}.png and at most one coded file beside it, got "
                f"{', '.join(path.name for path in found) or 'nothing'}"
            )
        return (others[0] if others else None), lossless[0]


def _sha256(path: Path) -> bytes:
    """Return the SHA-256 of a file; of one that cannot be read b"", because it fails its own picture only."""
    try:
        with files.open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _literal(name: str) -> str:
    """Return a name as a pattern that matches itself only."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
