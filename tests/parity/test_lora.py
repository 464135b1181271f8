"""Low-rank adaptation against the published merge, and its size in the published configuration."""

import jax
import numpy as np
import pytest

from cod_jax.models import ConditionCodecConfig, ModelConfig, build_model
from cod_jax.models.lora import adapted_names, init_lora, merge
from tests.parity.cases import Case, layouts

# What the published first stage leaves alone: the codec, the depthwise convolutions (no linear maps), and by a match of
# names the condition of each pixel.
PUBLISHED_EXCLUDE = ("codec/*", "denoiser/head/condition/*")


@pytest.mark.parametrize("name", ["lin", "c1", "cp"])
def test_merged_kernels_match_the_published_ones(name):
    case = Case("lora_merge")

    def matrix(array: np.ndarray) -> np.ndarray:
        """[out, in, ...] as [in, out], inputs in the order of our patch embedding."""
        array = array[..., None, None] if array.ndim == 2 else array
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])

    base = {"layer": {"kernel": matrix(case.arrays[f"base__{name}__weight"])}}
    lora = {
        "layer/kernel": {
            "a": matrix(case.arrays[f"{name}__lora_A"]),
            "b": matrix(case.arrays[f"{name}__lora_B"]),
        }
    }
    merged = merge(base, lora, case.meta["alpha"] / case.meta["rank"])
    expected = matrix(case.arrays[f"merged__{name}__weight"])
    np.testing.assert_allclose(merged["layer"]["kernel"], expected, atol=1e-5 * np.abs(expected).max())


def test_the_published_configuration_adapts_the_published_layers():
    layout = layouts()["layout_cod_lite_stage1_lora.json"]
    config = ModelConfig(ConditionCodecConfig(pitch=32, input_stride=2))
    shapes = build_model(config).shapes
    names = adapted_names(shapes, PUBLISHED_EXCLUDE)
    lora = jax.eval_shape(lambda key: init_lora(key, shapes, names, layout["config"]["lora_rank"]), jax.random.key(0))
    counts = [leaf.size for leaf in jax.tree.leaves(lora)]
    num_layers = sum(part["a"].shape[0] if part["a"].ndim == 3 else 1 for part in lora.values())
    assert num_layers == len(layout["lora_targets"]) == 143
    assert sum(counts) == layout["n_params_by_module"]["trainable_lora"] == 6_343_872
