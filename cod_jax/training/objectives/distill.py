"""Second stage of the one-step codec, distribution matching distillation; see docs/method.md, One-step codec."""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from cod_jax.errors import UserError
from cod_jax.images import uint8_to_unit, unit_to_signed
from cod_jax.losses.adversarial import discriminator_loss, generator_loss
from cod_jax.losses.matching import Noised, critic_loss, guided, matching_loss, noised
from cod_jax.losses.terms import weighted_sum
from cod_jax.models import CoD, ModelConfig, build_model
from cod_jax.models.bottlenecks import BottleneckTraining, CodebookTraining, Draws
from cod_jax.models.condition_codec import NULL_CONDITION_VALUE
from cod_jax.models.discriminator import DINOv2DiscriminatorConfig, Discriminator, DiscriminatorConfig
from cod_jax.models.fields import require, require_at_least
from cod_jax.models.functional import Params, flatten_params
from cod_jax.models.space import Space
from cod_jax.nn.spectral_norm import init_singular_vectors, spectral_normalize
from cod_jax.training.keys import side_key
from cod_jax.training.objectives.adaptation import Adaptation, check_lora, named_layers, without_frozen
from cod_jax.training.objectives.bottleneck_side import BottleneckSide
from cod_jax.training.objectives.loss_output import Buffers, LossOutput
from cod_jax.training.objectives.loss_terms import LossTermConfig, checked
from cod_jax.training.objectives.objective import Objective, ObjectiveConfig, ObjectiveContext, Update
from cod_jax.training.objectives.reconstruction import Reconstruction, ReconstructionConfig
from cod_jax.training.optimizer import AdamWConfig, OptimizerConfig
from cod_jax.training.teacher import load_teacher_config

STUDENT, CRITIC = "student", "critic"
# Frozen because encoder and bottleneck decide the content of files.
NOT_TRAINED = ("codec/encoder/*", "codec/bottleneck/*")


@dataclasses.dataclass(frozen=True)
class DistillConfig(ObjectiveConfig):
    """Settings of the second stage; the defaults are the published ones.

    Attributes:
        kind: Name of this objective.
        teacher: Model folder or run folder of a model on pixels that has learned to sample. The student's pictures
            should look like those of this model.
        reconstruction: Weights of the first stage's losses.
        distribution_matching_weight: Weight of distribution matching.
        adversarial_weight: Weight of the loss for fooling the discriminator.
        guidance_scale: Classifier-free guidance of the teacher, at every timestep; 1 switches it off.
        time_shift: Shift of the timestep distribution, see `flow.shift_time`.
        critic_updates: Updates of critic and discriminator before each update of the student.
        critic_optimizer: Optimizer of critic and discriminator; `optimizer` belongs to the student.
        discriminator: Description of the discriminator: heads on DINOv2's features, or a network on pixels.
        lora_rank: Rank of the adaptations of `lora_layers`; 0 without any.
        lora_alpha: Scale of the adaptations times their rank.
        lora_layers: Patterns of the student's layers that get low-rank adaptations in place of training, see
            `named_layers`. All other parameters that this stage trains do so in full unless they are frozen.
        bottleneck: Training settings of the bottleneck. Its loss term is computed, but the bottleneck stays as it is.
        freeze: Patterns of the student's parameters that stay as they are, see `without_frozen`.
        losses: Loss terms of other packages.
    """

    kind: Literal["distill"] = "distill"
    teacher: str = ""
    reconstruction: ReconstructionConfig = dataclasses.field(default_factory=ReconstructionConfig)
    distribution_matching_weight: float = 2.0
    adversarial_weight: float = 0.01
    guidance_scale: float = 3.0
    time_shift: float = 1.0
    critic_updates: int = 4
    critic_optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: AdamWConfig(learning_rate=1e-5, schedule="tenth")
    )
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DINOv2DiscriminatorConfig)
    lora_rank: int = 0
    lora_alpha: float = 32.0
    lora_layers: tuple[str, ...] = ()
    bottleneck: BottleneckTraining = dataclasses.field(default_factory=CodebookTraining)
    freeze: tuple[str, ...] = ()
    losses: tuple[LossTermConfig, ...] = ()

    def __post_init__(self):
        require_at_least(self, 0, "distribution_matching_weight", "adversarial_weight", "guidance_scale")
        require_at_least(self, 0, "lora_rank", "lora_alpha")
        require_at_least(self, 1, "critic_updates")
        check_lora(self.lora_rank, self.lora_layers)
        require(self.time_shift > 0, f"time_shift must be positive, got {self.time_shift}")

    @property
    def starts_from_model(self) -> bool:
        """Always true, because this stage continues the first."""
        return True

    def build(self, context: ObjectiveContext) -> "Distill":
        """Return the objective, after reading the teacher's description; see `ObjectiveConfig.build`."""
        return Distill(self, context, load_teacher_config(self.teacher, self.guidance_scale))

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the frozen networks that come from weight files."""
        judges = ("dinov2",) if isinstance(self.discriminator, DINOv2DiscriminatorConfig) else ()
        return tuple(dict.fromkeys((*self.reconstruction.frozen_names, *judges)))


class DistillDraws(NamedTuple):
    """All randomness of a step.

    Attributes:
        time: Standard normal, for the timesteps at which teacher and critic see reconstructions.
        noise: Standard normal, for the noise in these reconstructions.
        bottleneck: Quality level of each image, without noise because the bottleneck is not trained here.
    """

    time: Float[Array, " B"]
    noise: Float[Array, "B H W 3"]
    bottleneck: Draws


class Distill(Objective):
    """The objective of the second stage; its attributes are those of `Objective`.

    Its parameters are "model", "lora", "heads", "critic" and "discriminator". The model is the student, whose encoder
    and bottleneck are not trained. The critic is a copy of the teacher's denoiser and learns what the student's
    pictures look like. The teacher is one of the frozen networks; the critic uses its condition codec.

    Args:
        config: Settings.
        context: The student, which must work on pixels, and the rest of the run's settings.
        teacher: Description of the teacher.

    Raises:
        UserError: The settings do not fit the models.
    """

    def __init__(self, config: DistillConfig, context: ObjectiveContext, teacher: ModelConfig):
        if teacher.is_latent:
            raise UserError("objective.teacher must be a model on pixels, got one on latents; give a pixel CoD")
        _check_image_size(config, context.image_size, teacher)
        model_config, compute, networks = context.model, context.compute, context.networks
        self.model_config, self.config = model_config, config
        self.bottleneck = BottleneckSide(model_config.codec, config.bottleneck, trained=False)
        losses = checked(config.losses, ("distribution_matching", "adversarial"))
        self.reconstruction = Reconstruction(context, config.reconstruction, self.bottleneck, losses)
        self.functional = self.reconstruction.functional
        self.space = Space(model_config)
        self.time_shift = config.time_shift
        self.teacher = build_model(teacher, compute)
        self.discriminator = Discriminator(
            config.discriminator, dtype=compute.dtype, dinov2=networks.dinov2, frozen_dtype=networks.dtype
        )
        self.frozen = {**self.reconstruction.frozen, **self.discriminator.frozen, "teacher": self.teacher}
        self.frozen_configs = {"teacher": teacher.to_dict()}
        self.weights = {
            **self.reconstruction.weights,
            "distribution_matching": config.distribution_matching_weight,
            "adversarial": config.adversarial_weight,
        }
        layers = named_layers(self.functional.shapes, config.lora_layers, exclude=NOT_TRAINED)
        self.adaptation = Adaptation(self.functional, layers, config.lora_rank, config.lora_alpha)
        self.axes = {
            "model": self.functional.axes,
            **self.adaptation.axes,
            **self.reconstruction.head_axes,
            "critic": self.teacher.axes["denoiser"],
            "discriminator": self.discriminator.axes,
        }
        self.averaged = ("model", *self.adaptation.axes, *self.reconstruction.head_axes)
        self.buffer_axes = {"singular_vectors": self.discriminator.state_axes}
        names = list(flatten_params(self.axes))
        judges = [name for name in names if name.startswith(("critic/", "discriminator/"))]
        student = [
            name
            for name in self.adaptation.trained(names)
            if name not in judges and not any(fnmatch.fnmatchcase(name, f"model/{pattern}") for pattern in NOT_TRAINED)
        ]
        self.updates = (
            Update(STUDENT, without_frozen(student, config.freeze), self.student_loss, context.optimizer),
            Update(CRITIC, tuple(judges), self.critic_loss, config.critic_optimizer, "objective.critic_optimizer"),
        )
        self.schedule = (1,) * config.critic_updates + (0,)

    def init_params(self, key: jax.Array) -> Params:
        """Return fresh parameters; `parts_from` replaces the critic's."""
        key_model, key_heads, key_discriminator = jax.random.split(key, 3)
        critic = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), self.teacher.shapes["denoiser"])
        return {
            "model": self.functional.init(key_model),
            # Not another part of the split, which would change all other draws.
            **self.adaptation.init(side_key(key, 0)),
            **self.reconstruction.init_heads(key_heads),
            "critic": critic,
            "discriminator": self.discriminator.functional.init(key_discriminator),
        }

    def exported(self, params: Params) -> Params:
        """Return the student's parameters with the adaptations merged in."""
        return self.adaptation.merged(params)

    def carried_buffers(self, buffers: Buffers) -> Mapping[str, np.ndarray]:
        """Return {}, because the bottleneck is not trained and has no buffers here."""
        return {}

    def init_buffers(self, params: Params, key: jax.Array) -> Buffers:
        """Return the singular vectors of the discriminator's layers."""
        return {"singular_vectors": init_singular_vectors(params["discriminator"], key)}

    def parts_from(self, frozen: Mapping[str, Params]) -> Params:
        """Return the teacher's denoiser as the start of the critic."""
        return {"critic": frozen["teacher"]["denoiser"]}

    def draw(self, key: jax.Array, image_shape: tuple[int, ...]) -> DistillDraws:
        """Return the randomness for a batch of images [B, H, W, 3]."""
        key_time, key_noise = jax.random.split(key)
        bottleneck = self.bottleneck.draw(jax.random.fold_in(key, 2), image_shape)
        return DistillDraws(
            jax.random.normal(key_time, image_shape[:1]),
            jax.random.normal(key_noise, image_shape),
            bottleneck._replace(noise=None),
        )

    def student_loss(
        self, params: Params, buffers: Buffers, frozen: Params, image_uint8: jax.Array, draws: DistillDraws
    ) -> tuple[Float[Array, ""], LossOutput]:
        """Return the weighted sum of the student's loss terms for images [B, H, W, 3], and the terms."""
        image01 = uint8_to_unit(image_uint8)
        reconstructed = self.reconstruction(self.exported(params), image01, draws.bottleneck)
        teacher, critic = self._networks(params, frozen)
        terms = {
            **self.reconstruction.terms(params, frozen, image01, reconstructed),
            "distribution_matching": self.distribution_matching(teacher, critic, image01, reconstructed.image, draws),
            "adversarial": generator_loss(self._logits(params, buffers, frozen, reconstructed.image)),
        }
        keep = jnp.ones(image01.shape[:1], bool)
        return weighted_sum(terms, self.weights), self.bottleneck.output(terms, reconstructed.quantized, keep)

    def critic_loss(
        self, params: Params, buffers: Buffers, frozen: Params, image_uint8: jax.Array, draws: DistillDraws
    ) -> tuple[Float[Array, ""], LossOutput]:
        """Return the sum of the critic's flow loss and the discriminator's hinge loss for a batch, and both terms.

        Images are uint8 [B, H, W, 3].
        """
        image01 = uint8_to_unit(image_uint8)
        reconstructed = self.reconstruction(self.exported(params), image01, draws.bottleneck)
        reconstruction = jax.lax.stop_gradient(reconstructed.image)
        _, critic = self._networks(params, frozen)
        terms = {
            "flow": self.flow(critic, image01, reconstruction, draws),
            "discriminator": discriminator_loss(
                self._logits(params, buffers, frozen, unit_to_signed(image01)),
                self._logits(params, buffers, frozen, reconstruction),
            ),
        }
        return weighted_sum(terms, dict.fromkeys(terms, 1.0)), LossOutput(terms)

    def distribution_matching(
        self,
        teacher: CoD,
        critic: CoD,
        image01: Float[Array, "B H W 3"],
        reconstruction: Float[Array, "B H W 3"],
        draws: DistillDraws,
    ) -> Float[Array, ""]:
        """Return the loss whose gradient leads from the critic's prediction to the teacher's."""
        unconditional = None
        if self.config.guidance_scale != 1.0:
            unconditional = _condition(teacher, jnp.full((1, *image01.shape[1:]), NULL_CONDITION_VALUE, jnp.float32))
        return matching_loss(
            reconstruction,
            self._noised(critic, image01, reconstruction, draws),
            teacher=guided(teacher.velocity, unconditional, self.config.guidance_scale),
            critic=critic.velocity,
        )

    def flow(
        self,
        critic: CoD,
        image01: Float[Array, "B H W 3"],
        reconstruction: Float[Array, "B H W 3"],
        draws: DistillDraws,
    ) -> Float[Array, ""]:
        """Return the flow-matching loss of the critic on reconstructions."""
        at = self._noised(critic, image01, reconstruction, draws)
        return critic_loss(reconstruction, at, critic=critic.velocity, prediction=critic.prediction)

    def tend(
        self, params: Params, ema: Params, buffers: Buffers, output: LossOutput, step: jax.Array
    ) -> tuple[Params, Params, Buffers]:
        """Run a power iteration, so that the singular vectors follow the discriminator's layers."""
        _, vectors = spectral_normalize(params["discriminator"], buffers["singular_vectors"], train=True)
        return params, ema, {**buffers, "singular_vectors": vectors}

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> dict[str, Float[Array, ""]]:
        """Return the terms that compare with the image, without "loss": no term measures how real pictures look."""
        image01 = uint8_to_unit(image_uint8)
        reconstructed = self.reconstruction(self.exported(params), image01)
        terms = self.reconstruction.terms(params, frozen, image01, reconstructed)
        return {f"loss/{name}": term for name, term in terms.items()}

    def _networks(self, params: Params, frozen: Params) -> tuple[CoD, CoD]:
        """Return teacher and critic."""
        teacher = frozen["teacher"]
        return self.teacher.bind(teacher), self.teacher.bind({"codec": teacher["codec"], "denoiser": params["critic"]})

    def _noised(self, critic: CoD, image01: jax.Array, reconstruction: jax.Array, draws: DistillDraws) -> Noised:
        # The condition has no gradient, because the teacher's codec is not trained.
        condition = _condition(critic, image01)
        time_shift = self.config.time_shift
        return noised(reconstruction, condition, time=draws.time, noise=draws.noise, time_shift=time_shift)

    def _logits(self, params: Params, buffers: Buffers, frozen: Params, image: jax.Array) -> jax.Array:
        vectors = buffers["singular_vectors"]
        return self.discriminator.logits(params["discriminator"], vectors, image, frozen)


def _condition(model: CoD, image01: Float[Array, "B H W 3"]) -> Float[Array, "B h w hidden"]:
    return model.codec.condition(image01)


def _check_image_size(config: DistillConfig, image_size: int | None, teacher: ModelConfig) -> None:
    if image_size is None:
        return
    require(
        image_size % teacher.size_multiple == 0,
        f"data.image_size must be a multiple of {teacher.size_multiple} for this teacher, got {image_size}",
    )
    smallest = 2 ** len(getattr(config.discriminator, "widths", ()))
    require(
        image_size >= smallest,
        f"data.image_size must be at least {smallest} for the discriminator's widths, got {image_size}; use larger "
        "images or fewer widths",
    )
