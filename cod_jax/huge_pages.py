"""Huge pages for the memory of training, on Linux.

For each call of a compiled program XLA takes the memory of all its intermediate results, and gives it back afterwards.
So the system fills all of it with zeros again in each step of a training. With its pages of 4 KB that is a fifth of the
processor time of a compact model's step. glibc asks for pages of 2 MB if it is told so when a process starts.
"""

import os
import sys
from pathlib import Path

_SETTING = "GLIBC_TUNABLES"
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment() -> dict[str, str]:
    """Return the variables that give a new process huge pages.

    There are none if the variable is set already, so that the user can choose, or where only the system decides.
    """
    try:
        may_ask = "[madvise]" in _HUGE_PAGES.read_text()
    except OSError:
        may_ask = False
    return {_SETTING: "glibc.malloc.hugetlb=1"} if may_ask and _SETTING not in os.environ else {}


def restart_with_huge_pages() -> None:
    """Start this process again with huge pages, if it has none; it keeps its number, and runs from the beginning."""
    variables = environment()
    if variables and sys.executable:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **variables})
