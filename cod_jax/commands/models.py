"""`cod models`: list the models that are found by the files that name them."""

import argparse
import json
from pathlib import Path
from typing import Any

from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.errors import UserError

EPILOG = """
examples:
  COD_JAX_MODELS=models:/data/models cod models
  cod models --json

Models that come with the package are marked, and -m takes their names. COD_JAX_MODELS lists further model folders,
folders of model folders, and compiled folders, with a colon between them (a semicolon on Windows). Compiled folders
must be trusted, so they are found only if they are named themselves. cod decompress and Pillow find the model of a .cod
file among all of them: its files hold the first 8 digits of a model's fingerprint. Weights are not read, but a folder
that lacks them is marked.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(args: argparse.Namespace) -> int:
    from cod_jax.model_folder.description import WEIGHTS_FILE
    from cod_jax.model_folder.search import SEARCH_PATH, model_folders

    found: list[dict[str, Any]] = []
    status = frame.DONE
    for folder in model_folders():
        try:
            found.append(_describe(folder))
        except (UserError, OSError) as error:
            frame.fail(args, error)
            status = frame.FAILED
    if args.json:
        print(json.dumps(found, indent=2))
    elif not found:
        frame.say(f"no models found; name their folders in {SEARCH_PATH}")
    else:
        width = max(len(model["rate"]) for model in found)
        for model in found:
            missing = "" if model["complete"] else f" (lacks {WEIGHTS_FILE})"
            frame.say(f"{model['fingerprint'][:16]}  {model['rate']:{width}}  {model['place']}{missing}")
    return status


def _describe(folder: Path) -> dict[str, Any]:
    """Return JSON values about a model folder, without reading its weights."""
    from cod_jax.model_folder.bundle import load_description
    from cod_jax.model_folder.description import WEIGHTS_FILE, read_fingerprints
    from cod_jax.model_folder.included import FOLDER
    from cod_jax.model_folder.places import is_compiled

    if is_compiled(folder):
        from cod_jax.model_folder.describe import describe_compiled

        facts = describe_compiled(folder)
        # Compiled folders of version 0.1 do not tell how many levels they have.
        rate = f"{facts['quality_levels']} quality levels" if "quality_levels" in facts else "several quality levels"
        if facts["bits_per_pixel"] is not None:
            rate = f"{facts['bits_per_pixel']:.4g} bits per pixel"
        return {"fingerprint": facts["fingerprint"], "rate": rate, "place": f"{folder} (compiled)", "complete": True}
    codec = load_description(folder)[0].codec
    bits = codec.nominal_bits_per_pixel
    rate = f"{codec.symbols.num_levels} quality levels" if bits is None else f"{bits:.4g} bits per pixel"
    fingerprints = read_fingerprints(folder)
    complete = (folder / WEIGHTS_FILE).is_file()
    place = f"{folder.name} (included)" if folder.parent == FOLDER else str(folder)
    return {"fingerprint": fingerprints.folder, "rate": rate, "place": place, "complete": complete}


COMMAND = Command("list the included models and those in COD_JAX_MODELS", _add_options, _run, EPILOG, device="shared")
