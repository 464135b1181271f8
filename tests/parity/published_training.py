"""What the tests of the published trainers share: heads, and gradients by their published names."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from cod_jax.interop.cod_networks.reference import network_entries
from cod_jax.models import Functional, ModelConfig, flatten_params

# float32 noise of gradient norms is up to 7e-6 in the fixtures; ours adds the order of summation.
GRADIENT_NORM_RELATIVE = 1e-4


def feature_head(published: Mapping[str, np.ndarray], lead: str) -> dict[str, Any]:
    """A published head, such as "proj.0", as parameters of ours."""

    def layer(index: int) -> dict[str, Any]:
        kernel, bias = (published[f"{lead}.{index}.{leaf}"] for leaf in ("weight", "bias"))
        return {"kernel": jnp.asarray(kernel.reshape(kernel.shape[:2]).T), "bias": jnp.asarray(bias)}

    return {"layer0": layer(0), "layer1": layer(2), "out": layer(4)}


def head_gradients(gradients: Mapping[str, Any], lead: str) -> dict[str, np.ndarray]:
    """Gradients of a head by published name."""
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
    """Gradients of a model's parameters by published name; `gradients` may hold some of them only."""
    flat = {name: np.asarray(leaf) for name, leaf in flatten_params(gradients).items()}
    return {
        f"{lead}{published}": entry.layout.to_published(entry.part_of(flat))
        for published, entry in network_entries(functional, config).items()
        if entry.name in flat
    }


def check_gradient_norms(ours: Mapping[str, np.ndarray], names: np.ndarray, norms: np.ndarray) -> int:
    """Compare the norm of every gradient that is more than rounding; the number of those compared."""
    # Key biases have no gradient in theory.
    compared = [
        (str(name), norm)
        for name, norm in zip(names, norms, strict=True)
        if str(name) in ours and norm > 1e-6 * norms.max() and not str(name).endswith(".k.bias")
    ]
    for name, norm in compared:
        np.testing.assert_allclose(np.linalg.norm(ours[name]), norm, rtol=GRADIENT_NORM_RELATIVE, err_msg=name)
    return len(compared)
