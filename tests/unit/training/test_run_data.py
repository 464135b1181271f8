"""The pictures of a run: noted when they are few, and the same in all processes."""

import contextlib

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from cod_jax.errors import UserError
from cod_jax.training.config import TrainConfig
from cod_jax.training.run_data import _check_same, open_data
from tests.training_fixtures import small_settings, write_photographs

STATE = {"step": 0, "seed": 1, "names_crc32": 2, "times_crc32": 3, "held_out_sizes_crc32": 4}
HELD_OUT = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


@pytest.mark.parametrize("fewer", [True, False])
def test_a_batch_that_is_larger_than_the_set_is_noted(tmp_path, caplog, fewer: bool):
    settings = small_settings()
    settings["data"] |= {"source": str(write_photographs(tmp_path / "photos")), "validation_modulus": 0}
    settings["batch_size"] = 64 if fewer else 2
    (tmp_path / "photos" / "unread.heic").touch()
    with contextlib.closing(open_data(TrainConfig.from_dict(settings))[0]) as batches:
        assert 2 <= batches.num_images < 64
    assert ("so a batch holds files several times" in caplog.text) == fewer
    assert caplog.text.count("unread.heic") == 1  # the folder is searched once for both parts


@pytest.fixture
def with_others(monkeypatch):
    """Check the pictures of the first process against those of others, given in the order of their processes."""

    def check(*others: tuple[dict[str, int], np.ndarray]) -> None:
        monkeypatch.setattr(jax, "process_count", lambda: 1 + len(others))
        of_all: list[np.ndarray] = []

        def gather(mine: np.ndarray) -> np.ndarray:
            of_all.append(mine)
            return np.stack([mine, *of_all[:-1]])

        monkeypatch.setattr(multihost_utils, "process_allgather", gather)
        for other in others:
            # What the others would send, in place of an exchange.
            with contextlib.suppress(UserError):
                _check_same(*other)
        _check_same(STATE, HELD_OUT)

    return check


def test_copies_of_the_same_pictures_may_have_other_times(with_others):
    with_others((STATE, HELD_OUT), ({**STATE, "times_crc32": 5, "held_out_sizes_crc32": 6}, HELD_OUT))


@pytest.mark.parametrize("change", [{"names_crc32": 9}, {"sizes_crc32": 9}, {"seed": 9}])
def test_a_process_with_other_training_files_is_named(with_others, change: dict[str, int]):
    with pytest.raises(UserError, match="the same training files, got others in process 2 than in process 0; give all"):
        with_others((STATE, HELD_OUT), ({**STATE, **change}, HELD_OUT))


@pytest.mark.parametrize("other", [HELD_OUT[:1], HELD_OUT + 1])
def test_processes_with_other_held_out_images_are_named(with_others, other: np.ndarray):
    with pytest.raises(UserError, match="the same held-out images, got others in process 1, 2 than in process 0"):
        with_others((STATE, other), (STATE, other))


def test_processes_compare_their_pictures_when_they_open_them(tmp_path, monkeypatch):
    settings = small_settings()
    settings["data"]["source"] = str(write_photographs(tmp_path / "photos"))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine[::-1]]))
    with pytest.raises(UserError, match="got others in process 1 than in process 0"):
        open_data(TrainConfig.from_dict(settings))
