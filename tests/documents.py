"""The documents as tests see them: pages, their blocks of code, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """A fenced block of code.

    Attributes:
        page: Name of its page, relative to the repository.
        line: Number of its first line of code.
        language: What stands behind the fence.
        code: The lines.
        not_run: Why it is not run; "" if it is.
    """

    page: str
    line: int
    language: str
    code: str
    not_run: str


def name_of(page: Path) -> str:
    """Return the name of a page relative to the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    """Return the fenced blocks of a page in one language, in order."""
    text = page.read_text()
    return [
        Block(
            name_of(page),
            text.count("\n", 0, match.start("code")) + 1,
            match["language"],
            match["code"],
            match["reason"] or "",
        )
        for match in _BLOCK.finditer(text)
        if match["language"] == language
    ]


def command_lines(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command of a block: comments go, and lines that end in a backslash are joined."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def without_code(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", text)
