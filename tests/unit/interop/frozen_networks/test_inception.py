"""The places of Inception's published tensors."""

import numpy as np
import pytest

from cod_jax.interop.frozen_networks.inception import inception_params_from_state_dict
from tests.parity.cases import frozen_layout

# Arrays that take no memory.
PUBLISHED = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in frozen_layout("inception")}


def test_all_published_tensors_have_a_place_but_for_the_classifier_and_counts():
    weights = dict(PUBLISHED)
    weights["Mixed_6b.branch7x7_2.conv.weight"] = np.arange(128 * 128 * 7, dtype=np.float32).reshape(128, 128, 1, 7)
    layers = inception_params_from_state_dict(weights)["layers"].values()
    assert len(layers) == 94
    (changed,) = (layer for layer in layers if np.any(layer["kernel"] != 0.5))
    np.testing.assert_array_equal(changed["kernel"][0, 3, 5], weights["Mixed_6b.branch7x7_2.conv.weight"][:, 5, 0, 3])
    del weights["Mixed_7c.branch_pool.bn.num_batches_tracked"], weights["Mixed_7c.branch_pool.bn.running_var"]
    with pytest.raises(ValueError, match=r"missing \(1\): Mixed_7c\.branch_pool\.bn\.running_var"):
        inception_params_from_state_dict(weights)
