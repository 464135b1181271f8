"""Model folders."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from cod_jax import bundle
from cod_jax.models import flatten_params
from tests.model_fixtures import save_tiny_model, tiny_bundle


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
        bundle.save_bundle(tmp_path / "model", tiny_bundle(codebook_bits=8).config, tiny_bundle().params, training={})


def test_an_unknown_dtype_is_refused(tmp_path: Path):
    model = tiny_bundle()
    with pytest.raises(ValueError, match="float32, bfloat16"):
        bundle.save_bundle(tmp_path / "model", model.config, model.params, training={}, dtype="int8")


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="nothing does not exist; give a model folder"):
        bundle.load_bundle(tmp_path / "nothing")


def test_a_folder_of_another_kind_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no model\.json"):
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
    with pytest.raises(ValueError, match=rf"model\.json is damaged \({number} is no finite number\); copy"):
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
    with pytest.raises(ValueError, match=r"model\.json: .*; export the model again"):
        bundle.load_bundle(model_copy)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused(model_copy: Path, version):
    _edit_description(model_copy, version=version)
    with pytest.raises(ValueError, match=f"format version {version}, but this cod_jax reads version 1; export"):
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
    with pytest.raises(ValueError, match=f"{name} has type F64 instead of F32"):
        bundle.load_bundle(model_copy)
