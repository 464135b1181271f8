"""The pieces of work on each picture: encode to a file, decode that file, measure what came back.

They run in different processes: what decodes has never seen the picture, and what is measured is the PNG on the disk.
A metric of a whole set of pictures is measured in two: features of each picture, which are kept, and their distance.
"""

import functools
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cod_jax import files, images
from cod_jax.errors import UserError, stops_one_file
from cod_jax.evaluation.coders import Coder, Model
from cod_jax.evaluation.metric_table import Metric, with_metrics
from cod_jax.evaluation.metric_table import measure as measure_pair
from cod_jax.evaluation.patch_fid import PatchFid, distance
from cod_jax.evaluation.processes import peak_memory_bytes

Value = TypeVar("Value")
# Coder, settings and size of which a process has run the compiled program already.
_warm: set[tuple[Any, ...]] = set()


class Work(NamedTuple):
    """One picture at one rate of one curve.

    Attributes:
        coder: What codes it.
        settings: At which rate, and how it is decoded.
        stem: Its name below the folders of results, without a suffix.
        source: The original.
        file: Where the coded file is written.
        decoded: Where the decoded PNG is written.
        size: Width and height.
    """

    coder: Coder
    settings: Mapping[str, Any]
    stem: str
    source: Path
    file: Path
    decoded: Path
    size: tuple[int, int]


def encode(work: Work) -> dict[str, Any]:
    """Write the coded file; return its length, that of its payload, and the seconds that encoding took."""
    return _try_one(lambda: _encode(work))


def decode(work: Work) -> dict[str, Any]:
    """Write the decoded PNG; return the seconds that decoding took."""
    return _try_one(lambda: _decode(work))


def measure(work: Work, num_bytes: int | None, metrics: Sequence[str], networks: Sequence[Metric]) -> dict[str, Any]:
    """Compare the decoded PNG with the original; return the value of each metric that is measured on single pictures.

    Args:
        work: The picture.
        num_bytes: Length of the coded file, for metrics that ask for it.
        metrics: Names of metrics of other packages.
        networks: Metrics that need weights.
    """
    return _try_one(lambda: _measure(work, num_bytes, (*_table(tuple(metrics)), *networks)))


def save_features(picture: Path, output: Path, patch_fid: PatchFid) -> dict[str, Any]:
    """Write the features of the patches of a picture, original or decoded; return how many patches it has."""
    return _try_one(lambda: _save_features(picture, output, patch_fid))


def compare_sets(pairs: Sequence[tuple[Path, Path]], patch_fid: PatchFid) -> dict[str, Any]:
    """Return the distance of two sets of pictures, and the number of patches of each.

    Args:
        pairs: The features of each original and of its decoded picture, see `save_features`.
        patch_fid: The metric.
    """
    return _try_one(lambda: _compare_sets(pairs, patch_fid))


def read_original(path: Path) -> npt.NDArray[np.uint8]:
    """Return a picture [H, W, 3].

    Raises:
        UserError: It cannot be read.
    """
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise UserError(str(error)) from error
    return images.to_uint8_rgb(content, path.name)


@functools.lru_cache(maxsize=1)
def _table(metrics: tuple[str, ...]) -> tuple[Metric, ...]:
    """Return `with_metrics`, made once in a process, because a metric of another package may take long to make."""
    return with_metrics(metrics)


def _try_one(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a function returns, or the reason why this picture cannot be done."""
    try:
        return function()
    except Exception as error:
        if isinstance(error, OSError) or not stops_one_file(error):
            raise
        return {"error": files.reason(error).removeprefix("image: ")}  # what an array is called


def _encode(work: Work) -> dict[str, Any]:
    pixels = _original(work.source)
    data, seconds = _timed(work, "encode", lambda: work.coder.encode(pixels, work.settings, work.stem))
    if data is None:
        return {"bytes": None}
    files.write_bytes(work.file, data)
    return {"bytes": len(data), "payload_bytes": work.coder.payload_bytes(data), "encode_s": seconds} | _memory(work)


def _decode(work: Work) -> dict[str, Any]:
    data = work.file.read_bytes() if work.file.exists() else b""
    pixels, seconds = _timed(work, "decode", lambda: work.coder.decode(data, work.settings, work.stem, work.size))
    images.save_png(work.decoded, pixels)
    return {"decode_s": seconds} | _memory(work)


def _measure(work: Work, num_bytes: int | None, table: Sequence[Metric]) -> dict[str, Any]:
    decoded = images.to_uint8_rgb(work.decoded)
    return dict(measure_pair(_original(work.source), decoded, num_bytes or 0, table))


def _save_features(picture: Path, output: Path, patch_fid: PatchFid) -> dict[str, Any]:
    features, buffer = patch_fid.features(read_original(picture)), io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    files.write_bytes(output, buffer.getvalue())
    return {"patches": len(features)}


def _compare_sets(pairs: Sequence[tuple[Path, Path]], patch_fid: PatchFid) -> dict[str, Any]:
    originals, decoded = ([np.load(path, allow_pickle=False) for path in paths] for paths in zip(*pairs, strict=True))
    return {patch_fid.name: distance(originals, decoded), "num_patches": sum(map(len, originals))}


def _timed(work: Work, stage: str, function: Callable[[], Value]) -> tuple[Value, float]:
    """Return a value and the seconds that it took, without the time to compile a program."""
    key = (stage, work.coder, work.size, work.settings.get("steps"))
    if work.coder.compiles and key not in _warm:
        function()
        _warm.add(key)
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start


@functools.lru_cache(maxsize=2)
def _original(path: Path) -> npt.NDArray[np.uint8]:
    return read_original(path)


def _memory(work: Work) -> dict[str, int]:
    """Return the largest memory that this process has had, of a model and where the system tells it."""
    # Other codecs share their processes, so that a peak may be that of another one.
    peak = peak_memory_bytes() if isinstance(work.coder, Model) else None
    return {} if peak is None else {"peak_memory_bytes": peak}
