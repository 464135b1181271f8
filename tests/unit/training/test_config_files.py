"""Reading config files, with their presets and changed fields."""

import itertools

import pytest

from cod_jax.errors import UserError
from cod_jax.training.config import TrainConfig
from cod_jax.training.config_files import read_settings, read_stages
from cod_jax.training.config_list import config_files
from cod_jax.training.optimizer import MuonConfig
from configs import tiny, tiny_one_step
from tests.conftest import REPOSITORY
from tests.training_fixtures import CONFIG


def test_without_stages_the_settings_have_no_name():
    assert read_stages(f"{CONFIG}:2") == {"": tiny.get_config("2").to_dict()}


def test_stages_are_those_of_the_file_with_the_same_options():
    stages = read_stages(f"{CONFIG}:all,kind=pixel")
    assert stages == {stage: tiny.get_config(f"{stage},kind=pixel").to_dict() for stage in ("1", "2", "3")}


@pytest.mark.parametrize("teacher", [["--config.objective.teacher=t"], ["--config.objective.teacher", "t"]])
def test_a_setting_of_one_stage_is_no_setting_of_the_others(teacher):
    config = f"{CONFIG}".replace("tiny.py", "tiny_one_step.py")
    stages = read_stages(f"{config}:all", [*teacher, "--config.seed=3"])
    first, second = tiny_one_step.get_config("1").to_dict(), tiny_one_step.get_config("2").to_dict()
    assert stages["1"] == {**first, "seed": 3}
    assert stages["2"] == {**second, "seed": 3, "objective": {**second["objective"], "teacher": "t"}}
    with pytest.raises(UserError, match=r"unknown field --config.sead; did you mean --config.seed\?"):
        read_stages(f"{config}:all", [*teacher, "--config.sead=3"])


@pytest.mark.parametrize("field", ["model.codec.bottleneck.num_levels", "objective.bottleneck.level_balance"])
def test_a_field_of_another_bottleneck_is_not_taken_for_a_misspelt_one(field):
    expected = rf"unknown field --config.{field}; configs/base.py lists .*:bottleneck=factorized$"
    with pytest.raises(UserError, match=expected):
        read_settings(str(CONFIG), [f"--config.{field}=2"])


def test_values_are_read_as_the_types_of_the_fields():
    changes = [
        "--config.batch_size=8",
        "--config.ema.warmup=False",
        "--noconfig.data.flip",
        "--config.data.source",
        "a",
    ]
    settings = read_settings(str(CONFIG), changes)
    assert (settings["batch_size"], settings["ema"]["warmup"]) == (8, False)
    assert (settings["data"]["flip"], settings["data"]["source"]) == (False, "a")
    assert read_settings(str(CONFIG), ["--config.init_fresh=('a', 'b')"])["init_fresh"] == ("a", "b")


@pytest.mark.parametrize(
    ("preset", "old", "value"),
    [
        ("", "model.codec.codebook_bits=6", ("model", "codec", "bottleneck", "bits", 6)),
        ("", "objective.revive_codes_every=7", ("objective", "bottleneck", "revive_codes_every", 7)),
        (
            ":bottleneck=factorized",
            "objective.rate_weights=(0.5,)",
            ("objective", "bottleneck", "rate_weights", (0.5,)),
        ),
        (
            ":bottleneck=factorized",
            "model.codec.factorized.num_levels=8",
            ("model", "codec", "bottleneck", "num_levels", 8),
        ),
    ],
)
def test_fields_keep_their_names_of_version_0_1(preset, old, value):
    *path, expected = value
    settings = read_settings(f"{CONFIG}{preset}", [f"--config.{old}"])
    for name in path:
        settings = settings[name]
    assert settings == expected


def test_files_that_come_with_the_package_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings("configs/tiny.py") == tiny.get_config().to_dict()
    with pytest.raises(UserError, match=r"there is no config file tiny\.py; cod train --help lists"):
        read_settings("tiny.py")


def test_every_option_of_every_config_file_gives_settings(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with_options = [file for file in config_files() if file.options]
    assert len(with_options) >= 7
    for file in with_options:
        for name, value in itertools.chain(*([(name, v) for v in values] for name, values in file.options.items())):
            TrainConfig.from_dict(read_settings(f"{file.name}:{value if name == 'stage' else f'{name}={value}'}"))
        with pytest.raises(UserError, match=f"there is no {next(iter(file.options))} 'other'; choose one of "):
            read_settings(f"{file.name}:{next(iter(file.options))}=other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.learning_rate=None", "--config.optimizer.learning_rate must be a number, got 'None'"),
        ("batch_size=1.5", "--config.batch_size must be a whole number, got '1.5'"),
        ("ema.warmup=maybe", "--config.ema.warmup must be True or False, got 'maybe'"),
        ("ema.warmup=None", "--config.ema.warmup must be True or False, got 'None'"),
        ("optimizer=None", "--config.optimizer is a group of fields; set one of them, as in --config.optimizer.b1="),
        ("model=x", "--config.model is a group of fields"),
        ("seed", "--config.seed has no value; write --config.seed=VALUE"),
        ("optimizer.lr=1", "unknown field --config.optimizer.lr; did you mean --config.optimizer.learning_rate?"),
    ],
)
def test_a_wrong_value_is_told_in_our_words(change, message):
    with pytest.raises(UserError) as caught:
        read_settings(str(CONFIG), [f"--config.{change}"])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("kind", [["--config.optimizer.kind=muon"], ["--config.optimizer.kind", "muon"]])
def test_a_chosen_optimizer_has_its_own_fields(kind):
    for settings in (
        read_settings(str(CONFIG), [*kind, "--config.optimizer.momentum=0.9"]),
        read_stages(f"{CONFIG}:all", ["--config.optimizer.momentum", "0.9", *kind])["2"],
    ):
        optimizer = TrainConfig.from_dict(settings).optimizer
        assert isinstance(optimizer, MuonConfig)
        assert optimizer.momentum == 0.9
    assert read_settings(str(CONFIG), kind)["optimizer"]["momentum"] == MuonConfig().momentum
    with pytest.raises(UserError, match=r"unknown field --config\.optimizer\.momentum"):
        read_settings(str(CONFIG), ["--config.optimizer.momentum=0.9"])
    with pytest.raises(UserError, match=r"config.optimizer.kind must be one of adamw, muon, .*, got 'sgd'"):
        read_settings(str(CONFIG), ["--config.optimizer.kind=sgd"])
    with pytest.raises(UserError, match=r"--config\.optimizer\.kind has no value"):
        read_settings(str(CONFIG), ["--config.optimizer.kind"])


def test_the_critic_may_have_another_optimizer_in_the_stage_that_has_it():
    config = f"{CONFIG}".replace("tiny.py", "tiny_one_step.py")
    critic = "--config.objective.critic_optimizer"
    stages = read_stages(f"{config}:all", [f"{critic}.kind=muon", f"{critic}.momentum=0.9"])
    assert stages["2"]["objective"]["critic_optimizer"]["momentum"] == 0.9
    assert "momentum" not in stages["2"]["optimizer"]


def test_an_option_that_does_not_exist_is_answered_with_those_that_do():
    expected = r"unknown option 'colour' .*; it takes stage=1, 2, 3; kind=lite, pixel, latent; bottleneck=codebook, fac"
    with pytest.raises(UserError, match=expected):
        read_settings(f"{CONFIG}:colour=red")
