"""Which checkpoint is the best."""

import math

import pytest

from cod_jax.errors import UserError
from cod_jax.training import ranking


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", -1),
        ("loss/flow", -1),
        ("estimated_bits_per_pixel", -1),
        ("quality_12/bits_per_symbol", -1),
        ("psnr_one_step", 1),
        ("ms_ssim_sampled", 1),
        ("quality_3/psnr_one_step", 1),
        ("codebook/usage", 1),
        ("lower/wasserstein", -1),
        ("higher/my_metric", 1),
        ("texture_one_step", 0),
        ("nominal_bits_per_pixel", 0),
        ("quality_3", 0),
        ("psnr", 0),
    ],
)
def test_every_number_has_a_direction(name: str, expected: int):
    assert ranking.direction(name) == expected
    if expected:
        ranking.check_direction(name)
    else:
        with pytest.raises(UserError, match=rf"expected best_by among loss, .*psnr_one_step.*, got '{name}'"):
            ranking.check_direction(name)


def test_better_checkpoints_rank_lower_and_those_without_a_number_last():
    better, worse = {"loss": 1.0, "psnr_one_step": 30.0}, {"loss": 2.0, "psnr_one_step": 20.0}
    for name in ("loss", "psnr_one_step"):
        assert ranking.rank(better, name) < ranking.rank(worse, name) < ranking.rank({}, name) == math.inf
    assert ranking.rank({"psnr_one_step": math.nan}, "psnr_one_step") == ranking.rank(None, "loss") == math.inf
    # What version 0.1 stored.
    assert ranking.rank({"validation_loss": 0.5}, "loss") == 0.5
    assert ranking.rank({"validation_loss": 0.5}, "psnr_one_step") == math.inf


def test_settings_of_version_0_1_rank_by_the_loss():
    assert ranking.best_by_of({"checkpoint": {"keep_best": 1}}) == ranking.best_by_of({}) == "loss"
    assert ranking.best_by_of({"checkpoint": {"best_by": "psnr_one_step"}}) == "psnr_one_step"


def test_what_a_run_does_not_measure_is_refused_with_what_it_does():
    names = ["loss", "texture", "psnr_one_step", "quality_1/psnr_one_step"]
    ranking.check_measured("quality_1/psnr_one_step", names)
    with pytest.raises(
        UserError, match=r"measures, loss, psnr_one_step, quality_1/psnr_one_step, got 'quality_2/psnr_one_step'"
    ):
        ranking.check_measured("quality_2/psnr_one_step", names)
