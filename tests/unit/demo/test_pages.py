"""The report is the same in both forms and safe to open."""

import pytest

from cod_jax.errors import UserError
from demo.pages import Report


def test_both_forms_hold_everything(tmp_path):
    report = Report("A title")
    report.heading("Part")
    report.paragraph("1 < 2 & so on")
    report.commands(["cod info a.cod"])
    report.table(["name", "value"], [["a", "1"], ["b", "2"]])
    report.picture("x.png", "a picture")
    report.write(tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "# A title\n\n## Part\n\n1 < 2 & so on" in markdown
    assert "| name | value |\n| --- | ---: |\n| a | 1 |\n| b | 2 |" in markdown
    assert "![a picture](x.png)" in markdown
    assert "<p>1 &lt; 2 &amp; so on</p>" in page
    assert "<td>b</td><td>2</td>" in page
    assert '<img src="x.png" alt="a picture">' in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md"]


def test_a_ragged_table_is_refused():
    with pytest.raises(UserError, match="expected 2 cells as in the header, got 1"):
        Report("t").table(["a", "b"], [["1"]])
