"""Optimizer step as a pure function of state and batch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cod_jax.models.functional import Params, flatten_params
from cod_jax.training.objectives.objective import LossOutput, Objective, Update
from cod_jax.training.optimizer import EmaConfig
from cod_jax.training.state import TrainState, chosen, replaced

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_update(
    objective: Objective,
    update: Update,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    ema: EmaConfig,
    accumulation_steps: int = 1,
    gather: Callable[[Params, Params], tuple[Params, Params]] = lambda params, frozen: (params, frozen),
) -> Callable[[TrainState, Params, Batch], tuple[TrainState, Metrics]]:
    """Return a function that updates a state.

    Its arguments are the state, the frozen networks' parameters, and a batch {"image": uint8 [B, S, S, 3]}. Jit it with
    the state donated.

    A step whose loss or gradients are not finite changes only the counters. The gradients of `accumulation_steps` equal
    parts of the batch are averaged. Randomness is drawn for the whole batch, so the number of parts does not change the
    result. Only the choice of latents that replace unused codes depends on it.

    Args:
        objective: The objective.
        update: One of its updates.
        optimizer: Transformation of this update's gradients, without learning rate.
        learning_rate: Learning rate at a step counted from 0.
        ema: Settings of the parameters' moving average.
        accumulation_steps: Parts of a batch that are computed one after the other.
        gather: Function that prepares the parameters and those of the frozen networks, such as `parallel.gathered`.
    """
    # If updates take turns, each reports its metrics under its name.
    scope = f"{update.name}/" if len(objective.updates) > 1 else ""

    def apply(state: TrainState, gradients: Params, rate: jax.Array, output: LossOutput) -> TrainState:
        before = chosen(state.params, update.trains)
        direction, optimizer_state = optimizer.update(gradients, state.optimizer[update.name], before)
        trained = jax.tree.map(lambda p, d: p - rate * d, before, direction)
        params = replaced(state.params, trained)
        # The average counts only the steps in which it moved, not those of other updates.
        decay = ema.decay_at(state.step // len(objective.schedule))
        averages = flatten_params(state.ema)
        # In this form the average of a constant parameter stays exactly constant.
        moved = {n: averages[n] + (1 - decay) * (trained[n] - averages[n]) for n in update.trains if n in averages}
        params, average, buffers = objective.tend(params, replaced(state.ema, moved), state.buffers, output, state.step)
        optimizers = {**state.optimizer, update.name: optimizer_state}
        return dataclasses.replace(state, params=params, ema=average, optimizer=optimizers, buffers=buffers)

    def step(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss(trained: Params, images: jax.Array, draws: Any) -> tuple[jax.Array, LossOutput]:
            params, fixed = gather(replaced(state.params, trained), frozen)
            return update.loss(params, state.buffers, fixed, images, draws)

        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        images = batch["image"]
        draws = objective.draw(key, images.shape)
        trained = chosen(state.params, update.trains)
        (value, output), gradients = _gradients(loss, trained, images, draws, accumulation_steps)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)

        rate = jnp.asarray(learning_rate(state.step), jnp.float32)
        # A branch compiles in half the time of a selection per array and moves less memory.
        kept = jax.lax.cond(finite, lambda: apply(state, gradients, rate, output), lambda: state)
        skip = jnp.where(finite, 0, 1)
        # Counted per update, because otherwise the successes of other updates would hide one that always fails.
        in_a_row = (state.consecutive_skipped[update.name] + 1) * skip
        new_state = dataclasses.replace(
            kept,
            step=state.step + 1,
            skipped=state.skipped + skip,
            consecutive_skipped={**state.consecutive_skipped, update.name: in_a_row},
        )
        measured = {
            "loss": value,
            **{f"loss/{name}": term for name, term in output.terms.items()},
            "gradient_norm": norm,
            "learning_rate": rate,
        }
        if output.statistics:
            measured |= objective.model_config.codec.bottleneck.metrics(output.statistics)
        metrics = {
            **{f"{scope}{name}": number for name, number in measured.items()},
            "skipped": new_state.skipped.astype(jnp.float32),
            "consecutive_skipped": in_a_row.astype(jnp.float32),
        }
        return new_state, metrics

    return step


def _gradients(
    loss: Callable[..., Any], params: Params, images: jax.Array, draws: Any, accumulation_steps: int
) -> tuple[tuple[jax.Array, LossOutput], Any]:
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    if accumulation_steps == 1:
        return value_and_grad(params, images, draws)

    def part_of(x: jax.Array) -> jax.Array:
        # A part takes every accumulation_steps-th image, so that each device keeps its share of every part.
        return x.reshape(-1, accumulation_steps, *x.shape[1:]).swapaxes(0, 1)

    def body(total: Any, part: tuple[jax.Array, Any]):
        value, gradients = value_and_grad(params, *part)
        return jax.tree.map(jnp.add, total, (value, gradients)), value[1].candidates

    parts = jax.tree.map(part_of, (images, draws))
    first = jax.tree.map(lambda x: x[0], parts)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(value_and_grad, params, *first))
    total, candidates = jax.lax.scan(body, zero, parts)
    (mean, output), gradients = jax.tree.map(lambda x: x / accumulation_steps, total)
    # The mean of two latents is not a latent, so the candidates come from the parts in turn.
    candidates = jax.tree.map(
        lambda x: x[jnp.arange(x.shape[1]) % accumulation_steps, jnp.arange(x.shape[1])], candidates
    )
    return (mean, output._replace(candidates=candidates)), gradients
