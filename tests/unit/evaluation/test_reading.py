"""results.json is checked when it is read."""

import json
from pathlib import Path

import pytest

from cod_jax.errors import UserError
from cod_jax.evaluation.reading import read_results

POINT = {"label": "1", "mean": {}, "images": [{"name": "a.png", "bytes": 3}]}
RESULTS = {
    "format": 1,
    "images": [{"name": "a.png", "width": 1, "height": 1}],
    "metrics": [{"name": "psnr", "title": "PSNR", "better": "higher"}],
    "curves": [{"name": "jpeg", "kind": "baseline", "title": "JPEG", "about": {}, "points": [POINT]}],
}


def _read(folder: Path, text: str):
    (folder / "results.json").write_text(text)
    return read_results(folder)


def test_what_is_not_there_is_empty(tmp_path: Path):
    results = _read(tmp_path, json.dumps(RESULTS))
    assert results["curves"] == RESULTS["curves"]
    assert (results["bd"], results["machine"], results["not_measured"]) == ([], {}, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "expected results of format 1 in .*, got 2; evaluate again"),
        ({"curves": {}}, "expected a list at results.json: curves, got {}; evaluate again"),
        ({"curves": [{"name": "a"}]}, r"expected kind at results.json: curves\[0\], which is not there"),
        (
            {"images": [{"name": 1, "width": 1, "height": 1}]},
            r"expected text at results.json: images\[0\]: name, got 1",
        ),
        ({"images": [{"name": "", "width": True, "height": 1}]}, r"expected an integer at .*: width, got True"),
        ({"metrics": []}, "no metrics or no pictures"),
        (
            {"curves": [{**RESULTS["curves"][0], "points": [{**POINT, "failed": ["a.png"]}]}]},
            r"expected an object at .*points\[0\]: failed, got \['a.png'\]; evaluate again",
        ),
    ],
)
def test_other_forms_are_refused_by_the_place_of_the_difference(change: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        _read(tmp_path, json.dumps(RESULTS | change))


def test_a_missing_and_a_damaged_file_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"got .*results\.json, which does not exist"):
        read_results(tmp_path)
    with pytest.raises(UserError, match=r"is not the results\.json of an evaluation"):
        _read(tmp_path, '{"format": ')
    with pytest.raises(UserError, match=r"is not the results\.json of an evaluation"):
        _read(tmp_path, "[" * 100_000)
    with pytest.raises(UserError, match=r"is not the results\.json of an evaluation; give another file"):
        _read(tmp_path, "[]")


def test_numbers_that_are_not_finite_are_none(tmp_path: Path):
    results = _read(
        tmp_path,
        json.dumps(RESULTS)[:-1]
        + f', "bd": [], "machine": {{"a": NaN, "b": 1e999, "c": -Infinity, "d": {"9" * 5000}}}}}',
    )
    assert results["machine"] == {"a": None, "b": None, "c": None, "d": None}
