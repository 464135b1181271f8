"""Measure a codec on a folder of pictures.

Every picture is encoded to bytes and decoded from those bytes; the rate is counted from the file written.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cod_jax import files, images
from cod_jax.codec import Codec
from cod_jax.coding import stream
from cod_jax.errors import UserError, WorkError, stops_one_file
from cod_jax.evaluation.metric_table import METRICS, Metric, measure, summarize
from cod_jax.model_folder.decoding import checked_seed

SUMMARY_FILE = "summary.json"
TABLE_FILE = "per_image.csv"


def evaluate(
    codec: Codec,
    images_folder: str | Path,
    output: str | Path,
    *,
    quality: int | None = None,
    decoding: Mapping[str, Any] | None = None,
    table: Sequence[Metric] = METRICS,
    force: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure a codec on every picture below a folder and write the results, all or none.

    Args:
        codec: A loaded model.
        images_folder: Folder of pictures.
        output: Folder to make, with a table, a summary, and the compressed and decoded pictures.
        quality: As `Codec.compress` takes it.
        decoding: Steps, guidance, sampler and seed, as `Codec.decompress` takes them, where they are not the model's.
        table: The metrics.
        force: Replace the folder of an earlier evaluation.

    Returns:
        The summary, and the pictures that could not be measured with the reason.

    Raises:
        UserError: A setting is out of range, there are no pictures, or two of them would be written to the same file.
        WorkError: No picture could be measured.
        OSError: A folder cannot be read or written.
    """
    decoding = decoding or {}
    used = _describe_decoding(codec, **decoding)
    stream.checked_quality(quality, codec.num_levels)
    names = files.find_images(images_folder)
    if not names:
        raise UserError(f"{images_folder} holds no {files.IMAGE_FORMATS} files; give another folder of pictures")
    stems: dict[Path, str] = {}
    for name in names:
        first = stems.setdefault(Path(name).with_suffix(""), name)
        if first != name:
            raise UserError(f"{first} and {name} in {images_folder} differ only in their suffix; rename one of them")

    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with files.new_directory(output, force=force, marker=SUMMARY_FILE) as folder:
        for name in tqdm(names, unit="picture", leave=False, disable=None):
            try:
                rows.append(_measure(codec, Path(images_folder), name, folder, quality, decoding, table))
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
            "quality": quality or codec.num_levels,
            "decoding": used,
        }
        files.write_bytes(folder / TABLE_FILE, _csv(rows, summary, table).encode(errors="surrogateescape"))
        # JSON has no infinity.
        stored = {name: None if value == math.inf else value for name, value in summary.items()}
        files.write_bytes(folder / SUMMARY_FILE, (json.dumps(stored, indent=2) + "\n").encode())
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
    quality: int | None,
    decoding: Mapping[str, Any],
    table: Sequence[Metric],
) -> dict[str, Any]:
    """Encode, write, read back, decode and compare one picture; return its row of the CSV file."""
    try:
        content = files.read_bytes(images_folder / name)
    except OSError as error:
        raise UserError(str(error)) from error
    original = images.to_uint8_rgb(content, name)
    compressed = folder / "compressed" / Path(name).with_suffix(".cod")
    files.write_bytes(compressed, codec.compress(original, quality=quality))
    data = compressed.read_bytes()
    decoded = codec.decompress(data, **decoding)
    images.save_png(folder / "decoded" / Path(name).with_suffix(".png"), decoded)
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
