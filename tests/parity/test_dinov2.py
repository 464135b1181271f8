"""DINOv2 ViT-B/14 with synthetic weights against the published implementation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.features.dinov2 import CELL, POSITION_EXTENT_OFFSET, DINOv2, DINOv2Config, normalize_imagenet
from cod_jax.features.resize import bicubic_resize
from cod_jax.models.functional import Functional
from tests.parity.cases import WITH_LARGER, FrozenCase, frozen_cases
from tests.parity.tolerances import GRADIENT, NETWORK, RESIZE

LAYERS = (2, 5, 8, 11)
NETWORK_F32 = Functional(lambda rngs: DINOv2(DINOv2Config(), dtype="float32", rngs=rngs))


@partial(jax.jit, static_argnums=0)
def run(method: str, params, x):
    return getattr(NETWORK_F32.bind(params), method)(x)


@jax.jit
def all_streams(params, x):
    """Return the input of the first block, and the raw and the normalised output of every block."""
    network = NETWORK_F32.bind(params)
    embedded = network.embed(x)
    streams = network.streams(embedded)
    return embedded[0], streams[:, 0], network.norm(streams)[:, 0]


@jax.jit
def discriminator(params, image):
    def loss(image):
        layers = NETWORK_F32.bind(params).discriminator_layers(image, LAYERS)
        projection = jnp.cos(jnp.arange(layers.shape[-1], dtype=jnp.float32))
        return jnp.mean(jnp.sum(layers * projection[None, None, None, None], axis=-1)), layers

    (value, layers), gradient = jax.value_and_grad(loss, has_aux=True)(image)
    return layers[:, 0].reshape(len(LAYERS), -1, layers.shape[-1]), value, gradient[0]


def l2(tokens: Any) -> np.ndarray:
    return np.linalg.norm(np.asarray(tokens, np.float64), axis=-1)


def check_tokens(case: FrozenCase, name: str, tokens: Any) -> None:
    assert case.error(f"{name}_tokens", tokens) <= NETWORK
    assert case.error(f"{name}_token_mean", np.mean(tokens, axis=0)) <= NETWORK
    assert case.error(f"{name}_token_l2", l2(tokens)) <= NETWORK


@pytest.mark.parametrize("is_larger", WITH_LARGER)
def test_position_embedding(dinov2_weights, is_larger):
    case = FrozenCase("dinov2_posembed", is_larger=is_larger)
    table = jnp.asarray(dinov2_weights["pos_embed"])[:, 1:].reshape(1, 37, 37, -1)
    for name in case.arrays.files:
        rows, columns = map(int, name.removeprefix("pos_").split("x"))
        resized = bicubic_resize(table, rows, columns, extent_offset=POSITION_EXTENT_OFFSET)[0]
        assert case.error(name, resized) <= NETWORK, name


@pytest.mark.parametrize(("name", "is_larger"), frozen_cases("ns", larger=("ns", "sq", "big")))
def test_tokens_and_layers(dinov2_params, name, is_larger):
    case = FrozenCase("dinov2_tokens", is_larger=is_larger)
    embedded, streams, normed = all_streams(dinov2_params, normalize_imagenet(jnp.asarray(case.image01(name))))
    check_tokens(case, name, normed[-1, 1:])
    assert case.error(f"{name}_cls", normed[-1, 0]) <= NETWORK
    if name == "big":  # the stored arrays of the largest picture end here
        return
    assert case.error(f"{name}_embed", embedded) <= NETWORK
    assert case.error(f"{name}_block0", streams[0]) <= NETWORK
    case = FrozenCase("dinov2_layers", is_larger=is_larger)
    layers = np.asarray(normed)[np.array(LAYERS), 1:]
    assert case.error(f"{name}_layers", layers) <= NETWORK
    assert case.error(f"{name}_layers_mean", layers.mean(axis=1)) <= NETWORK
    assert case.error(f"{name}_layers_l2", l2(layers)) <= NETWORK


COD_CASES = frozen_cases("cod2", slow=("cod",), larger=("cod2", "cod"))


@pytest.mark.parametrize(("name", "is_larger"), COD_CASES)
def test_alignment_path(dinov2_params, name, is_larger):
    case = FrozenCase(f"dinov2_{name}", is_larger=is_larger)
    image01 = jnp.asarray(case.image01(name))
    rows, columns = (side // CELL for side in image01.shape[1:3])
    resized = bicubic_resize(normalize_imagenet(image01), 14 * rows, 14 * columns)[0]
    assert case.error(f"{name}_resized", resized) <= RESIZE
    tokens = run("alignment_tokens", dinov2_params, image01)
    assert tokens.shape == (1, rows, columns, 768)
    check_tokens(case, name, np.asarray(tokens).reshape(rows * columns, -1))


@pytest.mark.parametrize(("name", "is_larger"), COD_CASES)
def test_discriminator_path_and_its_gradient(dinov2_params, name, is_larger):
    case = FrozenCase(f"dinov2_{name}", is_larger=is_larger)
    layers, loss, gradient = discriminator(dinov2_params, jnp.asarray(case.image(name)))
    assert case.error(f"{name}_disc_layers", layers) <= NETWORK
    assert case.error(f"{name}_disc_layers_l2", l2(layers)) <= NETWORK
    assert case.error(f"{name}_disc_loss", loss) <= NETWORK
    assert case.error(f"{name}_disc_grad", gradient) <= GRADIENT
    assert case.error(f"{name}_disc_grad_l2", np.linalg.norm(gradient)) <= GRADIENT
