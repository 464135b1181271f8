"""Frozen networks: the same in all processes and after a resume."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from cod_jax.training.frozen import _digest, check_same, digests
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from tests.model_fixtures import tiny_model_config


def test_other_weights_of_a_frozen_network_are_noticed(tmp_path):
    params = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.zeros(2, np.float32)}
    digest = _digest(params)
    assert digest == _digest({"b": params["b"], "a": dict(params["a"])})
    assert digest != _digest({**params, "b": np.array([0, 1e-9], np.float32)})
    assert digest != _digest({**params, "a": {"kernel": params["a"]["kernel"].T}})
    # The same numbers mean another thing in another network.
    assert _digest(params, {"prediction": "image"}) != _digest(params, {"prediction": "velocity"})
    check_same(tmp_path, {"frozen": {"teacher": digest}}, {"teacher": digest})
    with pytest.raises(ValueError, match="was trained with other weights of the frozen teacher than those given now"):
        check_same(tmp_path, {"frozen": {"teacher": digest}}, {"teacher": _digest({})})


def test_processes_that_were_given_different_weights_are_told(monkeypatch):
    objective = Pretrain(PretrainConfig(), ObjectiveContext(tiny_model_config()))
    objective.frozen = {"dinov2": objective.functional, "teacher": objective.functional}
    given = {"dinov2": {"b": np.zeros(2, np.float32)}, "teacher": {"b": np.ones(2, np.float32)}}
    other = {**given, "teacher": given["dinov2"]}
    of_other = np.stack([np.frombuffer(bytes.fromhex(text), np.uint8) for text in digests(objective, other).values()])
    own = digests(objective, given)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine]))
    assert digests(objective, given) == own
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.stack([mine, of_other]))
    with pytest.raises(ValueError, match="were given different weights of teacher; give all of them the same files"):
        digests(objective, given)
