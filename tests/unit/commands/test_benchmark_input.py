import json

import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax.commands.main import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index in range(4):
        Image.fromarray(photographs.coffee()[: 80 + index, :100]).save(folder / f"{index}.jpg")
    return folder


def test_the_rates_and_the_cores_that_a_host_needs_are_told(photos, tmp_path, capsys):
    output = tmp_path / "input.json"
    settings = [f"--config.data.source={photos}", "--config.data.num_threads=2", "--config.data.validation_modulus=0"]
    options = ["--repeats", "3", "--batch-size", "4", "--rate", "1000000000", "--output", str(output)]
    assert main(["benchmark", "input", *settings, *options]) == 0
    measured = json.loads(output.read_text())["input"]
    assert (measured["source"], measured["image_size"], measured["num_threads"]) == (str(photos), 64, 2)
    assert measured["images_per_core_second"] > 0
    assert measured["cores_needed"] == pytest.approx(1e9 / measured["images_per_core_second"])
    assert measured["waiting_share"] == pytest.approx(1 - measured["images_per_second"] / 1e9)
    printed = capsys.readouterr().out
    assert "one core: " in printed
    assert "1000000000 images per second need" in printed
    assert "wait 100 % of the time" in printed


def test_without_a_source_it_says_what_to_set(capsys):
    assert main(["benchmark", "input"]) == 2
    assert "set --config.data.source" in capsys.readouterr().err
