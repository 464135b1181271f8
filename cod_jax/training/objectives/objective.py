"""Interface between the trainer and objectives."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from cod_jax.models import CoD
from cod_jax.models.bottlenecks import BottleneckTraining
from cod_jax.models.compute import ComputeConfig
from cod_jax.models.config import ModelConfig
from cod_jax.models.fields import Part
from cod_jax.models.functional import Functional, Params
from cod_jax.models.space import Space
from cod_jax.training.objectives.bottleneck_side import BottleneckSide
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.loss_output import Buffers, LossOutput
from cod_jax.training.optimizer import AdamWConfig, OptimizerConfig

_BOTTLENECK = "model/codec/bottleneck/"


class Update(NamedTuple):
    """One kind of step.

    Attributes:
        name: Name for logs, such as "student".
        trains: Names of the parameters that change, as `flatten_params` gives them.
        loss: Function of parameters, buffers, parameters of the frozen networks, images uint8 [B, H, W, 3] and draws.
        optimizer: Settings of its optimizer.
        settings: Dotted name of these settings, for messages.
    """

    name: str
    trains: tuple[str, ...]
    loss: Callable[[Params, Buffers, Params, jax.Array, Any], tuple[jax.Array, LossOutput]]
    optimizer: OptimizerConfig
    settings: str = "optimizer"


class ObjectiveConfig(Part):
    """Settings of an objective; subclasses are frozen dataclasses.

    Attributes:
        kind: Name of this objective.
        bottleneck: Training settings of the bottleneck.
        teacher: Model folder or run folder of a model that the objective learns from; "" without a teacher.
        freeze: Patterns of the model's parameters that stay as they are; () if all may train.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "pretrain": "cod_jax.training.objectives.pretrain:PretrainConfig",
        "one_step": "cod_jax.training.objectives.one_step:OneStepConfig",
        "distill": "cod_jax.training.objectives.distill:DistillConfig",
    }
    bottleneck: BottleneckTraining
    teacher: str = ""
    freeze: tuple[str, ...] = ()

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the frozen networks that come from weight files."""
        return ()

    @property
    def starts_from_model(self) -> bool:
        """Whether a run has to start from a trained model."""
        return False

    @property
    def trains_one_step(self) -> bool:
        """Whether models learn to decode in one step, which is how an export decodes then."""
        return True

    @property
    def can_guide(self) -> bool:
        """Whether models have learned pictures without a condition, from which guidance leads away."""
        return True

    def build(self, context: "ObjectiveContext") -> "Objective":
        """Return the objective.

        Raises:
            UserError: The settings do not fit the model, the images or the teacher.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")


@dataclasses.dataclass(frozen=True)
class ObjectiveContext:
    """Other settings of a run that an objective depends on.

    Attributes:
        model: Description of the trained model.
        compute: Settings of its computation.
        optimizer: Optimizer of the model.
        networks: Descriptions of the frozen networks.
        image_size: Side of the training images in pixels; None if it is unknown.
    """

    model: ModelConfig
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=AdamWConfig)
    networks: FrozenNetworks = dataclasses.field(default_factory=FrozenNetworks)
    image_size: int | None = None


class Objective:
    """A way to train a model; subclasses set the attributes and compute the losses.

    Attributes:
        model_config: Description of the trained model.
        functional: The model as a pure function of its parameters.
        space: Map between images and the values that the model denoises.
        bottleneck: Part of the objective that concerns the bottleneck.
        axes: Logical axis names of every parameter, nested as the parameters: {"model": ..., "heads": ..., ...}.
        averaged: Parts of the parameters that have a moving average.
        buffer_axes: Logical axis names of the buffers.
        frozen: Required frozen networks by name. The methods' argument `frozen` holds their parameters by the same
            names.
        frozen_configs: Descriptions, as JSON values, of the frozen networks whose structure can vary.
        updates: Kinds of steps, which take turns as `schedule` says.
        schedule: Number of the update of each step; step n uses `schedule[n % len(schedule)]`.
        samples: Whether the model is trained to make pictures in more than one step.
        time_shift: Shift of the timesteps in training.
    """

    model_config: ModelConfig
    functional: Functional[CoD]
    space: Space
    bottleneck: BottleneckSide
    axes: Params
    averaged: tuple[str, ...]
    buffer_axes: Buffers
    frozen: dict[str, Functional[Any]]
    frozen_configs: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    updates: tuple[Update, ...]
    schedule: tuple[int, ...] = (0,)
    samples: bool = False
    time_shift: float = 1.0

    def init_params(self, key: jax.Array) -> Params:
        """Return fresh parameters, float32."""
        raise NotImplementedError(f"{type(self).__name__} must define init_params")

    def init_buffers(self, params: Params, key: jax.Array) -> Buffers:
        """Return the buffers that go with fresh parameters; by default those of the bottleneck."""
        return self.bottleneck.init_buffers()

    def carried_buffers(self, buffers: Buffers) -> Mapping[str, np.ndarray]:
        """Return the buffers that replace fresh ones if the bottleneck comes from a trained model."""
        return self.bottleneck.carried_buffers(buffers)

    def parts_from(self, frozen: Mapping[str, Params]) -> Params:
        """Return the parts of the parameters, float32, that start from frozen networks; by default none."""
        return {}

    def exported(self, params: Params) -> Params:
        """Return the model's parameters as an export stores them."""
        return params["model"]

    def draw(self, key: jax.Array, image_shape: tuple[int, ...]) -> Any:
        """Return all randomness of a step on images [B, H, W, 3], as arrays with one entry per image."""
        return self.bottleneck.draw(key, image_shape)

    def tend(
        self, params: Params, ema: Params, buffers: Buffers, output: LossOutput, step: jax.Array
    ) -> tuple[Params, Params, Buffers]:
        """Return parameters, average and buffers after the upkeep that follows an optimizer step.

        A bottleneck that is frozen stays as it is.
        """
        if not any(name.startswith(_BOTTLENECK) for update in self.updates for name in update.trains):
            return params, ema, buffers
        return self.bottleneck.tend(params, ema, buffers, output, step)

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> Mapping[str, Float[Array, ""]]:
        """Return the losses of a held-out image as "loss/..."; "loss", if present, ranks checkpoints."""
        raise NotImplementedError(f"{type(self).__name__} must define validation_losses")
