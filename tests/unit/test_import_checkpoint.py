"""From released checkpoints and their YAML files to model folders, and back."""

import dataclasses
import functools
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import yaml

from cod_jax import export_checkpoint, import_checkpoint
from cod_jax.interop import load_reference, read_state_dict
from cod_jax.interop.published import (
    PublishedNetwork,
    published_decoding,
    published_network,
    reference_config,
)
from cod_jax.interop.published_checkpoint import WeightsKind, select_network
from cod_jax.interop.published_yaml import MAX_YAML_BYTES, network_yaml, read_network
from cod_jax.interop.reference import published_entries, state_dict_from_params
from cod_jax.model_folder.bundle import default_decoding, load_bundle, save_bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import (
    ConditionCodecConfig,
    DConvConfig,
    DDTConfig,
    ModelConfig,
    PixNerDiTConfig,
    build_model,
    flatten_params,
)
from configs import latent, lite, pixel
from tests.model_fixtures import save_tiny_model, tiny_bundle, tiny_model_config
from tests.torch_files import write_torch_file

DCONV = "cod.models.pixel_cnn.DConv"
PIXNERDIT = "cod.models.pixel_dit.PixNerDiT"
DDT = "cod.models.latent_dit.DDT"
ONE_STEP = "finetuned_one_step_codec.models.models.OneStepCoD"
# What a file of the published trainer holds besides the network.
AROUND = {
    "seed_everything": True,
    "trainer": {"precision": "bf16-mixed", "callbacks": [{"class_path": "cod.callbacks.SaveImagesHook"}]},
    "data": {"train_dataset": {"class_path": "cod.data.ImageDataset", "init_args": {"resolution": 512}}},
}
BESIDE = {
    "latent": False,
    "vae": {"class_path": "cod.models.autoencoder.PixelAE", "init_args": {"scale": 1.0}},
    "diffusion_trainer": {"class_path": "cod.diffusion.REPATrainer", "init_args": {"encoder": {"class_path": "D"}}},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-5}},
}


def write_yaml(path: Path, class_path: str, init_args: dict[str, Any], name: str = "denoiser") -> Path:
    """Write a file such as the published trainer takes."""
    network = {"class_path": class_path, "init_args": init_args}
    path.write_text(yaml.safe_dump({**AROUND, "model": {**BESIDE, name: network}}))
    return path


def prefixed(prefix: str, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: value for name, value in weights.items()}


SMALL = {"hidden_size": 32, "num_blocks": 4, "num_cond_blocks": 2, "up2x": True}
LITE_ARGUMENTS = {**SMALL, "hidden_size_x": 4, "bottleneck_dim": 8, "light": True}
PIXEL_ARGUMENTS = {**SMALL, "hidden_size_x": 4, "num_groups": 2, "in_channels": 3, "patch_size": 16}
LATENT_ARGUMENTS = {**SMALL, "num_groups": 2}


@pytest.fixture
def narrow(monkeypatch):
    """Make the condition encoder of every published class narrow: as it is it has 28 million parameters."""
    codec = functools.partial(ConditionCodecConfig, encoder_width=32, latent_channels=8)
    monkeypatch.setattr("cod_jax.interop.published.ConditionCodecConfig", codec)


@functools.cache
def weights_of(class_name: str, **init_args: Any) -> dict[str, np.ndarray]:
    """Return published arrays of a network, for use with `narrow`."""
    config = reference_config(class_name, init_args)
    shapes = {name: shape for name, (_, shape) in published_entries(build_model(config), config).items()}
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = import_checkpoint.main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# --- whole ways


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
    assert status == 1
    assert err.startswith(f"cod_jax.import_checkpoint: error: {model} already exists")

    back, back_yaml = tmp_path / "back.safetensors", tmp_path / "back.yaml"
    export = ["--model", str(model), "--output", str(back), "--config-output", str(back_yaml)]
    assert export_checkpoint.main(export) == 0
    assert capsys.readouterr().out == (
        f"wrote {back} and {back_yaml}: DConv, {len(weights)} tensors, names begin with ema_denoiser.\n"
    )
    written = read_state_dict(back)
    assert written.keys() == prefixed("ema_denoiser.", weights).keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(written["ema_denoiser." + name], value, err_msg=name)
    network = read_network(back_yaml)
    assert reference_config(network.class_name, network.init_args) == bundle.config
    assert export_checkpoint.main(export) == 1
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


@pytest.mark.parametrize(
    ("class_name", "init_args"),
    [
        ("DConv", LITE_ARGUMENTS),
        ("PixNerDiT", PIXEL_ARGUMENTS),
        ("DDT", {**LATENT_ARGUMENTS, "ds": 128}),
        ("OneStepCoD", {**PIXEL_ARGUMENTS, "ds": 4, "pred": "v", "noise_level": 0.0}),
        ("OneStepCoD", {**LITE_ARGUMENTS, "ds": 16, "noise_level": 0.0}),
    ],
)
def test_every_class_survives_the_way_to_ours_and_back(class_name, init_args, narrow, tmp_path):
    weights = weights_of(class_name, **init_args)
    model = load_reference(class_name, init_args, weights)
    back = state_dict_from_params(model.functional, model.config, model.params)
    assert back.keys() == weights.keys()
    for entry, value in weights.items():
        np.testing.assert_array_equal(back[entry], value, err_msg=entry)
        assert back[entry].flags.c_contiguous
    network = published_network(model.config, one_step=class_name == "OneStepCoD")
    (tmp_path / "back.yaml").write_text(network_yaml(network))
    read = read_network(tmp_path / "back.yaml")
    assert read.class_name == class_name
    assert reference_config(read.class_name, read.init_args) == model.config
    assert published_network(model.config, one_step=class_name == "OneStepCoD").init_args == read.init_args


def test_a_latent_model_takes_its_autoencoder_along(narrow, tmp_path, capsys, monkeypatch):
    weights = weights_of("DDT", **LATENT_ARGUMENTS)
    checkpoint = tmp_path / "latent.safetensors"
    checkpoint.write_bytes(safetensors.numpy.save(prefixed("ema_denoiser.", weights)))
    config = write_yaml(tmp_path / "latent.yaml", DDT, LATENT_ARGUMENTS)
    arguments = ("--checkpoint", checkpoint, "--config", config, "--output", tmp_path / "model")
    status, _, err = run(capsys, *arguments)
    assert status == 1
    assert "DDT works on the latents of sd-vae-ft-ema; name the folder of its weights with --frozen-weights" in err
    status, _, err = run(capsys, *arguments, "--frozen-weights", tmp_path)
    assert status == 1
    assert "the VAE sd-vae-ft-ema needs diffusion_pytorch_model.safetensors" in err

    # The autoencoder itself is large and has its own tests.
    saved: dict[str, Any] = {}
    monkeypatch.setattr("cod_jax.interop.load_sd_vae", lambda folder: {"folder": folder})
    monkeypatch.setattr(
        "cod_jax.interop.reference.save_bundle", lambda *_, **options: saved.update(options) or "0" * 64
    )
    status, _, err = run(capsys, *arguments, "--frozen-weights", tmp_path)
    assert (status, err) == (0, "")
    assert saved["autoencoder"] == {"folder": str(tmp_path)}
    assert saved["decoding"] == DecodingConfig(25, 1.25, "adams")


# --- which tensors of a checkpoint


def entries(*names: str) -> dict[str, np.ndarray]:
    return {name: np.full(1, index, np.float32) for index, name in enumerate(names)}


def test_the_moving_average_wins_unless_raw_weights_are_asked_for():
    state = entries("denoiser.blocks.0.bias", "ema_denoiser.blocks.0.bias", "vae.bias")
    choices: tuple[tuple[WeightsKind | None, str, int], ...]
    choices = ((None, "ema_denoiser.", 1), ("ema", "ema_denoiser.", 1), ("raw", "denoiser.", 0))
    for kind, prefix, value in choices:
        weights = select_network(state, Path("a.pt"), kind=kind, prefix=None)
        assert (weights.prefix, weights.tensors) == (prefix, {"blocks.0.bias": np.full(1, value)})
        assert weights.kind == (kind or "ema")
        assert weights.left_out == {"denoiser." if value else "ema_denoiser.": 1, "vae.": 1}


def test_the_prefix_that_the_description_names_counts():
    state = entries("net.blocks.0.bias", "student.blocks.0.bias")
    weights = select_network(state, Path("a.pt"), kind=None, prefix="student.")
    assert weights.tensors == {"blocks.0.bias": np.ones(1)}
    with pytest.raises(ValueError, match=r"begin with 'pupil\.', as the YAML file says; its names begin with 'net"):
        select_network(state, Path("a.pt"), kind=None, prefix="pupil.")


def test_plain_names_need_no_prefix():
    weights = select_network(entries("y_embedder_x.bias", "blocks.0.bias", "disc.b"), Path("a"), kind=None, prefix=None)
    assert list(weights.tensors) == ["y_embedder_x.bias", "blocks.0.bias"]
    assert (weights.kind, weights.left_out) == ("unnamed", {"disc.": 1})


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (entries("net.blocks.0.bias"), "ema", "holds no ema weights of a network; its names begin with 'net.'"),
        (entries("vae.bias"), None, "holds no network; its names begin with 'vae.'"),
        (entries("net.blocks.0.block.conv1.bias"), None, "condition blocks are cached"),
        (entries("net.base_model.model.blocks.0.conv1.lora_A.default.weight"), None, "LoRA updates"),
    ],
)
def test_checkpoints_without_a_plain_network_are_refused(state, kind, message):
    with pytest.raises(ValueError, match=message):
        select_network(state, Path("a.pt"), kind=kind, prefix=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such weight file"),
        (b"<html>", "is no weight file"),
        (pickle.dumps({"a": print}), "'builtins.print'"),
        ({"state_dict": {"ema_denoiser.blocks.0.conv1.bias": np.zeros(3, "f4")}}, "missing ("),
        ({"state_dict": {"ema_denoiser.blocks.0.conv1.bias": np.zeros(3, "i8")}}, "not one of real numbers"),
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
    assert (status, out) == (1, "")
    assert err.startswith(f"cod_jax.import_checkpoint: error: {checkpoint}: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_code_in_a_checkpoint_is_refused(tmp_path, capsys):
    refused = Path(__file__).parent.parent / "parity" / "helpers" / "formats" / "refuse_zip.pth"
    config = write_yaml(tmp_path / "lite.yaml", DCONV, LITE_ARGUMENTS)
    status, _, err = run(capsys, "--checkpoint", refused, "--config", config, "--output", tmp_path / "model")
    assert status == 1
    assert "'posix.getcwd'" in err


# --- which network a YAML file describes


def test_arguments_that_do_not_change_the_network_are_passed_over(tmp_path):
    more = {"fix_encoder": True, "net_ckpt_path": None, "pretrain_prefix": "net.", "teacher": {"class_path": "a.B"}}
    path = write_yaml(tmp_path / "a.yaml", "main_stage1.FinetunedOneStepCoD", {**LITE_ARGUMENTS, **more}, "net")
    assert read_network(path) == PublishedNetwork("OneStepCoD", {**LITE_ARGUMENTS, "noise_level": 0.0}, None)
    assert published_decoding(read_network(path)).num_steps == 1


def test_the_file_of_one_step_cod_names_its_prefix_and_no_class(tmp_path):
    arguments = dict(PIXEL_ARGUMENTS)
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"ckpt_prefix": "student.", "model": {"init_args": arguments}}))
    network = read_network(path)
    assert network == PublishedNetwork("OneStepCoD", arguments, "student.")
    assert isinstance(reference_config(network.class_name, network.init_args).denoiser, PixNerDiTConfig)
    del arguments["num_groups"]
    path.write_text(yaml.safe_dump({"ckpt_prefix": "student.", "model": {"init_args": arguments}}))
    assert read_network(path).init_args["num_groups"] == 12


def test_anchors_and_saved_keyword_arguments(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "model:\n  denoiser:\n    class_path: cod.models.pixel_dit.PixNerDiT\n    init_args:\n"
        "      hidden_size: &hidden 1152\n    dict_kwargs: {ds: 32}\n  trainer: {dim: *hidden}\n"
    )
    assert read_network(path).init_args == {"hidden_size": 1152, "ds": 32}


# Each level repeats the one before nine times: half a kilobyte that stands for gigabytes.
LEVELS = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
MERGES = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10))]
DCONV_WITH = "model: {denoiser: {class_path: a.DConv, init_args: {num_blocks: 6, num_cond_blocks: 4, pred: %s}}}"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([*LEVELS, DCONV_WITH % "*a9"]),
        "\n".join([*MERGES, DCONV_WITH % "*a9"]),
        "a: &a [*a]",
        "a: &a {b: *a}",
    ],
)
def test_repeated_lists_and_mappings_are_refused(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml: cannot be read as YAML \(it repeats a list or mapping by \*name"):
        read_network(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "text",
    [
        f"b: &b {'x' * 30_000}\n" + DCONV_WITH % f"[{', '.join(['*b'] * 2000)}]",
        DCONV_WITH % ("x" * 30_000),
        DCONV_WITH % ("[" * 50 + "]" * 50),
        DCONV_WITH % f"x, ? {'y' * 30_000} : 1",
        DCONV_WITH % f"0x{'f' * 30_000}",
        DCONV_WITH % f"x, hidden_size: {'1' * 4000}",
        f"model: {{denoiser: {{class_path: a.{'B' * 30_000}}}}}",
    ],
)
def test_values_of_a_file_are_cut_short_in_messages(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    network = read_network(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match=r"pred is|no argument y|hidden_size is 1+\.\.\.1+; DConv|class 'B") as error:
        reference_config(network.class_name, network.init_args)
    assert len(str(error.value)) < 400


def test_long_files_are_no_description_of_a_network(tmp_path):
    (tmp_path / "a.yaml").write_text("#" * (MAX_YAML_BYTES + 1))
    with pytest.raises(ValueError, match="is longer than 65536 bytes"):
        read_network(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("a: !!int ''", "cannot be read as YAML"),
        ("a: !!timestamp x", "cannot be read as YAML"),
        ("[" * 5000, "cannot be read as YAML"),
        ("just text", "no section called model"),
        ("model: {vae: {class_path: a.B}}", "neither model.denoiser nor model.net"),
        ("model: {net: {class_path: a.DConv}, denoiser: {class_path: a.DConv}}", "has two networks"),
        ("model: {denoiser: {init_args: {}}}", "model.denoiser has no class_path"),
        ("model: {denoiser: {class_path: a.DConv, init_args: [1]}}", "does not hold named arguments"),
        ("model: {denoiser: {class_path: a.DConv, init_args: {1: 2}}}", "does not hold named arguments"),
        ("ckpt_prefix: 3\nmodel: {init_args: {}}", "ckpt_prefix is no text"),
        ("model: {denoiser: {class_path: a.UNet}}", "class 'UNet' is not supported"),
        ("model: {denoiser: {class_path: a.DConv}}", "DConv needs the arguments num_blocks, num_cond_blocks"),
        (
            "model: {net: {class_path: a.OneStepCoD, init_args: {num_blocks: 6, num_cond_blocks: 4}}}",
            "noise_level is 1",
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
    assert status == 1
    assert err.startswith(f"cod_jax.import_checkpoint: error: {config}: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_yaml_file_and_wrong_usage(tmp_path, capsys):
    arguments = ("--checkpoint", "a.pt", "--output", tmp_path / "model")
    assert "there is no such YAML file" in run(capsys, *arguments, "--config", tmp_path / "a.yaml")[2]
    assert "is a folder" in run(capsys, *arguments, "--config", tmp_path)[2]
    assert run(capsys, *arguments)[0] == 2
    assert run(capsys, *arguments, "--config", "a.yaml", "--weights", "best")[0] == 2
    assert export_checkpoint.main(["--model", "a"]) == 2


def test_published_settings_of_decoding():
    transformer = {"num_blocks": 28, "num_cond_blocks": 22, "num_groups": 16}
    pixel = {**transformer, "in_channels": 3, "patch_size": 16}
    for class_name, arguments, expected in (
        ("PixNerDiT", pixel, DecodingConfig(25, 3.0, "adams")),
        ("DDT", transformer, DecodingConfig(25, 1.25, "adams")),
        ("DDT", {**transformer, "ds": 128}, DecodingConfig(25, 3.0, "adams")),
        ("DConv", {"num_blocks": 24, "num_cond_blocks": 21}, DecodingConfig(25, 3.0, "euler")),
        ("OneStepCoD", pixel, DecodingConfig(1, 3.0, "euler")),
    ):
        assert published_decoding(PublishedNetwork(class_name, arguments, None)) == expected
    with pytest.raises(ValueError, match="noise_level is 1: this one-step decoder starts from noise"):
        published_decoding(PublishedNetwork("OneStepCoD", {**pixel, "noise_level": 1.0}, None))


def test_transformers_that_do_not_read_the_prediction_take_no_other():
    pixel = {**PIXEL_ARGUMENTS, "pred": "x"}
    with pytest.raises(ValueError, match="pred is x, which PixNerDiT does not read: it always predicts velocities"):
        reference_config("PixNerDiT", pixel)
    with pytest.raises(ValueError, match="pred is x, which DDT does not read"):
        reference_config("DDT", {**LATENT_ARGUMENTS, "pred": "x"})
    assert reference_config("PixNerDiT", {**pixel, "pred": "v"}) == reference_config("PixNerDiT", PIXEL_ARGUMENTS)
    assert reference_config("OneStepCoD", pixel).denoiser.prediction == "image"


# --- what the published classes cannot be

LITE = ModelConfig(ConditionCodecConfig(attention="window_published"), DConvConfig())
PIXEL = ModelConfig(ConditionCodecConfig(decoder_depth=3), PixNerDiTConfig())
LATENT = ModelConfig(ConditionCodecConfig(decoder_depth=3), DDTConfig())


def changed(config: ModelConfig, part: str, **fields: Any) -> ModelConfig:
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **fields)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            changed(LITE, "codec", encoder_width=64),
            "codec.encoder_width is 64, and that of the published DConv is alwa",
        ),
        (changed(LITE, "codec", latent_channels=64), "codec.latent_channels is 64"),
        (changed(LITE, "codec", num_groups=16), "codec.num_groups is 16"),
        (
            changed(LITE, "codec", attention="global"),
            "always window_published; --any-attention writes the same weights",
        ),
        (changed(LITE, "codec", pitch=8, input_stride=1), "there is no published DConv like this model: ds 16 exists"),
        (changed(PIXEL, "codec", attention="window_masked"), "codec.attention is window_masked"),
        (changed(PIXEL, "denoiser", mlp_ratio=2.0), "denoiser.mlp_ratio is 2.0"),
        (changed(PIXEL, "denoiser", prediction="image"), "denoiser.prediction is image"),
        (changed(LATENT, "denoiser", autoencoder="space_to_depth"), "denoiser.autoencoder is space_to_depth"),
    ],
)
def test_models_that_the_published_classes_cannot_be_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        published_network(config, one_step=False)


def test_models_that_need_a_choice():
    network = published_network(changed(LITE, "codec", attention="global"), one_step=False, any_attention=True)
    assert network.class_name == "DConv"
    deep = ConditionCodecConfig(pitch=128, decoder_depth=2)  # its decoder has no depth to choose
    assert published_network(ModelConfig(deep, DDTConfig()), one_step=False).init_args["light"] is False
    assert published_network(changed(PIXEL, "denoiser", prediction="image"), one_step=True).init_args["pred"] == "x"
    with pytest.raises(ValueError, match="no published one-step decoder of latents"):
        published_network(LATENT, one_step=True)


@pytest.mark.parametrize("argument", ["1", "3", "2,size=114m", "1,rate=0.00024", "3,rate=0.00024"])
@pytest.mark.parametrize(
    ("recipe", "class_name"), [(pixel.get_config, "PixNerDiT"), (latent.get_config, "DDT"), (lite.get_config, "DConv")]
)
def test_models_of_the_recipes_can_be_written(recipe, class_name, argument):
    is_lite = class_name == "DConv"
    config = ModelConfig.from_dict(recipe(argument[0] if is_lite else argument).model.to_dict())
    assert published_network(config, one_step=False, any_attention=is_lite).class_name == class_name
    if is_lite:
        with pytest.raises(ValueError, match=r"codec\.attention is window_masked.* --any-attention writes"):
            published_network(config, one_step=False)


def test_recipes_are_validated_with_the_guidance_they_decode_with():
    for recipe, argument in ((pixel, "1"), (pixel, "1,rate=0.00024"), (latent, "1"), (latent, "3,rate=0.00024")):
        settings = recipe.get_config(argument)
        decoding = default_decoding(ModelConfig.from_dict(settings.model.to_dict()), one_step=False)
        assert decoding.guidance_scale == settings.validation.guidance_scale


def test_export_says_what_it_cannot_do(tmp_path, capsys):
    save_tiny_model(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--output"]
    assert export_checkpoint.main([*arguments, str(tmp_path / "a.safetensors")]) == 1
    assert "its codec.encoder_width is 16" in capsys.readouterr().err
    assert export_checkpoint.main([*arguments, str(tmp_path / "a.pt")]) == 1
    assert "end the name in .safetensors" in capsys.readouterr().err
    assert not list(tmp_path.glob("a.*"))


def test_what_a_model_is_written_as(tmp_path, capsys, monkeypatch):
    config = tiny_model_config()
    monkeypatch.setattr(
        "cod_jax.interop.published.reference_config", lambda *_: config
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
        assert export_checkpoint.main(["--model", str(tmp_path / model), *outputs, *more]) == 0
        assert capsys.readouterr().out.endswith(f"names begin with {expected[1]}\n")
        network = read_network(tmp_path / "a.yaml")
        assert network.class_name == expected[0]
        written = select_network(
            read_state_dict(tmp_path / "a.safetensors"), Path("a"), kind=None, prefix=network.checkpoint_prefix
        )
        assert (written.prefix, written.left_out) == (expected[1], {})
