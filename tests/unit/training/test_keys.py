"""Keys of a run that are meant to differ do."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cod_jax.parallel import MeshConfig, make_mesh, replicated
from cod_jax.training.config import TrainConfig
from cod_jax.training.keys import side_key
from cod_jax.training.objectives.objective import Objective
from cod_jax.training.plan import Plan
from cod_jax.training.state import init_state
from cod_jax.training.validation import Validator, build_validator
from tests.training_fixtures import small_settings

KEY = jax.random.key(7)


class Empty(Objective):
    """An objective without parameters."""

    averaged = ()
    updates = ()

    def init_params(self, key):
        return {}

    def init_buffers(self, params, key):
        return {}


def numbers(keys: jax.Array) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(jax.random.key_data(keys)).reshape(-1, 2).tolist()))


def test_side_keys_are_none_of_a_split_and_none_of_a_step():
    sides = {number: next(iter(numbers(side_key(KEY, number)))) for number in range(4)}
    assert len(set(sides.values())) == 4
    steps = jax.vmap(lambda step: jax.random.fold_in(KEY, step))(np.arange(1000))
    assert not set(sides.values()) & (numbers(jax.random.split(KEY, 1000)) | numbers(steps))


def test_the_validation_draws_other_numbers_than_the_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Validator, "__init__", lambda self, *_, key, **__: vars(self).update(_key=key, _images=()))
    plan = object.__new__(Plan)
    for name in ("objective", "frozen_shardings"):
        object.__setattr__(plan, name, None)
    object.__setattr__(plan, "shardings", SimpleNamespace(params=None))
    config = TrainConfig.from_dict(small_settings())
    held_out = np.zeros((0, 32, 32, 3), np.uint8)
    validator = build_validator(config, plan, held_out, (), KEY, replicated(make_mesh(MeshConfig())))
    of_images = jax.vmap(jax.random.fold_in, (None, 0))(validator._key, np.arange(100))
    run = jax.random.wrap_key_data(init_state(Empty(), {}, KEY).key)
    of_steps = jax.vmap(jax.random.fold_in, (None, 0))(run, np.arange(100))
    assert not numbers(of_images) & numbers(of_steps)
