import pytest

from cod_jax.input.config import DataConfig


@pytest.mark.parametrize("source", ["tfds:gs://b/sa1b/512/1.0.0:train[:90%]", "tfds:s3://b/sa1b/512/1.0.0"])
def test_datasets_may_be_at_addresses(source: str):
    assert DataConfig(source=source, validation_source=source).source == source


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
