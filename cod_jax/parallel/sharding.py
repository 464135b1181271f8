"""Shardings from logical axis names: a parameter names its axes, and a table maps names to mesh axes."""

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from cod_jax.errors import UserError

# Logical axis name -> mesh axis, None (not split), or alternatives, of which the first that fits is taken.
Rules = Mapping[str, str | Sequence[str | None] | None]

# Logical axis along which equal blocks are stacked.
LAYERS = "layers"
_gathering: ContextVar[tuple[Rules, Mesh | AbstractMesh] | None] = ContextVar("gathering", default=None)


def spec(
    name: str, shape: Sequence[int], axes: Sequence[str], rules: Rules, mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """Find the mesh axis of each dimension of an array.

    Args:
        name: Name of the array, for messages.
        shape: Its shape.
        axes: Logical name of each dimension.
        rules: Mesh axis, None, or alternatives such as ("fsdp", None), for each logical name. An alternative fits when
            no dimension on its left has the same mesh axis and its size is a multiple of the mesh axis.
        mesh: The device mesh.

    Raises:
        UserError: The number of axes is wrong, or a name has no rule that fits. A rule does not fit if its mesh axis
            does not exist, splits another dimension already, or does not divide the size.
    """
    if len(axes) != len(shape):
        raise UserError(f"{name}: expected an axis name for each dimension of {tuple(shape)}, got {tuple(axes)}")
    entries: list[str | None] = []
    for size, axis in zip(shape, axes, strict=True):
        if axis not in rules:
            raise UserError(f"{name}: no sharding rule for the axis {axis!r}{_near(axis, rules)}")
        entries.append(_entry(name, size, axis, entries, rules[axis], mesh))
    return PartitionSpec(*entries)


def tree_shardings(shapes: Any, axes: Any, rules: Rules, mesh: Mesh | AbstractMesh) -> Any:
    """Return the shardings of a whole tree of arrays, such as a training state.

    Args:
        shapes: Tree of arrays or `jax.ShapeDtypeStruct`.
        axes: The same tree with a tuple of logical names in place of each array.
        rules: See `spec`.
        mesh: The device mesh.

    Raises:
        UserError: See `spec`; the message names the array.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    named = structure.flatten_up_to(axes)
    return structure.unflatten(
        NamedSharding(mesh, spec(_path_name(path), leaf.shape, names, rules, mesh))
        for (path, leaf), names in zip(leaves, named, strict=True)
    )


def batch_sharding(mesh: Mesh | AbstractMesh, batch_axes: Sequence[str]) -> NamedSharding:
    """Return the sharding that splits the first dimension over these mesh axes together.

    Raises:
        UserError: A mesh axis does not exist.
    """
    for axis in batch_axes:
        if axis not in mesh.shape:
            raise UserError(f"expected sharding.batch to name axes of {', '.join(mesh.axis_names)}, got {axis!r}")
    return NamedSharding(mesh, PartitionSpec(tuple(batch_axes)))


def gathered(params: Any, shardings: Any, axes: Any = None) -> Any:
    """Gather a tree of parameters inside a jitted function, and undo their split over "fsdp".

    Blocks that are stacked along the axis "layers" stay as they are if `axes` is given: `gathering_blocks` gathers them
    one after the other.

    Left to itself, the partitioner may split activations where the batch and a kernel want the same mesh axis. On a
    mesh of 2 x 2 x 2 devices it then computed wrong convolutions (jax 0.10.2, an error of order one behind a strided
    convolution).

    Args:
        params: Parameters.
        shardings: Shardings of the parameters between steps.
        axes: Logical names of their axes; None gathers everything.
    """
    leaves, structure = jax.tree.flatten(shardings)
    names = [()] * len(leaves) if axes is None else structure.flatten_up_to(axes)
    kept = [one if LAYERS in name else _without_fsdp(one) for one, name in zip(leaves, names, strict=True)]
    return jax.lax.with_sharding_constraint(params, structure.unflatten(kept))


@contextlib.contextmanager
def gathering_blocks(rules: Rules, mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Gather stacked blocks one after the other in what is traced inside; see `gather_block`.

    So a device never holds all parameters of the blocks. It holds those of one, and of the next where the compiler
    fetches them ahead.
    """
    token = _gathering.set((rules, mesh))
    try:
        yield
    finally:
        _gathering.reset(token)


def gathers_blocks() -> bool:
    """Return whether blocks are gathered one after the other in what is being traced."""
    return _gathering.get() is not None


def gather_block(x: jax.Array, axes: Sequence[str]) -> jax.Array:
    """Gather a parameter of one block inside the loop over blocks, if `gathering_blocks` says so.

    The gradient is split again at once: each device keeps the sum of its share.

    Args:
        x: The parameter.
        axes: Logical name of each dimension, without "layers".
    """
    if (given := _gathering.get()) is None:
        return x
    rules, mesh = given
    split = NamedSharding(mesh, spec("parameter of a block", x.shape, axes, rules, mesh))
    whole = _without_fsdp(split)
    return x if whole == split else _gather(x, split, whole)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, split: NamedSharding, whole: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(x, split), whole)


def _gather_forward(x: jax.Array, split: NamedSharding, whole: NamedSharding) -> tuple[jax.Array, None]:
    return _gather(x, split, whole), None


def _gather_backward(split: NamedSharding, _whole: NamedSharding, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient, split),)


_gather.defvjp(_gather_forward, _gather_backward)


def _without_fsdp(sharding: NamedSharding) -> NamedSharding:
    return NamedSharding(sharding.mesh, PartitionSpec(*(None if axis == "fsdp" else axis for axis in sharding.spec)))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Return the sharding where every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


@dataclasses.dataclass(frozen=True)
class ShardingRow:
    """One array in the table that a run prints at its start.

    Attributes:
        name: Path parts joined by "/".
        shape: Shape of the whole array.
        spec: Mesh axis of each dimension, "-" where it is not split.
        bytes_per_device: Size of one device's share in bytes.
    """

    name: str
    shape: tuple[int, ...]
    spec: str
    bytes_per_device: int


def sharding_rows(shapes: Any, shardings: Any) -> list[ShardingRow]:
    """List name, shape, spec and bytes per device of every array in a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    rows = []
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True):
        local = int(np.prod(sharding.shard_shape(leaf.shape))) * np.dtype(leaf.dtype).itemsize
        entries = ", ".join(entry or "-" for entry in sharding.spec)
        rows.append(ShardingRow(_path_name(path), tuple(leaf.shape), f"({entries})", local))
    return rows


def _entry(
    name: str,
    size: int,
    axis: str,
    taken: Sequence[str | None],
    rule: str | Sequence[str | None] | None,
    mesh: Mesh | AbstractMesh,
) -> str | None:
    """Return the mesh axis of one dimension, None where it is not split."""
    alternatives = (rule,) if rule is None or isinstance(rule, str) else tuple(rule)
    refusals = []
    for mesh_axis in alternatives:
        if mesh_axis is None:
            return None
        if mesh_axis not in mesh.shape:
            raise UserError(
                f"expected the sharding rule {axis!r} to name one of {', '.join(mesh.axis_names)}, got {mesh_axis!r}"
            )
        if mesh_axis in taken:
            refusals.append(f"{mesh_axis!r} already splits another dimension")
        elif size % mesh.shape[mesh_axis]:
            refusals.append(f"{size} is not a multiple of the {mesh.shape[mesh_axis]} devices of {mesh_axis!r}")
        else:
            return mesh_axis
    raise UserError(
        f"{name}: axis {axis!r} cannot be split: {'; '.join(refusals) or 'its rule is empty'}. "
        f"Change the rule, for example to ({alternatives[0] if alternatives else 'fsdp'!r}, None)"
    )


def _near(axis: str, rules: Rules) -> str:
    near = difflib.get_close_matches(axis, rules, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are rules for {', '.join(rules)}"


def _path_name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def put(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Put an array that every process holds on the mesh."""
    # A copy, because a CPU device would use the memory of the given array, which other callers may share.
    return jax.make_array_from_callback(value.shape, sharding, lambda index: np.array(value[index]))
