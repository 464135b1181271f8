"""Huge pages for the memory of training, on Linux.

For each call of a compiled program XLA takes the memory of all its intermediate results, and gives it back afterwards.
So the system fills all of it with zeros again in each step of a training. With its pages of 4 KB that is a fifth of the
processor time of a compact model's step. glibc asks for pages of 2 MB if it is told so when a process starts.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_SETTING = "GLIBC_TUNABLES"
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_FIRST_GLIBC = (2, 35)
# Tells a process that it was started again, whatever has become of the setting since then.
_MARK = "_COD_JAX_STARTED_AGAIN"
# Options of Python that change nothing about what it runs.
_HARMLESS = frozenset({"-B", "-E", "-I", "-O", "-OO", "-s", "-u"})


def environment() -> dict[str, str]:
    """Return the variables that give a new process huge pages.

    There are none where glibc cannot ask for such pages, where programs need not or may not ask, and where the user has
    set the variable.
    """
    is_open = _SETTING not in os.environ and _glibc_version() >= _FIRST_GLIBC
    try:
        may_ask = is_open and "[madvise]" in _HUGE_PAGES.read_text()
    except OSError:
        may_ask = False
    return {_SETTING: "glibc.malloc.hugetlb=1"} if may_ask else {}


def restart_with_huge_pages() -> None:
    """Start this process again, once, with the variables that it lacks; it keeps its process id.

    Only the command itself is started again, not a program, a debugger or a notebook that calls it. Without a new start
    training computes the same, and takes longer.
    """
    arguments = sys.argv[1:]
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]
    is_command = sys.orig_argv[1:] == [*program, *arguments] and _is_command(program)
    variables = environment()
    if not variables or _MARK in os.environ or not is_command:
        return
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **variables, _MARK: "1"})
    except OSError:
        return


def _is_command(program: Sequence[str]) -> bool:
    """Return whether these words after `python` run the command `cod` and nothing else."""
    words = [word for word in program if word not in _HARMLESS]
    if words[:1] == ["-m"]:
        return words[1:] in (["cod_jax"], ["cod_jax.train"])
    return len(words) == 1 and Path(words[0]).name == "cod" and Path(words[0]).is_file()


def _glibc_version() -> tuple[int, ...]:
    """Return the version of glibc, (0,) without it."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return tuple(int(part) for part in version.split(".")) if name == "glibc" else (0,)
    except (AttributeError, ValueError):
        return (0,)
