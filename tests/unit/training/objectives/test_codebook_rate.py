"""Objectives that weigh the rate of a codebook's symbols."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.models import CodebookConfig, ModelConfig, flatten_params
from cod_jax.models.bottlenecks import CodebookTraining
from cod_jax.models.compact import CompactCodecConfig
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.one_step import OneStep, OneStepConfig
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from tests.model_fixtures import tiny_compact_config, tiny_model_config
from tests.objective_fixtures import PLAIN, changed, distill, run, start

ON = CodebookTraining(rate_weight=0.5)
OFF = CodebookTraining()
HEAD = "heads/rate/"


def compact_model(bits: int = 4) -> ModelConfig:
    model = tiny_compact_config(pitch=8)
    assert isinstance(model.codec, CompactCodecConfig)
    return dataclasses.replace(model, codec=dataclasses.replace(model.codec, bottleneck=CodebookConfig(bits=bits)))


def one_step(training: CodebookTraining) -> OneStep:
    reconstruction = dataclasses.replace(PLAIN, l1_weight=0.0, structural_weight=0.0, squared_error_weight=1.0)
    config = OneStepConfig(reconstruction=reconstruction, lora_rank=0, bottleneck=training)
    return OneStep(config, ObjectiveContext(compact_model()))


def pretrain(training: CodebookTraining) -> Pretrain:
    config = PretrainConfig(null_condition_probability=0.5, bottleneck=training)
    return Pretrain(config, ObjectiveContext(tiny_model_config()))


@pytest.mark.parametrize("build", [one_step, pretrain])
def test_a_weight_adds_a_head_and_a_term_and_no_weight_adds_nothing(build):
    on, off = build(ON), build(OFF)
    names = set(flatten_params(off.axes))
    assert not any(name.startswith(HEAD) for name in names)
    added = set(flatten_params(on.axes)) - names
    assert added == {
        f"{HEAD}layers/{layer}/{part}" for layer in ("layer0", "layer1", "out") for part in ("kernel", "bias")
    }
    assert on.bottleneck.weights == {**off.bottleneck.weights, "rate": 0.5} == {"commitment": 0.25, "rate": 0.5}
    # What is exported has no head, so files and folders of models do not depend on it.
    assert on.functional.axes == off.functional.axes


def test_a_distillation_estimates_no_rate():
    objective = distill(bottleneck=ON)
    assert not any(name.startswith(HEAD) for name in flatten_params(objective.axes))
    assert objective.bottleneck.weights == {"commitment": 0.25}


def test_a_codebook_whose_files_use_no_neighbours_is_refused():
    with pytest.raises(ValueError, match="rate_weight needs a codebook of at most 8 bits, got 9"):
        OneStep(OneStepConfig(reconstruction=PLAIN, lora_rank=0, bottleneck=ON), ObjectiveContext(compact_model(9)))


@pytest.mark.slow
@pytest.mark.parametrize("build", [one_step, pretrain])
def test_with_and_without_the_rate_runs_start_the_same(build):
    params = [flatten_params(jax.jit(build(training).init_params)(jax.random.key(3))) for training in (ON, OFF)]
    for name, value in params[1].items():
        np.testing.assert_array_equal(params[0][name], value, err_msg=name)


@pytest.mark.slow
def test_the_rate_alone_trains_the_encoder_and_the_network_that_estimates_it(images):
    objective = one_step(dataclasses.replace(ON, commitment_weight=0.0))
    objective.reconstruction.weights["squared_error"] = 0.0
    state, optimizers, frozen = start(objective)
    after, metrics = run(objective, state, optimizers, frozen, images)
    moved = changed(state.params, after.params)
    assert {f"{HEAD}layers/out/kernel", "model/codec/encoder/log_scale", "model/codec/encoder/out/kernel"} <= moved
    assert "model/codec/bottleneck/codebook" not in moved
    assert metrics["loss"] == 0.5 * metrics["loss/rate"]
    assert 0 < metrics["loss/rate"] < 1


@pytest.mark.slow
def test_pictures_without_a_condition_cost_no_bits(images):
    objective = pretrain(ON)
    state, _, frozen = start(objective)
    draws = objective.draw(jax.random.key(0), images.shape)
    loss = jax.jit(objective.loss)
    keep = draws.drop >= 0.5
    assert 0 < keep.sum() < len(images)
    rate = loss(state.params, frozen, images, draws)[1].terms["rate"]
    with_all = loss(state.params, frozen, images, draws._replace(drop=jnp.ones(len(images))))[1].terms["rate"]
    assert 0 < rate < with_all
