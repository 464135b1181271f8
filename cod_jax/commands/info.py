"""`cod info`: describe `.cod` files, model folders and compiled models."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cod_jax.commands import compressed_files, frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_format_argument
from cod_jax.commands.outputs import STREAM
from cod_jax.errors import UserError, stops_one_file
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.model_folder.included import model_path
from cod_jax.model_folder.places import is_compiled

if TYPE_CHECKING:
    from cod_jax.coding.symbols import SymbolFormat

EPILOG = """
examples:
  cod info photo.cod                            needs no model
  cod info photo.cod --json                     width, height, mode, model, file_bytes, payload_bytes, ...
  cod info old.cod --format legacy-lite         a file of the published CoD-Lite tool
  cod info out/*.cod                            one after the other; with --json a list, each with its path
  cod info - < photo.cod
  cod info MODEL
  cod info compact                              a model that comes with the package, by its name
  cod info MODEL --json                         fingerprint, pitch, codebook_bits, bits_per_pixel, prior, decoding, ...
  cod info COMPILED                             a folder that cod compile has written

Weights are not read. The quality level of a file is shown if its model has several and is an included one or found in
COD_JAX_MODELS.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="FILE|MODEL",
        help=".cod files, model folders, names of included models, or compiled folders; - reads standard input",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; for several paths, a list")
    add_format_argument(parser)


def _run(args: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    statuses: list[int] = []
    for path in args.paths:
        try:
            facts, lines = _describe(path, args.format)
        except Exception as error:
            if not stops_one_file(error):
                raise
            frame.fail(args, error)
            statuses.append(frame.FAILED if _is_content(path) else frame.NOTHING_TRIED)
            continue
        if not args.json:
            _print_lines(lines, gap=bool(found))
        found.append({"path": path, **facts} if len(args.paths) > 1 else facts)
    if args.json and (len(args.paths) > 1 or found):
        print(json.dumps(found if len(args.paths) > 1 else found[0], indent=2))
    if not statuses:
        return frame.DONE
    nothing = len(statuses) == len(args.paths) and frame.FAILED not in statuses
    return frame.NOTHING_TRIED if nothing else frame.FAILED


def _is_content(path: str) -> bool:
    """Return whether a path has content to look at; an unusable model is wrong usage, as for other commands."""
    return path == STREAM or Path(path).is_file()


def _print_lines(lines: Sequence[tuple[str, str]], *, gap: bool) -> None:
    if gap:
        frame.say("")
    width = max(len(title) for title, _ in lines)
    for title, value in lines:
        frame.say(f"{title:{width}}  {value}")


def _describe(name: str, layout: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return JSON values about what is at a path, and the same as titles and values for people."""
    if not name:
        raise UserError(f"the name of a file is empty; give a {compressed_files.SUFFIX} file or a model folder")
    path = None if name == STREAM else model_path(name)
    if path is not None and path.is_dir():
        from cod_jax.model_folder import describe

        if is_compiled(path):
            facts = describe.describe_compiled(path)
            return facts, _compiled_lines(path, facts)
        facts = describe.describe_model(path)
        return facts, model_lines(path, facts)
    if path is not None and not path.exists():
        raise UserError(f"{path} does not exist; give a {compressed_files.SUFFIX} file or a model folder")
    if path is not None and not path.is_file():
        raise UserError(f"{path} is not a regular file; give a {compressed_files.SUFFIX} file or a model folder")
    try:
        facts = _describe_file(path, layout)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    return facts, _file_lines(name, facts)


def _describe_file(path: Path | None, layout: Any) -> dict[str, Any]:
    from cod_jax.coding.describe import describe_file

    suffix = compressed_files.SUFFIX
    # Published layouts have no magic number: without this rule any file could be a picture of some size.
    if layout != "cod" and path is not None and path.suffix.lower() != suffix:
        raise UserError(
            compressed_files.explain_picture(path)
            or f"expected a {suffix} file by its name; give a {suffix} file or a model folder"
        )
    data = compressed_files.read(path)
    facts = describe_file(data, layout=layout)
    symbols_mode = facts.get("symbols_mode", facts["mode"])
    return {**facts, **_quality(data)} if symbols_mode in ("factorized", "predictive") else facts


def _quality(data: bytes) -> dict[str, Any]:
    """Return the quality level of a file and how many there are, from 1; None where they are not known.

    Whether files name their level follows from their model, so it has to be an included one or in COD_JAX_MODELS.
    """
    from cod_jax.coding import container
    from cod_jax.coding.entropy.factorized import named_level
    from cod_jax.coding.walk import read_walk
    from cod_jax.model_folder.search import find_model

    file = container.read(data)
    model = find_model(file.model, file.mode)
    try:
        symbols = None if model is None else _symbols_of(model)
    except (UserError, OSError):  # a file is described without its model too
        symbols = None
    if symbols is None:
        return {"quality": None, "quality_levels": None}
    payload = read_walk(file.payload)[1] if file.mode == "diffc" else file.payload
    return {"quality": named_level(payload, symbols.num_levels) + 1, "quality_levels": symbols.num_levels}


def _symbols_of(model: Path) -> "SymbolFormat | None":
    """Return the symbols of a model; None for a compiled folder of version 0.1, which does not tell them."""
    if is_compiled(model):
        from cod_jax.runtime.folder import read_description

        return read_description(model).symbols
    from cod_jax.model_folder.bundle import load_description

    return load_description(model)[0].codec.symbols


def _file_lines(name: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return titles and values for people."""
    layout = facts["format"] if facts["version"] is None else f"{facts['format']}, version {facts['version']}"
    quality = []
    if "quality" in facts:
        known = facts["quality"] is not None
        text = f"{facts['quality']} of {facts['quality_levels']}" if known else "shown if COD_JAX_MODELS has the model"
        quality = [("quality", text)]
    steps = []
    if "coded_steps" in facts:
        symbols = f"{facts['symbols_bytes']} bytes, mode {facts['symbols_mode']}"
        chunks = "1 chunk" if facts["chunks"] == 1 else f"{facts['chunks']} chunks"
        told = f"{facts['coded_steps']} of {chunks}, down to {100 * facts['noise']:.3g} % of noise"
        steps = [("symbols", symbols), ("steps", told)]
    return [
        ("file", name),
        ("format", layout),
        ("picture", f"{facts['width']}x{facts['height']} pixels (width x height)"),
        ("model", facts["model"] or "not named; decompress with the one that compressed"),
        ("mode", facts["mode"]),
        *quality,
        *steps,
        ("size", f"{facts['file_bytes']} bytes, {facts['bits_per_pixel']:.4g} bits per pixel"),
        ("payload", f"{facts['payload_bytes']} bytes"),
    ]


def model_lines(path: Path, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return titles and values for people."""
    autoencoder = "none, the model works on pixels"
    if facts["autoencoder"]:
        number = facts["autoencoder"]["parameters"]
        autoencoder = facts["autoencoder"]["name"] + (f", {number:,} parameters" if number else "")
    modes = ["of another package" if mode == "custom" else mode for mode in facts["modes"] if mode != "raw"]
    prior = " and ".join(modes) or "none, symbols are stored with a fixed number of bits"
    # Files of mode raw name the weights and not the prior.
    has_raw_files = bool(modes) and "raw" in facts["modes"]
    lines = [
        ("model", str(path)),
        ("fingerprint", facts["fingerprint"]),
        *([("fingerprint of weights", facts["weights_fingerprint"])] if has_raw_files else []),
        ("symbols", _symbols(facts)),
        ("prior", prior),
        ("parameters", f"{facts['parameters']:,}"),
        ("autoencoder", autoencoder),
        ("attention", facts["attention"] or "none"),
        ("decoding", DecodingConfig(**facts["decoding"]).summary()),
        ("dtype", facts["dtype"]),
    ]
    found = dict(lines)
    # Facts in an untrusted folder do not replace what was found here.
    facts_told = facts["training"].items()
    told = [(name[:80], str(value)[:200]) for name, value in facts_told if isinstance(value, (str, int, float))]
    return lines + [(name, value) for name, value in told if name not in found]


def _compiled_lines(path: Path, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return titles and values for people."""
    return [
        ("compiled model", str(path)),
        ("fingerprint", facts["fingerprint"]),
        ("fingerprint of weights", facts["weights_fingerprint"]),
        ("symbols", _symbols(facts)),
        ("platforms", ", ".join(facts["platforms"])),
        ("programs", f"{facts['programs']}, with weights {facts['file_bytes'] / 1e6:.1f} MB"),
        ("dtype", facts["dtype"]),
        ("made with", f"jax {facts['jax_version']}"),
        ("sha256", facts["sha256"]),
    ]


def _symbols(facts: Mapping[str, Any]) -> str:
    """Return how much a model stores of a piece of a picture."""
    cell = f"for {facts['pitch']}x{facts['pitch']} pixels"
    if facts["codebook_bits"] is not None:
        rate = "" if facts["bits_per_pixel"] is None else f", {facts['bits_per_pixel']:.4g} bits per pixel"
        return f"{facts['codebook_bits']} bits {cell}{rate}"
    if "symbol_channels" not in facts:
        return f"numbers of a factorized bottleneck {cell}"
    return f"{facts['symbol_channels']} numbers {cell}, {facts['quality_levels']} quality levels"


COMMAND = Command("describe .cod files and model folders", _add_options, _run, EPILOG, device="shared")
