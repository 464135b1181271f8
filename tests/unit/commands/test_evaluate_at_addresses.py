"""Evaluations whose pictures and results are at addresses of remote storage."""

import json
from pathlib import Path

import fsspec
import pytest

from cod_jax import images, storage
from tests.model_fixtures import gradient_image
from tests.storage_fixtures import bucket as bucket
from tests.storage_fixtures import put_folder

THEIRS = ("--files", "theirs", "--no-report")


@pytest.fixture
def pictures(tmp_path: Path) -> None:
    """Write one picture, and the finished results of two other codecs for it."""
    pixels = gradient_image(32, 48)
    images.save_png(tmp_path / "photos" / "sub" / "a.png", pixels)
    for codec in ("theirs", "others"):
        images.save_png(tmp_path / codec / "low" / "sub" / "a.png", pixels // 2)


def _without_times(results: bytes) -> dict:
    content = json.loads(results)
    for curve in content["curves"]:
        for point in curve["points"]:
            for values in (point["mean"], *point["images"]):
                values.pop("encode_s", None)
                values.pop("decode_s", None)
    return {name: content[name] for name in ("curves", "images", "metrics", "bd")}


@pytest.mark.slow
def test_an_evaluation_at_addresses_is_that_of_folders(run, pictures, bucket: str, tmp_path: Path):
    for name in ("photos", "theirs"):
        put_folder(tmp_path / name, f"{bucket}/{name}")
    assert run("--images", "photos", "--output", "result", *THEIRS).status == 0
    arguments = ("--images", f"{bucket}/photos", "--files", f"{bucket}/theirs", "--no-report")
    status, out, err = run(*arguments, "--output", f"{bucket}/results/theirs/", "--against", "result")
    assert (status, err) == (0, "")
    assert f"see {bucket}/results/theirs\n" in out
    local = {path.relative_to("result").as_posix() for path in Path("result").rglob("*") if path.is_file()}
    compared = {"changes.csv", "changes_per_image.csv"}
    assert set(storage.list_files(f"{bucket}/results/theirs")) == local | compared
    results = storage.read_bytes(f"{bucket}/results/theirs/results.json")
    assert _without_times(results) == _without_times(Path("result", "results.json").read_bytes())
    assert not storage.working_folder(f"{bucket}/results/theirs", "working").exists()


def test_an_evaluation_at_an_address_goes_on(run, pictures, bucket: str, monkeypatch):
    arguments = ("--images", "photos", "--output", f"{bucket}/results")
    with monkeypatch.context() as patch:
        patch.setattr("cod_jax.evaluation.evaluate._assemble", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*arguments, *THEIRS)
    assert not storage.list_files(f"{bucket}/results")
    with monkeypatch.context() as patch:
        # Nothing is measured again, neither in the local folder nor when what is at the address was copied.
        patch.setattr("cod_jax.evaluation.stages.measure", lambda *_: 1 / 0)
        assert run(*arguments, *THEIRS).status == 0
        assert run(*arguments, *THEIRS).status == 0
        status, _, err = run(*arguments, "--files", "others", "--no-report")
    assert status == 2
    assert "holds an evaluation with other curves; choose another output, or pass --force" in err
    assert run(*arguments, "--files", "others", "--no-report", "--force").status == 0
    assert not [name for name in storage.list_files(f"{bucket}/results") if "theirs" in name]


def test_another_folder_at_the_address_is_not_replaced(run, pictures, bucket: str, tmp_path: Path):
    fsspec.filesystem("memory").pipe_file("/bucket/models/model.json", b"{}")
    status, _, err = run("--images", "photos", "--output", f"{bucket}/models", *THEIRS, "--force")
    assert status == 2
    assert f"{bucket}/models exists and holds no plan.json, so it is not replaced; choose another output" in err
    put_folder(tmp_path / "photos", f"{bucket}/photos")
    status, _, err = run("--images", f"{bucket}/photos", "--output", f"{bucket}/photos/results", *THEIRS)
    assert status == 2
    assert f"{bucket}/photos/results lies in {bucket}/photos, so its pictures would be read the next time" in err
    status, _, err = run("--images", f"{bucket}/none", "--output", "result", *THEIRS)
    assert (status, err) == (2, f"cod evaluate: error: {bucket}/none does not exist\n")
