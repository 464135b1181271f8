"""Options that several commands have."""

import pytest

from cod_jax.commands.main import parse
from cod_jax.errors import UserError

EVALUATE = ["evaluate", "--images", "photos", "--output", "results"]


@pytest.mark.parametrize("words", ["1,4,25", "1 4 25", "1, 4,25", "1 ,4 25,", "1,4 25 4"])
def test_values_of_a_list_have_commas_or_spaces_between_them(words: str):
    assert parse([*EVALUATE, "--steps", *words.split(), "--seed", "1"]).steps == [1, 4, 25]


@pytest.mark.parametrize(
    ("arguments", "name", "values"),
    [
        ([*EVALUATE, "--quality"], "quality", ["3", "1"]),
        ([*EVALUATE, "--set-bpp"], "set_bpp", ["0.1", "0.3"]),
        ([*EVALUATE, "--baselines"], "baselines", ["jpeg", "webp"]),
        ([*EVALUATE, "--max-loss"], "max_loss", ["psnr=0.05", "bpp=0"]),
        (["compile", "--model", "m", "--output", "o", "--platforms"], "platforms", ["cpu", "tpu"]),
        (["memory", "--config", "c", "--mesh"], "mesh", ["1x1x1", "1x8x1"]),
        (["benchmark", "codec", "--size"], "size", ["64x32", "32x64"]),
    ],
)
def test_every_list_takes_both(arguments: list[str], name: str, values: list[str]):
    by_spaces = getattr(parse([*arguments, *values]), name)
    assert len(by_spaces) == 2
    assert getattr(parse([*arguments, ",".join(values)]), name) == by_spaces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", ","], "argument --steps: expected at least one value, got none"),
        (["--steps", "1,x"], "argument --steps: expected a whole number, got 'x'"),
        (["--set-bpp", "0.1", "-1"], "argument --set-bpp: bits per pixel must be a positive number, got -1"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(arguments: list[str], message: str):
    with pytest.raises(UserError, match=message):
        parse([*EVALUATE, *arguments])


def test_names_that_are_not_on_the_list_are_refused():
    with pytest.raises(UserError, match="argument --platforms: expected cpu, cuda, tpu, rocm, got 'gpu'"):
        parse(["compile", "--model", "m", "--output", "o", "--platforms", "cpu,gpu"])
