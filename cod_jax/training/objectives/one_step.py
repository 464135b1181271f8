"""Training for one step: low-rank adaptation of a pre-trained model, or training of all parameters from scratch.

The adaptation is the first stage of the published one-step codec; see docs/method.md, One-step codec.
"""

import dataclasses
import fnmatch
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from cod_jax.images import uint8_to_unit
from cod_jax.losses.terms import weighted_sum
from cod_jax.models.bottlenecks import BottleneckTraining, CodebookTraining, Draws
from cod_jax.models.fields import require_at_least
from cod_jax.models.functional import Params, flatten_params
from cod_jax.models.lora import adapted_names
from cod_jax.models.space import Space
from cod_jax.training.objectives.adaptation import Adaptation, check_lora, named_layers, without_frozen
from cod_jax.training.objectives.bottleneck_side import BottleneckSide
from cod_jax.training.objectives.loss_output import Buffers, LossOutput
from cod_jax.training.objectives.loss_terms import LossTermConfig
from cod_jax.training.objectives.objective import Objective, ObjectiveConfig, ObjectiveContext, Update
from cod_jax.training.objectives.reconstruction import Reconstruction, ReconstructionConfig

# In the published recipe these parameters train fully. Every other linear map is adapted, and the rest stays.
TRAINED_IN_FULL = ("codec/*", "*/depthwise/*")
# Map from the condition to each pixel, which the published code leaves out by a match of names.
PIXEL_CONDITION = "denoiser/head/condition/*"


@dataclasses.dataclass(frozen=True)
class OneStepConfig(ObjectiveConfig):
    """Settings of training for one step; the defaults are those of the published first stage.

    Attributes:
        kind: Name of this objective.
        reconstruction: Weights of the losses.
        lora_rank: Rank of the adaptations; 0 trains all parameters in full, and may start from scratch.
        lora_alpha: Scale of the adaptations times their rank.
        lora_layers: Patterns of the layers to adapt, see `named_layers`; all other parameters train in full then. ()
            is the published recipe, see `TRAINED_IN_FULL`.
        adapt_pixel_condition: Whether to adapt the linear map from the condition to every pixel, which the published
            code leaves as it is.
        bottleneck: Training settings of the bottleneck.
        freeze: Patterns of the model's parameters that stay as they are, see `without_frozen`.
        losses: Loss terms of other packages.
    """

    kind: Literal["one_step"] = "one_step"
    reconstruction: ReconstructionConfig = dataclasses.field(default_factory=ReconstructionConfig)
    lora_rank: int = 32
    lora_alpha: float = 32.0
    lora_layers: tuple[str, ...] = ()
    adapt_pixel_condition: bool = False
    bottleneck: BottleneckTraining = dataclasses.field(default_factory=CodebookTraining)
    freeze: tuple[str, ...] = ()
    losses: tuple[LossTermConfig, ...] = ()

    def __post_init__(self):
        require_at_least(self, 0, "lora_rank", "lora_alpha")
        if self.lora_layers:
            check_lora(self.lora_rank, self.lora_layers)

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the frozen networks that come from weight files."""
        return self.reconstruction.frozen_names

    @property
    def starts_from_model(self) -> bool:
        """Whether a pre-trained model is adapted."""
        return self.lora_rank > 0

    @property
    def can_guide(self) -> bool:
        """Whether the model was pre-trained with pictures without a condition, as the published recipe has it."""
        return self.starts_from_model and not self.lora_layers

    def build(self, context: ObjectiveContext) -> "OneStep":
        """Return the objective; see `ObjectiveConfig.build`."""
        return OneStep(self, context)


class OneStep(Objective):
    """The objective of training for one step; its attributes are those of `Objective`.

    Its parameters are "model", "lora" and "heads". With adaptations, the condition codec and the depthwise convolutions
    of the model change, and "lora" holds the adaptations of the other linear maps; else the whole model changes.
    `lora_layers` chooses other layers.

    Args:
        config: Settings.
        context: The model, which must work on pixels, and the rest of the run's settings.

    Raises:
        UserError: The settings do not fit the model.
    """

    def __init__(self, config: OneStepConfig, context: ObjectiveContext):
        self.model_config, self.config = context.model, config
        self.bottleneck = BottleneckSide(context.model.codec, config.bottleneck)
        self.reconstruction = Reconstruction(context, config.reconstruction, self.bottleneck, config.losses)
        self.functional = self.reconstruction.functional
        self.space = Space(context.model)
        self.frozen = self.reconstruction.frozen
        self.adaptation = Adaptation(self.functional, self._adapted(), config.lora_rank, config.lora_alpha)
        self.axes = {"model": self.functional.axes, **self.adaptation.axes, **self.reconstruction.head_axes}
        self.averaged = tuple(self.axes)
        self.buffer_axes = self.bottleneck.buffer_axes
        in_full = TRAINED_IN_FULL if config.lora_rank and not config.lora_layers else ("*",)
        trained = [
            name
            for name in self.adaptation.trained(flatten_params(self.axes))
            if not name.startswith("model/")
            or any(fnmatch.fnmatchcase(name.removeprefix("model/"), pattern) for pattern in in_full)
        ]
        self.updates = (Update("model", without_frozen(trained, config.freeze), self.loss, context.optimizer),)

    def _adapted(self) -> list[str]:
        """Return the names of the kernels to adapt."""
        config, shapes = self.config, self.functional.shapes
        if config.lora_layers:
            return named_layers(shapes, config.lora_layers)
        exclude = ("codec/*",) if config.adapt_pixel_condition else ("codec/*", PIXEL_CONDITION)
        return adapted_names(shapes, exclude) if config.lora_rank else []

    def init_params(self, key: jax.Array) -> Params:
        """Return fresh parameters; the adaptations add nothing at first."""
        key_model, key_lora, key_heads = jax.random.split(key, 3)
        return {
            "model": self.functional.init(key_model),
            **self.adaptation.init(key_lora),
            **self.reconstruction.init_heads(key_heads),
        }

    def exported(self, params: Params) -> Params:
        """Return the model's parameters with the adaptations merged in."""
        return self.adaptation.merged(params)

    def loss(
        self, params: Params, buffers: Buffers, frozen: Params, image_uint8: jax.Array, draws: Draws
    ) -> tuple[Float[Array, ""], LossOutput]:
        """Return the weighted sum of the loss terms for images [B, H, W, 3], and the terms."""
        image01 = uint8_to_unit(image_uint8)
        reconstructed = self.reconstruction(self.exported(params), image01, draws)
        terms = self.reconstruction.terms(params, frozen, image01, reconstructed)
        keep = jnp.ones(image01.shape[:1], bool)
        output = self.bottleneck.output(terms, reconstructed.quantized, keep, reconstructed.latents, draws)
        return weighted_sum(terms, self.reconstruction.weights), output

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> dict[str, Float[Array, ""]]:
        """Return the loss and its terms for an image, quantised as outside of training."""
        draws = self.draw(key, image_uint8.shape)._replace(noise=None)
        loss, output = self.loss(params, {}, frozen, image_uint8, draws)
        return {"loss": loss, **{f"loss/{name}": term for name, term in output.terms.items()}}
