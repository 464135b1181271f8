"""Solvers of the probability-flow ODE from noise to image, as one compiled loop; see docs/method.md, Sampling."""

# jax.numpy and numpy.polynomial are typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.polynomial import polynomial

from cod_jax.diffusion.flow import guide, shift_time
from cod_jax.errors import UserError

Method = Literal["euler", "adams"]
VelocityFunction = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# State and velocities.
_Carry = tuple[jax.Array, jax.Array]

# Settings that every codec has.
ORDER, LAST_STEP = 2, 0.04
GUIDANCE_INTERVAL = (0.1, 1.0)


class SamplerPath(NamedTuple):
    """The path of a sampler from noise to image.

    Attributes:
        timesteps: From 0 to 1 [N + 1].
        states: x_t at each of them; the first is the noise, the last the result [N + 1, B, ...].
        estimates: x_t + (1 - t) v at the beginning of each step, the end of a straight path from there [N, B, ...].
    """

    timesteps: jax.Array
    states: jax.Array
    estimates: jax.Array


class PathSteps(NamedTuple):
    """Settings of each of the S steps of a sampler, as arrays of NumPy or traced ones.

    Attributes:
        timesteps: Timestep at its beginning [S].
        lengths: What it adds to the timestep [S].
        is_guided: Whether guidance applies to it [S].
        weights: Weights of the last velocities, oldest first [S, order].
    """

    timesteps: Float[Array | np.ndarray, " S"]
    lengths: Float[Array | np.ndarray, " S"]
    is_guided: Bool[Array | np.ndarray, " S"]
    weights: Float[Array | np.ndarray, "S order"]


def sampling_timesteps(
    num_steps: int, *, last_step: float | None = LAST_STEP, time_shift: float = 1.0
) -> Float[np.ndarray, " N"]:
    """Return the num_steps + 1 timesteps of a sampler: linspace(0, 1 - last_step, num_steps), then 1, shifted.

    Args:
        num_steps: Evaluations of the network, at least 1. With 1 the path is a single step from 0 to 1.
        last_step: Length of the last step before shifting; None is 1 / num_steps.
        time_shift: See `flow.shift_time`.

    Raises:
        UserError: num_steps is below 1, last_step is outside (0, 1], or time_shift is not positive.
    """
    if num_steps < 1:
        raise UserError(f"expected num_steps to be at least 1, got {num_steps}")
    if last_step is None or num_steps == 1:
        last_step = 1.0 / num_steps
    if not 0 < last_step <= 1:
        raise UserError(f"expected last_step above 0 and at most 1, got {last_step}")
    if time_shift <= 0:
        raise UserError(f"expected a positive time_shift, got {time_shift}")
    grid = np.append(np.linspace(0.0, 1.0 - last_step, num_steps), 1.0)
    return shift_time(grid, time_shift).astype(np.float32)


def adams_bashforth_coefficients(timesteps: Float[np.ndarray, " N"], order: int) -> Float[np.ndarray, "S order"]:
    """Return the weights of the last `order` velocities for each step on an uneven grid, oldest first.

    Each weight is the integral of the Lagrange basis polynomial over the step. The weights of a step are divided by
    their sum. While fewer velocities are known, the order is lower and the weights on the left are zero.
    """
    timesteps = np.asarray(timesteps, np.float64)
    coefficients = np.zeros((len(timesteps) - 1, order))
    for step in range(len(timesteps) - 1):
        nodes = timesteps[max(0, step - order + 1) : step + 1]
        integrals = []
        for index, node in enumerate(nodes):
            others = np.delete(nodes, index)
            basis = polynomial.polyfromroots(others) / np.prod(node - others)
            start, end = polynomial.polyval(timesteps[step : step + 2], polynomial.polyint(basis))
            integrals.append(end - start)
        coefficients[step, order - len(nodes) :] = np.asarray(integrals) / np.sum(integrals)
    return coefficients.astype(np.float32)


def path_steps(
    timesteps: Float[np.ndarray, " N"],
    *,
    order: int = ORDER,
    guidance_interval: tuple[float, float] = GUIDANCE_INTERVAL,
) -> PathSteps:
    """Return the steps of a sampler between timesteps, for `follow`.

    Args:
        timesteps: From the first, such as 0, to 1.
        order: Velocities that an Adams step combines; 1 makes Euler steps.
        guidance_interval: Open interval of t where guidance applies.
    """
    low, high = guidance_interval
    starts = timesteps[:-1]
    inside = (starts > low) & (starts < high)
    return PathSteps(starts, np.diff(timesteps), inside, adams_bashforth_coefficients(timesteps, order))


def follow(
    velocity: VelocityFunction,
    x_t: Float[Array, "B ..."],
    condition: Float[Array, "B ..."],
    unconditional: Float[Array, "B ..."] | None,
    steps: PathSteps,
    *,
    guidance_scale: float | jax.Array = 1.0,
) -> Float[Array, "B ..."]:
    """Carry a state along the velocity field over some steps, in float32; arguments as those of `sample`.

    Raises:
        UserError: Guidance lacks a null condition.
    """
    step, start, inputs = _solver(velocity, x_t, condition, unconditional, steps, guidance_scale)
    return jax.lax.scan(lambda carry, of_step: (step(carry, of_step)[0], None), start, inputs)[0][0]


def sample(
    velocity: VelocityFunction,
    noise: Float[Array, "B ..."],
    condition: Float[Array, "B ..."],
    unconditional: Float[Array, "B ..."] | None = None,
    *,
    num_steps: int = 25,
    method: Method = "euler",
    order: int = ORDER,
    guidance_scale: float | jax.Array = 1.0,
    guidance_interval: tuple[float, float] = GUIDANCE_INTERVAL,
    last_step: float | None = LAST_STEP,
    time_shift: float = 1.0,
) -> Float[Array, "B ..."]:
    """Carry noise along the velocity field from t = 0 to t = 1, in float32.

    With classifier-free guidance the velocity is that of `flow.guide` strictly inside the interval, and the
    conditional one outside. Jit-compatible: the steps are one scan, and the guidance scale may be a traced number.

    Args:
        velocity: Function of (x_t, t [B], condition) that returns the velocity.
        noise: Start of the path, standard normal [B, ...].
        condition: Conditions of the batch.
        unconditional: Null conditions of the batch; needed unless guidance_scale is the number 1, which evaluates the
            conditional velocity alone.
        num_steps: Evaluations of the network.
        method: "euler", or "adams" (Adams-Bashforth on the uneven grid).
        order: Velocities that an Adams step combines.
        guidance_scale: Scale of `flow.guide`.
        guidance_interval: Open interval of t where guidance applies.
        last_step: See `sampling_timesteps`.
        time_shift: See `sampling_timesteps`.

    Raises:
        UserError: An argument is outside its range, or guidance lacks a null condition.
    """
    if order < 1:
        raise UserError(f"expected order to be at least 1, got {order}")
    steps = path_steps(
        sampling_timesteps(num_steps, last_step=last_step, time_shift=time_shift),
        order=1 if method == "euler" else order,
        guidance_interval=guidance_interval,
    )
    return follow(velocity, noise, condition, unconditional, steps, guidance_scale=guidance_scale)


def sample_path(
    velocity: VelocityFunction,
    noise: Float[Array, "B ..."],
    condition: Float[Array, "B ..."],
    unconditional: Float[Array, "B ..."] | None = None,
    *,
    num_steps: int = 25,
    method: Method = "euler",
    guidance_scale: float | jax.Array = 1.0,
) -> SamplerPath:
    """Return the path that `sample` takes, whose memory grows with the steps; arguments are those of `sample`.

    Raises:
        UserError: As `sample` does.
    """
    timesteps = sampling_timesteps(num_steps)
    steps = path_steps(timesteps, order=1 if method == "euler" else ORDER)
    step, start, inputs = _solver(velocity, noise, condition, unconditional, steps, guidance_scale)
    _, (states, estimates) = jax.lax.scan(step, start, inputs)
    return SamplerPath(jnp.asarray(timesteps), jnp.concatenate([start[0][None], states]), estimates)


def _solver(
    velocity: VelocityFunction,
    noise: jax.Array,
    condition: jax.Array,
    unconditional: jax.Array | None,
    steps: PathSteps,
    guidance_scale: float | jax.Array,
) -> tuple[Callable[[_Carry, PathSteps], tuple[_Carry, tuple[jax.Array, jax.Array]]], _Carry, PathSteps]:
    """Return the three arguments of a scan over the steps; each gives the state after it and the estimate before it.

    The carry is the state and the last `order` velocities.
    """
    guided = isinstance(guidance_scale, jax.Array) or guidance_scale != 1.0
    if guided and unconditional is None:
        raise UserError(f"guidance_scale is {guidance_scale}, which needs an unconditional condition; pass one")

    batch = noise.shape[0]
    both = jnp.concatenate([unconditional, condition]) if guided and unconditional is not None else condition

    def evaluate(x: jax.Array, t: jax.Array, scale: jax.Array) -> jax.Array:
        if not guided:
            return velocity(x, jnp.full((batch,), t), both).astype(jnp.float32)
        v = velocity(jnp.concatenate([x, x]), jnp.full((2 * batch,), t), both).astype(jnp.float32)
        return guide(v[:batch], v[batch:], scale)

    def step(carry: _Carry, inputs: PathSteps) -> tuple[_Carry, tuple[jax.Array, jax.Array]]:
        x, history = carry
        t, length, is_guided, weights = map(jnp.asarray, inputs)
        scale = jnp.where(is_guided, guidance_scale, 1.0).astype(jnp.float32)
        history = jnp.concatenate([history[1:], evaluate(x, t, scale)[None]])
        after = x + length * jnp.tensordot(weights, history, axes=1)
        return (after, history), (after, x + (1 - t) * history[-1])

    x = noise.astype(jnp.float32)
    start = (x, jnp.zeros((steps.weights.shape[1], *x.shape), jnp.float32))
    return step, start, PathSteps(*map(jnp.asarray, steps))
