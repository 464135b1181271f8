"""Loss terms and gradients of both stages of the one-step codec against the published trainer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.interop.cod_networks.description import reference_config
from cod_jax.interop.cod_networks.reference import params_from_state_dict
from cod_jax.losses.adversarial import discriminator_loss, fake_hinge_loss, generator_loss, real_hinge_loss
from cod_jax.losses.terms import weighted_sum
from cod_jax.models import ModelConfig
from cod_jax.models.bottlenecks import CodebookTraining, Draws
from cod_jax.models.discriminator import PatchDiscriminatorConfig
from cod_jax.training.objectives.distill import Distill, DistillConfig, DistillDraws
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.reconstruction import ReconstructionConfig
from cod_jax.training.state import chosen
from tests.parity.cases import Case, assert_close, cases
from tests.parity.portable.synthetic_weights import synthetic_state_dict
from tests.parity.published_training import check_gradient_norms, feature_head, head_gradients, model_gradients
from tests.parity.tolerances import LOSS_RELATIVE

# float32 noise of the gradients in the reconstruction is 4e-6 in the fixtures.
GRADIENT_RMS = 3e-5
CASES = cases("dmd_trainer*")
HEAD = "trainer.net_loss.proj.0"


class Published:
    """A case's networks, inputs and randomness as the objective takes them."""

    def __init__(self, name: str, folder: Any):
        self.case = Case(name, folder)
        meta, arrays = self.case.meta, self.case.arrays
        trainer = meta["trainer"]
        self.student_config = published_config(meta["net"])
        self.teacher_config = published_config(meta["denoiser"])
        self.objective = Distill(
            DistillConfig(
                reconstruction=ReconstructionConfig(
                    # The published LPIPS is replaced by zero in these cases.
                    lpips_vgg_weight=0.0,
                    lpips_alex_weight=0.0,
                    feature_alignment_weight=trainer["net_loss_weight"] * trainer["feat_loss_weight"],
                    alignment_block=trainer["align_layer"],
                ),
                distribution_matching_weight=trainer["dmd_loss_weight"],
                adversarial_weight=trainer["gan_loss_weight"],
                guidance_scale=trainer["dmd_cfg"],
                time_shift=trainer["timeshift"],
                discriminator=PatchDiscriminatorConfig(widths=(4,)),
                bottleneck=CodebookTraining(commitment_weight=trainer["net_loss_weight"] * 0.25),
            ),
            ObjectiveContext(
                self.student_config,
                networks=FrozenNetworks(dinov2=DINOv2Config(width=trainer["proj_encoder_dim"])),
            ),
            self.teacher_config,
        )
        published = self.case.listed_weights("proj_layout_json")
        self.student = {
            "model": params_from_state_dict(
                self.objective.functional, self.student_config, self.case.weights("net_layout_json")
            ),
            "heads": {"feature_alignment": feature_head(published, "proj.0")},
        }
        self.teacher, self.critic = (self._denoiser(lead) for lead in ("real_denoiser.", "fake_denoiser."))
        judge = synthetic_state_dict([["disc.weight", [4, 3, 3, 3]], ["disc.bias", [4]]])
        self.judge = {
            "kernel": jnp.asarray(judge["disc.weight"].transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(judge["disc.bias"]),
        }
        self.image01 = jnp.asarray(self.case.image01())
        tokens = np.asarray(arrays["encoder_features_f16"], np.float32)
        batch, height, width, _ = self.image01.shape
        self.tokens = jnp.asarray(tokens.reshape(batch, height // 16, width // 16, -1))

    def _denoiser(self, lead: str) -> dict:
        weights = self.case.listed_weights("denoiser_layout_json", lead=lead)
        plain = {name.removeprefix(lead): value for name, value in weights.items()}
        return params_from_state_dict(self.objective.teacher, self.teacher_config, plain)

    def draws(self, step: str) -> DistillDraws:
        return DistillDraws(
            jnp.asarray(self.case.arrays[f"{step}_base_t_draw"]),
            self.case.nhwc(f"{step}_noise_f16"),
            Draws(jnp.zeros(self.image01.shape[:1], jnp.int32)),
        )

    def expect(self, terms: dict, names: dict[str, str]) -> None:
        for ours, theirs in names.items():
            np.testing.assert_allclose(terms[ours], self.case.arrays[theirs], rtol=LOSS_RELATIVE, err_msg=ours)


def published_config(arguments: dict) -> ModelConfig:
    arguments = {name: value for name, value in arguments.items() if name != "fix_encoder"}
    return reference_config(arguments.pop("class_name"), arguments)


def judge_logits(judge: dict, image: jax.Array) -> jax.Array:
    """The stand-in for a discriminator in these cases: one convolution."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    padding = ((1, 1), (1, 1))
    y = jax.lax.conv_general_dilated(image, judge["kernel"], (2, 2), padding, dimension_numbers=dimensions)
    return y + judge["bias"][None, None, None]


def reconstruct(published: Published, student: dict) -> tuple[Any, dict]:
    reconstruction = published.objective.reconstruction
    reconstructed = reconstruction(student["model"], published.image01)
    return reconstructed, reconstruction.terms_given(student, {}, published.image01, published.tokens, reconstructed)


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_the_update_of_the_student_matches_the_published_one(folder, name):
    published = Published(name, folder)
    objective, arrays = published.objective, published.case.arrays
    teacher, critic = (objective.teacher.bind(params) for params in (published.teacher, published.critic))

    def against(image: jax.Array) -> dict:
        return {
            "distribution_matching": objective.distribution_matching(
                teacher, critic, published.image01, image, published.draws("generator")
            ),
            "adversarial": generator_loss(judge_logits(published.judge, image)),
            "l1": jnp.mean(jnp.abs(image - (2 * published.image01 - 1))),
        }

    def total(student: dict):
        reconstructed, terms = reconstruct(published, student)
        others, pullback = jax.vjp(against, reconstructed.image)
        zeros = dict.fromkeys(others, jnp.float32(0))
        slopes = {term: pullback({**zeros, term: jnp.float32(1)})[0] for term in others}
        terms = {**others, **terms}
        return weighted_sum(terms, objective.weights), (terms, reconstructed.image, slopes)

    with jax.default_matmul_precision("highest"):
        (loss, (terms, image, slopes)), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(published.student)
    terms["loss"] = loss
    theirs = {
        "l1": "l1",
        "feature_alignment": "cos",
        "commitment": "vq",
        "distribution_matching": "dmd",
        "adversarial": "g_fake",
        "loss": "loss",
    }
    published.expect(terms, {ours: f"generator_{name}" for ours, name in theirs.items()})
    published.case.check_network("generator_recon", image)
    for term, name_of_slope in (("distribution_matching", "dmd"), ("adversarial", "g_fake"), ("l1", "l1")):
        stored = f"generator_d_{name_of_slope}_d_recon"
        # One pixel in a thousand may differ where the sign of a difference of almost zero does.
        assert_close(published.case.stored_part(stored, slopes[term]), arrays[stored], GRADIENT_RMS, 3e-4)

    # Of the student everything but the encoder and the codebook is trained.
    trained = chosen(gradients, objective.updates[0].trains)
    flat = {name.removeprefix("model/"): leaf for name, leaf in trained.items() if name.startswith("model/")}
    ours = model_gradients(objective.functional, published.student_config, flat, "net.")
    ours |= head_gradients(gradients["heads"]["feature_alignment"], HEAD)
    names, norms = arrays["generator_grad_names"], arrays["generator_grad_norms"]
    assert set(map(str, names)) == set(ours)
    assert check_gradient_norms(ours, names, norms) > 100


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "name"), CASES)
def test_the_update_of_critic_and_discriminator_matches_the_published_one(folder, name):
    published = Published(name, folder)
    objective, arrays = published.objective, published.case.arrays

    def total(trained: dict):
        image = jax.lax.stop_gradient(objective.reconstruction(published.student["model"], published.image01).image)
        # Here the published trainer takes the teacher's codec, and in the student's update the critic's; they are
        # equal in training.
        critic = objective.teacher.bind({"codec": published.teacher["codec"], "denoiser": trained["critic"]})
        real = judge_logits(trained["judge"], 2 * published.image01 - 1)
        fake = judge_logits(trained["judge"], image)
        terms = {
            "flow": objective.flow(critic, published.image01, image, published.draws("guidance")),
            "fake": fake_hinge_loss(fake),
            "real": real_hinge_loss(real),
        }
        return terms["flow"] + discriminator_loss(real, fake), terms

    trained = {"critic": published.critic["denoiser"], "judge": published.judge}
    with jax.default_matmul_precision("highest"):
        (loss, terms), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(trained)
    names = {"flow": "fake_fm", "fake": "d_fake", "real": "d_real", "loss": "fake_loss"}
    published.expect({**terms, "loss": loss}, {ours: f"guidance_{theirs}" for ours, theirs in names.items()})
    ours = model_gradients(
        objective.teacher, published.teacher_config, {"denoiser": gradients["critic"]}, "fake_denoiser."
    )
    ours |= {"disc.weight": gradients["judge"]["kernel"], "disc.bias": gradients["judge"]["bias"]}
    names, norms = arrays["guidance_grad_names"], arrays["guidance_grad_norms"]
    assert set(map(str, names)) == set(ours)
    assert check_gradient_norms(ours, names, norms) > 40


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "name"), CASES)
def test_the_first_stage_matches_the_published_one(folder, name):
    published = Published(name, folder)
    reconstruction, arrays = published.objective.reconstruction, published.case.arrays

    def total(student: dict):
        _, terms = reconstruct(published, student)
        return weighted_sum(terms, reconstruction.weights), terms

    with jax.default_matmul_precision("highest"):
        (loss, terms), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(published.student)
    names = {"l1": "l1", "feature_alignment": "cos", "commitment": "vq", "loss": "loss"}
    published.expect({**terms, "loss": loss}, {ours: f"stage1_{theirs}" for ours, theirs in names.items()})
    ours = model_gradients(published.objective.functional, published.student_config, gradients["model"], "net.")
    ours |= head_gradients(gradients["heads"]["feature_alignment"], HEAD)
    names, norms = arrays["stage1_grad_names"], arrays["stage1_grad_norms"]
    assert set(map(str, names)) == set(ours)
    assert check_gradient_norms(ours, names, norms) > 200
