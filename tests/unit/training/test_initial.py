import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.model_folder.bundle import save_bundle
from cod_jax.models import build_model, flatten_params
from cod_jax.models.bottlenecks import CodebookTraining
from cod_jax.parallel import MeshConfig, make_mesh, replicated
from cod_jax.training.config import TrainConfig
from cod_jax.training.config_files import read_settings, read_stages
from cod_jax.training.initial import Initial, check_start, load_initial, with_initial
from cod_jax.training.state import TrainState
from tests.model_fixtures import numpy_params, tiny_model_config
from tests.training_fixtures import CONFIG

FRESH = ("codec/decoder/output/1/*",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "first"
    config = tiny_model_config(pitch=16, input_stride=1)
    save_bundle(path, config, numpy_params(build_model(config).shapes), training={})
    return path


def with_heads(shapes: dict) -> dict:
    return {"model": shapes, "heads": {"k": jax.ShapeDtypeStruct((2,), jnp.float32)}}


def test_a_model_of_the_same_shapes_is_loaded_into_parameters_and_average(folder):
    shapes = build_model(tiny_model_config(pitch=16, input_stride=1)).shapes
    initial = load_initial(folder, "ema", with_heads(shapes), ())
    assert initial.fresh == []
    assert initial.grown == ["heads/k"]
    zeros = {"model": jax.tree.map(lambda x: jnp.zeros(x.shape), shapes), "heads": {"k": jnp.ones(2)}}
    usage = jnp.zeros((16,))
    state = TrainState(zeros, zeros, {}, {"codebook_usage": usage}, jnp.int32(0), jnp.int32(0), {}, jnp.zeros(2))
    shardings = jax.tree.map(lambda _: replicated(make_mesh(MeshConfig())), state)
    started = with_initial(state, shardings, initial, initial.params, CodebookTraining().buffers_from(state.buffers))
    assert initial.has_bottleneck
    for part in (started.params, started.ema):
        flat = flatten_params(part)
        assert all(np.array_equal(flat[name], value) for name, value in initial.params.items())
        assert part["heads"]["k"][0] == 1
    assert jax.tree.structure(started) == jax.tree.structure(state)
    # The step gives its inputs' memory away, so the two may not share any.
    both = jax.tree.leaves((started.params, started.ema))
    assert len({leaf.addressable_shards[0].data.unsafe_buffer_pointer() for leaf in both}) == len(both)
    # Codes that come with the weights count as used, or training would replace them at its first step.
    np.testing.assert_allclose(started.buffers["codebook_usage"], 1 / 16)


def test_the_average_of_what_is_not_trained_is_the_parameter_itself():
    params = {"model": {"a": jnp.zeros(2), "b": jnp.zeros(2)}}
    average = jax.tree.map(jnp.copy, params)
    state = TrainState(params, average, {}, {}, jnp.int32(0), jnp.int32(0), {}, jnp.zeros(2))
    shardings = jax.tree.map(lambda _: replicated(make_mesh(MeshConfig())), state)
    raw = {"model/a": np.full(2, 1, np.float32), "model/b": np.full(2, 2, np.float32)}
    average = {"model/a": np.full(2, 3, np.float32), "model/b": np.full(2, 4, np.float32)}
    started = with_initial(state, shardings, Initial(raw, average, [], [], []), {"model/a"}, {})
    assert [float(started.params["model"][name][0]) for name in "ab"] == [1, 2]
    assert [float(started.ema["model"][name][0]) for name in "ab"] == [3, 2]


def test_listed_layers_stay_fresh_in_a_later_stage(folder):
    shapes = with_heads(build_model(tiny_model_config(pitch=32, input_stride=2)).shapes)
    initial = load_initial(folder, "ema", shapes, FRESH)
    grown = [name for name in initial.grown if name.startswith("model/")]
    assert grown
    assert all(name.startswith("model/codec/decoder/output/1/") for name in grown)
    assert initial.params.keys() | set(initial.grown) == flatten_params(shapes).keys()
    assert "grown (new layers): model/codec/decoder/output/1/" in initial.summary()


def config_of(name: str, *changes: str) -> TrainConfig:
    return TrainConfig.from_dict(read_settings(name, [f"--config.{change}" for change in changes]))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("configs/lite.py:2", (), "a model with init_fresh or init_weights=raw"),
        *((f"configs/{recipe}.py:3", (), "stage 3 of a recipe") for recipe in ("lite", "pixel", "latent", "tiny")),
        (CONFIG, ("objective.freeze=('codec/*',)",), r"objective.freeze \('codec/\*',\), since what is frozen"),
        ("configs/compact.py:objective=texture", (), "objective.freeze"),
        ("configs/one_step.py:1", (), "pre-trained model for objective.kind one_step"),
        ("configs/findings.py:2", (), "pre-trained model for objective.kind one_step"),
    ],
)
def test_a_run_that_goes_on_from_a_model_names_it(name, changes, message):
    with pytest.raises(ValueError, match=f"^init_from must name .*{message}.*got nothing; give a model folder"):
        check_start(config_of(str(name), *changes))
    check_start(config_of(str(name), *changes, "init_from=model"))


def test_a_run_may_start_from_scratch():
    for name in (CONFIG, f"{CONFIG}:1", "configs/lite.py:1", "configs/compact.py", "configs/tiny_one_step.py:pretrain"):
        check_start(config_of(str(name)))
    check_start(config_of(f"{CONFIG}:3", "stage=1"))
    check_start(config_of(f"{CONFIG}:2", "init_fresh=()", "init_weights=ema", "stage=1"))


@pytest.mark.parametrize("recipe", ["lite", "pixel", "latent", "tiny", "one_step", "tiny_one_step", "findings"])
def test_the_stages_of_a_recipe_draw_different_numbers(recipe):
    for seed in ((), ("--config.seed=5",)):
        stages = read_stages(f"configs/{recipe}.py:all", seed)
        seeds = {TrainConfig.from_dict(settings).stage_seed for settings in stages.values()}
        assert len(seeds) == len(stages)


def test_many_names_are_summed_up_by_their_modules():
    names = [f"lora/denoiser/blocks/{number}/a" for number in range(30)]
    summary = Initial({}, {}, names, ["model/codec/x"], []).summary()
    assert "grown (new layers): lora/denoiser/blocks (30); fresh (another shape): model/codec/x;" in summary


def test_anything_else_that_does_not_fit_is_refused_with_lists(folder):
    shapes = with_heads(build_model(tiny_model_config(pitch=32, input_stride=2)).shapes)
    with pytest.raises(ValueError, match=r"init_from .*missing \(\d+\): codec/decoder/output/1.*init_fresh"):
        load_initial(folder, "ema", shapes, ())
    shapes = with_heads(build_model(tiny_model_config(pitch=16, input_stride=1, latent_channels=4)).shapes)
    with pytest.raises(
        ValueError, match=r"wrong shape \(\d+\): .*codec/bottleneck/codebook \(16, 8\) instead of \(16, 4\)"
    ):
        load_initial(folder, "ema", shapes, FRESH)
    with pytest.raises(ValueError, match="does not exist"):
        load_initial(folder / "nothing", "ema", shapes, ())
