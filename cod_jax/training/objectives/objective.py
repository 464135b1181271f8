"""What the trainer asks of an objective: parameters, randomness, and updates that each train some of the parameters."""

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


class Update(NamedTuple):
    """One kind of step.

    Attributes:
        name: What it trains, for people.
        trains: Names of the parameters that change, as `flatten_params` gives them.
        loss: Of parameters, buffers, parameters of the frozen networks, images uint8 [B, H, W, 3] and draws.
        optimizer: Settings of its optimizer.
        settings: Dotted name of these settings, for messages.
    """

    name: str
    trains: tuple[str, ...]
    loss: Callable[[Params, Buffers, Params, jax.Array, Any], tuple[jax.Array, LossOutput]]
    optimizer: OptimizerConfig
    settings: str = "optimizer"


class ObjectiveConfig(Part):
    """Settings of an objective; a subclass is a frozen dataclass.

    Attributes:
        kind: Which objective this is.
        bottleneck: How the bottleneck is trained.
        teacher: Model folder or work folder of a model that the objective learns from; "" where there is none.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "pretrain": "cod_jax.training.objectives.pretrain:PretrainConfig",
        "one_step": "cod_jax.training.objectives.one_step:OneStepConfig",
        "distill": "cod_jax.training.objectives.distill:DistillConfig",
    }
    bottleneck: BottleneckTraining
    teacher: str = ""

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Frozen networks that come from weight files."""
        return ()

    @property
    def starts_from_model(self) -> bool:
        """Whether a run has to start from a trained model."""
        return False

    def build(self, context: "ObjectiveContext") -> "Objective":
        """Return the objective.

        Raises:
            UserError: The settings do not fit the model, the images or the teacher.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build")


@dataclasses.dataclass(frozen=True)
class ObjectiveContext:
    """The rest of a run's settings that an objective depends on.

    Attributes:
        model: What is trained.
        compute: How it is computed.
        optimizer: Optimizer of the model.
        networks: What the frozen networks are.
        image_size: Side of the training images in pixels; None where it is not known.
    """

    model: ModelConfig
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=AdamWConfig)
    networks: FrozenNetworks = dataclasses.field(default_factory=FrozenNetworks)
    image_size: int | None = None


class Objective:
    """A way to train a model; a subclass sets the attributes and says how losses are computed.

    Attributes:
        model_config: What is trained.
        functional: The model as a pure function of its parameters.
        space: What the model denoises.
        bottleneck: The bottleneck's share of the objective.
        axes: Logical axis names of every parameter, like the parameters: {"model": ..., "heads": ..., ...}.
        averaged: The parts of the parameters that have a moving average.
        buffer_axes: Logical axis names of the buffers.
        frozen: The frozen networks that are needed by name. Their parameters by the same names are what the methods
            call `frozen`.
        frozen_configs: Descriptions, as JSON values, of those of them that can be one thing or another.
        updates: The kinds of steps, which take turns: `schedule[step % len(schedule)]` is the number of a step's
            update.
        schedule: See `updates`.
        samples: Whether the model is trained to make pictures in more than one step.
        time_shift: Shift of the timesteps that it is trained at.
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
        raise NotImplementedError

    def init_buffers(self, params: Params, key: jax.Array) -> Buffers:
        """Return the buffers that go with fresh parameters: by default the bottleneck's."""
        return self.bottleneck.init_buffers()

    def carried_buffers(self, buffers: Buffers) -> Mapping[str, np.ndarray]:
        """Return what replaces fresh buffers where the model's bottleneck comes from a trained model."""
        return self.bottleneck.carried_buffers(buffers)

    def parts_from(self, frozen: Mapping[str, Params]) -> Params:
        """Return the parts of the parameters that start as those of frozen networks, float32; by default none."""
        return {}

    def exported(self, params: Params) -> Params:
        """Return the model's parameters, as they would be exported."""
        return params["model"]

    def draw(self, key: jax.Array, image_shape: tuple[int, ...]) -> Any:
        """Return all randomness of a step on images [B, H, W, 3]: arrays with one entry per image."""
        return self.bottleneck.draw(key, image_shape)

    def tend(
        self, params: Params, ema: Params, buffers: Buffers, output: LossOutput, step: jax.Array
    ) -> tuple[Params, Params, Buffers]:
        """Return parameters, average and buffers after their upkeep, which follows the optimizer's step."""
        return self.bottleneck.tend(params, ema, buffers, output, step)

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> Mapping[str, Float[Array, ""]]:
        """Return what is measured on a held-out image: "loss" if it ranks checkpoints, and "loss/..."."""
        raise NotImplementedError
