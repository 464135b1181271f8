"""Model folders, compiled folders and checkpoints of version 0.1 are read as they were."""

import json
from pathlib import Path

import numpy as np
import pytest

import cod_jax
from cod_jax import images
from cod_jax.coding import container
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.model_folder.description import read_fingerprints
from cod_jax.models import ModelConfig, build_model, unflatten_params
from cod_jax.training.saved_models import load_for_export
from tests.golden.folder import version_0_1, version_0_1_facts
from tests.integration.states import final_state
from tests.model_fixtures import gradient_image

KINDS = ["codebook", "factorized"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", ["{}", "compiled_{}"])
def test_pictures_are_coded_to_the_same_bytes(kind: str, folder: str):
    codec, facts = cod_jax.load(version_0_1() / folder.format(kind)), version_0_1_facts()[kind]
    assert codec.fingerprint == facts["fingerprint"]
    assert codec.num_levels == len(facts["pictures"])
    picture = gradient_image(40, 56)
    for expected in facts["pictures"]:
        quality = expected["quality"]
        data = (version_0_1() / f"{kind}_{quality}.cod").read_bytes()
        assert codec.compress(picture, quality=quality) == data
        assert container.read(data).mode == expected["mode"]
        symbols = codec.encode(picture, level=quality - 1)
        np.testing.assert_array_equal(symbols.reshape(-1), np.reshape(expected["symbols"], -1))
        # Folders say that pictures are decoded in one step; float32 may round a value to the neighbouring level.
        decoded = images.to_uint8_rgb(version_0_1() / f"{kind}_{quality}.png")
        assert np.abs(codec.decompress(data).astype(int) - decoded).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_folders_keep_their_names(kind: str, tmp_path: Path):
    facts, folder = version_0_1_facts()[kind], version_0_1() / kind
    assert read_fingerprints(folder) == (facts["fingerprint"], facts["weights_fingerprint"])
    bundle = load_bundle(folder)
    # Written again, the folder is the same: its description, its weights, and the tables of a factorized bottleneck.
    save_bundle(
        tmp_path / "again", bundle.config, bundle.params, training=bundle.training, decoding=bundle.decoding, force=True
    )
    descriptions = [json.loads((path / "model.json").read_bytes()) for path in (tmp_path / "again", folder)]
    assert descriptions[0] == descriptions[1]
    for file in ("weights.safetensors", *(["prior.safetensors"] if kind == "factorized" else [])):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize("kind", ["codebook", pytest.param("factorized", marks=pytest.mark.slow)])
def test_checkpoints_are_restored_and_exported(kind: str, tmp_path: Path):
    facts, workdir = version_0_1_facts()[f"run_{kind}"], version_0_1() / f"run_{kind}"
    model, flat, run = load_for_export(workdir)
    config = ModelConfig.from_dict(model)
    assert run["step"] == facts["step"]
    params = unflatten_params(flat, build_model(config).shapes)
    assert save_bundle(tmp_path / "exported", config, params, training={}) == facts["fingerprint"]
    # The whole state fits the trainer that the stored settings describe.
    assert int(final_state(workdir, facts["step"]).step) == facts["step"]
