"""`cod report`."""

from pathlib import Path

import pytest

from cod_jax.commands.main import main
from tests.report_fixtures import write_evaluation


def test_the_report_lies_in_the_evaluation_and_other_files_are_replaced_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    evaluation, source, _ = write_evaluation(tmp_path, 1)
    command = ["report", str(evaluation), "--images", str(source)]
    assert main(command) == 0
    assert f"{evaluation / 'report.html'}: 0." in capsys.readouterr().out
    assert main(command) == 0
    (tmp_path / "mine.html").write_text("mine")
    command += ["--output", str(tmp_path / "mine.html")]
    assert main(command) == 2
    assert "already exists; choose another output or pass --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


@pytest.mark.parametrize("wrong", ["empty", "nothing"])
def test_another_folder_of_pictures_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str):
    evaluation, _, _ = write_evaluation(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    assert main(["report", str(evaluation), "--images", str(tmp_path / wrong)]) == 2
    message = f"expected picture 00.png, which was measured, in {tmp_path / wrong}, got no such file; name the folder"
    assert message in capsys.readouterr().err


def test_a_folder_without_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(tmp_path), "--images", str(tmp_path), "--output", str(tmp_path / "x.html")]) == 2
    assert "expected the results.json of an evaluation" in capsys.readouterr().err
