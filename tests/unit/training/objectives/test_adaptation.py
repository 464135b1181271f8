"""Low-rank adaptations in every stage, and models of which a part stays."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.errors import UserError
from cod_jax.models import flatten_params
from cod_jax.models.bottlenecks import CodebookTraining, FactorizedTraining
from cod_jax.models.bottlenecks.codebook import Candidates
from cod_jax.training.objectives.adaptation import named_layers
from cod_jax.training.objectives.distill import NOT_TRAINED, DistillConfig
from cod_jax.training.objectives.loss_output import LossOutput
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.one_step import OneStep, OneStepConfig
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from tests.model_fixtures import tiny_compact_config, tiny_model_config
from tests.objective_fixtures import PLAIN, changed, distill, one_step, run, start

LAYERS = ("denoiser/blocks/*", "*/decoder/*/q")


@functools.cache
def adapted(make) -> Any:
    """Return an objective of a tiny model in which adaptations train alone."""
    return make(lora_rank=2, lora_alpha=4.0, lora_layers=LAYERS, freeze=("*",))


def pretrain(**fields) -> Pretrain:
    training = CodebookTraining(revive_codes_every=1)
    return Pretrain(PretrainConfig(bottleneck=training, **fields), ObjectiveContext(tiny_model_config()))


@pytest.mark.parametrize("make", [pretrain, one_step, distill])
def test_adaptations_train_in_the_place_of_the_layers_that_are_named(make):
    objective = adapted(make)
    names = set(flatten_params(objective.axes))
    of_lora = {name for name in names if name.startswith("lora/")}
    kernels = {name.removeprefix("lora/").rpartition("/")[0] for name in of_lora}
    assert {"denoiser/blocks/block/expand/kernel", "codec/decoder/layers/1/q/kernel"} < kernels
    assert all(name.startswith("denoiser/blocks/") or name.endswith("/q/kernel") for name in kernels)
    assert {name for name in objective.updates[0].trains if not name.startswith("heads/")} == of_lora
    assert "lora" in objective.averaged
    # Unless it is frozen, the rest trains too.
    assert set(objective.adaptation.trained(names)) == names - {f"model/{name}" for name in kernels}

    name = "codec/decoder/layers/1/q/kernel"
    rng = np.random.default_rng(0)
    kernel, a, b = (rng.standard_normal(sizes, np.float32) for sizes in ((32, 32), (32, 2), (2, 32)))
    model = {"codec": {"decoder": {"layers": {1: {"q": {"kernel": kernel}}}}}}
    exported = objective.exported({"model": model, "lora": {name: {"a": a, "b": b}}})
    np.testing.assert_allclose(flatten_params(exported)[name], kernel + 2 * a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [pretrain, distill])
def test_what_starts_fresh_starts_from_different_keys(make, monkeypatch):
    objective, keys = adapted(make), []

    def init(key):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return {}

    part = SimpleNamespace(init=init, init_heads=init)
    if make is pretrain:
        monkeypatch.setattr(objective, "heads", {"reconstruction": part, "feature_alignment": part})
        monkeypatch.setattr(objective, "bottleneck", SimpleNamespace(heads={"rate": part}))
    else:
        monkeypatch.setattr(objective, "reconstruction", part)
        monkeypatch.setattr(objective, "discriminator", SimpleNamespace(functional=part))
    for name in ("functional", "adaptation"):
        monkeypatch.setattr(objective, name, part)
    objective.init_params(jax.random.key(0))
    assert len(set(keys)) == len(keys) == (5 if make is pretrain else 4)


def test_patterns_of_layers_that_name_nothing_are_all_told():
    shapes = adapted(pretrain).functional.shapes
    message = (
        r"objective.lora_layers: no linear map is named 'denoiser/block/\*' or '\*/conv1'; expected patterns such as "
        r"'denoiser/\*'; linear maps are in codec/decoder, codec/encoder, denoiser/blocks, denoiser/head, "
    )
    with pytest.raises(UserError, match=message):
        named_layers(shapes, ("denoiser/*", "denoiser/block/*", "*/conv1"))
    # A distillation leaves the encoder as it is.
    with pytest.raises(UserError, match="no linear map is named 'codec/encoder/"):
        named_layers(shapes, ("codec/encoder/*",), exclude=NOT_TRAINED)


@pytest.mark.parametrize("config", [PretrainConfig, DistillConfig])
def test_rank_and_layers_are_given_together(config):
    with pytest.raises(UserError, match=r"lora_layers must name the layers that get adaptations of rank 4, such as"):
        config(lora_rank=4)
    for kind in (config, OneStepConfig):
        with pytest.raises(UserError, match=r"lora_rank must be at least 1 with lora_layers, got 0"):
            kind(lora_rank=0, lora_layers=("denoiser/*",))
    assert not PretrainConfig().starts_from_model
    assert OneStepConfig().can_guide
    assert not OneStepConfig(lora_layers=("*",)).can_guide  # whatever model it starts from
    assert PretrainConfig(lora_rank=4, lora_layers=("*",)).starts_from_model


def test_a_frozen_codebook_stays_although_codes_are_unused():
    objective = adapted(pretrain)
    params = {"model": {"codec": {"bottleneck": {"codebook": jnp.zeros((16, 8))}}}}
    candidates = Candidates(jnp.ones((16, 8)), jnp.ones(16))
    output = LossOutput({}, {"code_counts": jnp.zeros(16)}, candidates)
    given = params, params, objective.bottleneck.init_buffers(), output, jnp.int32(0)
    assert changed(params, objective.bottleneck.tend(*given)[0]) == {"model/codec/bottleneck/codebook"}
    assert changed(params, objective.tend(*given)[0]) == set()


@pytest.mark.slow
def test_an_encoder_and_its_prior_are_trained_for_a_decoder_that_stays(images):
    frozen_parts = ("denoiser/*", "codec/decoder/*", "codec/bottleneck/log_gains")
    config = OneStepConfig(
        reconstruction=PLAIN,
        lora_rank=0,
        bottleneck=FactorizedTraining(rate_weights=(0.1, 0.02)),
        freeze=frozen_parts,
    )
    objective = OneStep(config, ObjectiveContext(tiny_compact_config(num_levels=2)))
    state, optimizers, frozen = start(objective)
    after, _ = run(objective, state, optimizers, frozen, images)
    expected = {
        n for n in flatten_params(state.params) if n.startswith(("model/codec/encoder/", "model/codec/bottleneck/d"))
    }
    assert changed(state.params, after.params) == expected
    assert changed(state.ema, after.ema) == expected
    assert changed(state.buffers, after.buffers) == set()
