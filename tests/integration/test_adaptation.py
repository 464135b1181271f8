"""Low-rank adaptation of named layers in pre-training: stopped, resumed and exported."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cod_jax.commands.main import main
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.models import ModelConfig, build_model, flatten_params
from cod_jax.models.lora import merge
from tests.integration.states import final_state
from tests.model_fixtures import numpy_params
from tests.training_fixtures import run_trainer, small_arguments, small_settings, write_photographs


@pytest.mark.slow
def test_adaptations_of_named_layers_go_on_where_they_stopped_and_are_merged_into_the_model(tmp_path: Path):
    photographs = write_photographs(tmp_path / "photographs")
    config = ModelConfig.from_dict(small_settings()["model"])
    params = numpy_params(build_model(config).shapes)
    save_bundle(tmp_path / "model", config, params, training={})

    def train(name: str, steps: int, **fields):
        fields = {
            "init_from": tmp_path / "model",
            "objective__lora_rank": 2,
            "objective__lora_alpha": 4.0,
            "objective__lora_layers": ("denoiser/*",),
            "objective__freeze": ("*",),
            "validation__num_images": 0,
            **fields,
        }
        return run_trainer(small_arguments(tmp_path / name, photographs, total_steps=steps, **fields))

    for name, steps in (("straight", 3), ("stopped", 2), ("stopped", 3)):
        done = train(name, steps)
        assert done.returncode == 0, done.stderr
    straight, stopped = (final_state(tmp_path / name, 3) for name in ("straight", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, stopped, straight)
    for tree in (straight.params, straight.ema):
        for name, value in flatten_params(tree["model"]).items():
            np.testing.assert_array_equal(value, flatten_params(params)[name], err_msg=name)

    assert main(["export", "--workdir", str(tmp_path / "straight"), "--output", str(tmp_path / "exported")]) == 0
    exported = flatten_params(load_bundle(tmp_path / "exported").params)
    merged = flatten_params(merge(params, straight.ema["lora"], 2.0))
    for name, value in merged.items():
        np.testing.assert_allclose(exported[name], value, rtol=1e-6, atol=1e-7, err_msg=name)
    assert not np.array_equal(
        exported["denoiser/patch_embed/kernel"], flatten_params(params)["denoiser/patch_embed/kernel"]
    )

    refused = train("nothing", 2, objective__lora_layers=("denoizer/*",))
    assert refused.returncode == 2
    assert "objective.lora_layers: no linear map is named 'denoizer/*'; expected patterns such as" in refused.stderr
    assert not (tmp_path / "nothing").exists()
