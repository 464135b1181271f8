"""Which tensors of a checkpoint are the network's."""

from pathlib import Path

import numpy as np
import pytest

from cod_jax.interop.cod_networks.checkpoint import WeightsKind, select_network


def entries(*names: str) -> dict[str, np.ndarray]:
    return {name: np.full(1, index, np.float32) for index, name in enumerate(names)}


def test_the_moving_average_wins_unless_raw_weights_are_asked_for():
    state = entries("denoiser.blocks.0.bias", "ema_denoiser.blocks.0.bias", "vae.bias")
    choices: tuple[tuple[WeightsKind | None, str, int], ...]
    choices = ((None, "ema_denoiser.", 1), ("ema", "ema_denoiser.", 1), ("raw", "denoiser.", 0))
    for kind, prefix, value in choices:
        weights = select_network(state, Path("a.pt"), kind=kind, prefix=None)
        assert (weights.prefix, weights.tensors) == (prefix, {"blocks.0.bias": np.full(1, value)})
        assert weights.kind == (kind or "ema")
        assert weights.left_out == {"denoiser." if value else "ema_denoiser.": 1, "vae.": 1}


def test_the_prefix_that_the_description_names_counts():
    state = entries("net.blocks.0.bias", "student.blocks.0.bias")
    weights = select_network(state, Path("a.pt"), kind=None, prefix="student.")
    assert weights.tensors == {"blocks.0.bias": np.ones(1)}
    with pytest.raises(ValueError, match=r"begin with 'pupil\.', as the YAML file says; its names begin with 'net"):
        select_network(state, Path("a.pt"), kind=None, prefix="pupil.")


def test_plain_names_need_no_prefix():
    weights = select_network(entries("y_embedder_x.bias", "blocks.0.bias", "disc.b"), Path("a"), kind=None, prefix=None)
    assert list(weights.tensors) == ["y_embedder_x.bias", "blocks.0.bias"]
    assert (weights.kind, weights.left_out) == ("unnamed", {"disc.": 1})


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (entries("net.blocks.0.bias"), "ema", "holds no ema weights of a network; its names begin with 'net.'"),
        (entries("vae.bias"), None, "holds no network; its names begin with 'vae.'"),
        (entries("net.blocks.0.block.conv1.bias"), None, "condition blocks are cached"),
        (entries("net.base_model.model.blocks.0.conv1.lora_A.default.weight"), None, "LoRA updates"),
    ],
)
def test_checkpoints_without_a_plain_network_are_refused(state, kind, message):
    with pytest.raises(ValueError, match=message):
        select_network(state, Path("a.pt"), kind=kind, prefix=None)
