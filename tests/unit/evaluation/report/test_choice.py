"""Which pictures and files stand beside each other in a report."""

from pathlib import Path
from typing import Any

import pytest

from cod_jax.evaluation.report import choice
from cod_jax.evaluation.report.choice import Match


def _match(num_bytes: int, quality: float, curve: int = 1) -> Match:
    return Match(curve, 0, "decoded.png", num_bytes, quality)


def test_the_best_file_of_at_most_a_tenth_more_bytes_is_compared():
    files = [_match(500, 20.0), _match(1090, 25.0), _match(1100, 26.0, curve=2), _match(1101, 30.0)]
    assert choice.matched(1000, files) == files[2]


def test_a_smaller_file_that_is_better_is_preferred_as_at_half_resolution():
    files = [_match(1000, 20.0), _match(700, 24.0)]
    assert choice.matched(1000, files) == files[1]


def test_the_smallest_file_is_compared_where_all_are_longer():
    assert choice.matched(100, [_match(900, 30.0), _match(400, 10.0)]).num_bytes == 400


@pytest.mark.parametrize(
    ("count", "most", "chosen"), [(3, 5, [0, 1, 2]), (8, 4, [0, 2, 5, 7]), (5, 1, [2]), (0, 4, []), (100, 2, [0, 99])]
)
def test_indices_are_spread_evenly_with_both_ends(count: int, most: int, chosen: list[int]):
    assert choice.evenly(count, most) == chosen


def _results(num_images: int, curves: list[tuple[str, str, float]]) -> dict[str, Any]:
    names = [f"{index}.png" for index in range(num_images)]
    return {
        "images": [{"name": name} for name in names],
        "metrics": [{"name": "psnr", "better": "higher"}],
        "curves": [
            {
                "name": name,
                "kind": kind,
                "about": {"scale": scale},
                "points": [
                    {
                        "mean": {"bpp": 0.1},
                        "images": [
                            {"name": picture, "bytes": 100, "psnr": float(-index), "decoded": f"{name}.png"}
                            for index, picture in enumerate(names)
                        ],
                    }
                ],
            }
            for name, kind, scale in curves
        ],
    }


def test_a_codec_at_all_scales_is_one_family_and_stands_in_the_viewer_once():
    results = _results(1, [("jpeg-half", "baseline", 0.5), ("jpeg", "baseline", 1.0), ("lite-half", "model", 1)])
    assert choice.families(results["curves"]) == ["jpeg", "jpeg", "lite-half"]
    [row] = choice.viewer_rows(results, "0.png")
    assert [match.curve for match in row] == [2, 0]


def test_what_a_model_makes_of_one_file_stands_in_one_row():
    results = _results(
        1, [("jpeg", "baseline", 1), *((f"flow-{n}", "model", 1) for n in (1, 4, 25)), ("b", "model", 1)]
    )
    for curve in results["curves"][1:4]:
        curve["about"]["variant_of"] = "flow"
    rows = choice.viewer_rows(results, "0.png")
    assert [[match.curve for match in row] for row in rows] == [[1, 2, 3, 0], [4, 0]]


def test_without_a_model_files_and_then_baselines_are_what_is_compared():
    files = _results(1, [("jpeg", "baseline", 1), ("other", "files", 1)])
    assert choice.shown_curves(files["curves"]) == [1]
    assert choice.shown_curves(_results(1, [("jpeg", "baseline", 1)])["curves"]) == [0]


def test_many_pictures_are_sampled_from_the_worst_to_the_best():
    shown = choice.shown_pictures(_results(100, [("compact", "model", 1)]))
    assert len(shown) == choice.MAX_PICTURES
    assert {0, 99} <= set(shown)


def test_decoded_pictures_without_files_are_shown_without_others_beside_them():
    results = _results(1, [("other", "files", 1), ("jpeg", "baseline", 1)])
    for row in results["curves"][0]["points"][0]["images"]:
        del row["bytes"]
    [row] = choice.viewer_rows(results, "0.png")
    assert [(match.curve, match.num_bytes) for match in row] == [(0, None)]


def test_a_lossless_picture_is_the_best_one(tmp_path: Path):
    results = _results(1, [("compact", "model", 1)])
    assert choice.quality_of(results, {"psnr": None}) == float("inf")
    results["metrics"][0]["better"] = "lower"
    assert choice.quality_of(results, {"psnr": 0.25}) == -0.25
