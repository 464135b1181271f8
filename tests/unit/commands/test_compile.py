"""The command that compiles a model."""

import json

import pytest

from cod_jax import runtime
from cod_jax.codec.compiled_engine import CompiledEngine
from cod_jax.commands.main import main
from cod_jax.model_folder.bundle import save_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import build_model
from tests.model_fixtures import gradient_image, numpy_params, save_tiny_model, tiny_bundle, tiny_latent_config


def _compile(arguments: list[str]) -> int:
    return main(arguments, command="compile")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(path)
    return str(path)


def test_a_model_is_compiled(model, tmp_path, capsys):
    output = tmp_path / "compiled"
    arguments = ["--model", model, "--output", str(output), "--platforms", "cpu", "cpu"]
    assert _compile(arguments) == 0
    printed = capsys.readouterr().out
    assert f"wrote {output}: float32 for cpu, 4 programs and the weights in 3.0 MB, fingerprint " in printed
    assert "note:" not in printed
    description = json.loads((output / "compiled.json").read_text())
    assert {path.name for path in output.iterdir()} == {*description["files"], "compiled.json"}
    assert f"sha256 {description['sha256']}\n" in printed
    codec = runtime.load(output, sha256=description["sha256"])
    assert isinstance(codec.engine, CompiledEngine)
    assert codec.engine.description.platforms == ["cpu"]
    assert codec.decompress(codec.compress(gradient_image(16, 16))).shape == (16, 16, 3)

    assert _compile(arguments) == 2
    assert "already exists; choose another output or pass --force" in capsys.readouterr().err
    assert _compile(["--model", model, "--output", str(output), "--platforms", "cuda", "--force"]) == 0
    assert not (output / "encode-cpu-0.stablehlo").exists()


def test_a_model_of_many_steps_is_compiled_for_one(tmp_path, capsys):
    bundle = tiny_bundle()
    save_bundle(tmp_path / "m", bundle.config, bundle.params, training={}, decoding=DecodingConfig(25))
    arguments = ["--model", str(tmp_path / "m"), "--output", str(tmp_path / "c"), "--dtype", "bfloat16"]
    assert _compile([*arguments, "--platforms", "cpu"]) == 0
    assert "note: the model decodes in 25 steps by default; compiled, it takes one" in capsys.readouterr().out
    assert json.loads((tmp_path / "c" / "compiled.json").read_text())["dtype"] == "bfloat16"


def test_other_models_are_refused_and_leave_nothing(tmp_path, capsys):
    config = tiny_latent_config()
    save_bundle(tmp_path / "m", config, numpy_params(build_model(config).shapes), training={})
    assert _compile(["--model", str(tmp_path / "m"), "--output", str(tmp_path / "c")]) == 2
    assert "only models on pixels can be compiled, got one on latents (denoiser.kind ddt)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "required: -m/--model, --output"),
        (["--model", "m", "--output", "c", "--platforms", "abacus"], 2, "expected cpu, cuda, tpu, rocm, got 'abacus'"),
        (["--model", "m", "--output", "c", "--dtype", "float16"], 2, "invalid choice: 'float16'"),
        (["--model", "missing", "--output", "c"], 2, "missing does not exist"),
    ],
)
def test_wrong_arguments(arguments, status, message, capsys):
    assert _compile(arguments) == status
    assert message in capsys.readouterr().err
