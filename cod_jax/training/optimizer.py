"""Optimizers, their learning-rate schedules, and the moving average of the parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cod_jax.models.fields import Part, require, require_at_least

Schedule = Literal["constant", "cosine", "tenth"]
_RUNNING_NORM_DECAY = 0.99
MUON_RMS = 0.2


class OptimizerConfig(Part):
    """Settings of an optimizer; subclasses are frozen dataclasses.

    Attributes:
        kind: Name of this kind of optimizer.
        learning_rate: Peak learning rate.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "adamw": "cod_jax.training.optimizer:AdamWConfig",
        "muon": "cod_jax.training.optimizer:MuonConfig",
    }
    learning_rate: float

    def build(self) -> optax.GradientTransformation:
        """Return the transformation of gradients into a direction, to which the step applies the learning rate."""
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def build_schedule(self, total_steps: int) -> optax.Schedule:
        """Return the learning rate as a function of the step, counted from 0; constant by default."""
        return optax.constant_schedule(self.learning_rate)


@dataclasses.dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """Settings of AdamW; the defaults are those of the published first stage.

    Warm-up and schedule count all steps of the run, also those of other updates if updates take turns.

    Attributes:
        kind: Name of this kind of optimizer.
        learning_rate: Peak learning rate.
        warmup_steps: Number of steps in which the learning rate rises linearly from zero.
        schedule: Learning rate after the warm-up. "constant" keeps the peak. "cosine" falls to a hundredth of it at the
            last step. "tenth" takes a tenth of it in the second half of the run.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Number added to the root of the second moment.
        weight_decay: Decoupled weight decay, times the learning rate.
        gradient_clip: Largest global gradient norm; 0 switches clipping off.
        relative_clip: Largest global gradient norm over its running average; 0 switches this off. It suits losses whose
            gradients are small, or fall during the run.
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
    relative_clip: float = 0.0

    def __post_init__(self):
        require_at_least(self, 0, "learning_rate", "warmup_steps", "weight_decay", "gradient_clip", "relative_clip")
        for name in ("b1", "b2"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1), got {getattr(self, name)}")
        require(self.eps > 0, f"eps must be positive, got {self.eps}")

    def build(self) -> optax.GradientTransformation:
        """Return AdamW's direction; see `OptimizerConfig.build`."""
        # Disabled parts keep their place, so that a run can be resumed with them enabled.
        # The relative clip has none, because it came later.
        return optax.chain(
            *([clip_by_running_norm(self.relative_clip)] if self.relative_clip > 0 else []),
            optax.clip_by_global_norm(self.gradient_clip) if self.gradient_clip > 0 else optax.identity(),
            self.build_direction(),
            optax.add_decayed_weights(self.weight_decay) if self.weight_decay > 0 else optax.identity(),
        )

    def build_direction(self) -> optax.GradientTransformation:
        """Return the transformation of clipped gradients into a direction, before weight decay."""
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def build_schedule(self, total_steps: int) -> optax.Schedule:
        """Return the learning rate as a function of the step, counted from 0."""
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
        # The rise starts above zero, because a step with rate zero would be lost.
        rise = optax.linear_schedule(self.learning_rate / self.warmup_steps, self.learning_rate, self.warmup_steps)
        return optax.join_schedules([rise, main], [self.warmup_steps])


@dataclasses.dataclass(frozen=True)
class MuonConfig(AdamWConfig):
    """Settings of Muon (Jordan 2024) for the matrices of blocks; all other parameters have AdamW's direction.

    Updates of matrices are orthogonalised by Newton-Schulz iterations and have the root mean square `MUON_RMS`, about
    that of AdamW's, so one learning rate serves both (Liu et al. 2025, equation 4).

    Attributes:
        kind: Name of this kind of optimizer.
        momentum: Decay of the average of gradients that is orthogonalised, with Nesterov's step.
    """

    kind: Literal["muon"] = "muon"  # pyright: ignore[reportIncompatibleVariableOverride]
    momentum: float = 0.95

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")

    def build_direction(self) -> optax.GradientTransformation:
        """Return the transformation of clipped gradients into a direction, before weight decay."""

        def dimensions(updates: optax.Updates) -> Any:
            # The first axis counts the blocks.
            return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(1, 2), updates)

        def kind(path: tuple[Any, ...], array: jax.Array) -> str:
            of_block = "/block/" in jax.tree_util.keystr(path, simple=True, separator="/")
            return "matrix" if of_block and array.ndim == 3 else "other"

        def kinds(params: optax.Params) -> Any:
            return jax.tree_util.tree_map_with_path(kind, params)

        muon = optax.chain(
            optax.contrib.scale_by_muon(beta=self.momentum, weight_dimension_numbers=dimensions),
            # An orthogonal matrix [n, m] has the root mean square max(n, m)^-0.5.
            optax.stateless(lambda tree, _: jax.tree.map(lambda x: MUON_RMS * max(x.shape[1:]) ** 0.5 * x, tree)),
        )
        return optax.partition({"matrix": muon, "other": super().build_direction()}, kinds)


class RunningNormState(NamedTuple):
    """State of `clip_by_running_norm`.

    Attributes:
        norm: Running average of the clipped global norm.
        weight: Sum of the average's weights, below 1 in the first steps.
    """

    norm: Float[Array, ""]
    weight: Float[Array, ""]


def clip_by_running_norm(factor: float) -> optax.GradientTransformation:
    """Limit the global norm of the gradients to a multiple of its running average over about 100 steps.

    The average is of clipped norms, so it grows by (factor - 1) % a step at most.
    """

    def init(params: optax.Params) -> RunningNormState:
        return RunningNormState(jnp.zeros(()), jnp.zeros(()))

    def update(
        updates: optax.Updates, state: RunningNormState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, RunningNormState]:
        norm = optax.tree.norm(updates)
        average = state.norm / jnp.maximum(state.weight, 1 - _RUNNING_NORM_DECAY)
        # An average of 0, at first or after gradients of 0, would stop training.
        clipped = jnp.where(average > 0, jnp.minimum(norm, factor * average), norm)
        updates = jax.tree.map(lambda x: x * (clipped / jnp.maximum(norm, 1e-30)), updates)
        decay = _RUNNING_NORM_DECAY
        return updates, RunningNormState(decay * state.norm + (1 - decay) * clipped, decay * state.weight + (1 - decay))

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True)
class EmaConfig:
    """Settings of the parameters' moving average.

    Attributes:
        decay: Share of the average that stays at each step.
        warmup: Whether step n uses min(decay, (1 + n) / (10 + n)), so that short runs forget their initial weights.
    """

    decay: float = 0.9999
    warmup: bool = False

    def __post_init__(self):
        require(0 <= self.decay < 1, f"decay must be in [0, 1), got {self.decay}")

    def decay_at(self, step: jax.Array) -> jax.Array:
        """Return the decay at a step counted from 0."""
        if not self.warmup:
            return jnp.float32(self.decay)
        step = step.astype(jnp.float32)
        return jnp.minimum(self.decay, (1 + step) / (10 + step))
