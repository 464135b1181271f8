"""Writing of the report: results and pictures go into the template as data, which its script then shows.

No text of the results becomes HTML. They are JSON in which no tag can end, the script sets them as text, and the page
allows its own script alone.
"""

import base64
import functools
import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cod_jax import files, images
from cod_jax.errors import UserError
from cod_jax.evaluation.reading import read_results
from cod_jax.evaluation.report import choice
from cod_jax.evaluation.report.columns import in_columns, short
from cod_jax.evaluation.report.pictures import Pixels, store, thumbnail
from cod_jax.evaluation.results import few_scales_note

TEMPLATE = Path(__file__).parent / "template"
# In the order in which they are joined; all are one function of the page.
SCRIPTS = (
    "dom",
    "numbers",
    "chart",
    "curves",
    "pointers",
    "viewer",
    "dial",
    "tables",
    "cases",
    "markdown",
    "facts",
    "main",
)
MAX_BYTES = 28_000_000


def write_report(
    evaluation: str | Path,
    images_folder: str | Path,
    output: str | Path,
    *,
    title: str | None = None,
    notes: Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
    replace: bool = True,
) -> int:
    """Write the report of an evaluation as one HTML file.

    Args:
        evaluation: Folder that `cod evaluate` wrote.
        images_folder: Folder of the pictures that were measured.
        output: File to write.
        title: Title of the page; the names of the models by default.
        notes: Sentences that stand at the top.
        max_bytes: About the largest length of the file. Pictures are stored as exactly as it allows.
        replace: Whether a file that exists may be replaced.

    Returns:
        The length of the file in bytes.

    Raises:
        UserError: The results are not of the known form, or a picture is missing or differs from the one measured.
        OSError: A file cannot be read or written.
    """
    evaluation, images_folder = Path(evaluation), Path(images_folder)
    results = read_results(evaluation)
    shown = [results["curves"][index] for index in choice.shown_curves(results["curves"])]
    models = [curve["about"].get("variant_of", curve["title"]) for curve in shown if "levels_of" not in curve["about"]]
    page = {
        **_numbers(results),
        "title": title or ", ".join(dict.fromkeys(models)) or "Evaluation",
        "notes": list(notes),
    }
    viewer, sources, thumbnails = _viewer(results, evaluation, images_folder)
    room = max_bytes - len(_json(page)) - sum(map(len, thumbnails)) - sum(len(part) for part in _template())
    stored = store(sources, max(0, room))
    page["viewer"] = viewer
    page["storage"] = {"title": stored.title, "psnr_min": stored.psnr_min, "psnr_mean": stored.psnr_mean}
    text = _fill(page, {f"p{index}": address for index, address in enumerate(stored.addresses)}, thumbnails)
    data = text.encode(errors="backslashreplace")
    files.write_bytes(output, data, replace=replace)
    return len(data)


def _numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results without paths, and with columns instead of rows."""
    order = {image["name"]: index for index, image in enumerate(results["images"])}
    curves = []
    for curve, family in zip(results["curves"], choice.families(results["curves"]), strict=True):
        points = [
            {
                "label": point["label"],
                "settings": point.get("settings") or {},
                "mean": {name: short(x) for name, x in point["mean"].items() if isinstance(x, (int, float))},
                "images": in_columns(point, order),
                "failed": point.get("failed") or {},
            }
            for point in curve["points"]
        ]
        curves.append({**curve, "family": family, "points": points})
    main = choice.shown_curves(results["curves"])
    few = few_scales_note(results)
    metrics = [
        {**metric, "protocol": f"{metric.get('protocol') or ''} {few}".strip()}
        if metric["name"] == "ms_ssim"
        else metric
        for metric in results["metrics"]
    ]
    return {**results, "curves": curves, "main": main, "metrics": metrics}


def _viewer(
    results: Mapping[str, Any], evaluation: Path, images_folder: Path
) -> tuple[list[dict[str, Any]], list[Callable[[], Pixels]], list[str]]:
    """Return what the viewer shows, functions that read its pictures, and the small pictures to choose from."""
    sources: dict[Path, tuple[int, Callable[[], Pixels]]] = {}
    viewer: list[dict[str, Any]] = []
    thumbnails: list[str] = []

    def number_of(path: Path, size: tuple[int, int]) -> int:
        return sources.setdefault(path, (len(sources), functools.partial(_read, path, size)))[0]

    for index in choice.shown_pictures(results):
        image = results["images"][index]
        size = image["height"], image["width"]
        original = _inside(images_folder, image["name"])
        if not original.exists():
            raise UserError(
                f"expected {image['name']}, which was measured, in {images_folder}, got no such file; name the folder "
                "of the pictures that were measured"
            )
        pixels = _read(original, size)
        if image.get("sha256") and hashlib.sha256(original.read_bytes()).hexdigest() != image["sha256"]:
            raise UserError(
                f"expected {original} as it was measured, got another file of this name; name the folder of the "
                "pictures that were measured"
            )
        thumbnails.append(thumbnail(pixels))
        rows = [
            [
                {"curve": one.curve, "point": one.point, "picture": number_of(_inside(evaluation, one.decoded), size)}
                for one in row
            ]
            for row in choice.viewer_rows(results, image["name"])
        ]
        viewer.append({"image": index, "original": number_of(original, size), "rows": rows})
    return viewer, [read for _, read in sources.values()], thumbnails


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file below a folder.

    Raises:
        UserError: The name leads out of the folder.
    """
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"expected a file below {folder}, got {name}; evaluate again")
    return path


def _read(path: Path, size: tuple[int, int]) -> Pixels:
    pixels = images.to_uint8_rgb(path, warn=False)
    if pixels.shape[:2] != size:
        height, width = pixels.shape[:2]
        raise UserError(
            f"expected {path} with {size[1]}x{size[0]} pixels, as it was measured, got {width}x{height}; "
            "name the folder of the pictures that were measured"
        )
    return pixels


def _template() -> tuple[str, str, str]:
    """Return page, style and script."""
    script = "\n".join((TEMPLATE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return (
        (TEMPLATE / "report.html").read_text(encoding="utf-8"),
        (TEMPLATE / "report.css").read_text(encoding="utf-8"),
        f'(() => {{\n"use strict";\n{script}\nmain();\n}})();\n',
    )


def _fill(page: Mapping[str, Any], pictures: Mapping[str, str], thumbnails: Sequence[str]) -> str:
    """Return the whole file."""
    template, style, script = _template()
    stores = {**pictures, **{f"t{index}": address for index, address in enumerate(thumbnails)}}
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(page["title"]),
        "style": style,
        "data": _json(page),
        "pictures": "\n".join(f'<script type="text/plain" id="{key}">{text}</script>' for key, text in stores.items()),
        "script": script,
    }
    # Once through, so that nothing which was put in is searched for markers.
    first, *rest = template.split("<!--{")
    return first + "".join(parts[name] + after for name, _, after in (part.partition("}-->") for part in rest))


def _json(values: Mapping[str, Any]) -> str:
    """Return JSON that can stand in a page: nothing in it opens or ends a tag or a comment."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
