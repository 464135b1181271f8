"""Modules as pure functions of nested dicts of parameters; the only caller of NNX's split and merge outside layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from flax import nnx

from cod_jax.errors import UserError

Module = TypeVar("Module", bound=nnx.Module)
Params = dict[Any, Any]


class Functional(Generic[Module]):
    """A module whose parameters are kept outside.

    Args:
        build: Function of `nnx.Rngs` that makes the module.

    Attributes:
        shapes: Nested dict with a `jax.ShapeDtypeStruct` per parameter.
        axes: The same tree with a tuple of logical axis names per parameter.
    """

    def __init__(self, build: Callable[[nnx.Rngs], Module]):
        self._build = build
        self._graphdef, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param)
        self.shapes: Params = nnx.to_pure_dict(state)
        self.axes: Params = _axes(state)
        self._flat_shapes = _flatten(self.shapes)

    def init(self, key: jax.Array) -> Params:
        """Return fresh parameters, float32."""
        return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(params=key)), nnx.Param))

    def bind(self, params: Params) -> Module:
        """Return the module with these parameters; cheap, for use inside jitted functions.

        Raises:
            UserError: Names or shapes differ from `shapes`. Merging goes by order and would not notice.
        """
        self.check(params)
        return nnx.merge(self._graphdef, params)

    def check(self, params: Params) -> None:
        """Check that parameters belong to this module.

        Raises:
            UserError: Names or shapes differ; the message lists missing, unexpected and wrongly shaped ones.
        """
        check_fit(_flatten(params), self._flat_shapes, _joined)


def flatten_params(params: Params) -> dict[str, Any]:
    """Return parameters by name, the parts of their path joined by "/"."""
    return {_joined(path): value for path, value in _flatten(params).items()}


def unflatten_params(flat: Mapping[str, Any], shapes: Params) -> Params:
    """Undo `flatten_params` for a model of these shapes.

    Raises:
        UserError: Names or shapes differ; the message lists missing, unexpected and wrongly shaped ones.
    """
    paths = {_joined(path): path for path in _flatten(shapes)}
    by_path = {paths.get(name, (name,)): value for name, value in flat.items()}
    check_fit(by_path, _flatten(shapes), _joined)
    nested: Params = {}
    for path, value in by_path.items():
        node = nested
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return nested


def count_params(shapes: Params) -> int:
    """Return the number of scalar parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def check_fit(given: Mapping[Any, Any], expected: Mapping[Any, Any], title: Callable[[Any], str] = str) -> None:
    """Check that arrays have the expected names and shapes.

    Args:
        given: Arrays by name.
        expected: Arrays, or their shapes and dtypes, by name.
        title: Function that turns a name into text.

    Raises:
        UserError: Names or shapes differ; the message lists missing, unexpected and wrongly shaped ones.
    """
    missing = [title(name) for name in expected if name not in given]
    unexpected = [title(name) for name in given if name not in expected]
    wrong_shape = [
        f"{title(name)} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in given and tuple(given[name].shape) != tuple(value.shape)
    ]
    if missing or unexpected or wrong_shape:
        raise UserError(mismatch_message(missing, unexpected, wrong_shape))


def mismatch_message(missing: list[str], unexpected: list[str], wrong_shape: list[str]) -> str:
    """Return the message of a failed load with its three lists, long ones cut."""

    def listed(title: str, names: list[str]) -> str:
        # They may come from an untrusted file.
        shown = ", ".join(name[:200] for name in sorted(names)[:20])
        shown += f" and {len(names) - 20} more" if len(names) > 20 else ""
        return f"{title} ({len(names)}): {shown or 'none'}"

    parts = (listed("missing", missing), listed("unexpected", unexpected), listed("wrong shape", wrong_shape))
    return "parameters do not fit the model; " + "; ".join(parts)


def _joined(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _flatten(tree: Mapping[Any, Any], prefix: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, (*prefix, name)))
        else:
            flat[(*prefix, name)] = value
    return flat


def _axes(state: nnx.State) -> Params:
    nested: Params = {}
    for path, variable in nnx.to_flat_state(state):
        node = nested
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = variable.get_metadata()["axes"]
    return nested
