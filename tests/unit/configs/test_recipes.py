"""The config files: sizes, stages and constants of the recipes."""

import ast
import fnmatch
import json
from pathlib import Path

import pytest

from cod_jax.models import FactorizedConfig, build_model, flatten_params
from cod_jax.models.functional import count_params
from cod_jax.parallel import make_mesh, tree_shardings
from cod_jax.training.config import TrainConfig, changed_fields, flatten
from cod_jax.training.objectives.distill import DistillConfig
from cod_jax.training.objectives.pretrain import PretrainConfig
from cod_jax.training.optimizer import AdamWConfig
from configs import base, compact, findings, latent, lite, one_step, pixel, presets, tiny, tiny_one_step

CONFIGS = {
    "base": base.get_config,
    **{f"compact:{size}": lambda size=size: compact.get_config(f"size={size}") for size in compact.SIZES},
    "compact:1": lambda: compact.get_config("levels=1"),
    "compact:codebook": lambda: compact.get_config("bottleneck=codebook"),
    "compact:codebook,texture": lambda: compact.get_config("objective=texture,bottleneck=codebook"),
    "tiny": tiny.get_config,
    "tiny:2,pixel": lambda: tiny.get_config("2,kind=pixel"),
    "tiny:latent": lambda: tiny.get_config("kind=latent"),
    **{f"one_step:{stage}": lambda stage=stage: one_step.get_config(stage) for stage in one_step.STAGES},
    **{f"tiny_one_step:{stage}": lambda stage=stage: tiny_one_step.get_config(stage) for stage in one_step.STAGES},
    **{f"lite:{stage}": lambda stage=stage: lite.get_config(stage) for stage in lite.STAGES},
    **{f"pixel:{size}": lambda size=size: pixel.get_config(f"1,size={size}") for size in presets.PIXEL_DENOISERS},
    **{f"latent:{size}": lambda size=size: latent.get_config(f"3,size={size}") for size in presets.LATENT_DENOISERS},
}


RECIPES = {
    "lite": lite.get_config,
    "pixel": pixel.get_config,
    "latent": latent.get_config,
    "pixel64": lambda stage: pixel.get_config(f"{stage},rate=0.00024"),
    "latent64": lambda stage: latent.get_config(f"{stage},rate=0.00024"),
    "tiny": tiny.get_config,
    "tiny_latent": lambda stage: tiny.get_config(f"{stage},kind=latent"),
}


def train_config(recipe: str, stage: str) -> TrainConfig:
    return TrainConfig.from_dict(RECIPES[recipe](stage).to_dict())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds_a_model_whose_axes_have_rules(name):
    config = TrainConfig.from_dict(CONFIGS[name]().to_dict())
    functional = build_model(config.model)
    tree_shardings(functional.shapes, functional.axes, config.sharding.rules, make_mesh(config.mesh))


def test_the_base_config_is_the_published_first_stage_and_names_every_field():
    values = base.get_config().to_dict()
    config = TrainConfig.from_dict(values)
    assert flatten(values).keys() == flatten(config.to_dict()).keys()
    stage = lite.get_config("1").to_dict()
    # The terms that need a weight file are off by default.
    assert config == TrainConfig.from_dict(stage | {"data": values["data"], "objective": values["objective"]})
    assert count_params(build_model(config.model).shapes) == pytest.approx(99e6, rel=0.02)


@pytest.mark.parametrize("recipe", ["lite", "pixel", "latent", "pixel64", "latent64"])
def test_published_stages_have_the_published_constants(recipe):
    stages = [train_config(recipe, stage) for stage in presets.STAGES]
    facts = [(c.data.image_size, c.batch_size, c.total_steps, c.optimizer.learning_rate) for c in stages]
    first_steps = 600_000 if recipe == "lite" else 400_000
    assert facts == [(256, 128, first_steps, 1e-4), (512, 64, 100_000, 2e-5), (512, 64, 50_000, 2e-5)]
    assert {c.ema.decay for c in stages} == {0.9999}
    objectives = [c.objective for c in stages if isinstance(c.objective, PretrainConfig)]
    assert {(o.feature_alignment_weight, o.condition_alignment_weight) for o in objectives} == {(0.5, 0.5)}
    assert [o.one_step_weight for o in objectives] == [0.0, 0.0, 1.0]
    assert [c.init_weights for c in stages[1:]] == ["raw", "ema"]
    assert [c.stage for c in stages] == [1, 2, 3]
    assert stages[1].model == stages[2].model
    rate = 0.00024 if recipe.endswith("64") else 0.0039
    assert stages[1].model.codec.nominal_bits_per_pixel == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_stage_starts_from_the_one_before_apart_from_the_listed_layers(recipe):
    first, second, third = (train_config(recipe, stage) for stage in presets.STAGES)
    before, after = (flatten_params(build_model(config.model).shapes) for config in (first, second))
    changed = {name for name in after if name not in before or before[name].shape != after[name].shape}
    assert changed
    assert before.keys() <= after.keys()
    assert changed == {name for name in after if any(fnmatch.fnmatchcase(name, p) for p in second.init_fresh)}
    assert third.init_fresh == ()
    assert third.model == second.model


@pytest.mark.parametrize(("size", "count"), [("49m", 49e6), ("114m", 114e6), ("330m", 330e6)])
def test_denoisers_of_the_scaling_study_have_the_parameters_they_are_named_for(size, count):
    for module in (pixel, latent):
        config = TrainConfig.from_dict(module.get_config(f"1,size={size}").to_dict())
        assert count_params(build_model(config.model).shapes["denoiser"]) == pytest.approx(count, rel=0.01)


def test_published_sizes_are_the_published_ones():
    for module, parameters in ((pixel, 897_063_843), (latent, 853_553_232)):
        config = TrainConfig.from_dict(module.get_config("2").to_dict())
        assert count_params(build_model(config.model).shapes) == parameters


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("4", "no stage '4'; choose one of 1, 2, 3"),
        ("1,size=xxl", "no size 'xxl'"),
        ("1,bits=4", "unknown option 'bits'"),
    ],
)
def test_unknown_presets_are_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        pixel.get_config(argument)


def test_the_one_step_codec_has_a_recipe_for_eight_rates():
    for rate in presets.ONE_STEP_RATES:
        for stage in one_step.STAGES:
            plain = TrainConfig.from_dict(one_step.get_config(f"{stage},rate={rate},losses=plain").to_dict())
            assert plain.model.codec.nominal_bits_per_pixel == pytest.approx(float(rate), rel=0.02)
            assert plain.frozen_names == ()
    without_dinov2 = TrainConfig.from_dict(one_step.get_config("2,losses=lpips").to_dict())
    assert without_dinov2.frozen_names == ("lpips_vgg", "lpips_alex")
    published = TrainConfig.from_dict(one_step.get_config("2").to_dict())
    assert published.frozen_names == ("dinov2", "lpips_vgg", "lpips_alex")
    assert isinstance(published.objective, DistillConfig)
    assert isinstance(published.optimizer, AdamWConfig)
    assert (published.batch_size, published.optimizer.schedule) == (32, "tenth")
    # Every field is there, so that it can be set on the command line.
    for argument in ("1", "2"):
        values = one_step.get_config(argument).to_dict()
        assert flatten(values).keys() == flatten(TrainConfig.from_dict(values).to_dict()).keys()
        factorized = TrainConfig.from_dict(one_step.get_config(f"{argument},bottleneck=factorized").to_dict())
        assert factorized.model.codec.symbols.bits is None
    transformer = TrainConfig.from_dict(one_step.get_config("1,denoiser=xl").to_dict())
    assert count_params(build_model(transformer.model).shapes) == 872_609_699


@pytest.mark.parametrize("stage", findings.STAGES)
def test_the_runs_of_a_finding_differ_in_one_thing(stage):
    def settings(**options: str) -> TrainConfig:
        argument = ",".join([stage, *(f"{name}={value}" for name, value in options.items())])
        return TrainConfig.from_dict(findings.get_config(argument).to_dict())

    reference = settings()
    generation = settings(pretraining="generation")
    expected = {"objective.null_condition_probability"} if stage == "1" else set()
    assert set(changed_fields(reference.to_dict(), generation.to_dict())) == expected
    transformer = settings(denoiser="transformer")
    changed = changed_fields(reference.to_dict(), transformer.to_dict())
    assert all(name.startswith("model.denoiser.") for name in changed)
    sizes = [count_params(build_model(config.model).shapes["denoiser"]) for config in (reference, transformer)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


def test_the_tiny_model_is_tiny():
    config = TrainConfig.from_dict(tiny.get_config().to_dict())
    assert 1e6 < count_params(build_model(config.model).shapes) < 3e6
    assert config.ema.warmup


def test_config_files_say_how_they_are_used():
    for path in (Path(base.__file__).parent).glob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring
        if path.stem in ("lite", "tiny", "compact"):
            assert f"--config configs/{path.name}" in docstring


@pytest.mark.parametrize("get_config", [tiny.get_config, pixel.get_config, latent.get_config])
def test_recipes_take_either_bottleneck(get_config):
    settings = TrainConfig.from_dict(get_config("1,bottleneck=factorized").to_dict())
    assert settings.model.codec.bottleneck == FactorizedConfig()
    functional = build_model(settings.model)
    tree_shardings(functional.shapes, functional.axes, settings.sharding.rules, make_mesh(settings.mesh))
    assert changed_fields(json.loads(json.dumps(settings.to_dict())), settings.to_dict()) == {}
    with pytest.raises(ValueError, match="no bottleneck 'factorised'; choose one of codebook, factorized"):
        get_config("1,bottleneck=factorised")


@pytest.mark.parametrize("module", [pixel, latent, lite])
def test_the_published_data_are_a_mixture_of_three_datasets_at_256_pixels_and_of_two_at_512(module):
    assert module.get_config("1").data.source == module.get_config("3,data=own").data.source == ""
    sources = [module.get_config(f"{stage},data=published").data.source for stage in "123"]
    assert sources[0] == "mix:13.2=tfds:imagenet21k/256,1.7=tfds:openimages/256,11.2=tfds:sa1b/256"
    assert sources[1:] == 2 * ["mix:1.7=tfds:openimages/512,11.2=tfds:sa1b/512"]
