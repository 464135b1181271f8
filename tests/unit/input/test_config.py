import pytest

from cod_jax.input.config import DataConfig


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 0},
        {"crop": "middle"},
        {"min_scale": 0.0},
        {"min_scale": 1.5},
        {"validation_modulus": 1},
        {"num_threads": -1},
        {"prefetch": 0},
    ],
)
def test_config_fields_out_of_range_are_refused(change):
    with pytest.raises((ValueError, TypeError), match=next(iter(change))):
        DataConfig(**change)
