"""One-step reconstruction and its losses, common to both stages of the one-step codec; see docs/method.md."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.images import unit_to_signed
from cod_jax.losses.perceptual import structural_distance_per_image
from cod_jax.losses.similarity import ms_ssim_per_image
from cod_jax.losses.terms import cosine_distance_per_image, squared_error_per_image
from cod_jax.models import CoD, build_model
from cod_jax.models.bottlenecks import Draws, Quantized
from cod_jax.models.fields import require_at_least
from cod_jax.models.functional import Functional, Params
from cod_jax.models.heads import FeatureHead
from cod_jax.training.objectives.bottleneck_side import BottleneckSide
from cod_jax.training.objectives.loss_terms import LossTermConfig, checked
from cod_jax.training.objectives.objective import ObjectiveContext

TERMS = ("squared_error", "l1", "ms_ssim", "lpips_vgg", "lpips_alex", "structural", "feature_alignment")


@dataclasses.dataclass(frozen=True)
class ReconstructionConfig:
    """Weights of the losses between pictures and reconstructions; the defaults are the published ones.

    Attributes:
        l1_weight: Weight of the mean absolute difference; 0 switches a term off.
        squared_error_weight: Weight of the mean squared difference of values in [-1, 1].
        ms_ssim_weight: Weight of 1 - MS-SSIM, which needs sides of at least 176 pixels for all its five scales.
        lpips_vgg_weight: Weight of LPIPS with VGG16, which needs its weight files.
        lpips_alex_weight: Weight of LPIPS with AlexNet, which needs its weight files.
        structural_weight: Weight of the structural distance, a substitute for LPIPS that needs no weight file.
        feature_alignment_weight: Weight of aligning the denoiser's features with DINOv2's, which needs its weight file.
        alignment_block: Number of the denoiser's block whose features are aligned; 1 is the first.
    """

    l1_weight: float = 1.0
    lpips_vgg_weight: float = 1.0
    lpips_alex_weight: float = 0.5
    structural_weight: float = 0.0
    feature_alignment_weight: float = 0.5
    alignment_block: int = 8
    squared_error_weight: float = 0.0
    ms_ssim_weight: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.name.endswith("_weight"):
                require_at_least(self, 0, field.name)
        require_at_least(self, 1, "alignment_block")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term that is switched on."""
        weights = {name: getattr(self, f"{name}_weight") for name in TERMS}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the frozen networks that come from weight files."""
        networks = {"dinov2": "feature_alignment", "lpips_vgg": "lpips_vgg", "lpips_alex": "lpips_alex"}
        return tuple(network for network, term in networks.items() if term in self.weights)


class Reconstructed(NamedTuple):
    """A picture that went through the codec in one step.

    Attributes:
        image: Reconstruction in about [-1, 1].
        latents: Latents before quantisation.
        quantized: Latents after quantisation.
        draws: Randomness of the bottleneck.
        features: The denoiser's state after the aligned block, or None without alignment.
    """

    image: Float[Array, "B H W 3"]
    latents: Float[Array, "B h w C"]
    quantized: Quantized
    draws: Draws
    features: Float[Array, "B h2 w2 hidden"] | None


class Reconstruction:
    """One-step reconstruction and its losses, for one model.

    Args:
        context: The model, which must work on pixels, and the rest of the run's settings.
        config: Weights of the losses.
        bottleneck: Part of the objective that concerns the bottleneck.
        losses: Loss terms of other packages.

    Attributes:
        functional: The model as a pure function of its parameters.
        heads: Training heads by name: "feature_alignment" and "rate" at most.
        frozen: Required frozen networks by name.
        weights: Weight of each term.

    Raises:
        UserError: The model works on latents or has fewer blocks than `config.alignment_block`, or two losses have one
            name.
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
            raise UserError(
                f"the one-step codec needs a denoiser on pixels, got kind {model_config.denoiser.kind}, which works on "
                "latents; choose another denoiser"
            )
        self.config = config
        self.bottleneck, self.losses = bottleneck, checked(losses, (*TERMS, *bottleneck.weights))
        self.weights = {**config.weights, **bottleneck.weights}
        self.weights |= {loss.NAME: loss.weight for loss in self.losses}
        self.functional = build_model(model_config, compute)
        self.frozen: dict[str, Functional[Any]] = {}
        self.heads: dict[str, Functional[Any]] = {}
        if "feature_alignment" in self.weights:
            num_blocks, hidden = model_config.denoiser.num_blocks, model_config.denoiser.hidden
            if config.alignment_block > num_blocks:
                raise UserError(
                    f"alignment_block must be at most {num_blocks}, the number of the denoiser's blocks, got "
                    f"{config.alignment_block}; choose an earlier block or set feature_alignment_weight to 0"
                )
            width, dtype = networks.dinov2.width, compute.dtype
            self.heads["feature_alignment"] = Functional(
                lambda rngs: FeatureHead(hidden, width, dtype=dtype, rngs=rngs)
            )
            self.frozen["dinov2"] = networks.build_dinov2()
        self.heads |= bottleneck.heads
        for name in ("lpips_vgg", "lpips_alex"):
            if name in self.weights:
                self.frozen[name] = networks.build_lpips(name)

    @property
    def head_axes(self) -> Params:
        """Logical axis names of the heads' parameters as {"heads": ...}, or {} without heads."""
        return {"heads": {name: head.axes for name, head in self.heads.items()}} if self.heads else {}

    def init_heads(self, key: jax.Array) -> Params:
        """Return fresh parameters of the heads as {"heads": ...}, or {} without heads."""
        heads = {name: head.init(jax.random.fold_in(key, i)) for i, (name, head) in enumerate(self.heads.items())}
        return {"heads": heads} if heads else {}

    def __call__(self, params: Params, image01: Float[Array, "B H W 3"], draws: Draws | None = None) -> Reconstructed:
        """Send pictures in [0, 1] through the codec, with one step from t = 0 without noise.

        Args:
            params: Parameters of the model.
            image01: The pictures.
            draws: Randomness of the bottleneck; without it the bottleneck quantises as outside of training, at the best
                quality.
        """
        model: CoD = self.functional.bind(params)
        latents = model.codec.encode(image01)
        if draws is None:
            draws = Draws(jnp.full(image01.shape[:1], model.codec.num_levels - 1, jnp.int32))
        quantized = model.codec.quantize(latents, level=draws.level, noise=draws.noise)
        condition = model.codec.decode(quantized.values)
        noise, t = jnp.zeros(image01.shape, jnp.float32), jnp.zeros(image01.shape[:1], jnp.float32)
        features_after = self.config.alignment_block if "feature_alignment" in self.weights else None
        image, features = model.denoise(noise, t, condition, features_after=features_after)
        # From zero noise at t = 0 the velocity is the image.
        return Reconstructed(image, latents, quantized, draws, features)

    def terms(
        self, params: Params, frozen: Params, image01: Float[Array, "B H W 3"], reconstructed: Reconstructed
    ) -> dict[str, Float[Array, ""]]:
        """Return the unweighted terms for pictures in [0, 1].

        Args:
            params: Parameters, with those of the heads as "heads".
            frozen: Parameters of the frozen networks.
            image01: The pictures.
            reconstructed: Their reconstructions.
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
        """Return the unweighted terms, given DINOv2's tokens of the pictures if they are needed."""
        image, other = unit_to_signed(image01), reconstructed.image
        keep = jnp.ones(image01.shape[:1], bool)
        importance = self.bottleneck.importance(reconstructed.draws)

        def mean(per_image: Float[Array, " B"]) -> Float[Array, ""]:
            return jnp.mean(importance * per_image)

        terms = {
            "l1": mean(jnp.mean(jnp.abs(other - image), axis=(1, 2, 3))),
            "squared_error": mean(squared_error_per_image(other, image)),
            **self.bottleneck.terms(params, reconstructed.quantized, reconstructed.draws, keep, reconstructed.latents),
            **{loss.NAME: mean(loss(other, image)) for loss in self.losses},
        }
        for name in ("lpips_vgg", "lpips_alex"):
            if name in self.weights:
                terms[name] = mean(self.frozen[name].bind(frozen[name]).distance(other, image))
        if "structural" in self.weights:
            terms["structural"] = mean(structural_distance_per_image(other, image))
        if "ms_ssim" in self.weights:
            terms["ms_ssim"] = mean(1 - jnp.asarray(ms_ssim_per_image(other, image)))
        if tokens is not None and reconstructed.features is not None:
            head = self.heads["feature_alignment"].bind(params["heads"]["feature_alignment"])
            terms["feature_alignment"] = mean(cosine_distance_per_image(head(reconstructed.features), tokens))
        return {name: term for name, term in terms.items() if name in self.weights}
