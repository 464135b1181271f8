"""Published networks as our models, and back."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from cod_jax.interop import load_reference
from cod_jax.interop.cod_networks.description import (
    PublishedNetwork,
    published_decoding,
    published_network,
    reference_config,
)
from cod_jax.interop.cod_networks.reference import state_dict_from_params
from cod_jax.interop.cod_networks.yaml_file import network_yaml, read_network
from cod_jax.model_folder.bundle import default_decoding
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import ConditionCodecConfig, DConvConfig, DDTConfig, FactorizedConfig, ModelConfig, PixNerDiTConfig
from configs import latent, lite, pixel
from tests.published_networks import LATENT_ARGUMENTS, LITE_ARGUMENTS, PIXEL_ARGUMENTS, make_narrow, weights_of

LITE = ModelConfig(ConditionCodecConfig(32, 2, attention="window_published"), DConvConfig())
PIXEL = ModelConfig(ConditionCodecConfig(32, 2, decoder_depth=3, attention="global"), PixNerDiTConfig())
LATENT = ModelConfig(ConditionCodecConfig(32, 2, decoder_depth=3, attention="global"), DDTConfig())


@pytest.mark.parametrize(
    ("class_name", "init_args"),
    [
        ("DConv", LITE_ARGUMENTS),
        ("PixNerDiT", PIXEL_ARGUMENTS),
        ("DDT", {**LATENT_ARGUMENTS, "ds": 128}),
        ("OneStepCoD", {**PIXEL_ARGUMENTS, "ds": 4, "pred": "v", "noise_level": 0.0}),
        ("OneStepCoD", {**LITE_ARGUMENTS, "ds": 16, "noise_level": 0.0}),
    ],
)
def test_every_class_survives_the_way_to_ours_and_back(class_name, init_args, tmp_path, monkeypatch):
    make_narrow(monkeypatch)
    weights = weights_of(class_name, **init_args)
    model = load_reference(class_name, init_args, weights)
    back = state_dict_from_params(model.functional, model.config, model.params)
    assert back.keys() == weights.keys()
    for entry, value in weights.items():
        np.testing.assert_array_equal(back[entry], value, err_msg=entry)
        assert back[entry].flags.c_contiguous
    network = published_network(model.config, one_step=class_name == "OneStepCoD")
    (tmp_path / "back.yaml").write_text(network_yaml(network))
    read = read_network(tmp_path / "back.yaml")
    assert read.class_name == class_name
    assert reference_config(read.class_name, read.init_args) == model.config
    assert published_network(model.config, one_step=class_name == "OneStepCoD").init_args == read.init_args


def test_published_settings_of_decoding():
    transformer = {"num_blocks": 28, "num_cond_blocks": 22, "num_groups": 16}
    pixel = {**transformer, "in_channels": 3, "patch_size": 16}
    for class_name, arguments, expected in (
        ("PixNerDiT", pixel, DecodingConfig(25, 3.0, "adams")),
        ("DDT", transformer, DecodingConfig(25, 1.25, "adams")),
        ("DDT", {**transformer, "ds": 128}, DecodingConfig(25, 3.0, "adams")),
        ("DConv", {"num_blocks": 24, "num_cond_blocks": 21}, DecodingConfig(25, 3.0, "euler")),
        ("OneStepCoD", pixel, DecodingConfig(1, 3.0, "euler")),
    ):
        assert published_decoding(PublishedNetwork(class_name, arguments, None)) == expected
    with pytest.raises(ValueError, match="expected noise_level to be 0, got 1: a one-step decoder starts from noise"):
        published_decoding(PublishedNetwork("OneStepCoD", {**pixel, "noise_level": 1.0}, None))


def test_transformers_that_do_not_read_the_prediction_take_no_other():
    pixel = {**PIXEL_ARGUMENTS, "pred": "x"}
    with pytest.raises(ValueError, match="pred is x, but PixNerDiT does not read it and predicts velocities"):
        reference_config("PixNerDiT", pixel)
    with pytest.raises(ValueError, match="pred is x, but DDT does not read it"):
        reference_config("DDT", {**LATENT_ARGUMENTS, "pred": "x"})
    assert reference_config("PixNerDiT", {**pixel, "pred": "v"}) == reference_config("PixNerDiT", PIXEL_ARGUMENTS)
    assert reference_config("OneStepCoD", pixel).denoiser.prediction == "image"


def changed(config: ModelConfig, part: str, **fields: Any) -> ModelConfig:
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **fields)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            changed(LITE, "codec", encoder_width=64),
            "codec.encoder_width is 64, and that of the published DConv is alwa",
        ),
        (changed(LITE, "codec", latent_channels=64), "codec.latent_channels is 64"),
        (changed(LITE, "codec", num_groups=16), "codec.num_groups is 16"),
        (
            changed(LITE, "codec", attention="global"),
            "always window_published; --any-attention writes the same weights",
        ),
        (changed(LITE, "codec", pitch=8, input_stride=1), "there is no published DConv like this model: ds 16 exists"),
        (changed(PIXEL, "codec", attention="window_masked"), "codec.attention is window_masked"),
        (changed(PIXEL, "denoiser", mlp_ratio=2.0), "denoiser.mlp_ratio is 2.0"),
        (changed(PIXEL, "denoiser", prediction="image"), "denoiser.prediction is image"),
        (changed(LATENT, "denoiser", autoencoder="space_to_depth"), "denoiser.autoencoder is space_to_depth"),
    ],
)
def test_models_that_the_published_classes_cannot_be_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        published_network(config, one_step=False)


def test_models_that_need_a_choice():
    network = published_network(changed(LITE, "codec", attention="global"), one_step=False, any_attention=True)
    assert network.class_name == "DConv"
    deep = ConditionCodecConfig(
        pitch=128, input_stride=2, decoder_depth=2, attention="global"
    )  # its decoder has no depth to choose
    assert published_network(ModelConfig(deep, DDTConfig()), one_step=False).init_args["light"] is False
    assert published_network(changed(PIXEL, "denoiser", prediction="image"), one_step=True).init_args["pred"] == "x"
    with pytest.raises(ValueError, match="no published one-step decoder of latents"):
        published_network(LATENT, one_step=True)


@pytest.mark.parametrize("argument", ["1", "3", "2,size=114m", "1,rate=0.00024", "3,rate=0.00024"])
@pytest.mark.parametrize(
    ("recipe", "class_name"), [(pixel.get_config, "PixNerDiT"), (latent.get_config, "DDT"), (lite.get_config, "DConv")]
)
def test_models_of_the_recipes_can_be_written(recipe, class_name, argument):
    is_lite = class_name == "DConv"
    config = ModelConfig.from_dict(recipe(argument[0] if is_lite else argument).model.to_dict())
    assert published_network(config, one_step=False, any_attention=is_lite).class_name == class_name
    if is_lite:
        with pytest.raises(ValueError, match=r"codec\.attention is window_masked.* --any-attention writes"):
            published_network(config, one_step=False)


def test_recipes_are_validated_with_the_guidance_they_decode_with():
    for recipe, argument in ((pixel, "1"), (pixel, "1,rate=0.00024"), (latent, "1"), (latent, "3,rate=0.00024")):
        settings = recipe.get_config(argument)
        decoding = default_decoding(ModelConfig.from_dict(settings.model.to_dict()), one_step=False)
        assert decoding.guidance_scale == settings.validation.guidance_scale


@pytest.mark.parametrize(
    ("class_name", "change", "message"),
    [
        ("DConv", {"hidden": 3}, "no argument hidden"),
        ("DConv", {"ds": 24}, "expected ds to be one of 4, 8, 16, 32, 128, got 24"),
        ("DConv", {"ds": 16, "up2x": False}, "up2x only"),
        ("DConv", {"pred": "eps"}, "expects pred to be one of x, v, got 'eps'"),
        ("DConv", {"in_channels": 4}, "expects in_channels to be 3, got 4"),
        ("DConv", {"patch_size": 8}, "expects patch_size to be 16, got 8"),
        ("DConv", {"up2x": "false"}, "expects up2x to be of type bool, got 'false'"),
        ("DConv", {"num_blocks": "24"}, "expects num_blocks to be of type int, got '24'"),
        ("DConv", {"hidden_size": 64.0}, "expects hidden_size to be of type int, got 64.0"),
        ("DConv", {"noise_level": 0.0}, "no argument noise_level"),
        ("UNet", {}, "class 'UNet'"),
        ("OneStepCoD", {"num_groups": 4}, "no argument bottleneck_dim"),
        ("PixNerDiT", {}, "no argument bottleneck_dim"),
    ],
)
def test_arguments_that_no_published_network_takes_are_refused(class_name, change, message):
    with pytest.raises(ValueError, match=message):
        reference_config(class_name, {**LITE_ARGUMENTS, **change})


def test_missing_required_arguments_are_named():
    with pytest.raises(ValueError, match="num_blocks, num_cond_blocks"):
        reference_config("DConv", {"hidden_size": 64})


def test_a_factorized_bottleneck_is_refused():
    codec = ConditionCodecConfig(32, 2, bottleneck=FactorizedConfig(), attention="window_published")
    with pytest.raises(ValueError, match="its bottleneck is factorized, the published ones have codebooks"):
        published_network(ModelConfig(codec, DConvConfig()), one_step=False)
