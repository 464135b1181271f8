"""Upkeep of a codebook in training: how its codes are used, and latents for those that are not."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cod_jax.models.functional import Params
from cod_jax.training.objectives.objective import Buffers, Candidates, LossOutput

# Steps over which the running share of each code is averaged, roughly.
USAGE_DECAY = 0.99


def code_counts(
    indices: Int[Array, "B h w"], keep: Bool[Array, " B"], codebook_size: int
) -> Float[Array, " codebook_size"]:
    """How often each code occurs in the images that kept their condition."""
    weights = jnp.broadcast_to(keep[:, None, None], indices.shape).astype(jnp.float32)
    return jnp.zeros((codebook_size,), jnp.float32).at[indices.reshape(-1)].add(weights.reshape(-1))


def candidates(
    z: Float[Array, "B h w C"], keep: Bool[Array, " B"], order: Float[Array, "B h w"], codebook_size: int
) -> Candidates:
    """Latents of kept images in random order, as many as there are codes: they replace unused code vectors.

    Args:
        z: Latents.
        keep: Images that kept their condition.
        order: Uniform random numbers.
        codebook_size: Number of codes.
    """
    # Positions of dropped images come last and are not reached.
    order = jnp.where(keep[:, None, None], order, 2.0).reshape(-1)
    num_kept = jnp.maximum(jnp.sum(keep) * (order.size // keep.size), 1)
    chosen = jnp.argsort(order)[jnp.arange(codebook_size) % num_kept]
    values = jax.lax.stop_gradient(z).astype(jnp.float32).reshape(-1, z.shape[-1])[chosen]
    return Candidates(values, jnp.broadcast_to(jnp.any(keep), (codebook_size,)).astype(jnp.float32))


def usage_metrics(counts: Float[Array, " K"]) -> dict[str, jax.Array]:
    """Codebook usage in [0, 1] and perplexity of the batch, from its code counts."""
    shares = counts / jnp.maximum(jnp.sum(counts), 1.0)
    entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.maximum(shares, 1e-12)), 0.0))
    return {"codebook/usage": jnp.mean((shares > 0).astype(jnp.float32)), "codebook/perplexity": jnp.exp(entropy)}


def tend_codebook(
    params: Params, ema: Params, buffers: Buffers, output: LossOutput, step: jax.Array, *, every: int, threshold: float
) -> tuple[Params, Params, Buffers]:
    """Track how often codes are used and, when due, put latents of the batch in the place of unused ones.

    Args:
        params: Parameters, with the codebook among them.
        ema: Their moving average.
        buffers: Arrays besides, with the running share of each code as "codebook_usage".
        output: With code counts; without candidates no code is replaced.
        step: Step counted from 0.
        every: Steps between replacements.
        threshold: A code is unused when its running share is below this over the codebook's size.

    Returns:
        Parameters, average and buffers after this step.
    """
    if output.code_counts is None:
        return params, ema, buffers
    usage = buffers["codebook_usage"]
    shares = output.code_counts / jnp.maximum(jnp.sum(output.code_counts), 1.0)
    never_used = usage == 0
    usage = USAGE_DECAY * usage + (1 - USAGE_DECAY) * shares
    if output.candidates is None:
        return params, ema, {**buffers, "codebook_usage": usage}
    size = usage.shape[0]
    due = step % every == 0
    # A fresh codebook has never been used before its first step, and so starts from data.
    unused = (usage < threshold / size) | never_used
    replace = due & unused & (output.candidates.valid > 0)
    values = output.candidates.values
    params = with_codebook(params, jnp.where(replace[:, None], values, codebook_of(params)))
    ema = with_codebook(ema, jnp.where(replace[:, None], values, codebook_of(ema)))
    return params, ema, {**buffers, "codebook_usage": jnp.where(replace, 1.0 / size, usage)}


def codebook_of(params: Params) -> jax.Array:
    """The codebook among the parameters."""
    return params["model"]["codec"]["bottleneck"]["codebook"]


def with_codebook(params: Params, codebook: jax.Array) -> Params:
    """The parameters with another codebook."""
    codec = params["model"]["codec"]
    codec = {**codec, "bottleneck": {**codec["bottleneck"], "codebook": codebook}}
    return {**params, "model": {**params["model"], "codec": codec}}
