"""Layouts of arrays and rules for names."""

import numpy as np
import pytest

from cod_jax.interop import layouts
from cod_jax.interop.naming import Rule, params_from_state_dict, published_entries, state_dict_from_params

KERNEL, BIAS = layouts.pixel_major(3, is_conv=False)
CONV_KERNEL, _ = layouts.pixel_major(3, is_conv=True)


@pytest.mark.parametrize(
    ("layout", "published", "ours"),
    [
        (layouts.SAME, (5,), (5,)),
        (layouts.LINEAR, (4, 6), (6, 4)),
        (layouts.CONV1X1, (4, 6, 1, 1), (6, 4)),
        (layouts.CONV, (4, 6, 3, 2), (3, 2, 6, 4)),
        (layouts.DEPTHWISE, (4, 1, 3, 2), (3, 2, 4)),
        (layouts.PATCH, (4, 3, 2, 2), (12, 4)),
        (layouts.QKV, (12, 5), (5, 3, 4)),
        (KERNEL, (12, 5), (5, 12)),
        (CONV_KERNEL, (12, 5, 1, 1), (5, 12)),
        (BIAS, (12,), (12,)),
    ],
)
def test_a_layout_and_back(layout, published, ours):
    array = np.arange(np.prod(published)).reshape(published)
    assert layout.to_ours(array).shape == ours
    np.testing.assert_array_equal(layout.to_published(layout.to_ours(array)), array)


def test_outputs_of_pixels_are_ordered_by_pixel_first():
    np.testing.assert_array_equal(BIAS.to_ours(np.arange(6)), [0, 2, 4, 1, 3, 5])


def test_rules_name_whole_parameters_modules_and_stacked_layers():
    shapes = {"table": np.empty((2, 3)), "blocks": {"mlp": {"kernel": np.empty((2, 4, 5)), "bias": np.empty((2, 5))}}}
    rules = (
        Rule("table", "embedding.weight"),
        Rule("blocks/(mlp)", r"layer.{layer}.\1", layouts.LINEAR, first_layer=7),
    )
    entries = published_entries(shapes, rules)
    assert {name: (entry.name, entry.layer, entry.shape) for name, entry in entries.items()} == {
        "embedding.weight": ("table", None, (2, 3)),
        "layer.7.mlp.weight": ("blocks/mlp/kernel", 0, (5, 4)),
        "layer.8.mlp.weight": ("blocks/mlp/kernel", 1, (5, 4)),
        "layer.7.mlp.bias": ("blocks/mlp/bias", 0, (5,)),
        "layer.8.mlp.bias": ("blocks/mlp/bias", 1, (5,)),
    }
    weights = {name: np.random.default_rng(0).standard_normal(entry.shape) for name, entry in entries.items()}
    params = params_from_state_dict(shapes, entries, weights)
    np.testing.assert_allclose(params["blocks"]["mlp"]["kernel"][1], weights["layer.8.mlp.weight"].T, rtol=1e-6)
    assert params["table"].dtype == np.float32
    for name, value in state_dict_from_params(params, entries).items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-6)
    with pytest.raises(KeyError, match="parameter other/kernel has no published name"):
        published_entries({"other": {"kernel": np.empty(1)}}, rules)
