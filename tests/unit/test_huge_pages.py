import os
import subprocess
import sys
from typing import Any

import pytest

from cod_jax import huge_pages
from cod_jax.benchmarks.process import in_own_process

MAY_ASK = "always [madvise] never\n"


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Say which pages the system gives, and forget what the environment says of them."""

    def write(text: str) -> None:
        (tmp_path / "enabled").write_text(text)

    monkeypatch.setattr(huge_pages, "_HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.36")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return write


@pytest.mark.parametrize("text", ["[always] madvise never\n", "always madvise [never]\n"])
def test_where_the_system_decides_nothing_is_set(offer, text: str):
    offer(text)
    assert huge_pages.environment() == {}


def test_without_such_a_system_nothing_is_set(offer):
    assert huge_pages.environment() == {}


def test_what_the_user_has_set_stays(offer, monkeypatch):
    offer(MAY_ASK)
    assert huge_pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    assert huge_pages.environment() == {}


def test_an_old_glibc_cannot_ask(offer, monkeypatch):
    offer(MAY_ASK)
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.34")
    assert huge_pages.environment() == {}
    monkeypatch.setattr(os, "confstr", lambda _: None)
    assert huge_pages.environment() == {}


# A file of this name is imported by Python when it starts.
STARTS = """
import os, pathlib, sys
from cod_jax import huge_pages
huge_pages._HUGE_PAGES = pathlib.Path(__file__).with_name("enabled")
huge_pages._glibc_version = lambda: (2, 36)
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), flush=True)
if "forget" in sys.orig_argv:
    os.environ.pop("GLIBC_TUNABLES", None)
"""


@pytest.fixture
def starts(tmp_path):
    """Run Python with words, and return its exit status and the lines that each start printed."""
    (tmp_path / "enabled").write_text(MAY_ASK)
    (tmp_path / "sitecustomize.py").write_text(STARTS)
    (tmp_path / "cod").write_text("import sys; from cod_jax.commands.main import main; sys.exit(main())")
    variables = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])

    def run(*words: str, given: str = "") -> tuple[int, list[str]]:
        command = [sys.executable, *words]
        done = subprocess.run(
            command, check=False, env=variables, cwd=tmp_path, input=given, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout.splitlines()

    return run


TRAIN = ("--config", "none.py", "--workdir", "run")


@pytest.mark.parametrize(
    "words",
    [
        ("cod", "train", *TRAIN),
        ("-u", "-m", "cod_jax", "train", *TRAIN),
        ("-m", "cod_jax.train", *TRAIN),
    ],
)
def test_a_training_starts_again_once_under_its_process_id(starts, words: tuple[str, ...]):
    status, (first, second) = starts(*words)
    number = first.split()[0]
    assert (status, first, second) == (2, f"{number} None", f"{number} glibc.malloc.hugetlb=1")


def test_a_setting_that_is_lost_does_not_start_it_for_ever(starts):
    status, lines = starts("-m", "cod_jax.train", *TRAIN, "--config.seed", "forget")
    assert (status, len(lines)) == (2, 2)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("-", "train", *TRAIN), "import sys; from cod_jax.commands.main import main; sys.exit(main())"),
        (("-c", "import sys; from cod_jax.commands.main import main; sys.exit(main())", "train", *TRAIN), ""),
        (("-m", "cod_jax", "info", "none.cod"), ""),
        (("-m", "cod_jax.train", "--nonsense"), ""),
    ],
)
def test_nothing_else_starts_again(starts, words: tuple[str, ...], given: str):
    status, lines = starts(*words, given=given)
    assert (status, len(lines)) == (2, 1)


def test_a_debugger_does_not_start_again(starts):
    _, lines = starts("-m", "pdb", "-c", "continue", "-m", "cod_jax.train", *TRAIN, given="quit\n")
    assert [line.split()[1] for line in lines if line[:1].isdigit()] == ["None"]


def test_a_start_that_fails_is_none(offer, monkeypatch, tmp_path):
    offer(MAY_ASK)

    tried = []

    def fail(*call: object) -> None:
        tried.append(call)
        raise PermissionError

    monkeypatch.setattr(os, "execve", fail)
    monkeypatch.setattr(sys, "argv", ["cod_jax/train.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "cod_jax.train"])
    huge_pages.restart_with_huge_pages()
    assert [call[:2] for call in tried] == [(sys.executable, [sys.executable, "-m", "cod_jax.train"])]


def test_a_measuring_process_gets_variables_that_this_one_does_not_keep(monkeypatch):
    monkeypatch.delenv("COD_JAX_TEST", raising=False)
    assert in_own_process(_variable, {"name": "COD_JAX_TEST"}, {"COD_JAX_TEST": "1"}) == {"value": "1"}
    assert "COD_JAX_TEST" not in os.environ


def _variable(job: dict[str, Any]) -> dict[str, Any]:
    return {"value": os.environ.get(job["name"])}
