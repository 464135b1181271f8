"""Settings of runs: stored values, older names, and errors."""

import copy
import dataclasses
import json
import math

import pytest

from cod_jax.errors import UserError
from cod_jax.training.config import TrainConfig, changed_fields
from configs import base, tiny, tiny_one_step


def config_with(**changes) -> TrainConfig:
    """Return the base config with changed fields; "__" stands for the dot."""
    config = base.get_config()
    with config.unlocked():
        for name, value in changes.items():
            config.update_from_flattened_dict({name.replace("__", "."): value})
    return TrainConfig.from_dict(config.to_dict())


def test_settings_survive_json():
    import json

    config = TrainConfig.from_dict(tiny.get_config().to_dict())
    stored = json.loads(json.dumps(config.to_dict()))
    assert changed_fields(stored, config.to_dict()) == {}
    assert changed_fields(stored, {**config.to_dict(), "seed": 1}) == {"seed": (0, 1)}


def test_checkpoints_of_earlier_settings_are_ranked_by_the_loss():
    stored = tiny.get_config().to_dict()
    del stored["checkpoint"]["best_by"]
    config = TrainConfig.from_dict(stored)
    assert config.checkpoint.best_by == "loss"
    assert changed_fields(stored, config.to_dict()) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint__best_by": "pnsr"}, "config.checkpoint: expected best_by among loss, .*, got 'pnsr'"),
        ({"batch_size": 0}, "config: batch_size must be at least 1, got 0"),
        ({"batch_size": 12, "accumulation_steps": 8}, "batch_size must be a multiple of accumulation_steps 8, got 12"),
        ({"compute__dtype": "float16"}, "dtype must be one of float32, bfloat16, got 'float16'"),
        ({"data__image_size": 100}, "data.image_size must be a multiple of 16, .* got 100"),
        ({"mesh__data": 0}, "config.mesh: .*mesh.data.* 0"),
        ({"checkpoint__keep_latest": 0}, "config.checkpoint: keep_latest must be at least 1, got 0"),
        ({"validation__num_images": -1}, "config.validation: num_images must be at least 0, got -1"),
        (
            {"optimizer__schedule": "linear"},
            "optimizer.schedule must be one of constant, cosine, tenth, got 'linear'",
        ),
        ({"model__codec__pitch": 12}, "config.model.codec: pitch must be a power of two .* got 12"),
        ({"seed": -1}, r"seed must be between 0 and 2\^32 - 1, got -1"),
        ({"seed": 2**32}, r"seed must be between 0 and 2\^32 - 1, got 4294967296"),
        ({"total_steps": 2**31}, r"total_steps must be below 2\^31, got 2147483648"),
        ({"optimizer__learning_rate": math.nan}, "config.optimizer.learning_rate must be a finite number, got nan"),
        ({"optimizer__eps": math.inf}, "config.optimizer.eps must be a finite number, got inf"),
        ({"objective__reconstruction_weight": -math.inf}, "reconstruction_weight must be a finite number, got -inf"),
        ({"init_fresh": (1,)}, r"config.init_fresh\[0\] must be of type str, got 1"),
        ({"checkpoint__address": "az://b/run"}, "checkpoint.address must begin with gs:// or s3://, got az://b/run; "),
        ({"checkpoint__address": "runs/lite"}, "checkpoint.address must begin with gs:// or s3://, got runs/lite; "),
    ],
)
def test_unusable_values_are_refused_with_a_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        config_with(**changes)


def test_unknown_and_missing_fields_are_named():
    values = base.get_config().to_dict()
    unknown = copy.deepcopy(values)
    unknown["optimizer"]["learning_rat"] = 1.0
    with pytest.raises(
        ValueError, match=r"unknown field config.optimizer.learning_rat; did you mean config.optimizer.l"
    ):
        TrainConfig.from_dict(unknown)
    mistyped = copy.deepcopy(values)
    mistyped["batch_size"] = "many"
    with pytest.raises(ValueError, match=r"config.batch_size must be of type int, got 'many'"):
        TrainConfig.from_dict(mistyped)
    missing = copy.deepcopy(values)
    del missing["checkpoint"]["every_steps"]
    with pytest.raises(ValueError, match=r"config.checkpoint.every_steps is missing; start from .*configs/base.py"):
        TrainConfig.from_dict(missing)


def test_settings_of_earlier_checkpoints_are_those_of_today():
    settings = json.loads(json.dumps(TrainConfig.from_dict(tiny.get_config().to_dict()).to_dict()))
    stored = json.loads(json.dumps(settings))
    codec, objective = stored["model"]["codec"], stored["objective"]
    codec["codebook_bits"] = codec.pop("bottleneck")["bits"]
    del objective["bottleneck"]["rate_weight"]  # it is newer
    objective |= objective.pop("bottleneck") | {"kind": "pretrain", "rate_weights": [1.0]}
    assert changed_fields(stored, settings) == {}
    codec["factorized"] = None
    assert changed_fields(stored, settings) == {}
    assert TrainConfig.from_dict(stored) == TrainConfig.from_dict(settings)


@pytest.mark.parametrize("stage", ["1", "2"])
@pytest.mark.parametrize("bottleneck", ["codebook", "factorized"])
def test_settings_of_earlier_one_step_checkpoints_are_those_of_today(stage, bottleneck):
    config = tiny_one_step.get_config(f"{stage},bottleneck={bottleneck}")
    settings = json.loads(json.dumps(TrainConfig.from_dict(config.to_dict()).to_dict()))
    stored = json.loads(json.dumps(settings))
    codec, objective = stored["model"]["codec"], stored["objective"]
    fields = codec.pop("bottleneck")
    del fields["kind"]
    codec |= {"codebook_bits": fields["bits"]} if "bits" in fields else {"codebook_bits": 0, "factorized": fields}
    training = objective.pop("bottleneck")
    del training["kind"]
    for newer in ("level_balance", "rate_weight"):
        training.pop(newer, None)
    both = {"commitment_weight": 0.25, "rate_weights": [1.0]}  # of which one is in use
    weights = {name: training.pop(name) for name in ("commitment_weight", "rate_weights") if name in training}
    objective["reconstruction"] |= both | weights
    objective |= training
    assert TrainConfig.from_dict(stored) == TrainConfig.from_dict(settings)
    assert changed_fields(stored, settings) == {}


def test_a_field_that_descriptions_gained_since_counts_as_its_default():
    settings = json.loads(json.dumps(TrainConfig.from_dict(tiny.get_config().to_dict()).to_dict()))
    stored = json.loads(json.dumps(settings))
    del stored["objective"]["losses"], stored["model"]["codec"]["attention"]  # as if they were new
    assert changed_fields(stored, settings) == {}


def test_every_stage_of_every_seed_has_random_numbers_of_its_own():
    config = TrainConfig.from_dict(tiny.get_config().to_dict())
    seeds = [dataclasses.replace(config, seed=seed, stage=stage).stage_seed for seed in range(9) for stage in (1, 2, 3)]
    assert len(set(seeds)) == len(seeds)
    assert seeds[::3] == list(range(9))  # runs of a single stage are those of earlier versions
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seeds[1:3] == [3141116543, 2613022947]  # checkpoints depend on them


def test_a_folder_of_a_prepared_dataset_is_a_local_path():
    assert config_with(data__source="tfds:/its/folder/1.0.0").data.source == "tfds:/its/folder/1.0.0"


def test_validation_every_0_steps_is_never():
    assert config_with(validation__every_steps=0).validation.num_wanted == 0
    assert config_with(validation__every_steps=5).validation.num_wanted == 64


@pytest.mark.parametrize(
    ("batch_size", "limit", "shards", "parts"),
    [(64, 0, 8, 1), (64, 8, 8, 1), (64, 8, 4, 2), (64, 8, 1, 8), (96, 8, 3, 4), (96, 8, 6, 2), (96, 7, 6, 4)],
)
def test_fewer_devices_compute_the_same_batch_in_more_parts(batch_size, limit, shards, parts):
    config = TrainConfig.from_dict(base.get_config().to_dict() | {"batch_size": batch_size, "images_per_device": limit})
    shared = config.shared_by(shards)
    assert (shared.batch_size, shared.accumulation_steps) == (batch_size, parts)


def test_a_batch_that_the_devices_cannot_share_is_refused():
    config = TrainConfig.from_dict(base.get_config().to_dict() | {"batch_size": 64, "images_per_device": 8})
    with pytest.raises(UserError, match="that 7 devices can share in parts of at most 8 images each, got 64"):
        config.shared_by(7)
