"""From released checkpoints and their YAML files to model folders, and back."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from cod_jax.commands.main import main
from cod_jax.interop import load_reference, read_state_dict
from cod_jax.interop.cod_networks.checkpoint import select_network
from cod_jax.interop.cod_networks.description import reference_config
from cod_jax.interop.cod_networks.yaml_file import read_network
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import (
    flatten_params,
)
from tests.conftest import REPOSITORY
from tests.model_fixtures import save_tiny_model, tiny_bundle, tiny_model_config
from tests.published_networks import (
    DCONV,
    DDT,
    LATENT_ARGUMENTS,
    LITE_ARGUMENTS,
    ONE_STEP,
    make_narrow,
    prefixed,
    weights_of,
    write_yaml,
)
from tests.torch_files import write_torch_file


@pytest.fixture
def narrow(monkeypatch):
    make_narrow(monkeypatch)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main(["import", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_checkpoint_of_the_published_trainer_becomes_a_model_folder_and_goes_back(narrow, tmp_path, capsys):
    init_args, weights = LITE_ARGUMENTS, weights_of("DConv", **LITE_ARGUMENTS)
    heads = {"diffusion_trainer.proj.0.bias": np.zeros(3, np.float32), "disc.heads.0.bias": np.zeros(3, np.float32)}
    state = {**prefixed("ema_denoiser.", weights), "denoiser.final_layer.linear.bias": np.ones(3, "f4"), **heads}
    content = {"epoch": 3, "state_dict": state, "optimizer_states": [{"m": np.zeros(2, np.float32)}], "loops": None}
    checkpoint = write_torch_file(tmp_path / "lite.pt", content)
    config = write_yaml(tmp_path / "lite.yaml", DCONV, init_args)
    model = tmp_path / "model"
    arguments = ("--checkpoint", checkpoint, "--config", config, "--output", model)

    status, out, err = run(capsys, *arguments)
    assert (status, err) == (0, "")
    bundle = load_bundle(model)
    expected = load_reference("DConv", init_args, weights)
    assert bundle.config == expected.config
    assert bundle.config.codec.attention == "window_published"
    for name, value in flatten_params(expected.params).items():
        np.testing.assert_array_equal(flatten_params(bundle.params)[name], value, err_msg=name)
    assert bundle.decoding == DecodingConfig(25, 3.0, "euler")
    assert bundle.training == {
        "source": "lite.pt",
        "source_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "class": "DConv",
        "weights": "ema",
    }
    left_out, summary = out.splitlines()
    assert left_out == "left out entries of other modules: denoiser. (1), diffusion_trainer. (1), disc. (1)"
    num_params = sum(value.size for value in weights.values())
    assert summary == (
        f"wrote {model}: DConv, ema weights, {num_params:,} parameters, 4 bits for 32x32 pixels, 0.003906 bits per "
        f"pixel, 25 steps, euler, guidance 3, fingerprint {bundle.fingerprint[:16]}"
    )

    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith(f"cod import: error: {model} already exists")

    back, back_yaml = tmp_path / "back.safetensors", tmp_path / "back.yaml"
    export = ["export-published", "--model", str(model), "--output", str(back), "--config-output", str(back_yaml)]
    assert main(export) == 0
    assert capsys.readouterr().out == (
        f"wrote {back} and {back_yaml}: DConv, {len(weights)} tensors, names begin with ema_denoiser.\n"
    )
    written = read_state_dict(back)
    assert written.keys() == prefixed("ema_denoiser.", weights).keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(written["ema_denoiser." + name], value, err_msg=name)
    network = read_network(back_yaml)
    assert reference_config(network.class_name, network.init_args) == bundle.config
    assert main(export) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_one_step_checkpoint_decodes_in_one_step(narrow, tmp_path, capsys):
    weights = weights_of("DConv", **LITE_ARGUMENTS)
    checkpoint = tmp_path / "one_step.safetensors"
    state = {**prefixed("net.", weights), "codec_trainer.net_loss.proj.0.bias": np.zeros(3, np.float32)}
    checkpoint.write_bytes(safetensors.numpy.save(state))
    config = write_yaml(tmp_path / "one_step.yaml", ONE_STEP, {**LITE_ARGUMENTS, "noise_level": 0.0}, "net")
    arguments = ("--checkpoint", checkpoint, "--config", config, "--output", tmp_path / "model", "--guidance", 2)
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert out.startswith("left out entries of other modules: codec_trainer. (1)\n")
    bundle = load_bundle(tmp_path / "model")
    assert bundle.decoding == DecodingConfig(1, 2.0, "euler")
    assert (bundle.training["class"], bundle.training["weights"]) == ("OneStepCoD", "raw")


def test_a_latent_model_takes_its_autoencoder_along(narrow, tmp_path, capsys, monkeypatch):
    weights = weights_of("DDT", **LATENT_ARGUMENTS)
    checkpoint = tmp_path / "latent.safetensors"
    checkpoint.write_bytes(safetensors.numpy.save(prefixed("ema_denoiser.", weights)))
    config = write_yaml(tmp_path / "latent.yaml", DDT, LATENT_ARGUMENTS)
    arguments = ("--checkpoint", checkpoint, "--config", config, "--output", tmp_path / "model")
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "DDT works on the latents of sd-vae-ft-ema; name the folder of its weights with --frozen-weights" in err
    status, _, err = run(capsys, *arguments, "--frozen-weights", tmp_path)
    assert status == 2
    assert "the VAE sd-vae-ft-ema needs diffusion_pytorch_model.safetensors" in err

    # The autoencoder itself is large and has its own tests.
    saved: dict[str, Any] = {}
    monkeypatch.setattr("cod_jax.interop.load_sd_vae", lambda folder: {"folder": folder})
    monkeypatch.setattr(
        "cod_jax.interop.cod_networks.reference.save_bundle", lambda *_, **options: saved.update(options) or "0" * 64
    )
    status, _, err = run(capsys, *arguments, "--frozen-weights", tmp_path)
    assert (status, err) == (0, "")
    assert saved["autoencoder"] == {"folder": str(tmp_path)}
    assert saved["decoding"] == DecodingConfig(25, 1.25, "adams")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such weight file"),
        (b"<html>", "expected a safetensors or torch file, got one that begins with b'<html>'"),
        (pickle.dumps({"a": print}), "expected a pickle that torch wrote, got another one"),
        ({"state_dict": {"ema_denoiser.blocks.0.conv1.bias": np.zeros(3, "f4")}}, "missing ("),
        (
            {"state_dict": {"ema_denoiser.blocks.0.conv1.bias": np.zeros(3, "i8")}},
            "to hold real numbers, got type int64",
        ),
        ({"net.final_layer.norm.weight": np.full(3, np.nan, "f4")}, "hold NaN or infinity"),
    ],
)
def test_unusable_checkpoints_are_one_line(content, message, tmp_path, capsys):
    checkpoint = tmp_path / "lite.pt"
    if isinstance(content, dict):
        write_torch_file(checkpoint, content)
    elif content is not None:
        checkpoint.write_bytes(content)
    config = write_yaml(tmp_path / "lite.yaml", DCONV, LITE_ARGUMENTS)
    status, out, err = run(capsys, "--checkpoint", checkpoint, "--config", config, "--output", tmp_path / "model")
    assert (status, out) == (2, "")
    assert err.startswith(f"cod import: error: {checkpoint}: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path, capsys, caplog):
    checkpoint = REPOSITORY / "tests" / "parity" / "helpers" / "formats" / "refuse_zip.pth"
    config = write_yaml(tmp_path / "lite.yaml", DCONV, LITE_ARGUMENTS)
    status, _, err = run(capsys, "--checkpoint", checkpoint, "--config", config, "--output", tmp_path / "model")
    assert status == 2
    assert "holds no network" in err
    assert "skipped what is neither a tensor nor a plain value: 'b' (posix.getcwd)" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("a: !!int ''", "cannot be read as YAML"),
        ("a: !!timestamp x", "cannot be read as YAML"),
        ("[" * 5000, "cannot be read as YAML"),
        ("just text", "expected a section called model, got none"),
        ("model: {vae: {class_path: a.B}}", "neither model.denoiser nor model.net"),
        ("model: {net: {class_path: a.DConv}, denoiser: {class_path: a.DConv}}", "has two networks"),
        ("model: {denoiser: {init_args: {}}}", "model.denoiser has no class_path"),
        ("model: {denoiser: {class_path: a.DConv, init_args: [1]}}", "is not a list of named arguments"),
        ("model: {denoiser: {class_path: a.DConv, init_args: {1: 2}}}", "is not a list of named arguments"),
        ("ckpt_prefix: 3\nmodel: {init_args: {}}", "expected ckpt_prefix to be text, got 3"),
        ("model: {denoiser: {class_path: a.UNet}}", "class 'UNet' is not supported"),
        ("model: {denoiser: {class_path: a.DConv}}", "DConv needs the arguments num_blocks, num_cond_blocks"),
        (
            "model: {net: {class_path: a.OneStepCoD, init_args: {num_blocks: 6, num_cond_blocks: 4}}}",
            "expected noise_level to be 0, got 1, the default of the class",
        ),
        (
            "model: {denoiser: {class_path: a.DConv, init_args: {num_blocks: 6, num_cond_blocks: 4, mlp_ratio: .nan}}}",
            "m",
        ),
    ],
)
def test_yaml_files_of_no_network_are_one_line(text, message, tmp_path, capsys):
    config = tmp_path / "a.yaml"
    config.write_text(text)
    status, _, err = run(capsys, "--checkpoint", tmp_path / "a.pt", "--config", config, "--output", tmp_path / "model")
    assert status == 2
    assert err.startswith(f"cod import: error: {config}: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_yaml_file_and_wrong_usage(tmp_path, capsys):
    arguments = ("--checkpoint", "a.pt", "--output", tmp_path / "model")
    assert "there is no such YAML file" in run(capsys, *arguments, "--config", tmp_path / "a.yaml")[2]
    assert "is a folder" in run(capsys, *arguments, "--config", tmp_path)[2]
    assert run(capsys, *arguments)[0] == 2
    assert run(capsys, *arguments, "--config", "a.yaml", "--weights", "best")[0] == 2
    assert main(["export-published", "--model", "a"]) == 2


def test_export_says_what_it_cannot_do(tmp_path, capsys):
    save_tiny_model(tmp_path / "model")
    arguments = ["export-published", "--model", str(tmp_path / "model"), "--output"]
    assert main([*arguments, str(tmp_path / "a.safetensors")]) == 2
    assert "its codec.encoder_width is 16" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "a.pt")]) == 2
    assert "end the name in .safetensors" in capsys.readouterr().err
    assert not list(tmp_path.glob("a.*"))


def test_what_a_model_is_written_as(tmp_path, capsys, monkeypatch):
    config = tiny_model_config()
    monkeypatch.setattr(
        "cod_jax.interop.cod_networks.record.PublishedClass.to_config", lambda *_: config
    )  # a model small enough for a test is none of the published
    for num_steps, model in ((1, "one"), (25, "many")):
        params = tiny_bundle().params
        save_bundle(tmp_path / model, config, params, training={}, decoding=DecodingConfig(num_steps))
    for model, more, expected in (
        ("one", [], ("OneStepCoD", "net.")),
        ("many", [], ("DConv", "ema_denoiser.")),
        ("many", ["--as", "one-step", "--prefix", "student."], ("OneStepCoD", "student.")),
    ):
        outputs = ["--output", str(tmp_path / "a.safetensors"), "--config-output", str(tmp_path / "a.yaml"), "--force"]
        assert main(["export-published", "--model", str(tmp_path / model), *outputs, *more]) == 0
        assert capsys.readouterr().out.endswith(f"names begin with {expected[1]}\n")
        network = read_network(tmp_path / "a.yaml")
        assert network.class_name == expected[0]
        written = select_network(
            read_state_dict(tmp_path / "a.safetensors"), Path("a"), kind=None, prefix=network.checkpoint_prefix
        )
        assert (written.prefix, written.left_out) == (expected[1], {})
