"""Spectrally normalised heads on given tokens against the published ones, in training and afterwards."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.losses.adversarial import real_hinge_loss
from cod_jax.models.discriminator import TokenHeads
from cod_jax.models.functional import Functional, flatten_params, unflatten_params
from cod_jax.nn.spectral_norm import init_singular_vectors, spectral_normalize
from tests.parity.cases import Case, assert_close
from tests.parity.tolerances import LOSS_RELATIVE

CASE = Case("discriminator_heads")
WIDTH, NUM_LAYERS = CASE.meta["embed_dim"], CASE.meta["layers"]
HEADS = Functional(lambda rngs: TokenHeads(NUM_LAYERS, WIDTH, dtype="float32", rngs=rngs))
INDICES = {"conv": 0, "project": 2, "out": 4}
GRADIENT_NORM = 1e-4  # relative


def published_name(name: str) -> str:
    """The published name of a parameter such as heads/0/conv/kernel, or of a vector such as heads/0/conv/u."""
    head, layer, part = name.removeprefix("heads/").split("/")
    return f"heads.{head}.{INDICES[layer]}." + {"kernel": "weight_orig", "bias": "bias"}.get(part, f"weight_{part}")


def to_ours(array: np.ndarray, name: str) -> np.ndarray:
    """A published array in our layout: [out, in, h, w] becomes [h, w, in, out], or [in, out]."""
    if name.endswith("kernel"):
        array = array.transpose(2, 3, 1, 0)
        return array if name.endswith("conv/kernel") else array[0, 0]
    if name.endswith("conv/v"):  # ordered (in, h, w), where ours is (h, w, in)
        return array.reshape(WIDTH, 3, 3).transpose(1, 2, 0).ravel()
    return array


def from_published(weights: dict[str, np.ndarray], shapes: Any) -> Any:
    """Take what a tree of these shapes needs out of published weights."""
    flat = {name: jnp.asarray(to_ours(weights.pop(published_name(name)), name)) for name in flatten_params(shapes)}
    return unflatten_params(flat, shapes)


@partial(jax.jit, static_argnames="train")
def judge(params: Any, state: Any, tokens: jax.Array, *, train: bool) -> Any:
    """Loss as for pictures, logits, state afterwards, gradients."""

    def loss(params):
        normalized, after = spectral_normalize(params, state, train=train)
        logits = HEADS.bind(normalized)(tokens)
        return real_hinge_loss(logits), (logits, after)

    (value, (logits, after)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return value, logits, after, gradient


def test_a_pass_in_training_and_one_afterwards():
    weights = CASE.listed_weights()
    params = from_published(weights, HEADS.shapes)
    state = from_published(
        weights, jax.eval_shape(lambda params: init_singular_vectors(params, jax.random.key(0)), HEADS.shapes)
    )
    assert not weights
    tokens = jnp.stack([CASE.nhwc(f"features_f16_{layer}") for layer in range(NUM_LAYERS)])

    value, logits, after, gradient = judge(params, state, tokens, train=True)
    CASE.check_network("logits_train", logits)
    np.testing.assert_allclose(value, CASE.arrays["hinge_real_loss"], rtol=LOSS_RELATIVE)
    flat_after = flatten_params(after)
    for part in "uv":
        name = f"heads/0/conv/{part}"
        assert_close(flat_after[name], to_ours(CASE.arrays[f"after__{published_name(name)}"], name))
    norms = dict(zip(CASE.arrays["grad_names"].tolist(), CASE.arrays["grad_norms"], strict=True))
    for name, array in flatten_params(gradient).items():
        np.testing.assert_allclose(jnp.linalg.norm(array), norms.pop(published_name(name)), rtol=GRADIENT_NORM)
    assert not norms
    name = "heads/0/out/kernel"
    expected = to_ours(CASE.arrays[f"grad__{published_name(name)}"], name)
    assert_close(flatten_params(gradient)[name], expected)

    _, logits, unchanged, _ = judge(params, after, tokens, train=False)
    CASE.check_network("logits_eval_after", logits)
    jax.tree.map(np.testing.assert_array_equal, unchanged, after)
