"""What the trainer asks of an objective: parameters, randomness, and updates that each train some of the parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, UInt8

from cod_jax.models.config import ModelConfig
from cod_jax.models.functional import Functional, Params
from cod_jax.models.space import Space

# Arrays that a run carries besides its parameters and that no gradient reaches.
Buffers = dict[str, Any]


class Candidates(NamedTuple):
    """Latents that may replace unused code vectors, and 1 where there is one (0 if no image kept its condition)."""

    values: Float[Array, "K C"]
    valid: Float[Array, " K"]


class LossOutput(NamedTuple):
    """What a loss says besides its value.

    Attributes:
        terms: Unweighted loss terms.
        code_counts: How often each code occurs; None where no codebook is trained or watched.
        candidates: Latents that may replace unused code vectors.
    """

    terms: dict[str, Float[Array, ""]]
    code_counts: Float[Array, " K"] | None = None
    candidates: Candidates | None = None


class Update(NamedTuple):
    """One kind of step.

    Attributes:
        name: What it trains, for people.
        trains: Names of the parameters that change, as `flatten_params` gives them.
        loss: Of parameters, buffers, parameters of the frozen networks, images uint8 [B, H, W, 3] and draws.
    """

    name: str
    trains: tuple[str, ...]
    loss: Callable[[Params, Buffers, Params, jax.Array, Any], tuple[jax.Array, LossOutput]]


@runtime_checkable
class Objective(Protocol):
    """A way to train a model.

    Attributes:
        model_config: What is trained.
        functional: The model as a pure function of its parameters.
        space: What the model denoises.
        axes: Logical axis names of every parameter, like the parameters: {"model": ..., "heads": ..., ...}.
        averaged: The parts of the parameters that have a moving average.
        buffer_axes: Logical axis names of the buffers.
        frozen: The frozen networks that are needed by name. Their parameters by the same names are what the methods
            call `frozen`.
        frozen_configs: What those of them are that can be one thing or another, as JSON values.
        updates: The kinds of steps, which take turns: `schedule[step % len(schedule)]` is the number of a step's
            update.
        schedule: See `updates`.
        samples: Whether the model is trained to make pictures in more than one step.
        time_shift: Shift of the timesteps that it is trained at.
    """

    model_config: ModelConfig
    functional: Functional[Any]
    space: Space
    axes: Params
    averaged: tuple[str, ...]
    buffer_axes: Buffers
    frozen: dict[str, Functional[Any]]
    frozen_configs: Mapping[str, Mapping[str, Any]]
    updates: tuple[Update, ...]
    schedule: tuple[int, ...]
    samples: bool
    time_shift: float

    def init_params(self, key: jax.Array) -> Params:
        """Fresh parameters, float32."""
        ...

    def init_buffers(self, params: Params, key: jax.Array) -> Buffers:
        """The buffers that go with fresh parameters."""
        ...

    def parts_from(self, frozen: Mapping[str, Params]) -> Params:
        """Parts of the parameters that start as those of frozen networks, float32."""
        ...

    def exported(self, params: Params) -> Params:
        """The model's parameters, as they would be exported."""
        ...

    def draw(self, key: jax.Array, image_shape: tuple[int, ...]) -> Any:
        """All randomness of a step on images [B, H, W, 3]: arrays with one entry per image."""
        ...

    def tend(
        self, params: Params, ema: Params, buffers: Buffers, output: LossOutput, step: jax.Array
    ) -> tuple[Params, Params, Buffers]:
        """What happens after the optimizer's step, besides: upkeep of the codebook, and of the buffers."""
        ...

    def validation_losses(
        self, params: Params, frozen: Params, image_uint8: UInt8[Array, "1 H W 3"], key: jax.Array
    ) -> Mapping[str, Float[Array, ""]]:
        """What is measured on a held-out image: "loss" if it ranks checkpoints, and "loss/..."."""
        ...
