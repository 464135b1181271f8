"""The pixel head."""

import jax
import numpy as np


def test_pixel_head_row_by_row_gives_the_same_picture(tiny):
    functional, params = tiny
    condition = jax.random.normal(jax.random.key(3), (2, 3, 2, 32))

    def decode(by_rows):
        return jax.jit(lambda: functional.bind(params).one_step(condition, by_rows=by_rows))()

    np.testing.assert_allclose(decode(True), decode(False), atol=1e-5)
