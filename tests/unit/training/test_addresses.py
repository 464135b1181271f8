"""Checkpoints at addresses of remote storage, of which servers run here."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cod_jax.commands.main import main
from cod_jax.errors import UserError
from cod_jax.training import orbax_s3
from cod_jax.training.checkpoint import CheckpointStore
from cod_jax.training.run_folder import checkpoint_directory, stages_of, steps_of
from cod_jax.training.state import TrainState
from tests.checkpoint_fixtures import make_state, save_all
from tests.storage_fixtures import gcs_server as gcs_server
from tests.storage_fixtures import in_environment
from tests.storage_fixtures import s3_server as s3_server


def _restore(store: CheckpointStore) -> tuple[int, TrainState] | None:
    shapes = jax.eval_shape(make_state)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return store.restore_newest(shapes, jax.tree.map(lambda _: sharding, shapes), lambda meta: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3_server", "gcs_server"])
def test_checkpoints_at_an_address_are_as_good_as_in_a_folder(name: str, tmp_path: Path, capsys, request):
    server = request.getfixturevalue(name)
    run = f"{server.address}/run"
    with in_environment(server, tmp_path):
        save_all(f"{run}/stage1", {1: 0.5, 2: 0.75, 3: None, 4: None}).close()
        assert stages_of(run) == ["stage1"]
        # The best, and the two that were saved last.
        assert steps_of(f"{run}/stage1") == [1, 3, 4]
        assert main(["checkpoints", "--workdir", run]) == 0
        first, *_, last = capsys.readouterr().out.splitlines()
        assert first == f"{run}/stage1/checkpoints/1: 0.0 MB, validation loss 0.5000, the best"
        assert last == "3 of 3 checkpoints can be read"

        # The newest is damaged, and one is not complete.
        newest = checkpoint_directory(f"{run}/stage1") / "4"
        for file in (newest / "params" / "d").iterdir():
            file.unlink()
        (checkpoint_directory(f"{run}/stage1") / "3" / "commit_success.txt").unlink()
        store = CheckpointStore(f"{run}/stage1", keep_latest=2, keep_best=1)
        restored = _restore(store)
        assert restored is not None
        assert restored[0] == 1
        jax.tree.map(np.testing.assert_array_equal, restored[1], make_state(1))
        assert steps_of(f"{run}/stage1") == [1]
        assert (newest.parent / "4.damaged").is_dir()
        store.close()
        save_all(f"{run}/stage1", {4: None}).close()
        assert steps_of(f"{run}/stage1") == [1, 4]


def test_another_version_of_orbax_is_refused_for_s3_only(monkeypatch, tmp_path: Path):
    from orbax.checkpoint._src.path import gcs_utils

    orbax_s3.set_up.cache_clear()
    monkeypatch.delattr(gcs_utils, "get_kvstore_for_gcs")
    with pytest.raises(UserError, match=r"checkpoints in S3 need orbax-checkpoint 0\.12\.8, got another version"):
        checkpoint_directory("s3://bucket/run")
    assert checkpoint_directory(tmp_path) == tmp_path / "checkpoints"
