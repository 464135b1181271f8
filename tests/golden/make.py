"""Make the golden files: `python -m tests.golden.make`.

They show that files of earlier versions stay readable. Whoever adds one for a new mode or version of the format runs
this, and all others must come out as they were.
"""

import dataclasses
import json
from typing import Literal

import numpy as np

from cod_jax import images
from cod_jax.coding import container, stream
from cod_jax.coding.entropy import FactorizedModel, Prior
from cod_jax.model_folder.prior_file import save_prior
from tests.coding_fixtures import (
    channel_tables,
    fitted,
    predictive,
    random_network,
    related_channels,
    smooth_grid,
    some_walk,
)
from tests.golden.folder import (
    BITS,
    FOLDER,
    PICTURE,
    PITCH,
    golden_channel_coder,
    golden_coder,
    symbols_hash,
)
from tests.model_fixtures import gradient_image, tiny_codec


def main() -> None:
    """Write all files."""
    save_prior(FOLDER, fitted(16))
    uniform = np.random.default_rng(7).integers(0, 2**BITS, (7, 10, 1)).astype(np.int32)
    counts = fitted(16).tables["counts"]
    skewed = np.random.default_rng(8).choice(2**BITS, (9, 12, 1), p=counts / 2**16).astype(np.int32)
    grids: dict[str, tuple[np.ndarray, stream.Layout]] = {
        "raw": (uniform, "cod"),
        "static": (skewed, "cod"),
        "context": (smooth_grid(13, 19, 2**BITS, seed=9), "cod"),
        "legacy-lite": (uniform, "legacy-lite"),
        "legacy-cod": (uniform, "legacy-cod"),
    }
    facts = {}
    for name, (symbols, layout) in grids.items():
        height, width = symbols.shape[0] * PITCH - 5, symbols.shape[1] * PITCH - 3
        data = golden_coder().encode(symbols, height=height, width=width, layout=layout)
        if layout == "cod" and container.read(data).mode != name:
            raise ValueError(f"the symbols for {name} took mode {container.read(data).mode}")
        (FOLDER / f"{name}.cod").write_bytes(data)
        facts[name] = {"layout": layout, "height": height, "width": width, "symbols": symbols_hash(symbols)}
    # Its steps have a test of their own, so it is not among the facts.
    diffc = golden_coder().encode(uniform, height=107, width=157, steps=some_walk())
    (FOLDER / "diffc.cod").write_bytes(diffc)
    wide = np.zeros((1, 300, 1), np.int32)
    (FOLDER / "wide.cod").write_bytes(golden_coder().encode(wide, height=1, width=4800))
    facts["wide"] = {"layout": "cod", "height": 1, "width": 4800, "symbols": symbols_hash(wide)}

    tables = channel_tables(num_channels=3)
    densities = FactorizedModel((tables, tables._replace(offsets=tables.offsets - 1)))
    save_prior(FOLDER / "factorized", Prior.of(densities))
    if not (FOLDER / "predictive").exists():  # fitting may give other numbers on another machine
        save_prior(FOLDER / "predictive", Prior.of(densities, predictive(3)))
    if not (FOLDER / "networks").exists():
        save_prior(FOLDER / "networks", Prior.of(dataclasses.replace(predictive(3), network=random_network(3, 2))))
    spread_out = np.rint(np.random.default_rng(10).standard_cauchy((4, 6, 3)) * 4).astype(np.int32)
    related = related_channels(9, 13, 3, level=1, seed=11)
    related[1, 1, 1] = 400  # one so far off that its excess is coded
    channels: dict[Literal["factorized", "predictive", "networks"], np.ndarray] = {
        "factorized": spread_out,
        "predictive": related,
        "networks": related,
    }
    for name, symbols in channels.items():
        height, width = symbols.shape[0] * PITCH - 5, symbols.shape[1] * PITCH - 3
        data = golden_channel_coder(name).encode(symbols, height=height, width=width, level=1)
        if container.read(data).mode != {"networks": "predictive"}.get(name, name):
            raise ValueError(f"the symbols for {name} took mode {container.read(data).mode}")
        (FOLDER / f"{name}.cod").write_bytes(data)
        facts[name] = {
            "layout": "cod",
            "height": height,
            "width": width,
            "level": 1,
            "symbols": symbols_hash(symbols),
        }

    picture = tiny_codec().compress(gradient_image(32, 48))
    (FOLDER / f"{PICTURE}.cod").write_bytes(picture)
    images.save_png(FOLDER / f"{PICTURE}.png", tiny_codec().decompress(picture))
    symbols = tiny_codec().encode(gradient_image(32, 48))
    facts[PICTURE] = {"layout": "cod", "height": 32, "width": 48, "symbols": symbols_hash(symbols)}
    (FOLDER / "files.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
