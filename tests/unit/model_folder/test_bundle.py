"""Model folders."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from cod_jax.errors import UserError
from cod_jax.features.sd_vae import SDVAEConfig
from cod_jax.model_folder import bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import CodebookConfig, ModelConfig, build_model, flatten_params
from cod_jax.models.functional import Params
from cod_jax.models.space import Space
from tests.model_fixtures import (
    numpy_params,
    save_tiny_model,
    tiny_bundle,
    tiny_latent_config,
    tiny_model_config,
    tiny_pixel_config,
)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "model"
    save_tiny_model(folder)
    return folder


@pytest.fixture
def model_copy(saved_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved_model, tmp_path / "model")


def _edit_description(folder: Path, **changes) -> None:
    file = folder / bundle.DESCRIPTION_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _edit_weights(folder: Path, edit) -> None:
    file = folder / bundle.WEIGHTS_FILE
    flat = safetensors.numpy.load(file.read_bytes())
    edit(flat)
    file.write_bytes(safetensors.numpy.save(flat))


def test_loading_undoes_saving(saved_model: Path):
    expected = tiny_bundle()
    loaded = bundle.load_bundle(saved_model)
    assert loaded.config == expected.config
    assert loaded.dtype == "float32"
    assert loaded.training == {"step": 12, "weights": "ema"}
    assert jax.tree.structure(loaded.params) == jax.tree.structure(expected.params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)


def test_the_folder_holds_a_description_and_weights_only(saved_model: Path):
    assert {path.name for path in saved_model.iterdir()} == {"model.json", "weights.safetensors"}
    description = json.loads((saved_model / "model.json").read_text())
    assert description["format"] == "cod_jax model"
    assert description["version"] == 1
    assert len(description["fingerprint"]) == 64


def test_the_fingerprint_names_config_and_weights():
    config, flat = tiny_bundle().config, flatten_params(tiny_bundle().params)
    fingerprint = bundle.model_fingerprint(config, flat)
    assert fingerprint == bundle.model_fingerprint(config, dict(reversed(flat.items())))
    name = min(flat)
    changed = {**flat, name: flat[name] + np.float32(1e-6)}
    other_config = tiny_bundle(attention="window_masked").config
    assert (
        len({fingerprint, bundle.model_fingerprint(config, changed), bundle.model_fingerprint(other_config, flat)}) == 3
    )


def test_an_existing_model_is_replaced_only_by_force(model_copy: Path):
    before = (model_copy / "model.json").read_bytes()
    with pytest.raises(FileExistsError, match="--force"):
        save_tiny_model(model_copy)
    assert (model_copy / "model.json").read_bytes() == before
    model = tiny_bundle()
    bundle.save_bundle(model_copy, model.config, model.params, training={"step": 13}, force=True)
    assert bundle.load_bundle(model_copy).training == {"step": 13}


def test_a_folder_of_another_kind_is_never_replaced(tmp_path: Path):
    (tmp_path / "precious.txt").write_text("keep me")
    model = tiny_bundle()
    with pytest.raises(FileExistsError, match=r"model\.json"):
        bundle.save_bundle(tmp_path, model.config, model.params, training={}, force=True)
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path):
    model = tiny_bundle()
    params = jax.tree.map(np.copy, model.params)
    params["codec"]["bottleneck"]["codebook"][0, 0] = np.nan
    with pytest.raises(ValueError, match="codec/bottleneck/codebook"):
        bundle.save_bundle(tmp_path / "model", model.config, params, training={})
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_model_are_not_saved(tmp_path: Path):
    with pytest.raises(ValueError, match=r"wrong shape \(\d+\): .*codebook \(16, 8\) instead of \(256, 8\)"):
        bundle.save_bundle(
            tmp_path / "model", tiny_bundle(bottleneck=CodebookConfig(bits=8)).config, tiny_bundle().params, training={}
        )


def test_an_unknown_dtype_is_refused(tmp_path: Path):
    model = tiny_bundle()
    with pytest.raises(ValueError, match="float32, bfloat16"):
        bundle.save_bundle(tmp_path / "model", model.config, model.params, training={}, dtype="int8")


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="nothing does not exist; give a model folder"):
        bundle.load_bundle(tmp_path / "nothing")


def test_a_folder_of_another_kind_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"to hold model\.json or compiled\.json"):
        bundle.load_bundle(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"format": "other"}', "[" * 100000])
def test_a_damaged_description_is_refused(model_copy: Path, content: str):
    (model_copy / "model.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.json (is damaged|does not describe)"):
        bundle.load_bundle(model_copy)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["model", "training"])
def test_numbers_that_are_not_finite_are_refused(model_copy: Path, number: str, place: str):
    changes = {"model": {"denoiser": {"mlp_ratio": 0.125}}, "training": {"loss": 0.125}}
    _edit_description(model_copy, **{place: changes[place]})
    file = model_copy / "model.json"
    file.write_text(file.read_text().replace("0.125", number))
    with pytest.raises(ValueError, match=rf"model\.json is damaged \(expected a finite number, got {number}\); copy"):
        bundle.load_bundle(model_copy)


@pytest.mark.parametrize(
    "model",
    [
        {"denoiser": {"num_blocks": 10**9}},
        {"denoiser": {"num_pixel_blocks": 10**9}},
        {"denoiser": {"hidden": 2**40}},
        {"denoiser": {"mlp_ratio": 1e300}},
        {"denoiser": {"mlp_ratio": 10**400}},
        {"codec": {"pitch": 2**2000}},
        {"codec": {"encoder_width": 2**40}},
        {"codec": {"latent_channels": 2**70}},
        {"codec": {"codebook_bits": 10**9}},
    ],
)
def test_an_absurd_model_is_refused(model_copy: Path, model: dict):
    _edit_description(model_copy, model=model)
    for read in (bundle.load_bundle, bundle.load_description):
        with pytest.raises(ValueError, match=r"model\.json: .*; export the model again"):
            read(model_copy)


def test_a_folder_that_needs_another_package_is_whole(model_copy: Path):
    _edit_description(model_copy, model={"denoiser": {"kind": "no_such_package.blocks:MyConfig"}})
    for read in (bundle.load_bundle, bundle.load_description):
        with pytest.raises(UserError, match=r"model\.json: the model needs .* in COD_JAX_PLUGINS if you trust it$"):
            read(model_copy)


def test_messages_repeat_little_of_a_description(model_copy: Path):
    much = "x" * 500_000
    for changes in (
        {"version": much},
        {"dtype": much},
        {"model": {much: 1}},
        {"model": {"codec": {"pitch": much}}},
        {"model": {"codec": much}},
        {"model": {"denoiser": {"kind": much}}},
        {"model": {"denoiser": {"kind": f"{much}:A"}}},
        {"decoding": {"sampler": much}},
    ):
        _edit_description(model_copy, **changes)
        with pytest.raises(UserError) as caught:
            bundle.load_bundle(model_copy)
        assert len(str(caught.value)) < 900
        _edit_description(model_copy, version=1, dtype="float32")


def test_a_description_without_end_is_not_read(model_copy: Path):
    with (model_copy / "model.json").open("r+b") as file:
        file.truncate(2**40)  # takes no space
    with pytest.raises(ValueError, match=r"model\.json is damaged \(longer than 1048576 bytes\); copy or export"):
        bundle.load_bundle(model_copy)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused(model_copy: Path, version):
    _edit_description(model_copy, version=version)
    with pytest.raises(ValueError, match=f"format version {version!r}, but this cod_jax reads version 1; export"):
        bundle.load_bundle(model_copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"codec": {"pich": 16}}}, "did you mean model.codec.pitch"),
        ({"model": {"codec": {"pitch": 17}}}, "power of two"),
        ({"model": 5}, "model missing or of another type"),
        ({"dtype": "float8"}, "float32, bfloat16"),
        ({"training": None}, "training missing or of another type"),
        ({"fingerprint": "0" * 64}, "not those of its fingerprint"),
    ],
)
def test_an_unusable_description_is_refused(model_copy: Path, changes: dict, message: str):
    _edit_description(model_copy, **changes)
    with pytest.raises(ValueError, match=message):
        bundle.load_bundle(model_copy)


def test_how_a_model_decodes_is_stored_and_does_not_rename_it(model_copy: Path, saved_model: Path):
    assert bundle.load_bundle(saved_model).decoding == DecodingConfig(1, 3.0, "euler")
    model, decoding = tiny_bundle(), DecodingConfig(50, 2.5, "adams")
    bundle.save_bundle(model_copy, model.config, model.params, training={}, decoding=decoding, force=True)
    loaded = bundle.load_bundle(model_copy)
    assert loaded.decoding == decoding
    assert loaded.fingerprint == bundle.load_bundle(saved_model).fingerprint
    # So it can be changed by hand.
    _edit_description(model_copy, decoding={"num_steps": 3})
    assert bundle.load_bundle(model_copy).decoding == DecodingConfig(3)


def test_folders_that_say_nothing_about_decoding_take_one_step(model_copy: Path):
    file = model_copy / "model.json"
    description = json.loads(file.read_text())
    del description["decoding"]
    file.write_text(json.dumps(description))
    assert bundle.load_bundle(model_copy).decoding == DecodingConfig(1, 3.0, "euler")


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"num_steps": 0}, "decoding: expected the number of steps to be a whole number from 1 to 1000, got 0"),
        ({"guidance_scale": 1e9}, "decoding: expected guidance to be a number from 0 to 1000, got 1000000000.0"),
        ({"guidance_scale": 10**400}, "must fit a float, got a number of 401 digits"),
        ({"sampler": "heun"}, "decoding.sampler must be one of euler, adams, got 'heun'"),
        ({"steps": 3}, "unknown field decoding.steps; did you mean decoding.num_steps"),
        (None, "decoding must hold the fields .* got None"),
    ],
)
def test_unusable_settings_of_decoding_are_refused(model_copy: Path, decoding, message: str):
    _edit_description(model_copy, decoding=decoding)
    with pytest.raises(ValueError, match=rf"model\.json: .*{message}.*; export the model again"):
        bundle.load_bundle(model_copy)


@pytest.mark.parametrize(
    ("config", "one_step", "expected"),
    [
        (tiny_model_config(), False, DecodingConfig(25, 3.0, "euler")),
        (tiny_pixel_config(), False, DecodingConfig(25, 3.0, "adams")),
        (tiny_latent_config(), False, DecodingConfig(25, 1.25, "adams")),
        (tiny_pixel_config(), True, DecodingConfig(1, 3.0, "adams")),
    ],
)
def test_every_family_has_its_settings_of_decoding(config: ModelConfig, one_step: bool, expected: DecodingConfig):
    assert bundle.default_decoding(config, one_step=one_step) == expected


@pytest.fixture
def latent_model(monkeypatch) -> tuple[ModelConfig, Params, Params]:
    """Description, parameters and those of the autoencoder; a small VAE stands for the published one."""
    vae = SDVAEConfig(widths=(4, 4, 4, 4), encoder_blocks=1, num_groups=2)
    monkeypatch.setattr("cod_jax.models.space.SDVAEConfig", lambda: vae)
    config = tiny_latent_config("sd_vae")
    functional = Space(config).functional
    assert functional is not None
    return config, numpy_params(build_model(config).shapes), numpy_params(functional.shapes, seed=1)


def test_a_latent_model_brings_its_autoencoder(latent_model, tmp_path: Path):
    config, params, autoencoder = latent_model
    fingerprint = bundle.save_bundle(tmp_path / "model", config, params, training={}, autoencoder=autoencoder)
    loaded = bundle.load_bundle(tmp_path / "model")
    assert loaded.fingerprint == fingerprint
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    jax.tree.map(np.testing.assert_array_equal, loaded.autoencoder, autoencoder)
    names = safetensors.numpy.load((tmp_path / "model" / "weights.safetensors").read_bytes()).keys()
    assert {name.split("/")[0] for name in names} == {"autoencoder", "codec", "denoiser"}

    name = "autoencoder/decoder/conv_out/bias"
    _edit_weights(tmp_path / "model", lambda flat: flat.update({name: flat[name] + np.float32(1)}))
    with pytest.raises(ValueError, match="damaged or changed"):
        bundle.load_bundle(tmp_path / "model")
    _edit_weights(tmp_path / "model", lambda flat: flat.pop(name))
    with pytest.raises(ValueError, match=rf"missing \(1\): {name}; unexpected \(0\): none; wrong shape \(0\)"):
        bundle.load_bundle(tmp_path / "model")


def test_a_latent_model_is_not_saved_without_its_autoencoder(latent_model, tmp_path: Path):
    config, params, autoencoder = latent_model
    with pytest.raises(ValueError, match="latents of sd-vae-ft-ema, whose parameters are missing; pass them"):
        bundle.save_bundle(tmp_path / "model", config, params, training={})
    del autoencoder["to_moments"]
    with pytest.raises(ValueError, match=r"missing \(2\): autoencoder/to_moments/bias, autoencoder/to_moments/kernel"):
        bundle.save_bundle(tmp_path / "model", config, params, training={}, autoencoder=autoencoder)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_latents_takes_no_autoencoder(latent_model, tmp_path: Path):
    model = tiny_bundle()
    with pytest.raises(ValueError, match=r"unexpected \(\d+\): autoencoder/"):
        bundle.save_bundle(tmp_path / "m", model.config, model.params, training={}, autoencoder=latent_model[2])


def test_a_projection_to_latents_needs_no_autoencoder(tmp_path: Path):
    config = tiny_latent_config("space_to_depth")
    bundle.save_bundle(tmp_path / "model", config, numpy_params(build_model(config).shapes), training={})
    loaded = bundle.load_bundle(tmp_path / "model")
    assert loaded.config == config
    assert loaded.autoencoder == {}


def test_missing_weights_are_named(model_copy: Path):
    (model_copy / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing"):
        bundle.load_bundle(model_copy)


@pytest.mark.parametrize("length", [0, 4, 200, -1])
def test_truncated_weights_are_refused(model_copy: Path, length: int):
    file = model_copy / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        bundle.load_bundle(model_copy)


def test_changed_weights_are_refused(model_copy: Path):
    file = model_copy / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="damaged or changed"):
        bundle.load_bundle(model_copy)


def test_the_three_lists_of_a_failed_load(model_copy: Path):
    def edit(flat: dict[str, np.ndarray]) -> None:
        flat["extra"] = np.zeros(1, np.float32)
        del flat["codec/decoder/conv_in/bias"]
        flat["codec/bottleneck/codebook"] = np.zeros((16, 9), np.float32)

    _edit_weights(model_copy, edit)
    message = (
        r"missing \(1\): codec/decoder/conv_in/bias; unexpected \(1\): extra; "
        r"wrong shape \(1\): codec/bottleneck/codebook \(16, 9\) instead of \(16, 8\)"
    )
    with pytest.raises(ValueError, match=message):
        bundle.load_bundle(model_copy)


def test_weights_of_another_type_are_refused(model_copy: Path):
    name = "codec/bottleneck/codebook"
    _edit_weights(model_copy, lambda flat: flat.update({name: flat[name].astype(np.float64)}))
    with pytest.raises(ValueError, match=f"expected tensor '{name}' of type F32, got F64"):
        bundle.load_bundle(model_copy)
