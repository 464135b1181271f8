"""`cod info`."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cod_jax.commands.info import model_lines
from cod_jax.commands.main import main
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import FactorizedConfig, build_model
from cod_jax.specialize.folder import write_compiled
from tests.coding_fixtures import fitted
from tests.model_fixtures import (
    gradient_image,
    numpy_params,
    save_tiny_model,
    tiny_bundle,
    tiny_codec,
    tiny_latent_config,
    tiny_model_config,
)
from tests.unit.commands.conftest import Cod


def test_info_names_the_autoencoder_and_the_settings_of_decoding(cod: Cod, tmp_path: Path):
    save_tiny_model(tmp_path / "pixels")
    out = cod("info", "pixels").out
    assert "autoencoder  none, the model works on pixels\n" in out
    assert "decoding     1 step; with more: euler, guidance 3\n" in out
    config = tiny_latent_config()
    params = numpy_params(build_model(config).shapes)
    save_bundle(tmp_path / "latents", config, params, training={}, decoding=DecodingConfig(25, 1.25, "adams"))
    out = cod("info", "latents").out
    assert "autoencoder  space_to_depth\n" in out
    assert "decoding     25 steps, adams, guidance 1.25\n" in out


def test_a_model_cannot_write_to_the_terminal(cod: Cod, tmp_path: Path):
    bundle = tiny_bundle()
    facts = {"run\x1b[2J": "\x1b]0;title\x07\nfingerprint  other", "step": 12}
    save_bundle(tmp_path / "model", bundle.config, bundle.params, training=facts)
    result = cod("info", "model")
    assert result.status == 0
    assert "\x1b" not in result.out
    assert r"run\x1b[2J" in result.out
    assert r"\x1b]0;title\x07\nfingerprint  other" in result.out


def test_info_describes_a_file(cod: Cod, tmp_path: Path):
    (tmp_path / "photo.cod").write_bytes(tiny_codec().compress(gradient_image(30, 45)))
    result = cod("info", "photo.cod")
    assert result.status == 0
    assert result.out.splitlines() == [
        "file     photo.cod",
        "format   cod, version 1",
        "picture  45x30 pixels (width x height)",
        "model    00000000",
        "mode     raw",
        "size     15 bytes, 0.08889 bits per pixel",
        "payload  3 bytes",
    ]
    assert json.loads(cod("info", "--json", "photo.cod").out) == {
        "format": "cod",
        "version": 1,
        "width": 45,
        "height": 30,
        "mode": "raw",
        "model": "00000000",
        "file_bytes": 15,
        "payload_bytes": 3,
        "bits_per_pixel": 8 * 15 / (30 * 45),
    }


def test_info_needs_no_jax(tmp_path: Path):
    (tmp_path / "photo.cod").write_bytes(tiny_codec().compress(gradient_image(30, 45)))
    script = (
        "import sys; from cod_jax.commands.main import main; status = main(['info', sys.argv[1]])\n"
        "assert status == 0 and not {'jax', 'flax', 'constriction'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "photo.cod")], check=True, capture_output=True)


def test_info_of_a_model_as_json(cod: Cod, tmp_path: Path):
    save_tiny_model(tmp_path / "model")
    facts = json.loads(cod("info", "--json", "model").out)
    assert facts["fingerprint"] == load_bundle("model").fingerprint
    assert (facts["prior"], facts["pitch"], facts["codebook_bits"]) == (None, 16, 4)
    assert (facts["modes"], facts["symbol_channels"]) == (["raw"], 1)
    assert facts["bits_per_pixel"] == 4 / 16**2
    assert facts["decoding"]["num_steps"] >= 1
    assert isinstance(facts["parameters"], int)


def test_many_paths_are_described_one_after_the_other(cod: Cod, tmp_path: Path):
    for name in ("a.cod", "b.cod"):
        (tmp_path / name).write_bytes(tiny_codec().compress(gradient_image(30, 45)))
    save_tiny_model(tmp_path / "model")
    out = cod("info", "a.cod", "b.cod", "model").out
    assert [block.split()[:2] for block in out.split("\n\n")] == [
        ["file", "a.cod"],
        ["file", "b.cod"],
        ["model", "model"],
    ]
    facts = json.loads(cod("info", "--json", "a.cod", "b.cod").out)
    assert [one["path"] for one in facts] == ["a.cod", "b.cod"]
    (tmp_path / "cut.cod").write_bytes(b"\xcd")
    result = cod("info", "--json", "a.cod", "nothing.cod", "cut.cod")
    assert (result.status, len(json.loads(result.out)), result.err.count("\n")) == (1, 1, 2)
    assert cod("info", "nothing.cod", "gone.cod").status == 2


@pytest.mark.parametrize("path", ["nothing", "empty", "damaged"])
def test_an_unusable_model_has_the_status_that_it_has_elsewhere(photo: Path, tmp_path: Path, path: str):
    (tmp_path / "empty").mkdir()
    save_tiny_model(tmp_path / "damaged")
    (tmp_path / "damaged" / "model.json").write_text("{")
    assert main(["info", str(tmp_path / path)]) == main(["compress", "-m", str(tmp_path / path), str(photo)]) == 2


def test_a_factorized_file_tells_its_quality(cod: Cod, tmp_path: Path, monkeypatch):
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=2))
    params = numpy_params(build_model(config).shapes)
    params["codec"]["bottleneck"]["log_gains"][:] = np.log([[1.0], [4.0]])
    save_bundle(tmp_path / "models" / "two", config, params, training={})
    coder = load_bundle(tmp_path / "models" / "two").symbol_coder()
    symbols = np.zeros((1, 1, coder.symbols.num_channels), np.int32)
    for level in (0, 1):
        (tmp_path / f"{level}.cod").write_bytes(coder.encode(symbols, height=16, width=16, level=level))
    assert "quality  shown if COD_JAX_MODELS has the model\n" in cod("info", "0.cod").out
    assert json.loads(cod("info", "0.cod", "--json").out)["quality"] is None
    monkeypatch.setenv("COD_JAX_MODELS", "models")
    assert "quality  1 of 2\n" in cod("info", "0.cod").out
    facts = json.loads(cod("info", "1.cod", "--json").out)
    assert (facts["quality"], facts["quality_levels"]) == (2, 2)
    # A model that cannot be used does not keep a file from being described.
    description = tmp_path / "models" / "two" / "model.json"
    changed = json.loads(description.read_text(encoding="utf-8"))
    changed["model"]["denoiser"]["kind"] = "my_package.blocks:MyConfig"
    description.write_text(json.dumps(changed), encoding="utf-8")
    facts = json.loads(cod("info", "1.cod", "--json").out)
    assert (facts["quality"], facts["quality_levels"]) == (None, None)


FACTS = {
    "fingerprint": "aa",
    "weights_fingerprint": "bb",
    "pitch": 16,
    "codebook_bits": 4,
    "bits_per_pixel": 0.25,
    "latent_channels": 8,
    "symbol_channels": 1,
    "quality_levels": 1,
    "parameters": 1,
    "autoencoder": None,
    "attention": "global",
    "decoding": {},
    "dtype": "float32",
    "training": {},
}


@pytest.mark.parametrize(
    ("modes", "prior", "has_weights"),
    [
        (["raw"], "none, symbols are stored with a fixed number of bits", False),
        (["raw", "static", "context"], "static and context", True),
        (["factorized"], "factorized", False),
        (["raw", "custom"], "of another package", True),
        (["a mode of the future"], "a mode of the future", False),
    ],
)
def test_the_lines_follow_the_modes_of_a_model(modes: list[str], prior: str, has_weights: bool):
    lines = dict(model_lines(Path("model"), {**FACTS, "modes": modes}))
    assert lines["prior"] == prior
    assert ("fingerprint of weights" in lines) == has_weights


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "4 bits for 16x16 pixels, 0.25 bits per pixel"),
        ({"bits_per_pixel": None}, "4 bits for 16x16 pixels"),
        ({"codebook_bits": None, "symbol_channels": 3}, "3 numbers for 16x16 pixels, 1 quality levels"),
    ],
)
def test_symbols_of_any_bottleneck_are_described(facts: dict[str, Any], text: str):
    assert dict(model_lines(Path("model"), {**FACTS, "modes": ["raw"], **facts}))["symbols"] == text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.cod", "cut.cod: its checksum does not fit its content"),
        ("nothing.cod", "nothing.cod does not exist"),
        ("", "the name of a file is empty"),
        ("photo.png", "photo.png: this is a PNG picture, not a .cod file; compress it first"),
        ("notes.txt", "notes.txt: this is not a .cod file; if it comes from a published CoD tool, name its layout"),
        ("empty.cod", "empty.cod: the file is empty"),
        (".", "to hold model.json or compiled.json"),
        (os.devnull, "is not a regular file"),
    ],
)
def test_info_refuses_what_it_does_not_know(cod: Cod, photo: Path, tmp_path: Path, name: str, message: str):
    (tmp_path / "empty.cod").touch()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "cut.cod").write_bytes(tiny_codec().compress(gradient_image(30, 45))[:-1])
    result = cod("info", name)
    assert result.status == (1 if (tmp_path / name).is_file() else 2)
    assert result.err.startswith("cod info: error: ")
    assert message in result.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.txt", "notes.txt: expected a .cod file by its name; give a .cod file or a model folder"),
        ("odd.cod", "odd.cod: its header gives 65535x65535 pixels, which no model stores in 20 bytes"),
        ("empty.cod", "empty.cod: 0 bytes are too short"),
        ("photo.png", "photo.png: this is a PNG picture, not a .cod file; compress it first"),
    ],
)
def test_info_refuses_what_no_published_tool_writes(cod: Cod, photo: Path, tmp_path: Path, name: str, message: str):
    (tmp_path / "empty.cod").touch()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "odd.cod").write_bytes(b"\xff\xff\xff\xff" + bytes(16))
    result = cod("info", name, "--format", "legacy-lite")
    assert result.status == 1
    assert message in result.err


def test_facts_of_the_training_do_not_replace_what_was_found(cod: Cod, tmp_path: Path):
    bundle = tiny_bundle()
    facts = {"fingerprint": "ffff", "model": "other", "step": 12}
    fingerprint = save_bundle(tmp_path / "model", bundle.config, bundle.params, training=facts)
    found = json.loads(cod("info", "model", "--json").out)
    assert (found["fingerprint"], found["training"]) == (fingerprint, facts)
    lines = [line.split(maxsplit=1) for line in cod("info", "model").out.splitlines()]
    titles = [title for title, _ in lines]
    assert len(titles) == len(set(titles))
    assert (dict(lines)["fingerprint"], dict(lines)["step"]) == (fingerprint, "12")


def test_a_compiled_model_is_described(cod: Cod, tmp_path: Path):
    bundle = dataclasses.replace(tiny_bundle(), prior=fitted(16))
    write_compiled(tmp_path / "compiled", bundle, platforms=["cpu"], dtype="float32")
    out = cod("info", "compiled").out
    assert f"fingerprint             {bundle.symbol_coder().fingerprint}\n" in out
    assert "symbols                 4 bits for 16x16 pixels, 0.01562 bits per pixel\n" in out
    assert "platforms               cpu\n" in out
    facts = json.loads(cod("info", "compiled", "--json").out)
    assert facts["fingerprint"] == bundle.symbol_coder().fingerprint != facts["weights_fingerprint"] == "0" * 64
    assert (facts["programs"], facts["dtype"], facts["codebook_bits"]) == (4, "float32", 4)
