"""Patch-FID of an evaluation; the features stand for those of Inception-v3."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cod_jax import images
from cod_jax.evaluation import evaluate as evaluation
from cod_jax.evaluation import stages
from cod_jax.evaluation.evaluate import RECORDS_FILE, evaluate
from cod_jax.evaluation.fid import frechet_distance, patches
from cod_jax.evaluation.patch_fid import PatchFid, num_patches, patch_size
from cod_jax.evaluation.plan import Picture, Request
from cod_jax.evaluation.records import Records
from tests.evaluation_fixtures import in_this_process
from tests.model_fixtures import gradient_image

NAMES = ("a", "sub/b", "c")


def colours(cut: np.ndarray) -> np.ndarray:
    """Return mean and deviation of each colour of patches [N, S, S, 3]."""
    return np.concatenate([cut.mean(axis=(1, 2)), cut.std(axis=(1, 2))], axis=1).astype(np.float32)


@pytest.fixture
def request_of_two_rates(tmp_path: Path, monkeypatch) -> Request:
    """Pictures with two patches, with three and with none, and another codec's at two rates."""
    generator = np.random.default_rng(0)
    for name, (height, width) in zip(NAMES, ((64, 130), (96, 130), (40, 100)), strict=True):
        photo = gradient_image(height, width)
        images.save_png(tmp_path / "photos" / f"{name}.png", photo)
        for rate, noise in (("low", 60), ("high", 10)):
            noisy = photo + generator.integers(-noise, noise, photo.shape)
            images.save_png(tmp_path / "theirs" / rate / f"{name}.png", np.clip(noisy, 0, 255).astype(np.uint8))
    monkeypatch.setattr(evaluation, "fresh_processes", in_this_process)
    monkeypatch.setattr(evaluation, "draw", lambda found: {})
    monkeypatch.setattr("cod_jax.evaluation.patch_fid.inception_features", lambda load, folder: colours)
    return Request(results=[str(tmp_path / "theirs")], patch_fid=PatchFid(Path, "weights", "1234"))


def means_of(found: dict[str, Any]) -> dict[str, Any]:
    return {point["label"]: point["mean"] for point in found["curves"][0]["points"]}


def test_a_rate_has_one_number_of_all_patches(tmp_path: Path, request_of_two_rates):
    means = means_of(evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates))
    for rate in ("low", "high"):
        sets = [
            colours(np.concatenate([patches(images.to_uint8_rgb(folder / f"{name}.png"), 64) for name in NAMES]))
            for folder in (tmp_path / "photos", tmp_path / "theirs" / rate)
        ]
        # The mean of a float32 depends on how many there are.
        assert means[rate]["fid_64"] == pytest.approx(frechet_distance(*sets), rel=1e-4)
        assert means[rate]["num_patches"] == 2 + 3
    assert means["low"]["fid_64"] > means["high"]["fid_64"] > 0


def test_the_results_say_how_it_is_computed(tmp_path: Path, request_of_two_rates):
    found = evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates)
    fid = found["metrics"][-1]
    assert (fid["name"], fid["title"], fid["better"], fid["weights_sha256"]) == ("fid_64", "FID-64", "lower", "1234")
    assert "patches of 64x64 pixels" in fid["protocol"]
    assert "fid_64" in (tmp_path / "result" / "summary.csv").read_text().splitlines()[0]
    assert "fid_64" not in (tmp_path / "result" / "per_image.csv").read_text()
    assert found["options"]["metrics"][-1] == "fid_64"


def test_features_are_kept_and_a_run_that_was_stopped_ends_with_the_same_number(
    tmp_path: Path, request_of_two_rates, monkeypatch
):
    whole = means_of(evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates))
    records = tmp_path / "result" / RECORDS_FILE
    lines = records.read_text().splitlines(keepends=True)
    # Three originals, and their decoded pictures at two rates; then two distances.
    assert sum("features/original/" in line for line in lines) == 3
    assert sum("features/decoded/theirs/" in line for line in lines) == 6
    assert np.load(tmp_path / "result" / "features" / "original" / "sub" / "b.npy").shape == (3, 6)
    lost = ("features/decoded/theirs/low/a.npy", "fid_64 of theirs/low", "fid_64 of theirs/high")
    records.write_text("".join(line for line in lines if not any(name in line for name in lost)))
    calls = []

    def counted(cut: np.ndarray) -> np.ndarray:
        calls.append(len(cut))
        return colours(cut)

    monkeypatch.setattr("cod_jax.evaluation.patch_fid.inception_features", lambda load, folder: counted)
    again = means_of(evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates))
    assert calls == [2]
    assert {rate: mean["fid_64"] for rate, mean in again.items()} == {
        rate: mean["fid_64"] for rate, mean in whole.items()
    }


def test_pictures_that_failed_are_left_out_on_both_sides(tmp_path: Path, request_of_two_rates):
    (tmp_path / "theirs" / "low" / "a.png").write_bytes(b"broken")
    found = evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates)
    means = means_of(found)
    assert (means["low"]["num_patches"], means["high"]["num_patches"]) == (3, 5)
    (tmp_path / "theirs" / "low" / "sub" / "b.png").write_bytes(b"broken")
    found = evaluate(tmp_path / "photos", tmp_path / "other", request_of_two_rates)
    (low,) = (point for point in found["curves"][0]["points"] if point["label"] == "low")
    assert "fid_64" not in low["mean"]
    assert low["failed"]["FID-64"].startswith("expected two sets of at least two features")


def test_a_picture_that_failed_and_is_measured_later_is_in_the_number(
    tmp_path: Path, request_of_two_rates, monkeypatch
):
    whole = means_of(evaluate(tmp_path / "photos", tmp_path / "whole", request_of_two_rates))
    decode = stages.decode

    def failing(work: stages.Work) -> dict[str, Any]:
        return {"error": "MemoryError"} if (work.stem, work.settings["folder"]) == ("a", "low") else decode(work)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "decode", failing)
        part = means_of(evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates))
    assert (part["low"]["num_images"], part["low"]["num_patches"]) == (2, 3)
    retried = means_of(evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates))
    assert (retried["low"]["num_images"], retried["low"]["num_patches"]) == (3, 5)
    assert [retried[rate]["fid_64"] for rate in whole] == [mean["fid_64"] for mean in whole.values()]


def test_pictures_without_patches_are_a_reason_not_to_measure(tmp_path: Path, request_of_two_rates):
    for name in ("a", "sub/b"):
        (tmp_path / "photos" / f"{name}.png").unlink()
    found = evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates)
    (fid,) = found["not_measured"]
    assert fid == {
        "name": "fid_64",
        "title": "FID-64",
        "reason": "the pictures have 0 patches of 64x64 pixels, and 2 are needed",
    }
    assert "fid_64" not in means_of(found)["low"]


def test_one_large_picture_makes_all_patches_large():
    assert patch_size([(768, 512), (512, 768), (10, 10)]) == 64
    assert patch_size([(768, 512), (769, 512)]) == 256
    assert num_patches([(768, 512), (10, 10)], 64) == 173
    assert num_patches([(768, 512)], 256) == 8
    fid = PatchFid(Path, "weights", "1234")
    assert [fid.of_size(size).name for size in (64, 256)] == ["fid_64", "fid_256"]
    assert fid.of_size(256).features(np.zeros((255, 300, 3), np.uint8)).size == 0


def test_a_rate_of_the_set_is_measured_from_features_at_several_levels(
    tmp_path: Path, request_of_two_rates, monkeypatch
):
    evaluate(tmp_path / "photos", tmp_path / "result", request_of_two_rates)
    levels = {"a": "low", "sub/b": "high"}
    rows = [{"name": f"{name}.png", "decoded": f"decoded/theirs/{rate}/{name}.png"} for name, rate in levels.items()]
    pictures = [Picture(f"{name}.png", name, 0, 0, "") for name in NAMES]
    sets = [
        colours(np.concatenate([patches(images.to_uint8_rgb(path / f"{name}.png"), 64) for name, path in folders]))
        for folders in (
            [(name, tmp_path / "photos") for name in levels],
            [(name, tmp_path / "theirs" / rate) for name, rate in levels.items()],
        )
    ]
    fid = request_of_two_rates.patch_fid.of_size(64)
    compared: list[int] = []
    compare = stages.compare_sets
    monkeypatch.setattr(stages, "compare_sets", lambda pairs, fid: compared.append(len(pairs)) or compare(pairs, fid))
    with Records(tmp_path / "result" / RECORDS_FILE) as records:

        def mean_with(rows: list[dict[str, str]]) -> dict[str, Any]:
            curve = {"name": "m-allocated", "points": [{"label": "0.1", "mean": {"bpp": 1}, "images": rows}]}
            evaluation._compare_allocated(curve, pictures, fid, tmp_path / "result", records)
            return curve["points"][0]["mean"]

        distance = frechet_distance(*sets)
        expected = {"bpp": 1, "fid_64": pytest.approx(distance, rel=1e-4), "num_patches": 5}
        assert [mean_with(rows), mean_with(rows)] == [expected, expected]
        assert compared == [2]  # the second time from the records
        # A picture that failed was done meanwhile, and another one got another level.
        rows = [{**row, "decoded": row["decoded"].replace("/low/", "/high/")} for row in rows]
        assert mean_with(rows)["fid_64"] < distance / 2
