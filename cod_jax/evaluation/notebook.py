"""Evaluation of a few pictures in the process at hand, for notebooks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cod_jax.codec.codec import Codec
from cod_jax.coding.describe import describe_file
from cod_jax.errors import UserError
from cod_jax.evaluation.metric_table import METRICS, Metric, measure
from cod_jax.evaluation.results import row_of
from cod_jax.evaluation.stages import read_original
from cod_jax.image_search import find_images
from cod_jax.model_folder.decoding import Sampler


def evaluate_folder(
    codec: Codec,
    folder: str | Path,
    *,
    qualities: Sequence[int] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    metrics: Sequence[Metric] = METRICS,
) -> list[dict[str, Any]]:
    """Compress every picture below a folder, decompress it, and measure it.

    It is a quick look. For figures to publish use `cod evaluate`, which decodes files in another process, goes on where
    it was stopped, and says by which protocol it measured. Values are the same.

    Args:
        codec: What `cod_jax.load` returned.
        folder: Folder of pictures.
        qualities: Quality levels from 1; by default all that the model has.
        steps: See `Codec.decompress`, as for the others.
        guidance: Classifier-free guidance.
        sampler: "euler" or "adams".
        seed: Number of the noise.
        metrics: What is measured.

    Returns:
        A dict per picture and quality with name, width, height, quality, bytes, bpp, payload_bytes and payload_bpp, and
        a value for each metric by its name; `pandas.DataFrame` takes the list as it is.

    Raises:
        UserError: There are no pictures, one cannot be read or compressed, or a setting is out of range.
        OSError: The folder cannot be read.
    """
    names = find_images(folder)
    if not names:
        raise UserError(f"{folder} holds no pictures; give another folder")
    levels = range(1, codec.num_levels + 1) if qualities is None else qualities
    decoding: dict[str, Any] = {"steps": steps, "guidance": guidance, "sampler": sampler, "seed": seed}
    rows: list[dict[str, Any]] = []
    for name in names:
        original = read_original(Path(folder) / name)
        height, width, _ = original.shape
        for quality in levels:
            data = codec.compress(original, quality=quality)
            coded = {"bytes": len(data), "payload_bytes": describe_file(data, layout="cod")["payload_bytes"]}
            measured = measure(original, codec.decompress(data, **decoding), len(data), metrics)
            values = row_of(height * width, coded, {}, measured)
            rows.append({"name": name, "width": width, "height": height, "quality": quality, **values})
    return rows
