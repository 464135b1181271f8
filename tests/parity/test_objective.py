"""Loss terms and gradients of pre-training against the published trainers, with their recorded randomness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.interop.cod_networks.description import reference_config
from cod_jax.interop.cod_networks.reference import params_from_state_dict
from cod_jax.models.bottlenecks import Draws
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Inputs, Pretrain, PretrainConfig, PretrainDraws
from tests.parity.cases import Case, cases
from tests.parity.published_training import check_gradient_norms, feature_head, model_gradients
from tests.parity.tolerances import GRADIENT_NORM_RELATIVE, LOSS_RELATIVE

# Our head's name, the published one.
HEADS = {"reconstruction": "recon_codec", "feature_alignment": "proj", "condition_alignment": "proj_codec"}


def build(case: Case, one_step_weight: float) -> tuple[Pretrain, dict, Inputs, PretrainDraws]:
    """Return the objective with the case's parameters, inputs and randomness."""
    trainer = case.meta["trainer"]
    config = reference_config(case.meta["class"], case.config)
    objective = Pretrain(
        PretrainConfig(
            one_step_weight=one_step_weight,
            time_shift=trainer.get("timeshift", 1.0),
            feature_alignment_weight=trainer["feat_loss_weight"],
            condition_alignment_weight=trainer["feat_loss_weight"],
            alignment_block=trainer["align_layer"],
        ),
        # Only the width of DINOv2 matters: the features are recorded.
        ObjectiveContext(config, networks=FrozenNetworks(dinov2=DINOv2Config(width=trainer["proj_encoder_dim"]))),
    )
    published = case.listed_weights("heads_layout_json")
    channels = {"reconstruction": config.channels}
    params = {
        "model": params_from_state_dict(objective.functional, config, case.weights()),
        "heads": {
            name: feature_head(published, f"{theirs}.0", channels.get(name, 0)) for name, theirs in HEADS.items()
        },
    }
    image01 = jnp.asarray(case.image01())
    values = case.nhwc("latent_f16") if config.is_latent else 2 * image01 - 1
    tokens = np.asarray(case.arrays["encoder_features_f16"], np.float32)
    batch, height, width, _ = image01.shape
    inputs = Inputs(image01, values, jnp.asarray(tokens.reshape(batch, height // 16, width // 16, -1)))
    time = case.arrays["base_t_draw"]
    if not trainer["lognorm_t"]:
        # Recorded before the time shift; ours come out of a sigmoid.
        time = np.log(time) - np.log1p(-time)
    draws = PretrainDraws(
        drop=jnp.asarray(case.arrays["mask_uniform"]),
        time=jnp.asarray(time),
        noise=case.nhwc("noise_f16"),
        at_zero=jnp.ones((batch,)),
        bottleneck=Draws(jnp.zeros((batch,), jnp.int32)),
    )
    return objective, params, inputs, draws


# The network that `test_transformers` and `test_dconv` leave to the slow tests.
FAST = ("repa_trainer_ddt_latent",)


@pytest.mark.parametrize("one_step_weight", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("folder", "name"), cases("repa_trainer_*", fast=FAST))
def test_pretraining_terms_match_the_published_trainer(folder, name, one_step_weight):
    case = Case(name, folder)
    objective, params, inputs, draws = build(case, one_step_weight)
    with jax.default_matmul_precision("highest"):
        _, output = jax.jit(objective.loss_of)(params, inputs, draws)
    suffix = f"w{one_step_weight:.0f}"
    expected = {
        "flow": case.arrays[f"loss_fm_loss_{suffix}"],
        # The published code broadcasts the mask wrongly; these are the values with each image masked by itself.
        "reconstruction": case.arrays["per_sample_masked_codec_recon_loss"],
        "condition_alignment": case.arrays["per_sample_masked_codec_cos_loss"],
        "feature_alignment": case.arrays[f"loss_cos_loss_{suffix}"],
        "commitment": case.arrays[f"loss_vq_loss_{suffix}"],
    }
    if one_step_weight:
        expected["one_step"] = case.arrays[f"loss_one_step_mse_{suffix}"]
    assert output.terms.keys() == expected.keys()
    for term, value in expected.items():
        np.testing.assert_allclose(output.terms[term], value, rtol=LOSS_RELATIVE, err_msg=term)


@pytest.mark.parametrize("one_step_weight", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
# The one trainer whose images all keep their condition, so that the slip in the mask plays no part.
@pytest.mark.parametrize(("folder", "name"), cases("repa_trainer_ddt_latent"))
def test_gradients_of_the_whole_loss_match_the_published_trainer(folder, name, one_step_weight):
    case = Case(name, folder)
    objective, params, inputs, draws = build(case, one_step_weight)
    with jax.default_matmul_precision("highest"):
        value_and_grad = jax.jit(jax.value_and_grad(objective.loss_of, has_aux=True))
        (value, _), gradients = value_and_grad(params, inputs, draws)
    suffix = f"w{one_step_weight:.0f}"
    np.testing.assert_allclose(value, case.arrays[f"loss_loss_{suffix}"], rtol=LOSS_RELATIVE)

    ours = model_gradients(objective.functional, objective.model_config, gradients["model"])
    names, norms = case.arrays[f"grad_names_{suffix}"], case.arrays[f"grad_norms_{suffix}"]
    assert check_gradient_norms(ours, names, norms) > 200
    prefix = f"grad_{suffix}__"
    stored = [name.removeprefix(prefix) for name in case.arrays.files if name.startswith(prefix)]
    for name in set(stored) & set(ours):
        expected = case.arrays[prefix + name]
        np.testing.assert_allclose(ours[name], expected, atol=GRADIENT_NORM_RELATIVE * np.abs(expected).max())
