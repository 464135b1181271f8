"""Pre-training by rectified flow given the codec's condition; see docs/method.md, Pre-training."""

import dataclasses
import statistics
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cod_jax.diffusion.flow import expand, flow_target, interpolate, sample_timesteps
from cod_jax.errors import UserError
from cod_jax.images import uint8_to_unit, unit_to_signed
from cod_jax.losses.similarity import ms_ssim_per_image
from cod_jax.losses.terms import cosine_distance_per_image, masked_mean, squared_error_per_image, weighted_sum
from cod_jax.models import build_model
from cod_jax.models.bottlenecks import BottleneckTraining, CodebookTraining, Draws
from cod_jax.models.condition_codec import NULL_CONDITION_VALUE
from cod_jax.models.fields import require, require_at_least
from cod_jax.models.functional import Functional, Params, flatten_params
from cod_jax.models.heads import FeatureHead
from cod_jax.models.space import Space
from cod_jax.nn.embeddings import patchify
from cod_jax.training.keys import side_key
from cod_jax.training.objectives.adaptation import Adaptation, check_lora, named_layers, without_frozen
from cod_jax.training.objectives.bottleneck_side import BottleneckSide
from cod_jax.training.objectives.loss_output import LossOutput
from cod_jax.training.objectives.loss_terms import LossTermConfig, checked
from cod_jax.training.objectives.objective import Objective, ObjectiveConfig, ObjectiveContext, Update

TERMS = ("flow", "reconstruction", "one_step", "one_step_ms_ssim", "feature_alignment", "condition_alignment")
# Validation uses these quantiles of the standard normal distribution, the middles of four equal parts.
VALIDATION_TIMES = tuple(statistics.NormalDist().inv_cdf((part + 0.5) / 4) for part in range(4))


@dataclasses.dataclass(frozen=True)
class PretrainConfig(ObjectiveConfig):
    """Weights and probabilities of pre-training; the defaults are the published first stage without DINOv2.

    Attributes:
        kind: Name of this objective.
        null_condition_probability: Share of images that get the null condition.
        time_shift: Shift of the timestep distribution, see `flow.shift_time`.
        reconstruction_weight: Weight of the loss that reads the image (or the latents) from the condition.
        feature_alignment_weight: Weight of aligning the denoiser's features with DINOv2's; 0 switches it off. Either
            alignment needs DINOv2's weight file.
        condition_alignment_weight: Weight of aligning the condition with DINOv2's features; 0 switches it off.
        alignment_block: Number of the denoiser's block whose features are aligned; 1 is the first.
        one_step_weight: Weight of the extra pass at t = 0 (unified training of the released code); 0 switches it off.
        one_step_ms_ssim_weight: Weight of 1 - MS-SSIM of the pictures of the extra pass.
        one_step_fraction: Share of images trained at t = 0 (unified training of the paper).
        one_step_noise_level: Scale of the noise at t = 0 in both forms of unified training. The published value is 1;
            one-step decoding uses 0.
        lora_rank: Rank of the adaptations of `lora_layers`; 0 without any.
        lora_alpha: Scale of the adaptations times their rank.
        lora_layers: Patterns of the layers that get low-rank adaptations in place of training, see `named_layers`. All
            other parameters train in full unless they are frozen.
        bottleneck: Training settings of the bottleneck.
        freeze: Patterns of the model's parameters that stay as they are, see `without_frozen`.
        losses: Loss terms of other packages, on the pictures of the extra pass at t = 0.
    """

    kind: Literal["pretrain"] = "pretrain"
    null_condition_probability: float = 0.1
    time_shift: float = 1.0
    reconstruction_weight: float = 1.0
    feature_alignment_weight: float = 0.0
    condition_alignment_weight: float = 0.0
    alignment_block: int = 8
    one_step_weight: float = 0.0
    one_step_ms_ssim_weight: float = 0.0
    one_step_fraction: float = 0.0
    one_step_noise_level: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 32.0
    lora_layers: tuple[str, ...] = ()
    bottleneck: BottleneckTraining = dataclasses.field(default_factory=CodebookTraining)
    freeze: tuple[str, ...] = ()
    losses: tuple[LossTermConfig, ...] = ()

    def __post_init__(self):
        for name in ("null_condition_probability", "one_step_fraction"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1], got {getattr(self, name)}")
        weights = [field.name for field in dataclasses.fields(self) if field.name.endswith("_weight")]
        require_at_least(self, 0, *weights, "one_step_noise_level", "lora_rank", "lora_alpha")
        check_lora(self.lora_rank, self.lora_layers)
        require_at_least(self, 1, "alignment_block")
        require(self.time_shift > 0, f"time_shift must be positive, got {self.time_shift}")
        on_pictures = [name for name in ("losses", "one_step_ms_ssim_weight") if getattr(self, name)]
        require(
            not on_pictures or self.one_step_weight > 0,
            f"one_step_weight must be above 0 with {' and '.join(on_pictures)}, which concern the extra pass at t = 0, "
            "got 0",
        )

    @property
    def trains_one_step(self) -> bool:
        """Whether either form of unified training is on."""
        return self.one_step_weight > 0 or self.one_step_fraction > 0

    @property
    def starts_from_model(self) -> bool:
        """Whether a pre-trained model is adapted."""
        return self.lora_rank > 0

    @property
    def aligns(self) -> bool:
        """Whether DINOv2's features are needed."""
        return self.feature_alignment_weight > 0 or self.condition_alignment_weight > 0

    def build(self, context: ObjectiveContext) -> "Pretrain":
        """Return the objective; see `ObjectiveConfig.build`."""
        return Pretrain(self, context)

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the frozen networks that come from weight files."""
        return ("dinov2",) if self.aligns else ()


class PretrainDraws(NamedTuple):
    """All randomness of a step, with one entry per image, so that splitting a batch does not change it."""

    drop: Float[Array, " B"]
    time: Float[Array, " B"]
    noise: Float[Array, "B H W C"]
    at_zero: Float[Array, " B"]
    bottleneck: Draws
    autoencoder_noise: Float[Array, "B H W C"] | None = None


class Inputs(NamedTuple):
    """Inputs of a batch's losses, without gradient.

    Attributes:
        image01: Images in [0, 1].
        values: Values to denoise, which are the images in [-1, 1] or their latents.
        tokens: DINOv2's features per condition cell, if they are needed.
    """

    image01: Float[Array, "B H W 3"]
    values: Float[Array, "B H2 W2 C"]
    tokens: Float[Array, "B h w D"] | None


class Pretrain(Objective):
    """The pre-training objective of one model.

    Args:
        config: Weights and probabilities.
        context: The model and the rest of the run's settings; losses, sampling and quantisation are always float32.

    Attributes:
        weights: Weight of each loss term.
        frozen: Required frozen networks, "autoencoder" and "dinov2" at most.

    The other attributes are those of `Objective`.
    """

    def __init__(self, config: PretrainConfig, context: ObjectiveContext):
        model_config, compute, networks = context.model, context.compute, context.networks
        if config.feature_alignment_weight > 0 and config.alignment_block > model_config.denoiser.num_blocks:
            raise UserError(
                f"alignment_block must be at most {model_config.denoiser.num_blocks}, the number of the denoiser's "
                f"blocks, got {config.alignment_block}; choose an earlier block or set feature_alignment_weight to 0"
            )
        if (config.losses or config.one_step_ms_ssim_weight) and model_config.is_latent:
            raise UserError(
                "objective.losses and one_step_ms_ssim_weight compare pictures and need a denoiser on pixels, got kind "
                f"{model_config.denoiser.kind}, which works on latents; leave them out"
            )
        self.model_config, self.config = model_config, config
        self.bottleneck = BottleneckSide(model_config.codec, config.bottleneck)
        self.functional = build_model(model_config, compute)
        self.time_shift = config.time_shift
        self.samples = True
        self.space = Space(model_config, networks.dtype, networks.vae)
        self.frozen = {}
        if self.space.functional is not None:
            self.frozen["autoencoder"] = self.space.functional
        if config.aligns:
            self.frozen["dinov2"] = networks.build_dinov2()

        hidden, dtype = model_config.denoiser.hidden, compute.dtype
        head_sizes = {"reconstruction": model_config.channels * model_config.patch_size**2}
        self.losses = checked(config.losses, (*TERMS, *self.bottleneck.weights))
        self.weights = {
            "flow": 1.0,
            "reconstruction": config.reconstruction_weight,
            **self.bottleneck.weights,
            **{loss.NAME: loss.weight for loss in self.losses},
        }
        for name in ("one_step", "one_step_ms_ssim"):
            if (weight := getattr(config, f"{name}_weight")) > 0:
                self.weights[name] = weight
        for name in ("feature_alignment", "condition_alignment"):
            if (weight := getattr(config, f"{name}_weight")) > 0:
                self.weights[name] = weight
                head_sizes[name] = networks.dinov2.width
        self.heads = {
            name: Functional(lambda rngs, size=size: FeatureHead(hidden, size, dtype=dtype, rngs=rngs))
            for name, size in head_sizes.items()
        }
        layers = named_layers(self.functional.shapes, config.lora_layers)
        self.adaptation = Adaptation(self.functional, layers, config.lora_rank, config.lora_alpha)
        self.averaged = ("model", *self.adaptation.axes, "heads")
        self.axes = {
            "model": self.functional.axes,
            **self.adaptation.axes,
            "heads": {name: head.axes for name, head in {**self.heads, **self.bottleneck.heads}.items()},
        }
        self.buffer_axes = self.bottleneck.buffer_axes
        self.updates = (
            Update(
                "model",
                without_frozen(self.adaptation.trained(flatten_params(self.axes)), config.freeze),
                lambda params, _, frozen, image_uint8, draws: self.loss(params, frozen, image_uint8, draws),
                context.optimizer,
            ),
        )

    def init_params(self, key: jax.Array) -> Params:
        """Return fresh parameters of the model, its adaptations and the heads."""
        key_model, *keys = jax.random.split(key, 1 + len(self.heads))
        heads = {name: head.init(key) for (name, head), key in zip(self.heads.items(), keys, strict=True)}
        # Not other parts of the split, which would change all other draws.
        adaptations = self.adaptation.init(side_key(key, 0))
        heads |= {name: head.init(side_key(key, 1)) for name, head in self.bottleneck.heads.items()}
        return {"model": self.functional.init(key_model), **adaptations, "heads": heads}

    def exported(self, params: Params) -> Params:
        """Return the model's parameters with the adaptations merged in."""
        return self.adaptation.merged(params)

    def draw(self, key: jax.Array, image_shape: tuple[int, ...]) -> PretrainDraws:
        """Return the randomness for a batch of images [B, H, W, 3]."""
        keys = jax.random.split(key, 6)
        batch = image_shape[0]
        shape = self.model_config.values_shape(image_shape)
        return PretrainDraws(
            drop=jax.random.uniform(keys[0], (batch,)),
            time=jax.random.normal(keys[1], (batch,)),
            noise=jax.random.normal(keys[2], shape),
            at_zero=jax.random.uniform(keys[3], (batch,)),
            bottleneck=self.bottleneck.draw(keys[4], image_shape),
            autoencoder_noise=jax.random.normal(keys[5], shape) if "autoencoder" in self.frozen else None,
        )

    def prepare(self, frozen: Params, image_uint8: jax.Array, draws: PretrainDraws) -> Inputs:
        """Run the frozen networks on images [B, H, W, 3]."""
        image01 = uint8_to_unit(image_uint8)
        autoencoder = frozen.get("autoencoder", {})
        values = self.space.encode(autoencoder, unit_to_signed(image01), draws.autoencoder_noise)
        tokens = None
        if self.config.aligns:
            tokens = jax.lax.stop_gradient(self.frozen["dinov2"].bind(frozen["dinov2"]).alignment_tokens(image01))
        return Inputs(image01, values, tokens)

    def loss(
        self, params: Params, frozen: Params, image_uint8: jax.Array, draws: PretrainDraws
    ) -> tuple[Float[Array, ""], LossOutput]:
        """Return the weighted sum of the loss terms for images [B, H, W, 3], and the terms."""
        return self.loss_of(params, self.prepare(frozen, image_uint8, draws), draws)

    def loss_of(self, params: Params, inputs: Inputs, draws: PretrainDraws) -> tuple[Float[Array, ""], LossOutput]:
        """Return the weighted sum of the loss terms for prepared images, and the terms."""
        config = self.config
        model = self.functional.bind(self.exported(params))
        image01, values, tokens = inputs
        keep = draws.drop >= config.null_condition_probability

        z = model.codec.encode(jnp.where(keep[:, None, None, None], image01, NULL_CONDITION_VALUE))
        quantized = model.codec.quantize(z, level=draws.bottleneck.level, noise=draws.bottleneck.noise)
        condition = model.codec.decode(quantized.values)

        at_zero = draws.at_zero < config.one_step_fraction
        t = jnp.where(at_zero, 0.0, sample_timesteps(draws.time, config.time_shift))
        level = jnp.where(at_zero, config.one_step_noise_level, 1.0)
        x_t = interpolate(values, expand(level, values) * draws.noise, t)
        target = flow_target(values, x_t, t, model.prediction)
        features_after = config.alignment_block if config.feature_alignment_weight > 0 else None
        denoised = model.denoise(x_t, t, condition, features_after=features_after)
        velocity = model.to_velocity(denoised.prediction, x_t, t)

        heads = {name: head.bind(params["heads"][name]) for name, head in self.heads.items()}
        patches = patchify(values, self.model_config.patch_size)
        importance = self.bottleneck.importance(draws.bottleneck)
        read = heads["reconstruction"](condition).reshape(patches.shape)
        terms = {
            "flow": jnp.mean(importance * squared_error_per_image(velocity, target)),
            "reconstruction": masked_mean(importance * squared_error_per_image(read, patches), keep),
        }
        terms |= self.bottleneck.terms(params, quantized, draws.bottleneck, keep, z)
        if denoised.features is not None and tokens is not None:
            distances = cosine_distance_per_image(heads["feature_alignment"](denoised.features), tokens)
            terms["feature_alignment"] = jnp.mean(importance * distances)
        if config.condition_alignment_weight > 0 and tokens is not None:
            distances = cosine_distance_per_image(heads["condition_alignment"](condition), tokens)
            terms["condition_alignment"] = masked_mean(importance * distances, keep)
        if config.one_step_weight > 0:
            one_step = model.one_step(condition, config.one_step_noise_level * draws.noise)
            terms["one_step"] = jnp.mean(importance * squared_error_per_image(one_step, values))
            if config.one_step_ms_ssim_weight > 0:
                terms["one_step_ms_ssim"] = jnp.mean(
                    importance * (1 - jnp.asarray(ms_ssim_per_image(one_step, values)))
                )
            terms |= {loss.NAME: jnp.mean(importance * loss(one_step, values)) for loss in self.losses}
        output = self.bottleneck.output(terms, quantized, keep, z, draws.bottleneck)
        return weighted_sum(terms, self.weights), output

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> dict[str, Float[Array, ""]]:
        """Return the loss and its terms for an image with its own condition, averaged over `VALIDATION_TIMES`.

        The bottleneck quantises as outside of training, so that a rate is that of the image's symbols.
        """
        draws = self.draw(key, image_uint8.shape)._replace(drop=jnp.ones((1,)), at_zero=jnp.ones((1,)))
        draws = draws._replace(bottleneck=draws.bottleneck._replace(noise=None))
        inputs = self.prepare(frozen, image_uint8, draws)

        def at(time: jax.Array) -> dict[str, jax.Array]:
            loss, output = self.loss_of(params, inputs, draws._replace(time=time[None]))
            return {"loss": loss, **{f"loss/{name}": term for name, term in output.terms.items()}}

        return jax.tree.map(jnp.mean, jax.lax.map(at, jnp.asarray(VALIDATION_TIMES, jnp.float32)))
