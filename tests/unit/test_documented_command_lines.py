"""Every command line in the documents is understood: options, settings with their values, make targets and extras."""

import itertools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from cod_jax.commands.main import COMMANDS, parse
from cod_jax.commands.train import read_arguments
from cod_jax.errors import UserError
from cod_jax.launch.plan import load_points, plan
from cod_jax.training.config import TrainConfig
from cod_jax.training.config_files import read_stages
from examples import perceptual_decoder
from tests.documents import PAGES, REPOSITORY, Block, blocks, command_lines, name_of
from tests.fuzz import run

MAKEFILE = (REPOSITORY / "Makefile").read_text()
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LINES = {
    name_of(page): lines for page in PAGES if (lines := [*itertools.chain(*map(command_lines, blocks(page, "bash")))])
}


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch):
    """Commands that name config files run from the root of the repository."""
    monkeypatch.chdir(REPOSITORY)


def without_variables(words: Sequence[str]) -> list[str]:
    """Return a command line without the environment variables that are set in front of it."""
    return list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))


def check(words: Sequence[str]) -> None:
    """Refuse a command line that its program would not understand.

    Raises:
        AssertionError: With the reason, as for the other errors.
        UserError: Of a command `cod`.
    """
    match without_variables(words):
        case ["cod", *arguments]:
            check_cod(arguments)
        case ["make", target]:
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"the Makefile has no {target}"
        case ["pip", "install", *requirements]:
            named = re.findall(r"\[(.*?)\]", " ".join(requirements))
            assert {extra for names in named for extra in names.split(",")} <= EXTRAS.keys(), named
        case ["sbatch", script, *trainer]:
            assert Path(script).is_file(), script
            check_cod(["train", *trainer])
        case ["python", "-m", "pytest", *files]:
            assert all(map(Path.exists, map(Path, files))), files
        case ["python", "examples/perceptual_decoder.py", *arguments]:
            perceptual_decoder.parser().parse_args(arguments)
        case ["python", "-m", "tests.fuzz.run", *arguments]:
            run.parser().parse_args(arguments)
        case ["source", ".venv/bin/activate" | "env/bin/activate"] | ["export", *_] | ["tensorboard", "--logdir", _]:
            pass
        case ["python", "-m", "venv", "env"] | ["pip", "wheel", ".", "--wheel-dir", _]:
            pass
        case _:
            pytest.fail(f"unknown command {words}")


def check_cod(arguments: Sequence[str]) -> None:
    """Refuse arguments that `cod` would not understand, and settings that no run could have.

    Raises:
        UserError: With the reason.
    """
    args = parse(arguments)
    match arguments[0]:
        case "sweep":
            plan(load_points(args.sweep), args.config, Path(args.workdir), args.trainer, read_arguments)
        case "launch":
            check_cod(["train", *args.trainer])
        case "train" | "memory" | "settings":
            for settings in read_stages(args.config, args.settings).values():
                config = TrainConfig.from_dict(settings, trusted=True)
                if arguments[0] == "train":
                    assert config.data.source, "data.source is missing"
                    assert config.frozen.weights or not config.frozen_names, "frozen.weights is missing"


def test_there_are_command_lines_of_all_commands():
    lines = [without_variables(words) for words in itertools.chain(*LINES.values())]
    named = {words[1] for words in lines if words[:1] == ["cod"]}
    assert named == set(COMMANDS)


@pytest.mark.parametrize("page", LINES)
def test_the_command_lines_of_a_page_are_understood(page: str):
    for words in LINES[page]:
        check(words)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cod decompres -m MODEL photo.cod", "decompres"),
        ("cod evaluate --model MODEL --data photos", "--images"),
        ("cod sweep --sweep configs/sweeps/rate.py --config configs/tiny.py --workdir d -- --config.batch=8", "batch"),
        ("cod launch --processes 2 -- --config configs/tiny.py --workdir d --config.batch_size=0", "batch_size"),
        ("pip install '.[training]'", "training"),
        ("make site", "the Makefile has no site"),
        ("rm -rf photos", "unknown command"),
    ],
)
def test_a_line_that_is_not_understood_is_found(line: str, reason: str):
    (words,) = command_lines(Block("page.md", 1, "bash", line, ""))
    with pytest.raises((AssertionError, UserError, pytest.fail.Exception), match=reason):
        check(words)
