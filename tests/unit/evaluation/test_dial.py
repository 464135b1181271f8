"""Steps and guidances of one model, between distortion and perception."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cod_jax import images
from cod_jax.evaluation import coders
from cod_jax.evaluation.coders import NO_GUIDANCE, _without_guidance
from cod_jax.evaluation.dial import MAX_SIDE, dial_rows, draw_dial, lines, sample_sheets
from cod_jax.model_folder.abilities import abilities
from tests.model_fixtures import gradient_image, tiny_sampling_codec

WAYS = ((1, 3.0), (4, 3.0), (4, 1.0), (25, 3.0))
METRICS = [
    {"name": "psnr", "title": "PSNR", "unit": "dB", "better": "higher"},
    {"name": "wasserstein", "title": "Wasserstein distortion", "unit": "", "better": "lower"},
]


def _curve(steps: int, guidance: float, **about: Any) -> dict[str, Any]:
    name = f"flow-{steps}-{guidance:g}"
    return {
        "name": name,
        "title": f"flow ({steps} steps)",
        "about": about,
        "points": [
            {
                "label": label,
                "settings": {
                    "quality": int(label),
                    "steps": steps,
                    "guidance": guidance,
                    "sampler": "euler",
                    "seed": 0,
                },
                "mean": {
                    "num_images": 2,
                    "bpp": 0.1,
                    "psnr": 30.0 - steps,
                    "wasserstein": 9.0 / steps,
                    "texture": 0.5,
                    "decode_s": 1.0,
                },
                "images": [{"name": f"{n}.png", "decoded": f"decoded/{name}/{label}/{n}.png"} for n in "ab"],
            }
            for label in ("1", "2", "3")
        ],
    }


def _results() -> dict[str, Any]:
    curves = [_curve(*way, variant_of="flow") for way in WAYS] + [_curve(1, 1.0)]
    return {"metrics": METRICS, "curves": curves, "dial": dial_rows(curves)}


def test_a_row_has_the_way_of_decoding_and_the_means_but_no_times():
    rows = dial_rows(_results()["curves"])
    assert len(rows) == 3 * len(WAYS)  # a model that is decoded in one way has none
    assert rows[3] == {
        "model": "flow",
        "curve": "flow-4-3",
        "label": "1",
        "steps": 4,
        "guidance": 3.0,
        "sampler": "euler",
        "seed": 0,
        "num_images": 2,
        "bpp": 0.1,
        "psnr": 26.0,
        "wasserstein": 2.25,
        "texture": 0.5,
    }


def test_one_step_is_on_the_line_of_every_guidance():
    found = lines(_results()["dial"], "flow")
    assert [(line.label, line.guidance) for line in found[:3]] == [("1", 3.0), ("1", 1.0), ("2", 3.0)]
    assert [[row["steps"] for row in line.rows] for line in found[:2]] == [[1, 4, 25], [1, 4]]


def test_each_model_has_a_plot():
    (plot,) = draw_dial(_results()).items()
    assert plot[0] == "dial_flow.svg"
    for words in (
        b"0.1000 bits per pixel, guidance 3",
        b"Wasserstein distortion (lower is better)",
        b"texture, 1 is as",
    ):
        assert words in plot[1]


def test_sample_pictures_stand_side_by_side_as_they_are(tmp_path: Path):
    results = _results()
    size = MAX_SIDE + 10, 40
    for number, curve in enumerate(results["curves"]):
        images.save_png(tmp_path / "photos" / f"{'ab'[number % 2]}.png", gradient_image(*size))
        for row in curve["points"][1]["images"]:
            images.save_png(tmp_path / row["decoded"], np.full((*size, 3), 10 * number, np.uint8))
    (sheet,) = sample_sheets(results, tmp_path / "photos", tmp_path).items()
    assert sheet[0] == "dial_flow.png"
    (tmp_path / "sheet.png").write_bytes(sheet[1])
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    centre = gradient_image(*size)[5:-5]
    top = pixels.shape[0] - MAX_SIDE - 6
    np.testing.assert_array_equal(pixels[top : top + MAX_SIDE, 6:46], centre)
    # The original, then the ways of decoding, with the third of three levels left out.
    assert set(np.unique(pixels[top + 5, 60:, 0])) == {0, 10, 20, 30, 255}


@pytest.mark.parametrize(
    ("objective", "can"),
    [
        ({"kind": "one_step", "lora_rank": 0}, False),
        ({"kind": "one_step", "lora_rank": 32}, True),
        ({"kind": "pretrain", "null_condition_probability": 0.0}, False),
        ({"kind": "pretrain", "null_condition_probability": 0.1}, True),
        ({"kind": "distill"}, True),
        ("broken", True),
    ],
)
def test_guidance_needs_a_model_that_saw_pictures_without_a_condition(objective: Any, can: bool):
    assert abilities({"config": {"objective": objective}}).knows_null is can
    assert abilities({}).knows_null
    assert "guidance 1" in NO_GUIDANCE


def test_guidance_is_one_where_it_cannot_be_had_and_each_way_is_measured_once():
    ways = [{"steps": steps, "guidance": guidance} for steps, guidance in WAYS]
    assert _without_guidance(ways) == [ways[0], ways[2], {"steps": 25, "guidance": 1.0}]
    assert _without_guidance(ways[:2]) == [ways[0], ways[2]]
    assert _without_guidance([ways[0], ways[2]]) == [ways[0], ways[2]]


@pytest.mark.parametrize(
    ("guidances", "rank", "measured", "can"),
    [((2, 3), 0, [1], False), ((1,), 0, [1], True), ((2, 3), 32, [2, 3], True)],
)
def test_a_model_that_cannot_be_guided_is_measured_with_guidance_1_and_that_is_told(
    guidances: tuple[float, ...], rank: int, measured: list[float], can: bool, monkeypatch: pytest.MonkeyPatch
):
    training = {"config": {"objective": {"kind": "one_step", "lora_rank": rank}}}
    monkeypatch.setattr(coders, "_load", lambda model: tiny_sampling_codec("pixel"))
    monkeypatch.setattr("cod_jax.model_folder.describe.describe_model", lambda path: {"training": training})
    found = coders.describe(coders.Model("folder"), [{"steps": 4, "guidance": guidance} for guidance in guidances])
    assert [(one["steps"], one["guidance"]) for one in found["decodings"]] == [(4, guidance) for guidance in measured]
    assert found["can_guide"] is can
