"""Folders of runs: what a failed save leaves."""

import contextlib
import threading
import time
from pathlib import Path

from cod_jax.training.run_folder import remove_unfinished

UNFINISHED = "3.orbax-checkpoint-tmp"


def test_what_a_failed_save_goes_on_writing_is_removed_too(tmp_path: Path):
    finished = tmp_path / "2"
    finished.mkdir()

    def go_on() -> None:
        for _ in range(5):
            with contextlib.suppress(OSError):  # the folder may vanish between its parts
                (tmp_path / UNFINISHED / "params").mkdir(parents=True, exist_ok=True)
            time.sleep(0.02)

    save = threading.Thread(target=go_on)
    save.start()
    remove_unfinished(tmp_path, settle_s=0.5)
    save.join()
    assert list(tmp_path.iterdir()) == [finished]


def test_what_cannot_be_removed_is_left(tmp_path: Path):
    (tmp_path / UNFINISHED).touch()  # folders are expected
    remove_unfinished(tmp_path, settle_s=0.01)
    assert (tmp_path / UNFINISHED).exists()
