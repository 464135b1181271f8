"""The documents agree with the repository: links, files, messages, tables, and the length of the README."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cod_jax.evaluation.metric_table import markdown_table
from tests.documents import PAGES, REPOSITORY, name_of, without_code

LONGEST_README = 120
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Files of the repository in running text; those that runs and readers make have other names.
FILE = re.compile(r"`((?:cod_jax|configs|data|demo|docs|examples|launch|tests)/[\w./*-]*)`")
MESSAGE = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
TEXTS = {name_of(page): page.read_text() for page in PAGES}


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str):
    folder = (REPOSITORY / page).parent
    for target in LINK.findall(without_code(TEXTS[page])):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else REPOSITORY / page
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


def anchors(text: str) -> set[str]:
    """Return the names that the headings of a page get."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_named_exist(page: str):
    named = {name.rstrip("/") for name in FILE.findall(without_code(TEXTS[page])) if "NAME" not in name}
    assert not [name for name in named if not list(REPOSITORY.glob(name))]


@pytest.mark.parametrize("page", TEXTS)
def test_names_stand_in_the_files_that_are_named_with_them(page: str):
    for file, name in re.findall(r"`(cod_jax/[\w/]+\.py)`, `(\w+)`", TEXTS[page]):
        assert re.search(rf"\b{name}\b", (REPOSITORY / file).read_text()), f"{file}: {name}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/]+\.md", (REPOSITORY / "mkdocs.yml").read_text()))
    assert listed == {page.name for page in PAGES if page.parent == REPOSITORY / "docs"}


def test_messages_in_troubleshooting_are_messages_of_the_program():
    parts = {part for path in (REPOSITORY / "cod_jax").rglob("*.py") for part in constant_texts(path)}
    texts = "\n".join(parts)
    for message in MESSAGE.findall(TEXTS["docs/troubleshooting.md"]):
        for fixed in filter(None, (part.strip() for part in message.split("…"))):
            assert fixed in texts, f"{message!r}: no message holds {fixed!r}"


def constant_texts(path: Path) -> set[str]:
    """Return the texts of a module; implicitly joined ones are one, and formatted values cut them."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_docstrings_cite_sections_that_exist():
    sections = set(re.findall(r"^## (.+)$", TEXTS["docs/method.md"], re.MULTILINE))
    for path in (REPOSITORY / "cod_jax").rglob("*.py"):
        text = " ".join(path.read_text().split())
        for section in re.findall(r"docs/method\.md, ([A-Z][\w -]*?)[).,;:]", text):
            assert section in sections, f"{path}: {section}"


def test_the_table_of_metrics_is_that_of_the_program():
    assert markdown_table() in TEXTS["docs/evaluation.md"]


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stdout + result.stderr
    assert (tmp_path / "site" / "method" / "index.html").is_file()
