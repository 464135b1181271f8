"""Other codecs in an evaluation, and comparison with an earlier one."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cod_jax.codec import Codec
from tests.evaluation_fixtures import results_of, rows_of

ARGUMENTS = ("--model", "MODEL", "--images", "photos", "--output", "result")


def test_other_codecs_and_their_results_are_measured_on_the_same_pictures(run, photos: Path, tmp_path: Path):
    for name in ("a", "b", "sub/a"):
        (tmp_path / "theirs" / "low" / name).parent.mkdir(parents=True, exist_ok=True)
        source = next(photos.glob(f"{name}.*"))
        Image.open(source).convert("RGB").save(tmp_path / "theirs" / "low" / f"{name}.png")
    status, out, err = run(*ARGUMENTS[2:], "--baselines", "jpeg", "--files", "theirs")
    assert (status, err) == (0, "")
    results = results_of(tmp_path)
    assert [curve["name"] for curve in results["curves"]] == ["jpeg", "jpeg-half", "jpeg-quarter", "theirs"]
    assert "JPEG, half resolution 5: " in out
    (theirs,) = results["curves"][-1]["points"]
    assert theirs["mean"]["num_lossless"] == 3
    assert "bpp" not in theirs["mean"]
    assert {row["reason"] for row in results["bd"]} == {"the curve has 0 points, and 4 are needed"}
    assert [row["curve"] for row in rows_of(tmp_path, "bd.csv")][:1] == ["theirs"]
    assert (tmp_path / "result" / "plots" / "rate_psnr.svg").read_bytes().startswith(b"<?xml")


def test_a_codec_that_is_not_installed_is_listed(run, photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("cod_jax.evaluation.baselines.missing", lambda name: "no such wheel")
    status, out, _ = run(*ARGUMENTS, "--baselines", "jxl")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("not measured")] == [
        "not measured: jxl: no such wheel"
    ]
    jxl, lpips, dists, fid = results_of(tmp_path)["not_measured"]
    assert jxl == {"name": "jxl", "title": "jxl", "reason": "no such wheel"}
    assert lpips["reason"] == "no weight files are given; name their folder with --weights"
    assert [(one["title"], one["reason"]) for one in (dists, fid)] == [
        ("DISTS", lpips["reason"]),
        ("patch-FID", lpips["reason"]),
    ]
    status, out, _ = run(*ARGUMENTS, "--weights", "photos", "--baselines", "jxl")
    assert status == 0
    assert "\nnot measured: DISTS: DISTS needs vgg16-397923af.pth" in out
    assert "--weights nowhere is not a folder; name" in run(*ARGUMENTS, "--weights", "nowhere")[2]
    lpips, dists, fid = (one["reason"] for one in results_of(tmp_path)["not_measured"][1:])
    assert lpips.startswith("LPIPS with AlexNet needs alexnet-owt-7be5be79.pth or ")
    assert dists.startswith("DISTS needs vgg16-397923af.pth, and there is none in photos; download it from https://")
    assert fid.startswith("Inception-v3 of FID needs pt_inception-2015-12-05-6726825d.pth or ")
    status, _, err = run(*ARGUMENTS[2:-1], "nothing")
    assert (status, err) == (
        2,
        "cod evaluate: error: expected --model, --baselines or --files, got none of them; say what to measure\n",
    )


def test_an_earlier_evaluation_is_compared(run, photos: Path, tmp_path: Path):
    arguments = (*ARGUMENTS[2:4], "--baselines", "jpeg", "--no-report", "--output")
    assert run(*arguments, "result")[0] == 0
    (tmp_path / "old").mkdir()
    earlier = results_of(tmp_path)
    for image in earlier["curves"][0]["points"][0]["images"]:
        image["psnr"] += 1
    (tmp_path / "old" / "results.json").write_text(json.dumps(earlier))
    status, out, err = run(*arguments, "result", "--against", "old/results.json", "--max-loss", "psnr=0.5")
    assert status == 1
    assert "jpeg 1: psnr went from" in err
    assert "worse; 0 pictures better, 3 worse, p = " in out
    changes = {(row["label"], row["metric"]): row for row in rows_of(tmp_path, "changes.csv")}
    assert float(changes["1", "psnr"]["gain"]) == pytest.approx(-1)
    assert float(changes["5", "psnr"]["gain"]) == 0
    assert run(*arguments, "result", "--against", "old/results.json", "--max-loss", "psnr=2,bpp=0")[0] == 0
    for wrong in ("psnr", "psnr=nan", "psnr=-1"):
        assert "expected METRIC=NUMBER" in run(*arguments, "result", "--max-loss", wrong)[2]
    assert "expected --against with --max-loss" in run(*arguments, "result", "--max-loss", "psnr=1")[2]
    status, _, err = run(*arguments, "new", "--against", "old/results.json", "--max-loss", "psnr_pooled=1")
    assert status == 2
    assert "expected a loss of bpp, psnr, ms_ssim, wasserstein, got psnr_pooled; name what both" in err
    for curve in earlier["curves"]:
        curve["name"] = "another"
    (tmp_path / "old" / "results.json").write_text(json.dumps(earlier))
    status, _, err = run(*arguments, "new", "--against", "old/results.json")
    assert status == 2
    assert "this one has the curves jpeg, jpeg-half, jpeg-quarter, and the earlier one has another" in err
    assert not (tmp_path / "new").exists()
    (tmp_path / "old" / "results.json").write_text("{}")
    assert "is not the results.json of an evaluation" in run(*arguments, "x", "--against", "old/results.json")[2]


def test_rates_of_the_set_are_made_of_what_is_measured(run, photos: Path, tmp_path: Path, monkeypatch):
    coded: list[int] = []

    def compress(self: Codec, image: np.ndarray, quality: int) -> bytes:
        coded.append(quality)
        return bytes([quality, *image.shape[:2]]) + bytes(10 * quality)

    def decompress(self: Codec, data: bytes, **_: object) -> np.ndarray:
        return np.full((data[1], data[2], 3), 100 + data[0], np.uint8)

    monkeypatch.setattr(Codec, "num_levels", 3)
    monkeypatch.setattr(Codec, "compress", compress)
    monkeypatch.setattr(Codec, "decompress", decompress)
    monkeypatch.setattr("cod_jax.evaluation.coders.Model.payload_bytes", lambda self, data: None)
    assert run(*ARGUMENTS, "--set-bpp", "0.25,0.2")[0] == 0
    num_coded = len(coded)
    model, allocated = results_of(tmp_path)["curves"]
    assert [point["label"] for point in allocated["points"]] == ["0.2", "0.25"]
    for point in allocated["points"]:
        assert point["mean"]["bpp_pooled"] <= float(point["label"])
        for image in point["images"]:
            assert image["file"] == f"files/MODEL/{image['quality']}/{image['name'].rpartition('.')[0]}.cod"
            assert {**image, "quality": None} in [
                {**one, "quality": None} for one in model["points"][image["quality"] - 1]["images"]
            ]
    rows = rows_of(tmp_path)
    assert {row["quality"] for row in rows if row["curve"] == "MODEL"} == {""}
    assert {row["label"] for row in rows_of(tmp_path, "summary.csv") if row["curve"] == "MODEL-allocated"} == {
        "0.2",
        "0.25",
    }
    # Other rates need no work, and no --force.
    assert run(*ARGUMENTS, "--set-bpp", "0.3", "--no-report")[0] == 0
    status, _, err = run(*ARGUMENTS, "--set-bpp", "0.001")
    assert status == 1
    assert "expected at least 0.1336 bits per pixel with --set-bpp" in err
    assert len(coded) == num_coded
    assert run(*ARGUMENTS, "--set-bpp", "0.3", "--quality", "1")[0] == 2
