import os
import subprocess
import sys

import pytest

from cod_jax import huge_pages
from cod_jax.commands.main import main

MAY_ASK = "always [madvise] never\n"


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Say which pages the system gives, and forget what the environment says of them."""

    def write(text: str) -> None:
        (tmp_path / "enabled").write_text(text)

    monkeypatch.setattr(huge_pages, "_HUGE_PAGES", tmp_path / "enabled")
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


def test_a_process_starts_again_once_with_its_arguments_and_its_number(tmp_path):
    (tmp_path / "enabled").write_text(MAY_ASK)
    script = (
        "import os, pathlib, sys; from cod_jax import huge_pages; "
        f"huge_pages._HUGE_PAGES = pathlib.Path({str(tmp_path / 'enabled')!r}); "
        "print(os.getpid(), os.environ.get('GLIBC_TUNABLES'), *sys.argv[1:], flush=True); "
        "huge_pages.restart_with_huge_pages(); print('end')"
    )
    without = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", script, "a b", "--c"]
    done = subprocess.run(command, env=without, capture_output=True, text=True, check=True)
    first, second, end = done.stdout.splitlines()
    number = first.split()[0]
    assert (first, second) == (f"{number} None a b --c", f"{number} glibc.malloc.hugetlb=1 a b --c")
    assert end == "end"


@pytest.mark.parametrize(
    ("arguments", "restarts"),
    [
        (["train", "--config", "configs/tiny.py", "--workdir", "run"], True),
        (["train", "--nonsense"], False),
        (["info", "none.cod"], False),
    ],
)
def test_trainings_start_again(offer, monkeypatch, tmp_path, arguments: list[str], restarts: bool):
    offer(MAY_ASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cod", *arguments])
    monkeypatch.setattr(sys, "orig_argv", ["python", "/bin/cod", *arguments])
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    main()
    expected = [sys.executable, "/bin/cod", *arguments]
    assert [call[1] for call in calls] == ([expected] if restarts else [])


def test_commands_called_by_a_program_do_not_start_it_again(offer, monkeypatch, tmp_path):
    offer(MAY_ASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("it was started again"))
    assert main(["train", "--config", "none.py", "--workdir", "run"]) == 2
