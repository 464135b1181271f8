import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.images import signed_to_uint8
from cod_jax.interop import load_reference
from tests.parity.cases import PORTABLE, SHARED, Case

FAST = ["one_step_lite_bpp_0_0312_48x64"]
ALL = [(PORTABLE, path.stem) for path in sorted(PORTABLE.glob("one_step_lite_*.npz"))]
if SHARED:
    ALL += [(SHARED, path.stem) for path in sorted(SHARED.glob("one_step_lite_*.npz"))]


@pytest.mark.parametrize(
    ("folder", "name"),
    [pytest.param(*case, marks=[] if case[1] in FAST else pytest.mark.slow, id=case[1]) for case in ALL],
)
def test_one_step_decoding_matches_the_published_decoder(folder, name):
    case = Case(name, folder)
    model = load_reference("OneStepCoD", case.config, case.weights())
    z_q, indices = model.codec.quantize(model.codec.encode(case.image01(), windowed=True))
    np.testing.assert_array_equal(indices, case.arrays["indices"])
    image = model.one_step(model.codec.decode(z_q, windowed=True))
    case.check_network("out", image)
    expected = np.moveaxis(case.arrays["out_u8"], 1, -1).astype(int)
    assert np.abs(np.asarray(signed_to_uint8(image)).astype(int) - expected).max() <= 1


def test_eight_bit_conversion_matches_the_published_rule():
    case = Case("conventions")
    values = jnp.asarray(case.arrays["float_in"])
    np.testing.assert_array_equal(signed_to_uint8(values), case.arrays["uint8_from_float32"])
