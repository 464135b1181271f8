"""Pre-training: rectified flow given the codec's condition (spec section 3)."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cod_jax.diffusion.flow import IMAGE_PREDICTION_CLAMP, expand, interpolate, sample_timesteps
from cod_jax.errors import UserError
from cod_jax.images import uint8_to_unit, unit_to_signed
from cod_jax.losses.terms import cosine_distance_per_image, masked_mean, squared_error_per_image, weighted_sum
from cod_jax.models import ComputeConfig, ModelConfig, build_model
from cod_jax.models.condition_codec import NULL_CONDITION_VALUE
from cod_jax.models.functional import Functional, Params, flatten_params
from cod_jax.models.heads import FeatureHead
from cod_jax.models.space import Space
from cod_jax.nn.embeddings import patchify
from cod_jax.training.objectives.codebook import candidates, code_counts, tend_codebook
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import Buffers, LossOutput, Update
from cod_jax.training.objectives.rate import (
    NOT_RANDOM,
    BottleneckDraws,
    check_rate_settings,
    check_rate_weights,
    draw_bottleneck,
    rate_term,
)

# Quantiles of the standard normal distribution that validation draws timesteps from: the middles of four equal parts.
VALIDATION_TIMES = tuple(statistics.NormalDist().inv_cdf((part + 0.5) / 4) for part in range(4))


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Weights and probabilities of pre-training; the defaults are the published first stage without DINOv2.

    Attributes:
        kind: Which objective this is.
        null_condition_probability: Share of images whose condition is the null condition.
        time_shift: Shift of the timestep distribution, see `flow.shift_time`.
        reconstruction_weight: Weight of reading the image (or the latents) from the condition.
        feature_alignment_weight: Weight of aligning the denoiser's features with DINOv2's; 0 leaves it out. Either
            alignment needs DINOv2's weight file.
        condition_alignment_weight: Weight of aligning the condition with DINOv2's features; 0 leaves it out.
        alignment_block: Number of the denoiser's block whose features are aligned; 1 is the first.
        commitment_weight: Weight of the quantisation loss; not read with a factorized bottleneck.
        rate_weights: Lambda, the weight of the bits per pixel, for each quality level of a factorized bottleneck; the
            first is the largest, for the lowest quality. Not read with vector quantisation.
        one_step_weight: Weight of the extra pass at t = 0 (unified training of the released code); 0 leaves it out.
        one_step_fraction: Share of images trained at t = 0 (unified training of the paper).
        one_step_noise_level: Scale of the noise at t = 0 in both forms of unified training; 1 as published, 0 is what
            one-step decoding uses.
        revive_codes_every: Steps between replacements of unused code vectors by latents of the batch; 0 is never. The
            first replacement, at step 0, initialises the codebook from data.
        revive_usage: A code is unused when its running share is below this over the codebook's size.
    """

    kind: Literal["pretrain"] = "pretrain"
    null_condition_probability: float = 0.1
    time_shift: float = 1.0
    reconstruction_weight: float = 1.0
    feature_alignment_weight: float = 0.0
    condition_alignment_weight: float = 0.0
    alignment_block: int = 8
    commitment_weight: float = 0.25
    rate_weights: tuple[float, ...] = (1.0,)
    one_step_weight: float = 0.0
    one_step_fraction: float = 0.0
    one_step_noise_level: float = 1.0
    revive_codes_every: int = 0
    revive_usage: float = 0.03

    def __post_init__(self):
        for name in ("null_condition_probability", "one_step_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        weights = [field.name for field in dataclasses.fields(self) if field.name.endswith("_weight")]
        for name in (*weights, "one_step_noise_level", "revive_codes_every", "revive_usage"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must not be negative")
        check_rate_weights(self.rate_weights)
        if self.time_shift <= 0:
            raise UserError(f"time_shift is {self.time_shift}; it must be positive")
        if self.alignment_block < 1:
            raise UserError(f"alignment_block is {self.alignment_block}; it must be at least 1")

    @property
    def aligns(self) -> bool:
        """Whether DINOv2's features are needed."""
        return self.feature_alignment_weight > 0 or self.condition_alignment_weight > 0

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Frozen networks that come from weight files."""
        return ("dinov2",) if self.aligns else ()


class Draws(NamedTuple):
    """All randomness of a step, one entry per image, so that splitting a batch does not change it."""

    drop: Float[Array, " B"]
    time: Float[Array, " B"]
    noise: Float[Array, "B H W C"]
    at_zero: Float[Array, " B"]
    candidate_order: Float[Array, "B h w"]
    autoencoder_noise: Float[Array, "B H W C"] | None = None
    bottleneck: BottleneckDraws = NOT_RANDOM


class Inputs(NamedTuple):
    """What the losses of a batch are computed from, all without gradient.

    Attributes:
        image01: Images in [0, 1].
        values: What is denoised: the images in [-1, 1], or their latents.
        tokens: DINOv2's features per condition cell, if they are needed.
    """

    image01: Float[Array, "B H W 3"]
    values: Float[Array, "B H2 W2 C"]
    tokens: Float[Array, "B h w D"] | None


class Pretrain:
    """The pre-training objective of one model.

    Args:
        model_config: What to train.
        config: Weights and probabilities.
        compute: How the model is computed; losses, sampling and quantisation are float32.
        frozen: The frozen networks, by default the published ones in float32.

    Attributes:
        functional: The model as a pure function of its parameters.
        space: What the model denoises.
        weights: Weight of each loss term.
        frozen: The frozen networks that are needed: "autoencoder", "dinov2".

    The other attributes are those of `Objective`.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: PretrainConfig,
        compute: ComputeConfig,
        frozen: FrozenNetworks | None = None,
    ):
        if config.feature_alignment_weight > 0 and config.alignment_block > model_config.denoiser.num_blocks:
            raise UserError(
                f"alignment_block is {config.alignment_block}, but the denoiser has {model_config.denoiser.num_blocks} "
                "blocks; choose an earlier block or set feature_alignment_weight to 0"
            )
        check_rate_settings(model_config.codec, config.rate_weights, config.revive_codes_every)
        networks = frozen or FrozenNetworks()
        self.model_config, self.config = model_config, config
        self.functional = build_model(model_config, compute)
        self.time_shift = config.time_shift
        self.space = Space(model_config, networks.dtype, networks.vae)
        self.frozen: dict[str, Functional[Any]] = {}
        self.frozen_configs: Mapping[str, Mapping[str, Any]] = {}
        if self.space.functional is not None:
            self.frozen["autoencoder"] = self.space.functional
        if config.aligns:
            self.frozen["dinov2"] = networks.build_dinov2()

        hidden, dtype = model_config.denoiser.hidden, compute.dtype
        head_sizes = {"reconstruction": model_config.channels * model_config.patch_size**2}
        self.weights = {"flow": 1.0, "reconstruction": config.reconstruction_weight}
        self._has_codebook = model_config.codec.factorized is None
        if self._has_codebook:
            self.weights["commitment"] = config.commitment_weight
        else:
            self.weights["rate"] = config.rate_weights[0]
        if config.one_step_weight > 0:
            self.weights["one_step"] = config.one_step_weight
        for name in ("feature_alignment", "condition_alignment"):
            if (weight := getattr(config, f"{name}_weight")) > 0:
                self.weights[name] = weight
                head_sizes[name] = networks.dinov2.width
        self.heads = {
            name: Functional(lambda rngs, size=size: FeatureHead(hidden, size, dtype=dtype, rngs=rngs))
            for name, size in head_sizes.items()
        }
        self.averaged: tuple[str, ...] = ("model", "heads")
        self.schedule: tuple[int, ...] = (0,)
        self.samples: bool = True
        self.axes: Params = {
            "model": self.functional.axes,
            "heads": {name: head.axes for name, head in self.heads.items()},
        }
        self.buffer_axes: Buffers = {"codebook_usage": ("codebook",)} if self._has_codebook else {}
        self.updates = (
            Update(
                "model",
                tuple(flatten_params(self.axes)),
                lambda params, _, frozen, image_uint8, draws: self.loss(params, frozen, image_uint8, draws),
            ),
        )

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters of the model and the heads."""
        key_model, *keys = jax.random.split(key, 1 + len(self.heads))
        heads = {name: head.init(key) for (name, head), key in zip(self.heads.items(), keys, strict=True)}
        return {"model": self.functional.init(key_model), "heads": heads}

    def init_buffers(self, params: Params, key: jax.Array) -> Buffers:
        """No code has been used yet."""
        if not self._has_codebook:
            return {}
        return {"codebook_usage": jnp.zeros((self.model_config.codec.codebook_size,), jnp.float32)}

    def parts_from(self, frozen: Mapping[str, Params]) -> Params:
        """None."""
        return {}

    def exported(self, params: Params) -> Params:
        """The model's parameters as they are."""
        return params["model"]

    def draw(self, key: jax.Array, image_shape: tuple[int, ...]) -> Draws:
        """Randomness for a batch of images [B, H, W, 3]."""
        keys = jax.random.split(key, 6)
        batch, height, width, _ = image_shape
        pitch = self.model_config.codec.pitch
        shape = self.model_config.values_shape(image_shape)
        return Draws(
            drop=jax.random.uniform(keys[0], (batch,)),
            time=jax.random.normal(keys[1], (batch,)),
            noise=jax.random.normal(keys[2], shape),
            at_zero=jax.random.uniform(keys[3], (batch,)),
            candidate_order=jax.random.uniform(keys[4], (batch, height // pitch, width // pitch)),
            autoencoder_noise=jax.random.normal(keys[5], shape) if "autoencoder" in self.frozen else None,
            bottleneck=draw_bottleneck(jax.random.fold_in(key, len(keys)), self.model_config.codec, image_shape),
        )

    def prepare(self, frozen: Params, image_uint8: jax.Array, draws: Draws) -> Inputs:
        """Run the frozen networks on images [B, H, W, 3]."""
        image01 = uint8_to_unit(image_uint8)
        autoencoder = frozen.get("autoencoder", {})
        values = self.space.encode(autoencoder, unit_to_signed(image01), draws.autoencoder_noise)
        tokens = None
        if self.config.aligns:
            tokens = jax.lax.stop_gradient(self.frozen["dinov2"].bind(frozen["dinov2"]).alignment_tokens(image01))
        return Inputs(image01, values, tokens)

    def loss(
        self, params: Params, frozen: Params, image_uint8: jax.Array, draws: Draws
    ) -> tuple[Float[Array, ""], LossOutput]:
        """Weighted sum of the loss terms of images [B, H, W, 3], and the terms."""
        return self.loss_of(params, self.prepare(frozen, image_uint8, draws), draws)

    def loss_of(self, params: Params, inputs: Inputs, draws: Draws) -> tuple[Float[Array, ""], LossOutput]:
        """Weighted sum of the loss terms of prepared images, and the terms."""
        config = self.config
        model = self.functional.bind(params["model"])
        image01, values, tokens = inputs
        keep = draws.drop >= config.null_condition_probability

        z = model.codec.encode(jnp.where(keep[:, None, None, None], image01, NULL_CONDITION_VALUE))
        quantized = model.codec.quantize(z, level=draws.bottleneck.level, noise=draws.bottleneck.noise)
        condition = model.codec.decode(quantized.values)

        at_zero = draws.at_zero < config.one_step_fraction
        t = jnp.where(at_zero, 0.0, sample_timesteps(draws.time, config.time_shift))
        level = jnp.where(at_zero, config.one_step_noise_level, 1.0)
        x_t = interpolate(values, expand(level, values) * draws.noise, t)
        clamp = IMAGE_PREDICTION_CLAMP if model.prediction == "image" else 0.0
        target = (values - x_t) / jnp.maximum(1 - expand(t, values), clamp)
        features_after = config.alignment_block if config.feature_alignment_weight > 0 else None
        denoised = model.denoise(x_t, t, condition, features_after=features_after)
        velocity = model.to_velocity(denoised.prediction, x_t, t)

        heads = {name: head.bind(params["heads"][name]) for name, head in self.heads.items()}
        patches = patchify(values, self.model_config.patch_size)
        read = heads["reconstruction"](condition).reshape(patches.shape)
        terms = {
            "flow": jnp.mean(squared_error_per_image(velocity, target)),
            "reconstruction": masked_mean(squared_error_per_image(read, patches), keep),
        }
        if self._has_codebook:
            terms["commitment"] = quantized.loss
        else:
            terms["rate"] = rate_term(quantized, draws.bottleneck.level, config.rate_weights, keep, image01.shape)
        if denoised.features is not None and tokens is not None:
            distances = cosine_distance_per_image(heads["feature_alignment"](denoised.features), tokens)
            terms["feature_alignment"] = jnp.mean(distances)
        if config.condition_alignment_weight > 0 and tokens is not None:
            distances = cosine_distance_per_image(heads["condition_alignment"](condition), tokens)
            terms["condition_alignment"] = masked_mean(distances, keep)
        if config.one_step_weight > 0:
            one_step = model.one_step(condition, config.one_step_noise_level * draws.noise)
            terms["one_step"] = jnp.mean(squared_error_per_image(one_step, values))
        loss = weighted_sum(terms, self.weights)
        if not self._has_codebook:
            return loss, LossOutput(terms)
        codebook_size = self.model_config.codec.codebook_size
        latents = None
        if config.revive_codes_every > 0:
            latents = candidates(z, keep, draws.candidate_order, codebook_size)
        return loss, LossOutput(terms, code_counts(quantized.indices, keep, codebook_size), latents)

    def tend(
        self, params: Params, ema: Params, buffers: Buffers, output: LossOutput, step: jax.Array
    ) -> tuple[Params, Params, Buffers]:
        """Upkeep of the codebook, if there is one."""
        return tend_codebook(
            params,
            ema,
            buffers,
            output,
            step,
            every=self.config.revive_codes_every,
            threshold=self.config.revive_usage,
        )

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> dict[str, Float[Array, ""]]:
        """Loss and terms of an image with its own condition, averaged over timesteps spread over their distribution.

        A factorized bottleneck rounds, so that the rate is that of the image's symbols.
        """
        draws = self.draw(key, image_uint8.shape)._replace(drop=jnp.ones((1,)), at_zero=jnp.ones((1,)))
        draws = draws._replace(bottleneck=draws.bottleneck._replace(noise=None))
        inputs = self.prepare(frozen, image_uint8, draws)

        def at(time: jax.Array) -> dict[str, jax.Array]:
            loss, output = self.loss_of(params, inputs, draws._replace(time=time[None]))
            return {"loss": loss, **{f"loss/{name}": term for name, term in output.terms.items()}}

        return jax.tree.map(jnp.mean, jax.lax.map(at, jnp.asarray(VALIDATION_TIMES, jnp.float32)))
