"""The report as a file: what is in it, how large it is, and that no text of an evaluation can become a script."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cod_jax import images
from cod_jax.errors import UserError
from cod_jax.evaluation.report import page, pictures
from cod_jax.evaluation.report.page import write_report
from tests.report_fixtures import picture, write_evaluation

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & '\" <!--{data}-->.png"


class Tags(HTMLParser):
    """Collects the elements of a page and the texts of its scripts."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.is_open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.append("")
        self.is_open = True

    def handle_endtag(self, tag: str) -> None:
        self.is_open = False

    def handle_data(self, data: str) -> None:
        if self.is_open:
            self.texts[-1] += data

    def script(self, **attributes: str) -> list[str]:
        return [
            text
            for (tag, attrs), text in zip(self.found, self.texts, strict=True)
            if tag == "script" and all(attrs.get(key) == value for key, value in attributes.items())
        ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("report")
    evaluation, source, results = write_evaluation(folder)
    length = write_report(evaluation, source, folder / "report.html", notes=["A note."])
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert length == len(text.encode())
    return evaluation, source, results, text


def test_numbers_are_in_the_page_as_columns(written: tuple[Path, Path, dict[str, Any], str]):
    *_, results, text = written
    data = json.loads(Tags(text).script(id="data")[0])
    assert data["title"] == "compact (1 step)"
    assert data["notes"] == ["A note."]
    assert data["main"] == [0]
    point = data["curves"][1]["points"][2]
    rows = results["curves"][1]["points"][2]["images"]
    assert point["images"]["bytes"] == [row["bytes"] for row in rows]
    assert point["images"]["psnr"] == pytest.approx([row["psnr"] for row in rows], rel=1e-5)
    assert "decoded" not in point["images"]
    assert data["bd"] == results["bd"]
    assert data["dial"] == []  # of an evaluation of an earlier version too


def test_small_pictures_are_exact_and_those_of_the_viewer(written: tuple[Path, Path, dict[str, Any], str]):
    evaluation, source, results, text = written
    tags = Tags(text)
    data = json.loads(tags.script(id="data")[0])
    assert data["storage"] == {"title": "lossless WebP", "psnr_min": None, "psnr_mean": None}
    assert len(data["viewer"]) == 5
    entry = data["viewer"][2]
    row = entry["rows"][1]
    assert [data["curves"][one["curve"]]["family"] for one in row] == ["compact", "jpeg", "webp"]
    for key, path in (
        (entry["original"], source / "picture 02.png"),
        (row[0]["picture"], evaluation / results["curves"][0]["points"][row[0]["point"]]["images"][2]["decoded"]),
    ):
        kind, _, encoded = tags.script(id=f"p{key}")[0].partition(";base64,")
        assert kind == "image/webp"
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
        np.testing.assert_array_equal(decoded, images.to_uint8_rgb(path))


def test_the_page_asks_for_nothing_and_allows_its_own_script_only(written: tuple[Path, Path, dict[str, Any], str]):
    tags = Tags(written[-1])
    [policy] = [attrs["content"] for tag, attrs in tags.found if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    own = tags.script()[-1]
    assert base64.b64encode(hashlib.sha256(own.encode()).digest()).decode() in policy
    assert not [attrs for _, attrs in tags.found if set(attrs) & {"src", "style", "onclick", "onerror"}]
    assert not [attrs["href"] for _, attrs in tags.found if not (attrs.get("href") or "#").startswith("#")]
    assert not re.search(r"\b(fetch|XMLHttpRequest|innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write)\b", own)


def test_hostile_names_stay_text(tmp_path: Path):
    evaluation, source, results = write_evaluation(tmp_path, 1)
    # No file system takes such a name; an archive of results may hold it all the same.
    content = (
        json.dumps(results).replace(json.dumps("picture 00.png")[1:-1], "NAME").replace("compact (1 step)", "NAME")
    )
    (evaluation / "results.json").write_text(content.replace("NAME", json.dumps(HOSTILE.replace("/", ":"))[1:-1]))
    (source / "picture 00.png").rename(source / HOSTILE.replace("/", ":"))
    write_report(evaluation, source, tmp_path / "report.html", notes=[HOSTILE])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert {tag for tag, _ in tags.found} <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "header",
        "nav",
        "main",
        "footer",
        "p",
        "script",
        "noscript",
    }
    assert sum(tag == "script" and "type" not in attrs for tag, attrs in tags.found) == 1
    assert json.loads(tags.script(id="data")[0])["notes"] == [HOSTILE]
    assert "alert(1)</" not in text


def test_a_limit_makes_pictures_less_exact_and_the_page_says_how_much(
    written: tuple[Path, Path, dict[str, Any], str], tmp_path: Path
):
    evaluation, source, _, text = written
    length = write_report(evaluation, source, tmp_path / "report.html", max_bytes=len(text) // 2)
    assert length < len(text)
    storage = json.loads(Tags((tmp_path / "report.html").read_text()).script(id="data")[0])["storage"]
    assert "quality" in storage["title"]
    assert 20 < storage["psnr_min"] <= storage["psnr_mean"]


def test_the_page_has_what_failed_and_of_how_many_pictures_means_are(tmp_path: Path):
    evaluation, source, results = write_evaluation(tmp_path, num_pictures=2)
    point = results["curves"][1]["points"][0]
    point["images"].pop()
    point["mean"]["num_images"] = 1
    point["failed"] = {"picture 01.png": "no memory"}
    (evaluation / "results.json").write_text(json.dumps(results))
    write_report(evaluation, source, tmp_path / "report.html")
    data = json.loads(Tags((tmp_path / "report.html").read_text(encoding="utf-8")).script(id="data")[0])
    points = data["curves"][1]["points"]
    assert [one["failed"] for one in points[:2]] == [{"picture 01.png": "no memory"}, {}]
    assert points[0]["mean"]["num_images"] == 1


def test_a_side_that_is_too_long_for_an_encoding_makes_a_png():
    wide, small = np.zeros((2, 16384, 3), np.uint8), picture(0)
    stored = pictures.store([lambda: wide, lambda: small], 1_000_000)
    assert [address.partition(";")[0] for address in stored.addresses] == ["image/png", "image/webp"]
    assert (stored.title, stored.psnr_min) == ("lossless WebP and PNG", None)
    decoded = Image.open(io.BytesIO(base64.b64decode(stored.addresses[0].partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(decoded), wide)


def test_without_avif_pictures_are_jpeg(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    assert [way.image_format for way in pictures.encodings()][:2] == ["WEBP", "JPEG"]


def test_another_picture_of_the_same_name_is_refused(tmp_path: Path):
    evaluation, source, _ = write_evaluation(tmp_path, num_pictures=1)
    (photo,) = source.iterdir()
    images.save_png(photo, 255 - images.to_uint8_rgb(photo))
    with pytest.raises(UserError, match=f"expected {photo} as it was measured, got another file of this name"):
        write_report(evaluation, source, tmp_path / "report.html")


def test_the_page_says_that_pictures_are_too_small_for_ms_ssim(tmp_path: Path):
    evaluation, source, results = write_evaluation(tmp_path, num_pictures=2)
    results["metrics"].append({"name": "ms_ssim", "title": "MS-SSIM", "better": "higher", "protocol": "As usual."})
    for number, row in enumerate(results["curves"][0]["points"][0]["images"]):
        row |= {"ms_ssim": 0.9, "ms_ssim_scales": 4 + number}
    (evaluation / "results.json").write_text(json.dumps(results))
    write_report(evaluation, source, tmp_path / "report.html")
    found = Tags((tmp_path / "report.html").read_text(encoding="utf-8")).script(id="data")
    protocol = json.loads(found[0])["metrics"][-1]["protocol"]
    assert protocol.startswith(
        "As usual. Pictures with a side below 161 pixels, measured at fewer than five scales: 1 of 2. Such"
    )


def test_a_picture_of_another_size_is_named(written: tuple[Path, Path, dict[str, Any], str], tmp_path: Path):
    evaluation, source, *_ = written
    other = tmp_path / "photos"
    for path in source.iterdir():
        images.save_png(other / path.name, np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(UserError, match=r"picture 00.png with 144x96 pixels, as it was measured, got 30x20; name"):
        write_report(evaluation, other, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png", "decoded/../../secret.png"])
def test_files_outside_of_the_evaluation_are_not_read(path: str, tmp_path: Path):
    evaluation, source, results = write_evaluation(tmp_path, 1)
    results["curves"][0]["points"][0]["images"][0]["decoded"] = path
    (evaluation / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"expected a file below .*results, got "):
        write_report(evaluation, source, tmp_path / "report.html")


def test_an_existing_file_is_kept_where_that_is_asked_for(tmp_path: Path):
    evaluation, source, _ = write_evaluation(tmp_path, 1)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(FileExistsError):
        write_report(evaluation, source, tmp_path / "report.html", replace=False)
    assert (tmp_path / "report.html").read_text() == "mine"


def test_every_script_of_the_template_is_in_the_page():
    assert {path.stem for path in page.TEMPLATE.glob("*.js")} == set(page.SCRIPTS)
