"""Optimizers, their learning-rate schedules, and the moving average of the parameters."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

from cod_jax.models.fields import Part, require, require_at_least

Schedule = Literal["constant", "cosine", "tenth"]


class OptimizerConfig(Part):
    """Settings of an optimizer; a subclass is a frozen dataclass.

    Attributes:
        kind: Which optimizer this is.
        learning_rate: Peak learning rate.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {"adamw": "cod_jax.training.optimizer:AdamWConfig"}
    learning_rate: float

    def build(self) -> optax.GradientTransformation:
        """Return the transformation of gradients into a direction; the step applies the learning rate."""
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def build_schedule(self, total_steps: int) -> optax.Schedule:
        """Return the learning rate at a step of the run, counted from 0; constant unless a subclass says otherwise."""
        return optax.constant_schedule(self.learning_rate)


@dataclasses.dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """AdamW; the defaults are the published first stage.

    Warm-up and schedule count the steps of the run: where updates take turns, those of the other updates too.

    Attributes:
        kind: Which optimizer this is.
        learning_rate: Peak learning rate.
        warmup_steps: Steps of linear rise from zero.
        schedule: "constant", "cosine" down to a hundredth of the peak at the last step, or "tenth", which is a tenth of
            the peak in the second half of the run.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay, times the learning rate.
        gradient_clip: Largest global gradient norm; 0 does not clip.
    """

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    gradient_clip: float = 0.0

    def __post_init__(self):
        require_at_least(self, 0, "learning_rate", "warmup_steps", "weight_decay", "gradient_clip")
        for name in ("b1", "b2"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1), got {getattr(self, name)}")
        require(self.eps > 0, f"eps must be positive, got {self.eps}")

    def build(self) -> optax.GradientTransformation:
        """Return AdamW's direction; see `OptimizerConfig.build`."""
        # Parts that are off keep their place, so that a run can be resumed with them on.
        return optax.chain(
            optax.clip_by_global_norm(self.gradient_clip) if self.gradient_clip > 0 else optax.identity(),
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay) if self.weight_decay > 0 else optax.identity(),
        )

    def build_schedule(self, total_steps: int) -> optax.Schedule:
        """Return the learning rate at a step of the run, counted from 0."""
        if self.schedule == "cosine":
            decay_steps = max(total_steps - self.warmup_steps, 1)
            main = optax.cosine_decay_schedule(self.learning_rate, decay_steps, alpha=0.01)
        elif self.schedule == "tenth":
            drop = max(total_steps // 2 - self.warmup_steps, 1)
            main = optax.piecewise_constant_schedule(self.learning_rate, {drop: 0.1})
        else:
            main = optax.constant_schedule(self.learning_rate)
        if self.warmup_steps == 0:
            return main
        # The first step already moves: a rate of exactly zero would be a step lost.
        rise = optax.linear_schedule(self.learning_rate / self.warmup_steps, self.learning_rate, self.warmup_steps)
        return optax.join_schedules([rise, main], [self.warmup_steps])


@dataclasses.dataclass(frozen=True)
class EmaConfig:
    """Moving average of the parameters.

    Attributes:
        decay: Share of the average that stays at each step.
        warmup: Use min(decay, (1 + n) / (10 + n)) at step n, so that short runs forget their initial weights.
    """

    decay: float = 0.9999
    warmup: bool = False

    def __post_init__(self):
        require(0 <= self.decay < 1, f"decay must be in [0, 1), got {self.decay}")

    def decay_at(self, step: jax.Array) -> jax.Array:
        """Decay at a step counted from 0."""
        if not self.warmup:
            return jnp.float32(self.decay)
        step = step.astype(jnp.float32)
        return jnp.minimum(self.decay, (1 + step) / (10 + step))
