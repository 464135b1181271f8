"""AdamW, its learning-rate schedule and the moving average of the parameters (spec section 3)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from cod_jax.errors import UserError

Schedule = Literal["constant", "cosine", "tenth"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; the defaults are the published first stage.

    Warm-up and schedule count the steps of the run: where updates take turns, those of the others too.

    Attributes:
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

    learning_rate: float = 1e-4
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    gradient_clip: float = 0.0

    def __post_init__(self):
        for name in ("learning_rate", "warmup_steps", "weight_decay", "gradient_clip"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        if self.eps <= 0:
            raise UserError(f"eps is {self.eps}; it must be positive")


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
        if not 0 <= self.decay < 1:
            raise UserError(f"decay is {self.decay}; it must be in [0, 1)")

    def decay_at(self, step: jax.Array) -> jax.Array:
        """Decay at a step counted from 0."""
        if not self.warmup:
            return jnp.float32(self.decay)
        step = step.astype(jnp.float32)
        return jnp.minimum(self.decay, (1 + step) / (10 + step))


def build_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate at a step counted from 0."""
    if config.schedule == "cosine":
        decay_steps = max(total_steps - config.warmup_steps, 1)
        main = optax.cosine_decay_schedule(config.learning_rate, decay_steps, alpha=0.01)
    elif config.schedule == "tenth":
        drop = max(total_steps // 2 - config.warmup_steps, 1)
        main = optax.piecewise_constant_schedule(config.learning_rate, {drop: 0.1})
    else:
        main = optax.constant_schedule(config.learning_rate)
    if config.warmup_steps == 0:
        return main
    # The first step already moves: a rate of exactly zero would be a step lost.
    rise = optax.linear_schedule(config.learning_rate / config.warmup_steps, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([rise, main], [config.warmup_steps])


def build_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW's direction without the learning rate, which the step applies."""
    # Parts that are off keep their place, so that a run can be resumed with them on.
    return optax.chain(
        optax.clip_by_global_norm(config.gradient_clip) if config.gradient_clip > 0 else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay) if config.weight_decay > 0 else optax.identity(),
    )
