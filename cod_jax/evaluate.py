"""Measure a model on a folder of pictures: `python -m cod_jax.evaluate --model DIR --images DIR --output DIR`.

Every picture is encoded to bytes and decoded from those bytes; the rate is counted from the file written.
"""

import argparse
import csv
import dataclasses
import io
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from cod_jax import files, images
from cod_jax.codec import Codec, load
from cod_jax.command_options import (
    add_decoding_arguments,
    add_limit_argument,
    add_quality_argument,
    add_seed_argument,
    chosen_decoding,
    chosen_limit,
)
from cod_jax.compilation_cache import use_compilation_cache
from cod_jax.errors import UserError
from cod_jax.evaluation import metrics
from cod_jax.losses.similarity import SCALE_WEIGHTS, num_ms_ssim_scales
from cod_jax.model_folder.decoding import checked_seed

SUMMARY_FILE = "summary.json"
TABLE_FILE = "per_image.csv"
DESCRIPTION = "Encode pictures to bytes, decode them from bytes, and measure PSNR, MS-SSIM and bits per pixel."
EXAMPLES = """
examples:
  python -m cod_jax.evaluate --model models/lite --images photos --output evaluation
  python -m cod_jax.evaluate --model models/lite --images photos --output natural --steps 25 --seed 1

The output folder holds per_image.csv (one row per picture, and a last one called "mean", which has no size),
summary.json, compressed/NAME.cod and decoded/NAME.png. Pictures (JPEG, PNG, WebP, TIFF, BMP, GIF; no animations) are
searched in all folders below. The mean PSNR leaves out pictures that came back without any error, whose PSNR is
infinite. MS-SSIM of pictures with a side below 161 pixels uses fewer scales (column ms_ssim_scales) and is not
comparable with the usual five; summary.json counts them as num_with_fewer_ms_ssim_scales.

exit status: 0 all pictures measured, 1 some or all failed, 2 wrong usage
"""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured on one picture.

    Attributes:
        name: Its path below the folder.
        height: rows.
        width: columns.
        file_bytes: Length of the compressed file.
        bits_per_pixel: 8 file_bytes / (height width).
        psnr: In dB, infinite when nothing changed.
        ms_ssim: In [0, 1].
        ms_ssim_scales: Scales it was measured at, 5 unless the picture is small.
    """

    name: str
    height: int
    width: int
    file_bytes: int
    bits_per_pixel: float
    psnr: float
    ms_ssim: float
    ms_ssim_scales: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 all measured, 1 some or all failed, 2 usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cod_jax.evaluate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="model folder")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="replace the folder of an earlier evaluation")
    add_quality_argument(parser)
    add_decoding_arguments(parser, default="the model's")
    add_seed_argument(parser)
    add_limit_argument(parser)
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)

    use_compilation_cache()
    try:
        with files.clean_exit_on_sigterm(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            summary, failed = evaluate(
                load(args.model, **chosen_limit(args)),
                args.images,
                args.output,
                quality=args.quality,
                decoding=chosen_decoding(args),
                force=args.force,
            )
    except (UserError, OSError) as error:
        print(files.printable(f"cod_jax.evaluate: error: {files.reason(error)}"), file=sys.stderr)
        return 1
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(files.printable(f"cod_jax.evaluate: warning: {warning.message}"), file=sys.stderr)
    num_images, num_small = summary["num_images"], summary["num_with_fewer_ms_ssim_scales"]
    small = f" ({num_small} at fewer than five scales)" if num_small else ""
    line = (
        f"{num_images} {'picture' if num_images == 1 else 'pictures'}: {summary['bits_per_pixel']:.4g} bits per pixel, "
        f"PSNR {summary['psnr']:.2f} dB, MS-SSIM {summary['ms_ssim']:.4f}{small}; see {args.output}"
    )
    print(files.printable(line, sys.stdout.encoding))
    for name, reason in failed.items():
        print(files.printable(f"cod_jax.evaluate: error: {name}: {reason}"), file=sys.stderr)
    return 1 if failed else 0


def evaluate(
    codec: Codec,
    images_folder: str | Path,
    output: str | Path,
    *,
    quality: int | None = None,
    decoding: Mapping[str, Any] | None = None,
    force: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure a codec on every picture below a folder and write the results, all or none.

    Args:
        codec: A loaded model.
        images_folder: Folder of pictures.
        output: Folder to make, with a table, a summary, and the compressed and decoded pictures.
        quality: As `Codec.compress` takes it.
        decoding: Steps, guidance, sampler and seed, as `Codec.decompress` takes them, where they are not the model's.
        force: Replace the folder of an earlier evaluation.

    Returns:
        The summary, and the pictures that could not be measured with the reason.

    Raises:
        UserError: A setting is out of range, there are no pictures, none could be read, or two of them would be written
            to the same file.
        OSError: A folder cannot be read or written.
    """
    decoding = decoding or {}
    used = _describe_decoding(codec, **decoding)
    names = files.find_images(images_folder)
    if not names:
        raise UserError(f"{images_folder} holds no {files.IMAGE_FORMATS} files; give another folder of pictures")
    stems: dict[Path, str] = {}
    for name in names:
        first = stems.setdefault(Path(name).with_suffix(""), name)
        if first != name:
            raise UserError(f"{first} and {name} in {images_folder} differ only in their suffix; rename one of them")

    rows: list[Measurement] = []
    failed: dict[str, str] = {}
    with files.new_directory(output, force=force, marker=SUMMARY_FILE) as folder:
        for name in tqdm(names, unit="picture", leave=False, disable=None):
            try:
                rows.append(_measure(codec, Path(images_folder), name, folder, quality, decoding))
            except (UserError, MemoryError, jax.errors.JaxRuntimeError) as error:
                failed[name] = files.reason(error).removeprefix(f"{name}: ")
        if not rows:
            name, reason = next(iter(failed.items()))
            raise UserError(f"no picture could be measured; the first of {len(names)}: {name}: {reason}")
        summary = _summarize(rows, codec.fingerprint, failed)
        summary |= {"quality": quality or codec.num_levels, "decoding": used}
        files.write_bytes(folder / TABLE_FILE, _table(rows, summary).encode(errors="surrogateescape"))
        # JSON has no infinity.
        stored = summary if math.isfinite(summary["psnr"]) else {**summary, "psnr": None}
        files.write_bytes(folder / SUMMARY_FILE, (json.dumps(stored, indent=2) + "\n").encode())
    return summary, failed


def _describe_decoding(codec: Codec, *, seed: int = 0, **chosen: Any) -> dict[str, Any]:
    """Return how pictures are decoded, for the summary: the codec's own settings where none are chosen.

    Raises:
        UserError: A setting is out of range.
    """
    return {**dataclasses.asdict(codec.decoding.override(**chosen)), "seed": checked_seed(seed)}


def _measure(
    codec: Codec, images_folder: Path, name: str, folder: Path, quality: int | None, decoding: Mapping[str, Any]
) -> Measurement:
    """Encode, write, read back, decode and compare one picture."""
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
    return Measurement(
        name=name,
        height=height,
        width=width,
        file_bytes=len(data),
        bits_per_pixel=8 * len(data) / (height * width),
        psnr=metrics.psnr(original, decoded),
        ms_ssim=metrics.ms_ssim(original, decoded),
        ms_ssim_scales=num_ms_ssim_scales(height, width),
    )


def _summarize(rows: list[Measurement], fingerprint: str, failed: dict[str, str]) -> dict[str, Any]:
    """Average over pictures; a PSNR that is infinite says nothing about the others and is only counted."""
    finite = [row.psnr for row in rows if math.isfinite(row.psnr)]
    return {
        "model_fingerprint": fingerprint,
        "num_images": len(rows),
        "bits_per_pixel": math.fsum(row.bits_per_pixel for row in rows) / len(rows),
        "psnr": math.fsum(finite) / len(finite) if finite else math.inf,
        "ms_ssim": math.fsum(row.ms_ssim for row in rows) / len(rows),
        "num_with_fewer_ms_ssim_scales": sum(row.ms_ssim_scales < len(SCALE_WEIGHTS) for row in rows),
        "num_lossless": len(rows) - len(finite),
        "failed": failed,
    }


def _table(rows: list[Measurement], summary: dict[str, Any]) -> str:
    columns = [field.name for field in dataclasses.fields(Measurement)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    writer.writerow({"name": "mean", **summary})
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
