"""A report written once and shown twice: as Markdown and as a web page."""

import html
import os
from collections.abc import Sequence
from pathlib import Path

from cod_jax import files
from cod_jax.errors import UserError

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .8rem;border-bottom:1px solid #ddd}"
    "th{text-align:left}td{text-align:right}td:first-child{text-align:left}img{max-width:100%}"
    "pre{background:#f4f4f4;padding:1rem;overflow-x:auto}"
)


class Report:
    """Headings, paragraphs, commands, tables and pictures in order.

    Attributes:
        title: Title of the report.
    """

    def __init__(self, title: str):
        self.title = title
        self._markdown = [f"# {title}"]
        self._html = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Start a section."""
        self._markdown.append(f"## {text}")
        self._html.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._markdown.append(text)
        self._html.append(f"<p>{html.escape(text)}</p>")

    def commands(self, lines: Sequence[str]) -> None:
        """Add command lines as they were typed."""
        text = "\n".join(lines)
        self._markdown.append(f"```\n{text}\n```")
        self._html.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; the first column is text, the others are numbers.

        Raises:
            UserError: A row has another number of cells than the header.
        """
        for row in rows:
            if len(row) != len(header):
                raise UserError(f"expected {len(header)} cells as in the header, got {len(row)}: {list(row)}")
        align = ["---"] + ["---:"] * (len(header) - 1)
        self._markdown.append("\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows)))
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._html.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def picture(self, path: str, caption: str) -> None:
        """Add a picture by its path relative to the report."""
        self._markdown.append(f"![{caption}]({path})\n\n*{caption}*")
        self._html.append(
            f'<figure><img src="{html.escape(path)}" alt="{html.escape(caption)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write report.md and report.html into a folder."""
        files.write_bytes(Path(folder) / "report.md", ("\n\n".join(self._markdown) + "\n").encode())
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f"<style>{STYLE}</style></head><body>\n" + "\n".join(self._html) + "\n</body></html>\n"
        )
        files.write_bytes(Path(folder) / "report.html", page.encode())
