"""Compiled forms of models that commands keep."""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import cod_jax
from cod_jax.codec import kept
from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import build_model
from cod_jax.runtime import native
from cod_jax.runtime.programs import Programs
from tests.model_fixtures import gradient_image, numpy_params, save_tiny_model, tiny_latent_config


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of kept models, which is empty."""
    before = jax.config.values["jax_compilation_cache_dir"]
    use_cache(tmp_path / "cache")
    yield tmp_path / "cache" / kept.FOLDER
    use_cache(before)


def use_cache(folder: str | Path | None) -> None:
    jax.config.update("jax_compilation_cache_dir", folder and str(folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(path)
    return path


@pytest.mark.slow
def test_the_compiled_form_is_made_once_and_does_what_the_model_does(cache: Path, model: Path, monkeypatch):
    first = kept.load_kept(model)
    (folder,) = cache.iterdir()
    monkeypatch.setattr(kept, "_make", lambda *arguments: pytest.fail("it is there already"))
    second, plain = kept.load_kept(model), cod_jax.load(model)
    image = gradient_image(30, 45)
    data = plain.compress(image)
    for codec in (first, second):
        assert codec.compress(image) == data
        assert (codec.fingerprint, codec.decoding) == (plain.fingerprint, plain.decoding)
        decoded = codec.decompress(data, steps=1).astype(int)
        assert np.abs(decoded - plain.decompress(data, steps=1)).max() <= 1
    assert second.config == plain.config
    assert list(cache.iterdir()) == [folder]


@pytest.mark.slow
def test_programs_are_kept_as_they_were_compiled(cache: Path, model: Path, monkeypatch):
    image = gradient_image(30, 45)
    data = kept.load_kept(model).compress(image)
    programs = [file for folder in cache.iterdir() for file in (folder / kept.EXECUTABLES).iterdir()]
    assert len(programs) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Programs, "_load_program", lambda *arguments: pytest.fail("it was compiled already"))
        assert kept.load_kept(model).compress(image) == data
    programs[0].write_bytes(b"damaged")
    assert kept.load_kept(model).compress(image) == data


@pytest.mark.slow
def test_several_steps_are_those_of_the_model(cache: Path, model: Path):
    codec, plain = kept.load_kept(model), cod_jax.load(model)
    data = plain.compress(gradient_image(30, 45))
    np.testing.assert_array_equal(codec.decompress(data, steps=2, seed=3), plain.decompress(data, steps=2, seed=3))


@pytest.mark.slow
def test_a_changed_model_has_another_form_and_a_damaged_form_is_made_again(cache: Path, model: Path, tmp_path: Path):
    kept.load_kept(model)
    gc.collect()  # no longer in use: JAX keeps what it traced, with the codec, in cycles
    (folder,) = cache.iterdir()
    (folder / "encode.safetensors").unlink()
    assert kept.load_kept(model).compress(gradient_image(16, 16))
    assert (folder / "encode.safetensors").is_file()
    changed = tmp_path / "changed"
    shutil.copytree(model, changed)
    description = (changed / "model.json").read_text(encoding="utf-8")
    (changed / "model.json").write_text(f"{description}\n", encoding="utf-8")
    kept.load_kept(changed)
    assert len(list(cache.iterdir())) == 2


def test_the_oldest_forms_go(cache: Path, model: Path, monkeypatch):
    monkeypatch.setattr("cod_jax.specialize.folder.write_compiled", lambda folder, *_, **__: folder.mkdir())
    cache.mkdir(parents=True)
    for number in range(kept.MAX_KEPT):
        (cache / str(number)).mkdir()
        os.utime(cache / str(number), (number, number))
    kept.load_kept(model)
    names = {folder.name for folder in cache.iterdir()}
    assert len(names) == kept.MAX_KEPT
    assert "0" not in names


@pytest.mark.slow
def test_models_that_cannot_be_kept_are_loaded(cache: Path, model: Path, tmp_path: Path):
    use_cache(None)
    assert kept.load_kept(model).fingerprint == cod_jax.load(model).fingerprint
    latent = tiny_latent_config()
    save_bundle(tmp_path / "latent", latent, numpy_params(build_model(latent).shapes), training={})
    use_cache(tmp_path / "cache")
    assert kept.load_kept(tmp_path / "latent").config == latent
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.slow
def test_where_this_jaxlib_cannot_be_used_alone_jax_runs_the_programs(cache: Path, model: Path, monkeypatch):
    monkeypatch.setattr(native, "works", lambda: False)
    image = gradient_image(30, 45)
    assert kept.load_kept(model).compress(image) == cod_jax.load(model).compress(image)
    assert not [file for folder in cache.iterdir() for file in (folder / kept.EXECUTABLES).glob("*")]


@pytest.mark.slow
def test_commands_start_without_flax_and_jax_once_a_model_is_kept(model: Path, tmp_path: Path):
    code = (
        "import sys; from PIL import Image; from cod_jax.commands.main import main; "
        "Image.new('RGB', (16, 16)).save('a.png'); model = ['-m', sys.argv[1]]; "
        "main(['compress', *model, 'a.png', '--force']); "
        "main(['decompress', *model, 'a.cod', '-o', 'b.png', '--force', *sys.argv[2:]]); "
        "print([name for name in ('jax', 'flax', 'optax', 'orbax', 'cod_jax.models') if name in sys.modules])"
    )
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", code, str(model), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    assert "flax" in run("--steps", "1")
    assert run("--steps", "1") == "[]"
    # One process may use jaxlib alone and then JAX.
    assert "flax" in run("--steps", "2")


@pytest.mark.slow
def test_a_form_whose_content_is_damaged_is_replaced(cache: Path, model: Path):
    image = gradient_image(30, 45)
    data = kept.load_kept(model).compress(image)
    gc.collect()  # no longer in use: JAX keeps what it traced, with the codec, in cycles
    (folder,) = cache.iterdir()
    weights = folder / "encode.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    shutil.rmtree(folder / kept.EXECUTABLES)
    assert kept.load_kept(model).compress(image) == data  # by the model
    assert not folder.exists()
    assert kept.load_kept(model).compress(image) == data
    assert weights.read_bytes() != damaged


def test_forms_in_use_stay_and_what_was_abandoned_goes(cache: Path, model: Path, monkeypatch):
    monkeypatch.setattr("cod_jax.specialize.folder.write_compiled", lambda folder, *_, **__: folder.mkdir())
    cache.mkdir(parents=True)
    for number in range(kept.MAX_KEPT + 1):
        (cache / str(number)).mkdir()
        os.utime(cache / str(number), (number, number))
    for name in (".old.tmp", ".new.tmp"):
        (cache / name).mkdir()
    os.utime(cache / ".old.tmp", (1, 1))
    in_use = kept._lock(cache / "0")  # as another process
    os.utime(cache / "0", (0, 0))
    kept.load_kept(model)
    names = {folder.name for folder in cache.iterdir()}
    assert {"0", ".new.tmp"} <= names
    assert not {"1", ".old.tmp"} & names
    in_use.close()
    kept._remove(cache / "0")
    assert not (cache / "0").exists()


@pytest.mark.parametrize("decoding", [{"foo": 1}, 5, {"num_steps": 0}])
def test_a_description_that_nobody_wrote_is_refused_as_elsewhere(cache: Path, model: Path, tmp_path: Path, decoding):
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    nested: dict = {}
    for _ in range(600):
        nested = {"a": nested}
    for changed in ({"decoding": decoding}, {"model": {**description["model"], "more": nested}}):
        (folder / "model.json").write_text(json.dumps({**description, **changed}), encoding="utf-8")
        with pytest.raises(UserError, match=r"model\.json"):
            kept.load_kept(folder)


def test_a_folder_that_describes_a_model_is_not_run_as_a_compiled_one(cache: Path, model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "compiled.json").write_text("not read", encoding="utf-8")
    use_cache(None)
    for codec in (kept.load_kept(folder), cod_jax.load(folder)):
        assert codec.config == cod_jax.load(model).config
