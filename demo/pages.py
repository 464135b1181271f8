"""A report as Markdown."""

import os
from collections.abc import Sequence
from pathlib import Path

from cod_jax import files
from cod_jax.errors import UserError


class Report:
    """Headings, paragraphs, commands, tables and pictures in order."""

    def __init__(self, title: str):
        self._parts = [f"# {title}"]

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"## {text}")

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(text)

    def commands(self, lines: Sequence[str]) -> None:
        """Add command lines as they were typed."""
        self._parts.append("```\n" + "\n".join(lines) + "\n```")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; the first column is text, the others are numbers.

        Raises:
            UserError: A row has another number of cells than the header.
        """
        for row in rows:
            if len(row) != len(header):
                raise UserError(f"expected {len(header)} cells as in the header, got {len(row)}: {list(row)}")
        align = ["---"] + ["---:"] * (len(header) - 1)
        self._parts.append("\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows)))

    def picture(self, path: str, caption: str) -> None:
        """Add a picture by its path relative to the report."""
        self._parts.append(f"![{caption}]({path})\n\n*{caption}*")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        files.write_bytes(Path(path), ("\n\n".join(self._parts) + "\n").encode())
