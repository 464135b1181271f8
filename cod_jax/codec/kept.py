"""Compiled forms of model folders, kept beside JAX's compiled programs so that commands start without tracing a model.

The first command with a model makes its compiled form, as `cod compile` does, for this machine only. Later ones run it,
and import neither Flax nor the model's code, and on a CPU not even JAX. Only what takes one step runs so; for anything
else the model is loaded.

A process that uses a form holds a lock of it, so that nobody removes it.
"""

import contextlib
import functools
import hashlib
import importlib.util
import io
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

import cod_jax
from cod_jax import compilation_cache, plugins
from cod_jax.codec.codec import Codec
from cod_jax.codec.compiled_engine import CompiledEngine
from cod_jax.codec.engine import Engine
from cod_jax.codec.loading import from_bundle, load
from cod_jax.coding.sizes import MAX_PIXELS
from cod_jax.errors import UserError
from cod_jax.locks import lock
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.model_folder.description import read_description
from cod_jax.model_folder.places import is_compiled
from cod_jax.runtime.executables import Executables, processor
from cod_jax.runtime.platforms import computes_on_cpu, current_platform

FOLDER = "cod_jax_models"
# Within the form of a model: its programs as they were compiled for sizes of pictures.
EXECUTABLES = "executables"
# Those that were used last stay.
MAX_KEPT = 8
# What a killed process was writing is removed when a form is so much newer.
_ABANDONED_SECONDS = 24 * 3600
_LOCK_FILE = ".in_use"
_PACKAGE = Path(__file__).resolve().parents[1]


Result = TypeVar("Result")


class KeptEngine(Engine):
    """A model that takes single steps by compiled programs, and is loaded for anything else; see `Engine`.

    The model is also what is left if a file of the compiled form turns out to be damaged; the next command then makes
    the form again.

    Args:
        folder: Its model folder.
        kept: Its compiled form.
        decoding: The default settings of the model.
        max_pixels: The limit of its codec.
    """

    def __init__(self, folder: Path, kept: Path, decoding: DecodingConfig, max_pixels: int):
        self._folder, self._max_pixels, self.decoding = folder, max_pixels, decoding
        self._kept, self._in_use = kept, _lock(kept)
        weakref.finalize(self, self._in_use.close)
        self._is_damaged = False
        # On other devices than CPUs, JAX's own cache keeps them.
        executables = Executables(kept / EXECUTABLES) if computes_on_cpu() else None
        try:
            self._compiled = CompiledEngine(kept, executables=executables)
        except BaseException:
            self._in_use.close()
            raise
        self.coder, self.size_multiple = self._compiled.coder, self._compiled.size_multiple
        self.summary = self._compiled.summary

    @functools.cached_property
    def _model(self) -> Engine:
        return load(self._folder, max_pixels=self._max_pixels).engine

    @property
    def config(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The `ModelConfig` of the model."""
        return self._model.config

    def check_decoding(self, decoding: DecodingConfig) -> None:
        """Accept all settings."""

    def bytes_per_pixel(self, decoding: DecodingConfig | None) -> float:
        """Return the approximate temporary memory per pixel; see `Engine.bytes_per_pixel`."""
        is_one = decoding is None or decoding.num_steps == 1
        return (self._compiled if is_one else self._model).bytes_per_pixel(decoding)

    def encode(self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the symbols of pictures; see `Engine.encode`."""
        return self._in_one_step(lambda engine: engine.encode(images_uint8, levels))

    def refine(
        self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32], effort: int
    ) -> npt.NDArray[np.int32]:
        """Return better symbols; see `Engine.refine`."""
        return self._model.refine(images_uint8, levels, effort)

    def decode(
        self,
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures of symbols; see `Engine.decode`."""
        if decoding.num_steps != 1:
            return self._model.decode(symbols, levels, decoding, seed)
        return self._in_one_step(lambda engine: engine.decode(symbols, levels, decoding, seed))

    def condition(self, symbols: npt.NDArray[np.int32], levels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Return the conditions of symbols; see `Engine.condition`."""
        return self._model.condition(symbols, levels)

    def values(self, images_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return what the denoiser makes of pictures; see `Engine.values`."""
        return self._model.values(images_uint8)

    def estimate(
        self, x_t: npt.NDArray[np.float32], t: float, condition: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return what the model expects at the end of the path; see `Engine.estimate`."""
        return self._model.estimate(x_t, t, condition)

    def finish(
        self,
        x_t: npt.NDArray[np.float32],
        t: float,
        condition: npt.NDArray[np.float32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures at the end of the path; see `Engine.finish`."""
        return self._model.finish(x_t, t, condition, levels, decoding)

    def _in_one_step(self, call: Callable[[Engine], Result]) -> Result:
        if not self._is_damaged:
            try:
                return call(self._compiled)
            except (UserError, OSError):  # weights and programs are read when they are needed
                self._is_damaged = True
                self._in_use.close()
                _remove(self._kept)
        return call(self._model)


def load_kept(path: Path, *, max_pixels: int = MAX_PIXELS) -> Codec:
    """Load a model as commands do: its compiled form if there is one, which is made if it can be.

    Args:
        path: A model folder, or a compiled one, which is loaded as it is.
        max_pixels: Larger pictures are refused.

    Raises:
        UserError: See `load`.
    """
    cache = compilation_cache.folder()
    if not cache or "://" in cache or is_compiled(path):
        return load(path, max_pixels=max_pixels)
    description = read_description(path)
    # Code of other packages may change without a trace, and folders from before there were defaults are rare.
    if _has_plugins(description["model"]) or "decoding" not in description or description["dtype"] != "float32":
        return load(path, max_pixels=max_pixels)
    try:
        decoding = DecodingConfig(**description["decoding"])
    except (TypeError, UserError):
        return load(path, max_pixels=max_pixels)  # says what is wrong with it
    kept = Path(cache) / FOLDER / _key(path)
    if kept.is_dir():
        try:
            return _open(path, kept, decoding, max_pixels)
        except (UserError, OSError):  # damaged
            _remove(kept)
    return _make(path, kept, decoding, max_pixels)


def _has_plugins(model: Mapping[str, Any]) -> bool:
    """Return whether a part of a model comes from another package."""
    parts = [model]
    while parts:  # the description may be nested as deeply as JSON can be read
        part = parts.pop()
        if plugins.is_plugin(str(part.get("kind", ""))):
            return True
        parts += [inner for inner in part.values() if isinstance(inner, Mapping)]
    return False


def _open(path: Path, kept: Path, decoding: DecodingConfig, max_pixels: int) -> Codec:
    engine = KeptEngine(path, kept, decoding, max_pixels)
    os.utime(kept)
    return Codec(engine, max_pixels=max_pixels)


def _make(path: Path, kept: Path, decoding: DecodingConfig, max_pixels: int) -> Codec:
    """Write the compiled form of a model and load it, or load the model if it cannot be written."""
    from cod_jax.model_folder.bundle import load_bundle
    from cod_jax.specialize.folder import write_compiled

    bundle = load_bundle(path)
    try:
        with contextlib.suppress(FileExistsError):  # another process was faster
            write_compiled(kept, bundle, platforms=[current_platform()], dtype="float32")
        _drop_oldest(kept.parent)
        return _open(path, kept, decoding, max_pixels)
    except (UserError, OSError):  # a model that cannot be compiled, or no room
        return from_bundle(bundle, max_pixels=max_pixels)


def _lock(kept: Path) -> io.BufferedRandom:
    """Return the lock of a form, which keeps others from removing it until the file is closed.

    Raises:
        OSError: The form is not there, or is being removed.
    """
    file = (kept / _LOCK_FILE).open("a+b")
    if not lock(file, shared=True) or not kept.is_dir():
        file.close()
        raise FileNotFoundError(f"{kept} is being removed")
    return file


def _remove(kept: Path) -> None:
    """Remove a form unless another process uses it."""
    with contextlib.suppress(OSError), (kept / _LOCK_FILE).open("a+b") as file:
        if lock(file):
            shutil.rmtree(kept, ignore_errors=True)


def _drop_oldest(folder: Path) -> None:
    forms, unfinished = [], []
    for one in folder.iterdir():  # names with a dot are of folders that a process is writing, or was
        (unfinished if one.name.startswith(".") else forms).append((one.stat().st_mtime, one))
    forms.sort()
    for _, old in forms[:-MAX_KEPT]:
        _remove(old)
    for changed, old in unfinished:
        if forms and forms[-1][0] - changed > _ABANDONED_SECONDS:
            shutil.rmtree(old, ignore_errors=True)


def _key(path: Path) -> str:
    """Return 64 hex digits that name the content of a model folder, this version of the package, and this machine."""
    digest = hashlib.sha256()
    for name in sorted(file.name for file in path.iterdir() if file.suffix in (".json", ".safetensors")):
        with (path / name).open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    versions = (cod_jax.__version__, *map(_installed, ("jax", "jaxlib")))
    machine = (current_platform(), processor(), os.environ.get("XLA_FLAGS", ""))
    # In a checkout the code changes without the version.
    digest.update(repr((versions, machine, sorted(_sources(_PACKAGE)))).encode())
    return digest.hexdigest()


def _installed(package: str) -> tuple[str, int, bytes]:
    """Return what changes with the version of a package, without importing it."""
    spec = importlib.util.find_spec(package)
    file = Path(str(spec and spec.origin)).with_name("version.py")
    return str(file), file.stat().st_mtime_ns, file.read_bytes()


def _sources(folder: str | Path) -> Iterator[tuple[str, int]]:
    """Yield the Python files below a folder with their times of modification."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _sources(entry.path)
        elif entry.name.endswith(".py"):
            yield entry.path, entry.stat().st_mtime_ns
