"""Low-rank adaptation (Hu et al. 2021) of a parameter tree: W + (alpha / rank) A B."""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cod_jax.models.functional import Params, flatten_params

# For each kernel by flat name, "a" [..., in, rank] and "b" [..., rank, out].
Lora = dict[str, dict[str, Any]]

# The first axis of stacked blocks counts the layers.
_STACKED = "/block/"


def adapted_names(shapes: Params, exclude: Sequence[str]) -> list[str]:
    """Return the flat names of the kernels to adapt: all linear maps, with 1x1 convolutions and patch embeddings.

    Args:
        shapes: Parameters or their shapes, nested.
        exclude: Wildcard patterns of flat names to leave out.
    """
    names = []
    for name, leaf in flatten_params(shapes).items():
        is_linear = name.endswith(("/kernel", "/qkv")) and len(leaf.shape) - (_STACKED in name) in _AXES_OF[_leaf(name)]
        if is_linear and not any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude):
            names.append(name)
    return names


def init_lora(key: jax.Array, shapes: Params, names: Sequence[str], rank: int) -> Lora:
    """Return fresh adaptations, with "a" [..., in, rank] uniform in +-1/sqrt(in) and "b" [..., rank, out] zero.

    Args:
        key: Randomness of "a".
        shapes: Parameters or their shapes, nested.
        names: Flat names of the kernels, see `adapted_names`.
        rank: Rank of every adaptation.
    """
    flat = flatten_params(shapes)
    lora: Lora = {}
    for name, one in zip(names, jax.random.split(key, len(names)), strict=True):
        layers, num_in, num_out = _matrix_shape(name, flat[name].shape)
        a = jax.random.uniform(one, (*layers, num_in, rank), jnp.float32, -1.0, 1.0) / math.sqrt(num_in)
        lora[name] = {"a": a, "b": jnp.zeros((*layers, rank, num_out), jnp.float32)}
    return lora


def lora_axes(axes: Params, lora: Lora) -> Lora:
    """Return the logical axis names of the adaptations, whose inputs and outputs have the kernel's names."""
    flat = flatten_params(axes)
    return {
        name: {
            "a": (*flat[name][: part["a"].ndim - 1], "latent"),
            "b": (*flat[name][: part["a"].ndim - 2], "latent", flat[name][-1]),
        }
        for name, part in lora.items()
    }


def merge(base: Params, lora: Lora, scale: float) -> Params:
    """Return the parameters with the adaptations added.

    Args:
        base: Nested parameters.
        lora: Adaptations by flat name, see `init_lora`.
        scale: Alpha / rank.
    """
    merged = base
    for name, part in lora.items():
        # The products are small, so full precision costs little time.
        delta = scale * jnp.matmul(part["a"], part["b"], precision=jax.lax.Precision.HIGHEST)
        merged = _with(merged, name.split("/"), delta)
    return merged


def _with(tree: Params, path: Sequence[str], delta: jax.Array) -> Params:
    """Add to one leaf of a tree; lists of modules have integer keys."""
    key = next(key for key in tree if str(key) == path[0])
    if len(path) == 1:
        return {**tree, key: tree[key] + delta.reshape(tree[key].shape)}
    return {**tree, key: _with(tree[key], path[1:], delta)}


# Number of axes of a linear map's kernel, not counting that of the layers.
_AXES_OF = {"kernel": (2,), "qkv": (3,)}


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]


def _matrix_shape(name: str, shape: Sequence[int]) -> tuple[tuple[int, ...], int, int]:
    """Return layers, inputs and outputs of a kernel; all axes after the inputs count as outputs."""
    layers = tuple(shape[:1]) if _STACKED in name else ()
    rest = shape[len(layers) :]
    return layers, rest[0], math.prod(rest[1:])
