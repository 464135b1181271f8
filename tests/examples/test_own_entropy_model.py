"""An entropy model from outside the package is fitted, named by the model folder, and codes files."""

import numpy as np
import pytest
from PIL import Image

import cod_jax
from cod_jax.coding import container
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.commands.main import main
from examples.own_entropy_model import AboveModel
from tests.model_fixtures import gradient_image, save_tiny_model

KIND = "examples.own_entropy_model:AboveModel"
FORMAT = SymbolFormat(1, 0, 15)


def striped(rows: int, columns: int, seed: int) -> np.ndarray:
    """Symbols [rows, columns, 1] that are mostly those above them."""
    generator = np.random.default_rng(seed)
    grid = generator.integers(0, 16, (rows, columns, 1)).astype(np.int32)
    for row in range(1, rows):
        keep = generator.random(columns) < 0.9
        grid[row, keep] = grid[row - 1, keep]
    return grid


def test_symbols_come_back_in_fewer_bytes_than_without_it():
    model = AboveModel.fit([striped(40, 30, seed) for seed in range(5)], FORMAT)
    symbols = striped(33, 21, 9)
    data = model.encode(symbols, 0)
    decoded, level = model.decode(data, rows=33, columns=21)
    np.testing.assert_array_equal(decoded, symbols)
    assert level == 0
    assert len(data) < 0.5 * 33 * 21 * 4 / 8


def test_tables_that_cannot_be_coded_with_are_refused():
    model = AboveModel.fit([striped(8, 8, 0)], FORMAT)
    assert AboveModel.from_tables(FORMAT, {}) is None
    for damaged in (model.counts[:-1], model.counts - 1, model.counts.astype(np.int64)):
        with pytest.raises(ValueError, match="expected"):
            AboveModel.from_tables(FORMAT, {"counts": damaged})


@pytest.mark.slow
def test_a_model_folder_names_it_and_its_files_are_read(tmp_path, capfd):
    model, photographs = tmp_path / "model", tmp_path / "photos"
    save_tiny_model(model)
    before = cod_jax.load(model)
    photographs.mkdir()
    for number in range(12):
        picture = np.roll(gradient_image(128, 128), 9 * number, axis=1)
        Image.fromarray(picture).save(photographs / f"{number}.png")
    arguments = ["--model", str(model), "--images", str(photographs), "--entropy-model", KIND]
    assert main(["fit-prior", *arguments]) == 0
    assert "custom" in capfd.readouterr().out
    codec = cod_jax.load(model)
    assert codec.fingerprint != before.fingerprint
    picture = gradient_image(128, 128)
    data = codec.compress(picture)
    assert container.read(data).mode == "custom"
    assert len(data) < len(before.compress(picture))
    np.testing.assert_array_equal(codec.decompress(data), before.decompress(before.compress(picture)))
    with pytest.raises(ValueError, match="was made with the model of fingerprint"):
        before.decompress(data)
