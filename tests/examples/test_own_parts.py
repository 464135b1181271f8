"""Parts from outside the package train, are exported, and are loaded."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import cod_jax
from cod_jax.codec.model_engine import ModelEngine
from cod_jax.commands.main import main
from cod_jax.errors import UserError
from cod_jax.models import ModelConfig
from cod_jax.training.config import TrainConfig
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import PretrainConfig
from configs import base
from examples import own_bottleneck, own_denoiser, own_loss
from examples.own_denoiser import PlainDenoiserConfig
from tests.model_fixtures import gradient_image, tiny_model_config
from tests.training_fixtures import REPOSITORY, SMALL, write_photographs

CODEC_ONLY = {name: value for name, value in SMALL.items() if not name.startswith("model.denoiser.")}


def settings_of(config, photographs, small=CODEC_ONLY, **changes: object) -> list[str]:
    fields = {**small, "data.source": photographs, "total_steps": 2, "checkpoint.every_steps": 2, **changes}
    return [f"--config={REPOSITORY / 'examples' / config}", *(f"--config.{name}={v}" for name, v in fields.items())]


@pytest.mark.slow
def test_a_denoiser_of_ones_own_trains_is_exported_and_loaded_only_where_it_is_trusted(tmp_path):
    photographs = write_photographs(tmp_path / "photos")
    small = {"model.denoiser.hidden": 8, "model.denoiser.num_blocks": 1}
    arguments = settings_of("own_denoiser.py", photographs, **small)
    assert main(["train", "--workdir", str(tmp_path / "run"), *arguments]) == 0
    model = tmp_path / "model"
    assert main(["export", "--workdir", str(tmp_path / "run"), "--output", str(model)]) == 0
    codec = cod_jax.load(model)
    assert isinstance(codec.engine, ModelEngine)
    assert codec.engine.config.denoiser == PlainDenoiserConfig(hidden=8, num_blocks=1)
    data = codec.compress(gradient_image(40, 24))
    np.testing.assert_array_equal(cod_jax.load(model).decompress(data), codec.decompress(data))
    # A process that has not imported the package, and does not trust it, says what it needs.
    script = "import sys, cod_jax; cod_jax.load(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    refused = subprocess.run(
        [sys.executable, "-c", script, str(model)], check=False, capture_output=True, text=True, env=environment
    )
    assert "COD_JAX_PLUGINS" in refused.stderr.splitlines()[-1]
    trusted = {**environment, "COD_JAX_PLUGINS": "examples"}
    subprocess.run([sys.executable, "-c", script, str(model)], check=True, env=trusted)


@pytest.mark.slow
def test_a_bottleneck_of_ones_own_trains_is_exported_compiled_and_decodes(tmp_path):
    photographs = write_photographs(tmp_path / "photos")
    small = {name: value for name, value in SMALL.items() if name != "model.codec.bottleneck.bits"}
    arguments = settings_of("own_bottleneck.py", photographs, small)
    assert main(["train", "--workdir", str(tmp_path / "run"), *arguments]) == 0
    model, compiled = tmp_path / "model", tmp_path / "compiled"
    assert main(["export", "--workdir", str(tmp_path / "run"), "--output", str(model)]) == 0
    picture = gradient_image(40, 24)
    codec = cod_jax.load(model)
    symbols = codec.encode(picture)
    assert 0 <= symbols.min() <= symbols.max() < 4**3
    data = codec.compress(picture)
    expected = codec.decompress(data)
    assert expected.shape == picture.shape
    assert main(["compile", "--model", str(model), "--output", str(compiled), "--platforms", "cpu"]) == 0
    compiled_codec = cod_jax.load(compiled)
    assert compiled_codec.compress(picture) == data
    np.testing.assert_allclose(compiled_codec.decompress(data).astype(int), expected.astype(int), atol=1)
    large = tmp_path / "large"
    large.mkdir()
    for name in ("one", "two"):
        Image.fromarray(gradient_image(128, 256)).save(large / f"{name}.png")
    assert main(["fit-prior", "--model", str(model), "--images", str(large)]) == 0
    shorter = cod_jax.load(model)
    np.testing.assert_array_equal(shorter.decompress(shorter.compress(picture)), expected)


def test_a_description_survives_with_the_name_of_its_class():
    model = dataclasses.replace(tiny_model_config(), denoiser=PlainDenoiserConfig(hidden=32))
    assert model.to_dict()["denoiser"]["kind"] == "examples.own_denoiser:PlainDenoiserConfig"
    assert ModelConfig.from_dict(model.to_dict()) == model


def test_a_loss_of_ones_own_is_a_term_of_the_objective(tmp_path):
    config = TrainConfig.from_dict(own_loss.get_config().to_dict())
    assert isinstance(config.objective, PretrainConfig)
    assert config.objective.losses == (own_loss.EdgeLossConfig(weight=0.5),)
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.slow
def test_a_loss_of_ones_own_trains(tmp_path, capfd):
    photographs = write_photographs(tmp_path / "photos")
    small = {name: value for name, value in SMALL.items() if name.startswith("model.denoiser.")}
    arguments = settings_of("own_loss.py", photographs, **small)
    assert main(["train", "--workdir", str(tmp_path / "run"), *arguments]) == 0
    assert "edges " in (tmp_path / "run" / "train.log").read_text()


def test_a_loss_without_weight_is_left_out_and_names_are_used_once(tmp_path):
    def build(*losses):
        objective = PretrainConfig(one_step_weight=1.0, losses=losses)
        return objective.build(ObjectiveContext(tiny_model_config()))

    edges = own_loss.EdgeLossConfig(weight=0.5)
    assert build(edges).weights["edges"] == 0.5
    assert "edges" not in build(dataclasses.replace(edges, weight=0.0)).weights
    with pytest.raises(UserError, match=r"objective.losses must have terms with names of their own, got edges twice"):
        build(edges, edges)
    flow = type("FlowLossConfig", (own_loss.EdgeLossConfig,), {"NAME": "flow"})
    with pytest.raises(UserError, match="got flow twice"):
        build(flow(weight=1.0))


def test_losses_need_pictures_to_compare():
    config = own_loss.get_config()
    base.apply(config, {"objective.one_step_weight": 0.0})
    with pytest.raises(ValueError, match="one_step_weight must be above 0 with losses"):
        TrainConfig.from_dict(config.to_dict())


def test_the_examples_are_configs():
    config = TrainConfig.from_dict(own_denoiser.get_config().to_dict())
    assert config.model.denoiser == PlainDenoiserConfig()
    config = TrainConfig.from_dict(own_bottleneck.get_config().to_dict())
    assert config.model.codec.bottleneck == own_bottleneck.FiniteScalarConfig()
