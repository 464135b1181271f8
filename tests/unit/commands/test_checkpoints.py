from cod_jax.commands.main import main
from tests.checkpoint_fixtures import remove_numbers, save_all


def test_every_checkpoint_of_every_stage_gets_a_line(tmp_path, capsys):
    for stage, losses in {"stage1": {1: 0.5, 2: None}, "stage2": {3: None}}.items():
        save_all(tmp_path / stage, losses).close()
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 0
    first, second, _, last = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}/stage1/checkpoints/1: 0.0 MB, validation loss 0.5000"
    assert second == f"{tmp_path}/stage1/checkpoints/2: 0.0 MB, not validated"
    assert last == "3 of 3 checkpoints can be read"

    remove_numbers(tmp_path / "stage2" / "checkpoints" / "3")
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 1
    *_, damaged, last = capsys.readouterr().out.splitlines()
    assert damaged.startswith(f"the checkpoint of step 3 in {tmp_path}/stage2/checkpoints is damaged (")
    assert last == "2 of 3 checkpoints can be read"


def test_a_folder_without_checkpoints_is_refused(tmp_path, capsys):
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 2
    assert "holds no finished checkpoint" in capsys.readouterr().err
