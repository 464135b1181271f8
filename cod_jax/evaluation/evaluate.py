"""Measure a codec on a folder of pictures.

Every picture is encoded to bytes and decoded from those bytes; the rate is counted from the file written.
"""

import csv
import dataclasses
import io
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cod_jax import files, images
from cod_jax.codec import Codec
from cod_jax.coding import stream
from cod_jax.errors import UserError, WorkError, stops_one_file
from cod_jax.evaluation.folders import SUMMARY_FILE, TABLE_FILE, checked_pictures
from cod_jax.evaluation.metric_table import METRICS, Metric, measure, summarize
from cod_jax.model_folder.decoding import checked_seed

SECONDS_IN_LOG = 30


def evaluate(
    codec: Codec,
    images_folder: str | Path,
    output: str | Path,
    *,
    quality: int | None = None,
    decoding: Mapping[str, Any] | None = None,
    table: Sequence[Metric] = METRICS,
    force: bool = False,
    report: Callable[[str], None] = lambda progress: None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure a codec on every picture below a folder and write the results.

    Nothing is written after an error. If the work is stopped, by Ctrl-C or SIGTERM, the results of the pictures that
    were measured are kept, except in the place of an earlier evaluation, which stays.

    Args:
        codec: A loaded model.
        images_folder: Folder of pictures.
        output: Folder to make, with a table, a summary, and the compressed and decoded pictures.
        quality: As `Codec.compress` takes it.
        decoding: Steps, guidance, sampler and seed, as `Codec.decompress` takes them, where they are not the model's.
        table: The metrics.
        force: Replace the folder of an earlier evaluation.
        report: Gets a sentence about the progress every half a minute, for logs; terminals have a bar.

    Returns:
        The summary, and the pictures that could not be measured with the reason.

    Raises:
        UserError: A setting is out of range, there are no pictures, or one of the folders holds the other.
        WorkError: No picture could be measured.
        KeyboardInterrupt, SystemExit: The work was stopped.
        OSError: A folder cannot be read or written.
    """
    decoding = decoding or {}
    used = _describe_decoding(codec, **decoding)
    stream.checked_quality(quality, codec.num_levels)
    names = checked_pictures(images_folder, output, force=force)
    stems = files.without_suffixes([Path(name) for name in names])

    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    stop: BaseException | None = None
    told = time.monotonic()
    with files.new_directory(output, force=force, marker=SUMMARY_FILE) as folder:
        for name, stem in zip(tqdm(names, unit="picture", leave=False, disable=None), stems, strict=True):
            if time.monotonic() - told >= SECONDS_IN_LOG:
                told = time.monotonic()
                report(f"{len(rows) + len(failed)} of {len(names)} pictures")
            try:
                rows.append(_measure(codec, Path(images_folder), name, folder, stem, quality, decoding, table))
            except (KeyboardInterrupt, SystemExit) as error:
                if not rows or any(Path(output).glob("*")):
                    raise
                stop = error
                break
            except Exception as error:
                if isinstance(error, OSError) or not stops_one_file(error):
                    raise
                failed[name] = files.reason(error).removeprefix(f"{name}: ")
        if not rows:
            name, reason = next(iter(failed.items()))
            raise WorkError(f"no picture could be measured; the first of {len(names)}: {name}: {reason}")
        summary = {
            "model_fingerprint": codec.fingerprint,
            "num_images": len(rows),
            **summarize(rows, table),
            "failed": failed,
            **({"num_left": len(names) - len(rows) - len(failed)} if stop else {}),
            "quality": quality or codec.num_levels,
            "decoding": used,
        }
        files.write_bytes(folder / TABLE_FILE, _csv(rows, summary, table).encode(errors="surrogateescape"))
        # JSON has no infinity.
        stored = {name: None if value == math.inf else value for name, value in summary.items()}
        files.write_bytes(folder / SUMMARY_FILE, (json.dumps(stored, indent=2) + "\n").encode())
    if stop is not None:
        warnings.warn(f"stopped; {output} has the results of {len(rows)} of {len(names)} pictures", stacklevel=2)
        raise stop
    return summary, failed


def _describe_decoding(codec: Codec, *, seed: int = 0, **chosen: Any) -> dict[str, Any]:
    """Return how pictures are decoded, for the summary: the codec's own settings where none are chosen.

    Raises:
        UserError: A setting is out of range.
    """
    return {**dataclasses.asdict(codec.decoding.override(**chosen)), "seed": checked_seed(seed)}


def _measure(
    codec: Codec,
    images_folder: Path,
    name: str,
    folder: Path,
    stem: Path,
    quality: int | None,
    decoding: Mapping[str, Any],
    table: Sequence[Metric],
) -> dict[str, Any]:
    """Encode, write, read back, decode and compare one picture; return its row of the CSV file."""
    try:
        content = files.read_bytes(images_folder / name)
    except OSError as error:
        raise UserError(str(error)) from error
    original = images.to_uint8_rgb(content, name, check_size=codec.check_size)
    compressed = folder / "compressed" / stem.with_name(stem.name + ".cod")
    files.write_bytes(compressed, codec.compress(original, quality=quality))
    data = compressed.read_bytes()
    decoded = codec.decompress(data, **decoding)
    images.save_png(folder / "decoded" / stem.with_name(stem.name + ".png"), decoded)
    height, width, _ = original.shape
    return {"name": name, "height": height, "width": width, **measure(original, decoded, len(data), table)}


def _csv(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], table: Sequence[Metric]) -> str:
    """Return the table of all pictures with a last row of means."""
    columns = ["name", "height", "width", *(metric.name for metric in table)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    writer.writerow({"name": "mean", **summary})
    return buffer.getvalue()
