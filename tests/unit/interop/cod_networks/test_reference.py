"""Published networks with our code behind them."""

from typing import Any

import numpy as np
import pytest

import cod_jax
from cod_jax.interop import load_reference
from cod_jax.model_folder.bundle import load_description
from cod_jax.models import flatten_params
from cod_jax.training.initial import load_initial
from tests.published_networks import LITE_ARGUMENTS, make_narrow, weights_of


@pytest.fixture
def weights(monkeypatch) -> dict[str, Any]:
    make_narrow(monkeypatch)
    return dict(weights_of("DConv", **LITE_ARGUMENTS))


def test_an_imported_model_becomes_a_folder_that_the_codec_and_the_trainer_take(weights, tmp_path):
    model = load_reference("DConv", LITE_ARGUMENTS, weights)
    model.save(tmp_path / "model")
    assert cod_jax.load(tmp_path / "model").pitch == model.config.codec.pitch
    assert load_description(tmp_path / "model")[0].codec.attention == "window_published"
    initial = load_initial(tmp_path / "model", "ema", {"model": model.functional.shapes}, ())
    assert not initial.grown + initial.fresh
    for name, value in flatten_params(model.params).items():
        np.testing.assert_array_equal(initial.params[f"model/{name}"], value, err_msg=name)
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "model")


def test_a_condition_codec_takes_names_with_and_without_prefix_and_is_not_saved(weights, tmp_path):
    codec = {name: value for name, value in weights.items() if name.startswith("y_embedder.")}
    plain = {name.removeprefix("y_embedder."): value for name, value in codec.items()}
    arguments = {"ch": 32, "up2x": True, "light": True}
    one, other = (flatten_params(load_reference("Codec", arguments, given).params) for given in (codec, plain))
    assert one.keys() == other.keys()
    assert len(one) == len(codec)
    np.testing.assert_array_equal(one["bottleneck/codebook"], codec["y_embedder.bottleneck.embedding.weight"])
    with pytest.raises(ValueError, match="a condition codec alone decodes no pictures"):
        load_reference("Codec", arguments, codec).save(tmp_path / "model")


def test_a_state_dict_that_does_not_fit_is_refused_with_three_lists(weights):
    del weights["blocks.0.conv1.weight"]
    weights["blocks.9.conv1.weight"] = np.zeros(1, np.float32)
    weights["final_layer.linear.bias"] = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="parameters do not fit") as error:
        load_reference("DConv", LITE_ARGUMENTS, weights)
    message = str(error.value)
    assert "missing (1): blocks.0.conv1.weight" in message
    assert "unexpected (1): blocks.9.conv1.weight" in message
    assert "wrong shape (1): final_layer.linear.bias (4,) instead of (3,)" in message
