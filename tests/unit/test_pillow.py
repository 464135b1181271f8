"""`.cod` files in Pillow."""

import copy
import dataclasses
import gc
import io
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import cod_jax
from cod_jax import pillow
from cod_jax.coding import container
from cod_jax.model_folder import included
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.model_folder.prior_file import save_prior
from cod_jax.specialize.folder import write_compiled
from tests.coding_fixtures import fitted
from tests.model_fixtures import gradient_image, save_tiny_model, tiny_bundle, tiny_codec


@pytest.fixture
def model(tmp_path: Path, monkeypatch) -> Path:
    """A model folder that is not known yet."""
    monkeypatch.setattr(pillow, "_registered", {})
    monkeypatch.delenv("COD_JAX_MODELS", raising=False)
    save_tiny_model(tmp_path / "models" / "tiny")
    return tmp_path / "models" / "tiny"


@pytest.fixture
def photo(tmp_path: Path, monkeypatch) -> Path:
    """A file whose model is at hand, without a folder to load."""
    monkeypatch.setattr(pillow, "_find", lambda _: tmp_path)
    monkeypatch.setattr(pillow, "_load_codec", lambda _: tiny_codec())
    (tmp_path / "photo.cod").write_bytes(tiny_codec().compress(gradient_image(17, 33)))
    return tmp_path / "photo.cod"


def test_a_picture_is_saved_and_opened_with_a_registered_model(model: Path, tmp_path: Path):
    pillow.register(model)
    Image.fromarray(gradient_image(17, 33)).save(tmp_path / "photo.cod")
    data = (tmp_path / "photo.cod").read_bytes()
    codec = cod_jax.load(model)
    assert data == codec.compress(gradient_image(17, 33))
    with Image.open(tmp_path / "photo.cod") as image:
        assert (image.format, image.mode, image.size) == ("COD", "RGB", (33, 17))
        assert image.info == {"mode": "raw", "model": codec.fingerprint[:8]}
        expected = tiny_codec().decompress(tiny_codec().compress(gradient_image(17, 33)))
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert image.convert("L").size == (33, 17)
    with Image.open(io.BytesIO(data)) as image:
        assert image.resize((3, 2)).size == (3, 2)


def test_an_open_picture_holds_no_file(photo: Path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for opened in (Image.open, pillow.CodImageFile):
            image = opened(photo)
            image.getexif()
            image.seek(0)
            del image
            gc.collect()
    assert [warning for warning in caught if issubclass(warning.category, ResourceWarning)] == []


def test_a_file_of_the_caller_stays_open(photo: Path):
    with photo.open("rb") as file:
        with Image.open(file) as image:
            image.load()
        assert not file.closed


def _in_context(image: Image.Image) -> Image.Image:
    with image:
        image.load()
    return image


def test_whatever_pillow_does_with_a_picture(photo: Path):
    uses: dict[str, Callable[[Image.Image], Image.Image]] = {
        "copy": lambda image: image.copy(),
        "copy.copy": copy.copy,
        "copy.deepcopy": copy.deepcopy,
        "pickle": lambda image: pickle.loads(pickle.dumps(image)),
        "verify": lambda image: image.verify() or image,
        "seek": lambda image: image.seek(0) or image,
        "draft": lambda image: (image.draft("L", (3, 2)), image)[1],
        "thumbnail": lambda image: image.thumbnail((100, 100)) or image,
        "context": _in_context,
    }
    expected = tiny_codec().decompress(photo.read_bytes())
    for name, use in uses.items():
        for loads_first in (False, True):
            image = Image.open(photo)
            if loads_first:
                image.load()
            np.testing.assert_array_equal(np.asarray(use(image)), expected, err_msg=f"{name}, {loads_first=}")


def test_a_folder_that_was_exported_again_to_decode_otherwise_is_read_again(model: Path):
    pillow.register(model)
    before = pillow._load_codec(model)
    assert pillow._load_codec(model) is before
    bundle = load_bundle(model)
    otherwise = dataclasses.replace(bundle.decoding, num_steps=3)
    save_bundle(model, bundle.config, bundle.params, training={}, decoding=otherwise, force=True)
    after = pillow._load_codec(model)
    assert after.fingerprint == before.fingerprint
    assert (before.decoding, after.decoding) == (bundle.decoding, otherwise)


def test_a_quality_that_the_model_does_not_have_is_refused(model: Path, tmp_path: Path):
    pillow.register(model)
    with pytest.raises(OSError, match="quality"):
        Image.fromarray(gradient_image(17, 33)).save(tmp_path / "photo.cod", quality=2)


def test_size_and_mode_need_no_model(model: Path, tmp_path: Path):
    (tmp_path / "photo.cod").write_bytes(tiny_codec().compress(gradient_image(20, 30)))
    script = (
        "import sys; from PIL import Image; import cod_jax.pillow; image = Image.open(sys.argv[1])\n"
        "assert image.size == (30, 20) and image.mode == 'RGB'\n"
        "assert not {'jax', 'flax', 'constriction'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "photo.cod")], check=True, capture_output=True)


def test_a_model_that_is_not_known_is_named(model: Path, monkeypatch):
    data = cod_jax.load(model).compress(gradient_image(16, 16))
    image = Image.open(io.BytesIO(data))
    with pytest.raises(OSError, match=f"fingerprint {container.read(data).model}, which is not known here; name its"):
        image.load()
    monkeypatch.setenv("COD_JAX_MODELS", str(model.parent))
    assert np.asarray(image).shape == (16, 16, 3)
    with pytest.raises(OSError, match=r"no model to save \.cod files with"):
        image.save(io.BytesIO(), "COD")


def test_names_of_included_models_and_compiled_folders_are_registered(model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(included, "FOLDER", model.parent)
    monkeypatch.chdir(tmp_path)
    pillow.register("tiny")
    assert list(pillow._registered) == [model]
    monkeypatch.setattr(included, "DEFAULT", "tiny")
    monkeypatch.setattr(pillow, "_registered", {})
    pillow.register()
    assert list(pillow._registered) == [model]
    write_compiled(tmp_path / "compiled", tiny_bundle(), platforms=["cpu"], dtype="float32")
    pillow.register(tmp_path / "compiled")
    saved = io.BytesIO()
    Image.fromarray(gradient_image(16, 16)).save(saved, "COD")
    assert np.asarray(Image.open(saved)).shape == (16, 16, 3)
    assert pillow._load_codec(tmp_path / "compiled").engine.summary == "compiled, float32"


def test_what_is_no_model_is_not_registered(model: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="give a model folder"):
        pillow.register(tmp_path / "nothing")


def test_the_model_registered_last_saves_and_all_load(model: Path, tmp_path: Path):
    pillow.register(model)
    first = io.BytesIO()
    Image.fromarray(gradient_image(16, 16)).save(first, "COD")
    other = tmp_path / "other"
    bundle = tiny_bundle()
    save_bundle(other, bundle.config, jax.tree.map(lambda array: array / 2, bundle.params), training={})
    pillow.register(other)
    second = io.BytesIO()
    Image.fromarray(gradient_image(16, 16)).save(second, "COD")
    names = [container.read(file.getvalue()).model for file in (first, second)]
    assert names == [cod_jax.load(path).fingerprint[:8] for path in (model, other)]
    assert np.asarray(Image.open(first)).shape == np.asarray(Image.open(second)).shape == (16, 16, 3)


@pytest.mark.parametrize("found", ["registered", "searched"])
def test_files_from_before_the_prior_was_fitted_are_loaded(model: Path, monkeypatch, found: str):
    codec = cod_jax.load(model)
    data = codec.compress(gradient_image(16, 16))
    expected = codec.decompress(data)
    save_prior(model, fitted(16))
    if found == "registered":
        pillow.register(model)
    else:
        monkeypatch.setenv("COD_JAX_MODELS", str(model))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), expected)
    # In another mode it would need probabilities that the folder no longer has.
    file = container.read(data)
    static = container.write(container.Container(16, 16, "static", file.model, file.payload))
    with pytest.raises(OSError, match=f"fingerprint {file.model}, which is not known here"):
        Image.open(io.BytesIO(static)).load()


def test_pictures_above_the_limit_are_neither_loaded_nor_saved(model: Path):
    data = cod_jax.load(model).compress(gradient_image(17, 16))
    pillow.register(model, max_pixels=17 * 16 - 1)
    message = "16x17 is more than the limit of 271 pixels; .*where the model is loaded or registered"
    with pytest.raises(OSError, match=message):
        Image.open(io.BytesIO(data)).load()
    with pytest.raises(OSError, match=message):
        Image.fromarray(gradient_image(17, 16)).save(io.BytesIO(), "COD")
    pillow.register(model)
    assert np.asarray(Image.open(io.BytesIO(data))).shape == (17, 16, 3)
    with pytest.raises(ValueError, match="expected max_pixels to be a whole number from 1 to 134217728, got 0"):
        pillow.register(model, max_pixels=0)


def test_a_size_of_billions_of_pixels_is_refused(model: Path):
    pillow.register(model)
    name = cod_jax.load(model).fingerprint

    def opened(height: int, width: int) -> Image.Image:
        return Image.open(io.BytesIO(container.write(container.Container(height, width, "raw", name, b"\1"))))

    with pytest.raises(Image.DecompressionBombError):
        opened(2**24, 2**24)
    with pytest.raises(OSError, match="16777216x1 is more than the limit of 16777216 pixels"):
        opened(1, 2**24).load()


def test_damaged_files_are_no_pictures(model: Path):
    data = bytearray(tiny_codec().compress(gradient_image(16, 16)))
    data[9] ^= 1
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(bytes(data)))


def test_files_that_are_too_long_are_not_read_into_memory(model: Path, monkeypatch):
    data = tiny_codec().compress(gradient_image(16, 16))
    monkeypatch.setattr(container, "MAX_BYTES", len(data))
    assert Image.open(io.BytesIO(data)).size == (16, 16)
    monkeypatch.setattr(container, "MAX_BYTES", len(data) - 2)
    file = io.BytesIO(data)
    with pytest.raises(SyntaxError, match="of at most 11 bytes, got a longer one"):
        pillow.CodImageFile(file)
    assert file.tell() == len(data) - 1
    with pytest.raises(UnidentifiedImageError):
        Image.open(file)


def test_a_file_that_its_model_cannot_have_written_is_an_os_error(model: Path):
    pillow.register(model)
    name = cod_jax.load(model).fingerprint
    data = container.write(container.Container(16, 16, "static", name, b""))
    with pytest.raises(OSError, match="coded in mode static, which its model does not have"):
        Image.open(io.BytesIO(data)).load()


def test_pictures_that_cannot_be_compressed_are_os_errors(model: Path):
    pillow.register(model)
    with pytest.raises(OSError, match="got floating-point pixels"):
        Image.new("F", (16, 16)).save(io.BytesIO(), "COD")
