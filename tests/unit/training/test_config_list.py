"""Config files and their options, found without running them."""

from pathlib import Path

from cod_jax.training.config_list import config_files, describe
from configs import presets
from tests.conftest import REPOSITORY


def test_options_of_a_neighbour_are_found(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    files = {file.name: file for file in config_files()}
    assert files["configs/pixel.py"].options == files["configs/latent.py"].options == presets.COD_OPTIONS
    assert files["configs/pixel.py"].choices[:2] == ["1, 2, 3, all", "size=xl, 330m, 114m, 49m"]
    assert files["configs/tiny.py"].choices[1] == "kind=lite, pixel, latent"
    assert "configs/presets.py" not in files


def test_a_file_without_options_or_without_settings_is_described_as_such(tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text('"""My own run."""\nOPTIONS = made()\ndef get_config(): ...\n')
    described = describe(file, "own.py")
    assert described is not None
    assert (described.title, described.options, described.choices) == ("My own run.", {}, [])
    file.write_text("x = 1\n")
    assert describe(file, "own.py") is None
