"""The Markdown of the demo."""

import pytest

from cod_jax.errors import UserError
from demo.pages import Report


def test_everything_is_there_in_order(tmp_path):
    report = Report("A title")
    report.heading("Part")
    report.paragraph("1 < 2 & so on")
    report.commands(["cod info a.cod"])
    report.table(["name", "value"], [["a", "1"], ["b", "2"]])
    report.picture("x.png", "a picture")
    report.write(tmp_path / "report.md")
    markdown = (tmp_path / "report.md").read_text()
    assert "# A title\n\n## Part\n\n1 < 2 & so on\n\n```\ncod info a.cod\n```" in markdown
    assert "| name | value |\n| --- | ---: |\n| a | 1 |\n| b | 2 |" in markdown
    assert "![a picture](x.png)" in markdown


def test_a_ragged_table_is_refused():
    with pytest.raises(UserError, match="expected 2 cells as in the header, got 1"):
        Report("t").table(["a", "b"], [["1"]])
