"""`.cod` files in Pillow: after `import cod_jax.pillow`, `Image.open` and `Image.save` know them.

    import cod_jax.pillow
    cod_jax.pillow.register("compact")
    Image.open("photo.jpg").save("photo.cod")
    Image.open("photo.cod").show()

Opening reads size and mode without a model and without JAX. Loading the pixels takes the model that the file names, one
of those registered or found in the folders of the environment variable COD_JAX_MODELS, and decodes as its model folder
says. Saving takes the model registered last.

`Image.open` warns of pictures above `Image.MAX_IMAGE_PIXELS` and refuses those above twice that, as it does in other
formats; what a model takes is limited further, see `register`.
"""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile

from cod_jax.coding import container
from cod_jax.coding.sizes import checked_limit
from cod_jax.errors import UserError

if TYPE_CHECKING:
    from cod_jax.codec import Codec

FORMAT = "COD"
EXTENSION = ".cod"
MIME_TYPE = "image/x-cod"

# The model folders with their limits on pixels, None being the default; the last one saves.
_registered: dict[Path, int | None] = {}


def register(model: str | os.PathLike[str] | None = None, *, max_pixels: int | None = None) -> None:
    """Make a model known, and the one to save with; its weights are read when they are needed.

    Args:
        model: Model folder, compiled folder (which must be trusted), or name of an included model, as `cod_jax.load`
            takes them; by default the included "compact".
        max_pixels: Larger pictures are neither loaded nor saved with the model; by default the limit of `cod_jax.load`,
            which also holds for the models that are found in COD_JAX_MODELS.

    Raises:
        UserError: The path is not such a folder, or the limit is not from 1 to 2**27.
    """
    from cod_jax.model_folder.description import read_fingerprints
    from cod_jax.model_folder.included import model_path

    if max_pixels is not None:
        max_pixels = checked_limit(max_pixels)
    path = model_path(model)
    read_fingerprints(path)
    path = path.resolve()
    _registered.pop(path, None)
    _registered[path] = max_pixels


class CodImageFile(ImageFile.ImageFile):
    """A `.cod` file as Pillow opens it; `info` holds the `mode` of its payload and the `model` that it names."""

    format = FORMAT
    format_description = "diffusion image codec"
    # None in copies that carry their pixels, such as one that was pickled.
    _data: bytes | None = None

    def _open(self) -> None:
        data = self.fp.read(container.MAX_BYTES + 1)  # pyright: ignore[reportOptionalMemberAccess]
        try:
            self._container = container.read(data)
        except UserError as error:
            raise SyntaxError(str(error)) from error  # this tells Pillow to try other formats
        # Nothing more is read, and programs that want the size alone never load. `Image.open` sets `_exclusive_fp` only
        # afterwards, but gives a name to no file except those that it opened.
        if self.fp is not None and (self._exclusive_fp or self.filename):
            self.fp.close()
        self.fp = None
        self._data = data
        self._size = (self._container.width, self._container.height)
        self._mode = "RGB"
        self.info = {"mode": self._container.mode, "model": self._container.model}

    def verify(self) -> None:
        """Do nothing more: the checksum was compared when the file was opened. Pillow before 13 wants to close it."""

    def load(self):
        """Decode the pixels.

        Raises:
            OSError: The model is not known, or the file cannot be decoded with it.
        """
        if self._data is not None:
            model = _find(self._container)
            try:
                pixels = _load_codec(model).decompress(self._data)
            except UserError as error:
                raise OSError(str(error)) from error
            self.im = Image.fromarray(pixels).im
            self._data = None
            self.tile = []
        return super().load()


def _find(file: container.Container) -> Path:
    from cod_jax.model_folder.description import read_fingerprints
    from cod_jax.model_folder.search import SEARCH_PATH, find_model

    for path in reversed(_registered):
        try:
            if read_fingerprints(path).match(file.model, file.mode):
                return path
        except (UserError, OSError):
            continue  # the folder has gone or changed
    path = find_model(file.model, file.mode)
    if path is None:
        raise OSError(
            f"the file was made with the model of fingerprint {file.model}, which is not known here; name its folder "
            f"with cod_jax.pillow.register, or a folder that holds it in {SEARCH_PATH}"
        )
    return path


def _load_codec(path: Path) -> "Codec":
    from cod_jax.model_folder.description import read_fingerprints
    from cod_jax.model_folder.places import description_file

    fingerprint = read_fingerprints(path).folder
    return _cached_codec(path, fingerprint, description_file(path).read_bytes(), _registered.get(path))


@functools.lru_cache(maxsize=2)
def _cached_codec(path: Path, _fingerprint: str, _description: bytes, max_pixels: int | None) -> "Codec":
    """A codec; with another fingerprint or description, which says how it decodes, the same place has another."""
    from cod_jax.codec import load

    return load(path) if max_pixels is None else load(path, max_pixels=max_pixels)


def _accept(prefix: bytes) -> bool:
    return prefix[:1] == bytes((container.MAGIC,))


def _save(image: Image.Image, fp: Any, filename: str | bytes) -> None:
    if not _registered:
        raise OSError("no model to save .cod files with; name its folder with cod_jax.pillow.register")
    try:
        quality = getattr(image, "encoderinfo", {}).get("quality")
        fp.write(_load_codec(next(reversed(_registered))).compress(image, quality=quality))
    except UserError as error:
        raise OSError(str(error)) from error


Image.register_open(FORMAT, CodImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, EXTENSION)
Image.register_mime(FORMAT, MIME_TYPE)
