"""First stage of the one-step codec: low-rank adaptation of a pre-trained model (spec section 5)."""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cod_jax.errors import UserError
from cod_jax.images import uint8_to_unit
from cod_jax.losses.terms import weighted_sum
from cod_jax.models import ComputeConfig, ModelConfig
from cod_jax.models.functional import Params, flatten_params
from cod_jax.models.lora import adapted_names, init_lora, lora_axes, merge
from cod_jax.models.space import Space
from cod_jax.training.objectives.codebook import candidates, code_counts, tend_codebook
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import Buffers, LossOutput, Update
from cod_jax.training.objectives.rate import NOT_RANDOM, BottleneckDraws, check_rate_settings, draw_bottleneck
from cod_jax.training.objectives.reconstruction import Reconstruction, ReconstructionConfig

# Trained as they are; every other linear map is adapted, and what is neither stays.
TRAINED_IN_FULL = ("codec/*", "*/depthwise/*")
# The condition of each pixel, which the published code leaves out by a match of names.
PIXEL_CONDITION = "denoiser/head/condition/*"


@dataclasses.dataclass(frozen=True)
class OneStepConfig:
    """Settings of the first stage; the defaults are the published ones.

    Attributes:
        kind: Which objective this is.
        reconstruction: Weights of the losses.
        lora_rank: Rank of the adaptations.
        lora_alpha: Their scale times the rank.
        adapt_pixel_condition: Whether the linear map from the condition to every pixel is adapted too; as published it
            stays as it is.
        revive_codes_every: Steps between replacements of unused code vectors by latents of the batch; 0 is never. The
            first replacement, at step 0, initialises a fresh codebook from data.
        revive_usage: A code is unused when its running share is below this over the codebook's size.
    """

    kind: Literal["one_step"] = "one_step"
    reconstruction: ReconstructionConfig = dataclasses.field(default_factory=ReconstructionConfig)
    lora_rank: int = 32
    lora_alpha: float = 32.0
    adapt_pixel_condition: bool = False
    revive_codes_every: int = 0
    revive_usage: float = 0.03

    def __post_init__(self):
        if self.lora_rank < 1:
            raise UserError(f"lora_rank is {self.lora_rank}; it must be at least 1")
        for name in ("lora_alpha", "revive_codes_every", "revive_usage"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must not be negative")

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Frozen networks that come from weight files."""
        return self.reconstruction.frozen_names

    @property
    def lora_scale(self) -> float:
        """What the product of the two low-rank matrices is multiplied by."""
        return self.lora_alpha / self.lora_rank


class OneStepDraws(NamedTuple):
    """All randomness of a step: the order in which latents replace unused codes, or a factorized bottleneck's."""

    candidate_order: Float[Array, "B h w"]
    bottleneck: BottleneckDraws = NOT_RANDOM


class OneStep:
    """The objective of the first stage; its attributes are those of `Objective`.

    Its parameters are "model", of which the condition codec and the depthwise convolutions change, "lora", the
    adaptations of its linear maps, and "heads".

    Args:
        model_config: What to train, a model that works on pixels.
        config: Settings.
        compute: How the model is computed.
        networks: What the frozen networks are, by default the published ones in float32.

    Raises:
        UserError: The settings do not fit the model.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: OneStepConfig,
        compute: ComputeConfig,
        networks: FrozenNetworks | None = None,
    ):
        check_rate_settings(model_config.codec, config.reconstruction.rate_weights, config.revive_codes_every)
        self.model_config, self.config = model_config, config
        self._has_codebook = model_config.codec.factorized is None
        self.reconstruction = Reconstruction(model_config, config.reconstruction, compute, networks or FrozenNetworks())
        self.functional = self.reconstruction.functional
        self.space = Space(model_config)
        self.frozen = self.reconstruction.frozen
        self.frozen_configs: Mapping[str, Mapping[str, Any]] = {}
        shapes = self.functional.shapes
        exclude = ("codec/*",) if config.adapt_pixel_condition else ("codec/*", PIXEL_CONDITION)
        self._adapted = adapted_names(shapes, exclude)
        lora = jax.eval_shape(lambda key: init_lora(key, shapes, self._adapted, config.lora_rank), jax.random.key(0))
        self.schedule: tuple[int, ...] = (0,)
        self.samples: bool = False
        self.time_shift: float = 1.0
        self.axes: Params = {
            "model": self.functional.axes,
            "lora": lora_axes(self.functional.axes, lora),
            **self.reconstruction.head_axes,
        }
        self.averaged: tuple[str, ...] = tuple(self.axes)
        self.buffer_axes: Buffers = {"codebook_usage": ("codebook",)} if self._has_codebook else {}
        trained = [
            name
            for name in flatten_params(self.axes)
            if not name.startswith("model/")
            or any(fnmatch.fnmatchcase(name.removeprefix("model/"), pattern) for pattern in TRAINED_IN_FULL)
        ]
        self.updates = (Update("model", tuple(trained), self.loss),)

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters; the adaptations start as nothing."""
        key_model, key_lora, key_heads = jax.random.split(key, 3)
        return {
            "model": self.functional.init(key_model),
            "lora": init_lora(key_lora, self.functional.shapes, self._adapted, self.config.lora_rank),
            **self.reconstruction.init_heads(key_heads),
        }

    def init_buffers(self, params: Params, key: jax.Array) -> Buffers:
        """No code has been used yet."""
        if not self._has_codebook:
            return {}
        return {"codebook_usage": jnp.zeros((self.model_config.codec.codebook_size,), jnp.float32)}

    def parts_from(self, frozen: Mapping[str, Params]) -> Params:
        """None."""
        return {}

    def draw(self, key: jax.Array, image_shape: tuple[int, ...]) -> OneStepDraws:
        """Randomness for a batch of images [B, H, W, 3]."""
        batch, height, width, _ = image_shape
        pitch = self.model_config.codec.pitch
        return OneStepDraws(
            jax.random.uniform(key, (batch, height // pitch, width // pitch)),
            draw_bottleneck(jax.random.fold_in(key, 0), self.model_config.codec, image_shape),
        )

    def exported(self, params: Params) -> Params:
        """The model's parameters with the adaptations in them."""
        return merge(params["model"], params["lora"], self.config.lora_scale)

    def loss(
        self, params: Params, buffers: Buffers, frozen: Params, image_uint8: jax.Array, draws: OneStepDraws
    ) -> tuple[Float[Array, ""], LossOutput]:
        """Weighted sum of the loss terms of images [B, H, W, 3], and the terms."""
        image01 = uint8_to_unit(image_uint8)
        reconstructed = self.reconstruction(self.exported(params), image01, draws.bottleneck)
        terms = self.reconstruction.terms(params, frozen, image01, reconstructed)
        loss = weighted_sum(terms, self.reconstruction.weights)
        if not self._has_codebook:
            return loss, LossOutput(terms)
        keep, size = jnp.ones(image01.shape[:1], bool), self.model_config.codec.codebook_size
        latents = None
        if self.config.revive_codes_every > 0:
            latents = candidates(reconstructed.latents, keep, draws.candidate_order, size)
        counts = code_counts(reconstructed.quantized.indices, keep, size)
        return loss, LossOutput(terms, counts, latents)

    def tend(
        self, params: Params, ema: Params, buffers: Buffers, output: LossOutput, step: jax.Array
    ) -> tuple[Params, Params, Buffers]:
        """Upkeep of the codebook, if there is one."""
        every, threshold = self.config.revive_codes_every, self.config.revive_usage
        return tend_codebook(params, ema, buffers, output, step, every=every, threshold=threshold)

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> dict[str, Float[Array, ""]]:
        """Loss and terms of an image."""
        draws = self.draw(key, image_uint8.shape)
        draws = draws._replace(bottleneck=draws.bottleneck._replace(noise=None))
        loss, output = self.loss(params, {}, frozen, image_uint8, draws)
        return {"loss": loss, **{f"loss/{name}": term for name, term in output.terms.items()}}
