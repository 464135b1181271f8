"""Heads of the published trainers, and gradients by published names."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from cod_jax.interop.cod_networks.reference import network_entries
from cod_jax.interop.layouts import LINEAR, SAME, pixel_major
from cod_jax.models import Functional, ModelConfig, flatten_params
from tests.parity.tolerances import GRADIENT_NORM_RELATIVE


def feature_head(published: Mapping[str, np.ndarray], lead: str, channels: int = 0) -> dict[str, Any]:
    """Return a published head, such as "proj.0", as parameters of ours.

    Args:
        published: Arrays by published name.
        lead: What the head's names begin with.
        channels: Channels of a pixel, where the head's outputs are the pixels of a patch.
    """

    def layer(index: int) -> dict[str, Any]:
        kernel, bias = (published[f"{lead}.{index}.{leaf}"] for leaf in ("weight", "bias"))
        layouts = pixel_major(channels, is_conv=False) if channels and index == 4 else (LINEAR, SAME)
        arrays = {"kernel": kernel.reshape(kernel.shape[:2]), "bias": bias}
        return {
            name: jnp.asarray(layout.to_ours(array))
            for (name, array), layout in zip(arrays.items(), layouts, strict=True)
        }

    return {"layer0": layer(0), "layer1": layer(2), "out": layer(4)}


def head_gradients(gradients: Mapping[str, Any], lead: str) -> dict[str, np.ndarray]:
    """Return gradients of a head by published name."""
    layers = {0: "layer0", 2: "layer1", 4: "out"}
    leaves = {"weight": "kernel", "bias": "bias"}
    return {
        f"{lead}.{index}.{theirs}": np.asarray(gradients[layer][ours])
        for index, layer in layers.items()
        for theirs, ours in leaves.items()
    }


def model_gradients(
    functional: Functional[Any], config: ModelConfig, gradients: dict[str, Any], lead: str = ""
) -> dict[str, np.ndarray]:
    """Return gradients of a model's parameters by published name; `gradients` may hold some of them only."""
    flat = {name: np.asarray(leaf) for name, leaf in flatten_params(gradients).items()}
    return {
        f"{lead}{published}": entry.layout.to_published(entry.part_of(flat))
        for published, entry in network_entries(functional, config).items()
        if entry.name in flat
    }


def check_gradient_norms(ours: Mapping[str, np.ndarray], names: np.ndarray, norms: np.ndarray) -> int:
    """Compare the norm of every gradient that is more than rounding; return how many these are."""
    # Key biases have no gradient in theory.
    compared = [
        (str(name), norm)
        for name, norm in zip(names, norms, strict=True)
        if str(name) in ours and norm > 1e-6 * norms.max() and not str(name).endswith(".k.bias")
    ]
    for name, norm in compared:
        np.testing.assert_allclose(np.linalg.norm(ours[name]), norm, rtol=GRADIENT_NORM_RELATIVE, err_msg=name)
    return len(compared)
