import numpy as np
import pytest

from cod_jax.interop import load_reference
from tests.parity.cases import Case, cases
from tests.parity.tolerances import LOSS_RELATIVE


@pytest.mark.parametrize(("folder", "name"), cases("codec_*", fast=("codec_lite_ds16_b4_up2x_48x560_window",)))
def test_condition_codec_matches_the_published_one(folder, name):
    case = Case(name, folder)
    codec = load_reference("Codec", case.config, case.weights()).codec
    # Files with "eval" and "train" hold CoD-Lite's windowed inference beside the global attention of training.
    for suffix, windowed in [("_eval", True), ("_train", False)] if "z_eval" in case.arrays else [("", False)]:
        z = codec.encode(case.image01(), windowed=windowed)
        z_q, indices = codec.quantize(z)
        np.testing.assert_array_equal(indices, case.arrays[f"indices{suffix}"])
        case.check_network(f"z{suffix}", z)
        case.check_network(f"z_q{suffix}", z_q)
        case.check_network(f"cond{suffix}", codec.decode(z_q, windowed=windowed))
        np.testing.assert_allclose(codec.vq_loss(z), case.arrays[f"vq_loss{suffix}"], rtol=LOSS_RELATIVE)
