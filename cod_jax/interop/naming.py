"""Published state dicts matched to our parameters: rules for names, layouts of arrays, both directions.

A rule has a pattern for our name and a replacement for theirs. It may match a whole parameter name, such as
`codec/bottleneck/codebook`, or a module, such as `codec/encoder/conv_in`; then the parameter's own name follows as
PyTorch calls it. The first rule that matches wins. We stack the parameters of equal blocks along a leading axis;
`{layer}` in a replacement stands for the number of a block.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cod_jax.interop.layouts import SAME, Layout
from cod_jax.models.functional import Params, check_fit, flatten_params, unflatten_params

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class Rule(NamedTuple):
    r"""One line of a naming.

    Attributes:
        ours: Regular expression for a parameter or a module of ours.
        theirs: The published name, with `\1` for groups of the expression and `{layer}` for the number of a block.
        layout: How the array of a matched parameter, or of a module's kernel, corresponds.
        bias: The same for a module's other parameters, bias and scale.
        first_layer: Published number of the first block, where `theirs` has a `{layer}`.
    """

    ours: str
    theirs: str
    layout: Layout = SAME
    bias: Layout = SAME
    first_layer: int = 0


Rules = Sequence[Rule]


@dataclasses.dataclass(frozen=True)
class Entry:
    """The place of a published tensor among our parameters.

    Attributes:
        name: Flat name of our parameter.
        layer: Index into the leading axis of a stacked parameter; None where the parameter is whole.
        layout: How the arrays correspond.
        shape: Shape of the published tensor.
    """

    name: str
    layer: int | None
    layout: Layout
    shape: tuple[int, ...]

    def part_of(self, flat: Mapping[str, Any]) -> Any:
        """Return our array, or our layer of it, from parameters by flat name."""
        return flat[self.name] if self.layer is None else flat[self.name][self.layer]


def published_entries(shapes: Params, rules: Rules) -> dict[str, Entry]:
    """Return the place of every published tensor that a model has, by published name.

    Args:
        shapes: Nested dict of our shapes.
        rules: The naming.

    Raises:
        KeyError: A parameter has no published name.
    """
    entries: dict[str, Entry] = {}
    for name, leaf in flatten_params(shapes).items():
        rule, published, layout = _match(name, rules)
        layers = range(leaf.shape[0]) if "{layer}" in published else (None,)
        shape = leaf.shape if layers == (None,) else leaf.shape[1:]
        # An array that takes no memory.
        published_shape = layout.to_published(np.broadcast_to(np.float32(0), shape)).shape
        for layer in layers:
            number = "" if layer is None else str(rule.first_layer + layer)
            entries[published.replace("{layer}", number)] = Entry(name, layer, layout, published_shape)
    return entries


def params_from_state_dict(
    shapes: Params, entries: Mapping[str, Entry], state_dict: Mapping[str, np.ndarray]
) -> Params:
    """Return our parameters, nested float32 numpy arrays, from published arrays.

    Args:
        shapes: Nested dict of our shapes.
        entries: See `published_entries`.
        state_dict: Arrays by published name.

    Raises:
        UserError: The arrays do not fit; the message lists what is missing, unexpected, or of another shape.
    """
    check_fit(state_dict, entries)
    flat = {name: np.empty(leaf.shape, np.float32) for name, leaf in flatten_params(shapes).items()}
    for name, entry in entries.items():
        entry.part_of(flat)[...] = entry.layout.to_ours(np.asarray(state_dict[name], np.float32))
    return unflatten_params(flat, shapes)


def state_dict_from_params(params: Params, entries: Mapping[str, Entry]) -> dict[str, np.ndarray]:
    """Return published arrays, float32, from our parameters: the inverse of `params_from_state_dict`."""
    flat = {name: np.asarray(jax.device_get(value), np.float32) for name, value in flatten_params(params).items()}
    return {
        name: np.ascontiguousarray(entry.layout.to_published(entry.part_of(flat))) for name, entry in entries.items()
    }


def _match(name: str, rules: Rules) -> tuple[Rule, str, Layout]:
    """Return the rule for a parameter, its published name and its layout."""
    module, _, leaf = name.rpartition("/")
    for rule in rules:
        if match := re.fullmatch(rule.ours, name):
            return rule, match.expand(rule.theirs).replace("/", "."), rule.layout
        if match := re.fullmatch(rule.ours, module):
            layout = rule.layout if leaf == "kernel" else rule.bias
            return rule, f"{match.expand(rule.theirs)}.{_LEAVES[leaf]}".replace("/", "."), layout
    raise KeyError(f"parameter {name} has no published name")
