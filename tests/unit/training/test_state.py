"""The training state and its axes."""

import jax

from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from cod_jax.training.optimizer import AdamWConfig
from cod_jax.training.state import init_state, replaced, state_axes
from tests.model_fixtures import tiny_model_config


def test_state_axes_have_the_structure_of_the_state():
    objective = Pretrain(PretrainConfig(), ObjectiveContext(tiny_model_config()))
    optimizers = {"model": AdamWConfig().build()}
    shapes = jax.eval_shape(lambda: init_state(objective, optimizers, jax.random.key(0)))
    axes = state_axes(objective, optimizers)
    checked = jax.tree.map(lambda leaf, names: len(names) in (0, leaf.ndim), shapes, axes)
    assert all(jax.tree.leaves(checked))
    moments = axes.optimizer["model"][1].mu["model/denoiser/merge/kernel"]
    assert moments == ("mixer", "embed")


def test_parameters_are_replaced_by_name_and_unknown_names_are_ignored():
    params = {"model": {"layers": {0: {"kernel": 1}, 1: {"kernel": 2}}}, "heads": {"k": 3}}
    after = replaced(params, {"model/layers/1/kernel": 20, "heads/other": 30})
    assert after == {"model": {"layers": {0: {"kernel": 1}, 1: {"kernel": 20}}}, "heads": {"k": 3}}
