import shutil
import threading

from cod_jax.commands.main import main
from cod_jax.training import saved_models
from cod_jax.training.checkpoint import CheckpointStore
from tests.checkpoint_fixtures import CONFIG, make_state, remove_numbers, save_all


def test_every_checkpoint_of_every_stage_gets_a_line(tmp_path, capsys):
    for stage, losses in {"stage1": {1: 0.5, 2: None}, "stage2": {3: None}}.items():
        save_all(tmp_path / stage, losses).close()
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 0
    first, second, _, last = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}/stage1/checkpoints/1: 0.0 MB, validation loss 0.5000, the best"
    assert second == f"{tmp_path}/stage1/checkpoints/2: 0.0 MB, no validation at this step"
    assert last == "3 of 3 checkpoints can be read"

    remove_numbers(tmp_path / "stage2" / "checkpoints" / "3")
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 1
    *_, damaged, last = capsys.readouterr().out.splitlines()
    assert damaged.startswith(f"the checkpoint of step 3 in {tmp_path}/stage2/checkpoints is damaged (")
    assert last == "2 of 3 checkpoints can be read"


def test_a_checkpoint_that_a_run_removes_meanwhile_is_not_damaged(tmp_path, capsys, monkeypatch):
    save_all(tmp_path, {1: None, 2: None}).close()
    folder = tmp_path / "checkpoints" / "1"
    remove_numbers(folder)  # the first files are gone
    removal = threading.Timer(0.1, shutil.rmtree, [folder])
    check = saved_models.check_checkpoint

    def check_checkpoint(workdir, step):
        try:
            return check(workdir, step)
        finally:
            if step == 1:
                removal.start()

    monkeypatch.setattr(saved_models, "check_checkpoint", check_checkpoint)
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == f"{folder}: a run has removed it meanwhile"
    assert second.endswith("checkpoints/2: 0.0 MB, no validation at this step")
    assert last == "1 of 1 checkpoints can be read"


def test_the_number_that_ranks_the_checkpoints_is_named(tmp_path, capsys):
    store = CheckpointStore(tmp_path, 2, 0, best_by="psnr_one_step")
    for step, psnr in ((1, 26.5), (2, 25.5)):
        meta = {"config": {**CONFIG, "checkpoint": {"best_by": "psnr_one_step"}}, "data": {}}
        store.save(step, make_state(step), meta, {"psnr_one_step": psnr})
    store.close()
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.endswith("checkpoints/1: 0.0 MB, psnr_one_step 26.5, the best")
    assert second.endswith("checkpoints/2: 0.0 MB, psnr_one_step 25.5")


def test_a_folder_without_checkpoints_is_refused(tmp_path, capsys):
    assert main(["checkpoints", "--workdir", str(tmp_path)]) == 2
    assert "holds no finished checkpoint" in capsys.readouterr().err
