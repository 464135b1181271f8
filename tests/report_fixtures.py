"""An evaluation of small pictures, as `cod evaluate` writes it, with numbers that no codec made."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from cod_jax import images
from cod_jax.evaluation.metrics import psnr

LEVELS = (48, 24, 12, 6)
SIZE = (96, 144)
# Of results.json, which is JSON of any depth.
Results = dict[str, Any]


def write_evaluation(folder: Path, num_pictures: int = 5, names: list[str] | None = None) -> tuple[Path, Path, Results]:
    """Write pictures and an evaluation of one model and three baselines.

    Returns:
        The folder of the evaluation, that of the pictures, and the results.
    """
    source, evaluation = folder / "photos", folder / "results"
    names = names or [f"picture {index:02d}.png" for index in range(num_pictures)]
    originals = [picture(index) for index in range(len(names))]
    for name, pixels in zip(names, originals, strict=True):
        images.save_png(source / name, pixels)
    curves = [
        _curve(evaluation, names, originals, *of_curve)
        for of_curve in (
            (
                "compact",
                "model",
                "compact (1 step)",
                1.0,
                {"card": "# A card\n\nWords, `code`.\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |"},
            ),
            ("jpeg", "baseline", "JPEG", 2.0, {"scale": 1.0, "versions": {"pillow": "13"}}),
            ("jpeg-half", "baseline", "JPEG, half resolution", 0.9, {"scale": 0.5}),
            ("webp", "baseline", "WebP", 1.4, {"scale": 1.0}),
        )
    ]
    results = {
        "format": 1,
        "created": "2026-11-29T03:00:00Z",
        "command": "cod evaluate -m compact --images photos --output results",
        "versions": {"cod_jax": "0.2", "jax": "0.10"},
        "machine": {"processor": "a processor", "cores": 2, "memory_bytes": 8_000_000_000},
        "protocol": {"images": "whole", "rate": "bytes of the file"},
        "images": [
            {
                "name": name,
                "width": SIZE[1],
                "height": SIZE[0],
                "sha256": hashlib.sha256((source / name).read_bytes()).hexdigest(),
            }
            for name in names
        ],
        "metrics": [
            {"name": "psnr", "title": "PSNR", "unit": "dB", "better": "higher", "protocol": "mean of pictures"},
            {
                "name": "lpips",
                "title": "LPIPS",
                "unit": "",
                "better": "lower",
                "protocol": "",
                "weights_sha256": "cd" * 32,
            },
        ],
        "not_measured": [{"name": "dists", "title": "DISTS", "reason": "no weight file"}],
        "curves": curves,
        "bd": [
            {
                "curve": "compact",
                "against": "jpeg",
                "metric": "psnr",
                "rate_percent": -51.2,
                "overlap": [20, 30],
                "reason": None,
            },
            {
                "curve": "compact",
                "against": "webp",
                "metric": "psnr",
                "rate_percent": None,
                "overlap": None,
                "reason": "too little",
            },
        ],
    }
    (evaluation / "results.json").write_text(json.dumps(results))
    return evaluation, source, results


def picture(seed: int) -> np.ndarray:
    """Return a smooth picture with a few edges."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width].astype(float)
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [127 + 90 * np.sin(x / 11 + phase[c]) * np.cos(y / (7 + seed) + c) for c in range(3)]
    pixels = np.stack(waves, axis=-1)
    pixels[20:60, 30 + seed : 80] = [200, 40, 60]
    return pixels.clip(0, 255).astype(np.uint8)


def _curve(
    evaluation: Path,
    names: list[str],
    originals: list[np.ndarray],
    name: str,
    kind: str,
    title: str,
    factor: float,
    about: Any,
) -> Results:
    points = []
    for place, levels in enumerate(LEVELS):
        rows = []
        for index, (picture_name, pixels) in enumerate(zip(names, originals, strict=True)):
            step = max(1, round(levels * (1 + 0.1 * index)))
            decoded = (pixels // step * step + step // 2).clip(0, 255).astype(np.uint8)
            path = f"decoded/{name}/{place + 1}/{index}.png"
            images.save_png(evaluation / path, decoded)
            num_bytes = round(factor * 100 * (place + 1) ** 1.5 * (1 + 0.05 * index))
            rows.append(
                {
                    "name": picture_name,
                    "bytes": num_bytes,
                    "bpp": 8 * num_bytes / pixels[..., 0].size,
                    "psnr": psnr(pixels, decoded),
                    "lpips": 0.5 / (place + 1),
                    "encode_s": 0.02,
                    "decode_s": 0.03,
                    "decoded": path,
                }
            )
        mean = {
            key: float(np.mean([row[key] for row in rows])) for key in ("bpp", "psnr", "lpips", "encode_s", "decode_s")
        }
        points.append({"label": str(place + 1), "settings": {"quality": place + 1}, "mean": mean, "images": rows})
    return {"name": name, "kind": kind, "title": title, "about": about, "points": points}
