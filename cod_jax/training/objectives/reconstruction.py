"""Reconstruction in one step and its losses: what both stages of the one-step codec share (spec section 5)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.images import unit_to_signed
from cod_jax.losses.perceptual import structural_distance_per_image
from cod_jax.losses.terms import cosine_distance_per_image
from cod_jax.models import CoD, build_model
from cod_jax.models.bottlenecks import Draws, Quantized
from cod_jax.models.functional import Functional, Params
from cod_jax.models.heads import FeatureHead
from cod_jax.training.objectives.bottleneck_side import BottleneckSide
from cod_jax.training.objectives.loss_terms import LossTermConfig
from cod_jax.training.objectives.objective import ObjectiveContext


@dataclasses.dataclass(frozen=True)
class ReconstructionConfig:
    """Weights of the losses between pictures and reconstructions; the defaults are the published ones.

    Attributes:
        l1_weight: Mean absolute difference.
        lpips_vgg_weight: LPIPS with VGG16; 0 leaves it out, as for those below. Needs its weight files.
        lpips_alex_weight: LPIPS with AlexNet. Needs its weight files.
        structural_weight: Structural distance, which needs no weight file and stands in for LPIPS.
        feature_alignment_weight: Alignment of the denoiser's features with DINOv2's. Needs its weight file.
        alignment_block: Number of the denoiser's block whose features are aligned; 1 is the first.
    """

    l1_weight: float = 1.0
    lpips_vgg_weight: float = 1.0
    lpips_alex_weight: float = 0.5
    structural_weight: float = 0.0
    feature_alignment_weight: float = 0.5
    alignment_block: int = 8

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.name.endswith("_weight") and getattr(self, field.name) < 0:
                raise UserError(f"{field.name} is {getattr(self, field.name)}; it must not be negative")
        if self.alignment_block < 1:
            raise UserError(f"alignment_block is {self.alignment_block}; it must be at least 1")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term that is not left out."""
        names = ("l1", "lpips_vgg", "lpips_alex", "structural", "feature_alignment")
        weights = {name: getattr(self, f"{name}_weight") for name in names}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Frozen networks that come from weight files."""
        networks = {"dinov2": "feature_alignment", "lpips_vgg": "lpips_vgg", "lpips_alex": "lpips_alex"}
        return tuple(network for network, term in networks.items() if term in self.weights)


class Reconstructed(NamedTuple):
    """A picture that went through the codec in one step.

    Attributes:
        image: Reconstruction in about [-1, 1].
        latents: Before quantisation.
        quantized: After it.
        draws: Randomness of the bottleneck.
        features: The denoiser's state after the aligned block, if it is aligned.
    """

    image: Float[Array, "B H W 3"]
    latents: Float[Array, "B h w C"]
    quantized: Quantized
    draws: Draws
    features: Float[Array, "B h2 w2 hidden"] | None


class Reconstruction:
    """One-step reconstruction and its losses, for one model.

    Args:
        context: The model, which works on pixels, and how it is computed.
        config: Weights.
        bottleneck: How its bottleneck is trained.
        losses: Loss terms of other packages.

    Attributes:
        functional: The model as a pure function of its parameters.
        heads: Training heads by name: "feature_alignment" or none.
        frozen: The frozen networks that are needed by name.
        weights: Weight of each term.

    Raises:
        UserError: The model works on latents, or has no such block.
    """

    def __init__(
        self,
        context: ObjectiveContext,
        config: ReconstructionConfig,
        bottleneck: BottleneckSide,
        losses: Sequence[LossTermConfig],
    ):
        model_config, compute, networks = context.model, context.compute, context.networks
        if model_config.is_latent:
            raise UserError("the one-step codec works on pixels, and this model on latents; choose another denoiser")
        self.config = config
        self.bottleneck, self.losses = bottleneck, losses
        self.weights = {**config.weights, bottleneck.name: bottleneck.weight}
        self.weights |= {loss.NAME: loss.weight for loss in losses}
        self.functional = build_model(model_config, compute)
        self.frozen: dict[str, Functional[Any]] = {}
        self.heads: dict[str, Functional[FeatureHead]] = {}
        if "feature_alignment" in self.weights:
            num_blocks, hidden = model_config.denoiser.num_blocks, model_config.denoiser.hidden
            if config.alignment_block > num_blocks:
                raise UserError(
                    f"alignment_block is {config.alignment_block}, but the denoiser has {num_blocks} blocks; choose an "
                    "earlier block or set feature_alignment_weight to 0"
                )
            width, dtype = networks.dinov2.width, compute.dtype
            self.heads["feature_alignment"] = Functional(
                lambda rngs: FeatureHead(hidden, width, dtype=dtype, rngs=rngs)
            )
            self.frozen["dinov2"] = networks.build_dinov2()
        for name in ("lpips_vgg", "lpips_alex"):
            if name in self.weights:
                self.frozen[name] = networks.build_lpips(name)

    @property
    def head_axes(self) -> Params:
        """Logical axis names of the heads' parameters as {"heads": ...}, or {} where there are none."""
        return {"heads": {name: head.axes for name, head in self.heads.items()}} if self.heads else {}

    def init_heads(self, key: jax.Array) -> Params:
        """Fresh parameters of the heads as {"heads": ...}, or {} where there are none."""
        heads = {name: head.init(jax.random.fold_in(key, i)) for i, (name, head) in enumerate(self.heads.items())}
        return {"heads": heads} if heads else {}

    def __call__(self, params: Params, image01: Float[Array, "B H W 3"], draws: Draws | None = None) -> Reconstructed:
        """Send pictures in [0, 1] through the codec: one step from t = 0 without noise.

        Args:
            params: Parameters of the model.
            image01: The pictures.
            draws: Randomness of the bottleneck; by default it quantises as in use, at the best quality.
        """
        model: CoD = self.functional.bind(params)
        latents = model.codec.encode(image01)
        if draws is None:
            draws = Draws(jnp.full(image01.shape[:1], model.codec.num_levels - 1, jnp.int32))
        quantized = model.codec.quantize(latents, level=draws.level, noise=draws.noise)
        condition = model.codec.decode(quantized.values)
        noise, t = jnp.zeros(image01.shape, jnp.float32), jnp.zeros(image01.shape[:1], jnp.float32)
        features_after = self.config.alignment_block if self.heads else None
        image, features = model.denoise(noise, t, condition, features_after=features_after)
        # From zero noise at t = 0 the velocity is the image.
        return Reconstructed(image, latents, quantized, draws, features)

    def terms(
        self, params: Params, frozen: Params, image01: Float[Array, "B H W 3"], reconstructed: Reconstructed
    ) -> dict[str, Float[Array, ""]]:
        """The unweighted terms for pictures in [0, 1].

        Args:
            params: Parameters, with those of the heads as "heads".
            frozen: Parameters of the frozen networks.
            image01: The pictures.
            reconstructed: What became of them.
        """
        tokens = None
        if "feature_alignment" in self.weights:
            tokens = jax.lax.stop_gradient(self.frozen["dinov2"].bind(frozen["dinov2"]).alignment_tokens(image01))
        return self.terms_given(params, frozen, image01, tokens, reconstructed)

    def terms_given(
        self,
        params: Params,
        frozen: Params,
        image01: Float[Array, "B H W 3"],
        tokens: Float[Array, "B h w D"] | None,
        reconstructed: Reconstructed,
    ) -> dict[str, Float[Array, ""]]:
        """The unweighted terms, given DINOv2's tokens of the pictures if they are needed."""
        image, other = unit_to_signed(image01), reconstructed.image
        keep = jnp.ones(image01.shape[:1], bool)
        terms = {
            "l1": jnp.mean(jnp.abs(other - image)),
            self.bottleneck.name: self.bottleneck.term(reconstructed.quantized, reconstructed.draws, keep),
            **{loss.NAME: jnp.mean(loss(other, image)) for loss in self.losses},
        }
        for name in ("lpips_vgg", "lpips_alex"):
            if name in self.weights:
                terms[name] = jnp.mean(self.frozen[name].bind(frozen[name]).distance(other, image))
        if "structural" in self.weights:
            terms["structural"] = jnp.mean(structural_distance_per_image(other, image))
        if tokens is not None and reconstructed.features is not None:
            head = self.heads["feature_alignment"].bind(params["heads"]["feature_alignment"])
            terms["feature_alignment"] = jnp.mean(cosine_distance_per_image(head(reconstructed.features), tokens))
        return {name: term for name, term in terms.items() if name in self.weights}
