"""A sweep whose folders are at an address of remote storage."""

from pathlib import Path

import pytest

from cod_jax import storage
from cod_jax.commands.main import main
from tests.storage_fixtures import in_environment, put_folder
from tests.storage_fixtures import s3_server as s3_server
from tests.sweep_fixtures import RATE, SweepFolder


@pytest.mark.slow
def test_a_sweep_at_an_address_goes_on_on_another_machine(s3_server, tmp_path: Path, capsys, monkeypatch):
    folder = SweepFolder(tmp_path, monkeypatch)
    folder.workdir = f"{s3_server.address}/sweep"
    arguments = ["sweep", *folder.arguments("hyper.sweep(RATE, [0.1, 0.5])")]
    # What the trainer that stands in for ours would have saved.
    (tmp_path / "saved" / "1000").mkdir(parents=True)
    (tmp_path / "saved" / "1000" / "commit_success.txt").touch()
    with in_environment(s3_server, tmp_path / "one"):
        put_folder(tmp_path / "saved", f"{folder.workdir}/learning_rate=0.1/checkpoints")
        assert main(arguments) == 1
        assert main([*arguments, "--slurm", str(tmp_path / "slurm")]) == 2
        assert "the jobs of an array share a local folder" in capsys.readouterr().err
    with in_environment(s3_server, tmp_path / "other"):
        assert main(arguments) == 1
        calls = storage.read_bytes(f"{folder.workdir}/learning_rate=0.1/calls.txt")
        assert main([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert calls == b"all\n"
    assert "learning_rate=0.1 (done)" in out
    assert f"--config.checkpoint.address={folder.workdir}/learning_rate=0.1 " in out


def test_points_with_one_place_for_checkpoints_are_refused(tmp_path: Path, capsys, monkeypatch):
    folder = SweepFolder(tmp_path, monkeypatch)
    arguments = folder.arguments(f"hyper.sweep('{RATE}', [0.1, 0.2])", "--", "--config.checkpoint.address=s3://b/run")
    assert main(["sweep", *arguments]) == 2
    assert "several points would keep their checkpoints in s3://b/run; give --workdir" in capsys.readouterr().err
