"""The notebook of the documents: it shows what its code makes, and is small."""

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.documents import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
MAX_BYTES = 1.5e6
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:cod_jax|configs|docs)/[\w./]+)`")


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> list[str]:
    """Return what a cell shows: text with an N for every number, which may differ from machine to machine."""
    found = []
    for output in cell.outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        data = output.get("data", {})
        text = "picture" if "image/jpeg" in data else output.get("text", data.get("text/plain", ""))
        found.append(re.sub(r"[\d.,+-]*\d", "N", text))
    return found


def test_it_is_kept_as_it_ran():
    cells = code_cells(read())
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(outputs.count("picture") for outputs in map(shown, cells)) >= 7
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert not any("execution" in cell.metadata for cell in cells), "run it by `make notebook`, which records no times"
    assert "/home" not in NOTEBOOK.read_text()


def test_what_its_text_names_exists():
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    for name in LINK.findall(text):
        assert (NOTEBOOK.parent / name).is_file(), name
    assert FILE.findall(text)
    for name in FILE.findall(text):
        assert (REPOSITORY / name).is_file(), name


@pytest.mark.slow
def test_it_runs_again_and_shows_the_same(tmp_path: Path):
    kept, notebook = read(), read()
    for cell in code_cells(notebook):
        cell.outputs = []
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    for old, new in zip(code_cells(kept), code_cells(notebook), strict=True):
        assert shown(new) == shown(old), new.source
