"""Names and shapes of published checkpoints, and what `load_reference` refuses."""

import functools
import math

import numpy as np
import pytest

import cod_jax
from cod_jax.interop import load_reference
from cod_jax.interop.cod_networks.description import CLASS_NAMES, published_network, reference_config
from cod_jax.interop.cod_networks.reference import network_entries, state_dict_from_params
from cod_jax.models import build_model, flatten_params
from cod_jax.models.functional import Functional, count_params
from cod_jax.models.heads import FeatureHead
from cod_jax.training.initial import load_initial
from tests.parity.cases import Case, layouts

NETWORKS = [name for name, layout in layouts().items() if layout["config"].get("class_name") in CLASS_NAMES]


@pytest.mark.parametrize("name", NETWORKS)
def test_configuration_implies_the_published_names_and_shapes(name):
    layout = layouts()[name]
    arguments = {key: value for key, value in layout["config"].items() if key not in ("class_name", "note")}
    config = reference_config(layout["config"]["class_name"], arguments)
    network = published_network(config, one_step=layout["config"]["class_name"] == "OneStepCoD")
    assert network.class_name == layout["config"]["class_name"]
    assert {**network.init_args, **arguments} == network.init_args
    functional = build_model(config)
    implied = {name: list(entry.shape) for name, entry in network_entries(functional, config).items()}
    assert implied == dict(layout["entries"])
    assert count_params(functional.shapes) == layout["n_params"]


@pytest.fixture(scope="module")
def small() -> Case:
    return Case("dconv_small_64x64")


HEADS = [name for name in layouts() if "heads_cod" in name or "loss_heads" in name]


@pytest.mark.parametrize("name", HEADS)
def test_training_heads_have_the_published_shapes(name):
    layout = layouts()[name]
    config = layout["config"]
    for module, num_params in layout["n_params_by_module"].items():
        out = math.prod(config["recon_dim"]) if module == "recon_codec" else config["proj_encoder_dim"]
        build = functools.partial(FeatureHead, config["proj_denoiser_dim"], out, dtype="float32")
        shapes = Functional(lambda rngs, build=build: build(rngs=rngs)).shapes
        ours = sorted(sorted(leaf.shape) for leaf in flatten_params(shapes).values())
        theirs = [shape for entry, shape in layout["entries"] if entry.startswith(f"{module}.")]
        assert ours == sorted(sorted(size for size in shape if size != 1) for shape in theirs)
        assert count_params(shapes) == num_params


def test_arrays_survive_the_way_to_ours_and_back(small):
    weights = small.weights()
    model = load_reference("DConv", small.config, weights)
    back = state_dict_from_params(model.functional, model.config, model.params)
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_an_imported_model_becomes_a_folder_that_the_codec_and_the_trainer_take(small, tmp_path):
    model = load_reference("DConv", small.config, small.weights())
    model.save(tmp_path / "model")
    codec = cod_jax.load(tmp_path / "model")
    assert codec.config.codec.attention == "window_published"
    initial = load_initial(tmp_path / "model", "ema", {"model": model.functional.shapes}, ())
    assert not initial.grown + initial.fresh
    for name, value in flatten_params(model.params).items():
        np.testing.assert_array_equal(initial.params[f"model/{name}"], value, err_msg=name)
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "model")


def test_a_state_dict_that_does_not_fit_is_refused_with_three_lists(small):
    weights = small.weights()
    del weights["blocks.0.conv1.weight"]
    weights["blocks.9.conv1.weight"] = np.zeros(1, np.float32)
    weights["final_layer.linear.bias"] = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="parameters do not fit") as error:
        load_reference("DConv", small.config, weights)
    message = str(error.value)
    assert "missing (1): blocks.0.conv1.weight" in message
    assert "unexpected (1): blocks.9.conv1.weight" in message
    assert "wrong shape (1): final_layer.linear.bias (4,) instead of (3,)" in message


@pytest.mark.parametrize(
    ("class_name", "change", "message"),
    [
        ("DConv", {"hidden": 3}, "no argument hidden"),
        ("DConv", {"ds": 24}, "ds is 24"),
        ("DConv", {"ds": 16, "up2x": False}, "up2x only"),
        ("DConv", {"pred": "eps"}, "pred is 'eps'"),
        ("DConv", {"in_channels": 4}, "in_channels is 4"),
        ("DConv", {"patch_size": 8}, "patch_size is 8"),
        ("DConv", {"up2x": "false"}, "up2x is 'false'"),
        ("DConv", {"num_blocks": "24"}, "num_blocks is '24'"),
        ("DConv", {"hidden_size": 64.0}, "hidden_size is 64.0"),
        ("DConv", {"noise_level": 0.0}, "no argument noise_level"),
        ("UNet", {}, "class 'UNet'"),
        ("OneStepCoD", {"num_groups": 4}, "no argument bottleneck_dim"),
        ("PixNerDiT", {}, "no argument bottleneck_dim"),
    ],
)
def test_arguments_of_no_published_network_are_refused(small, class_name, change, message):
    with pytest.raises(ValueError, match=message):
        reference_config(class_name, {**small.config, **change})


def test_missing_required_arguments_are_named():
    with pytest.raises(ValueError, match="num_blocks, num_cond_blocks"):
        reference_config("DConv", {"hidden_size": 64})
