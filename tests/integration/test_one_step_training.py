"""The one-step codec through the commands: both stages, stopped and resumed, exported, and judged."""

import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from PIL import Image

from cod_jax.commands.main import main
from cod_jax.images import save_png
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.models import ModelConfig, build_model, flatten_params
from cod_jax.models.lora import merge
from cod_jax.training.saved_models import load_for_export
from demo.photographs import HELD_OUT_PHOTOGRAPH, TRAINING_PHOTOGRAPHS
from tests.integration.judge import in_batches, judge
from tests.integration.states import final_state
from tests.model_fixtures import numpy_params
from tests.training_fixtures import CONFIG, run_trainer, small_arguments, small_settings, write_photographs

ONE_STEP = str(CONFIG).replace("tiny.py", "tiny_one_step.py")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("data") / "photographs")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A model folder as if it had been trained."""
    path = tmp_path_factory.mktemp("models") / "teacher"
    config = ModelConfig.from_dict(small_settings()["model"])
    save_bundle(path, config, numpy_params(build_model(config).shapes), training={})
    return path


def arguments(workdir: Path, photographs: Path, stage: str, start: Path, **fields) -> list[str]:
    # The teacher has the pitch of configs/tiny.py.
    fields = {"init_from": start, "model__codec__pitch": 16, "validation__num_images": 3, **fields}
    settings = small_arguments(workdir, photographs, **fields)
    # These objectives do not sample.
    settings = [setting for setting in settings[1:] if "num_sampling_steps" not in setting]
    return [f"--config={ONE_STEP}:{stage}", *settings]


@pytest.mark.slow
def test_distillation_goes_on_where_it_stopped_bit_for_bit(photographs, teacher, tmp_path):
    fields = {
        "objective__teacher": teacher,
        "objective__critic_updates": 2,
        "objective__critic_optimizer__warmup_steps": 0,
        "model__codec__pitch": 16,
        "checkpoint__every_steps": 4,
        "validation__every_steps": 4,
        "batch_size": 2,
    }

    def train(name: str, steps: int):
        done = run_trainer(arguments(tmp_path / name, photographs, "2", teacher, total_steps=steps, **fields))
        assert done.returncode == 0, done.stderr
        return done.stdout

    log = train("straight", 6)
    assert "step 3/6: student loss" in log
    assert "step 4/6: critic loss" in log
    assert "validation after step 4: PSNR" in log
    train("stopped", 4)
    # Another teacher under the same name is noticed.
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    fields["objective__teacher"] = other
    config = load_bundle(teacher).config
    with pytest.warns(UserWarning, match="it was replaced"):
        save_bundle(other, config, numpy_params(build_model(config).shapes, seed=9), training={}, force=True)
    refused = run_trainer(arguments(tmp_path / "stopped", photographs, "2", teacher, total_steps=6, **fields))
    assert refused.returncode == 2
    assert "was trained with other weights of the frozen teacher than those given now" in refused.stderr
    fields["objective__teacher"] = teacher
    assert "resumed after step 4 of 6" in train("stopped", 6)
    straight, stopped = (final_state(tmp_path / name, 6) for name in ("straight", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, stopped, straight)
    # Nothing ranks these checkpoints, so the newest is exported.
    assert load_for_export(tmp_path / "straight")[2]["step"] == 6


@pytest.mark.soak
def test_both_stages_run_one_after_the_other_and_end_as_a_model_of_one_step(photographs, teacher, tmp_path, capsys):
    fields = {"total_steps": 2, "batch_size": 2, "validation__num_images": 0}
    first = run_trainer(arguments(tmp_path / "first", photographs, "1", teacher, **fields))
    assert first.returncode == 0, first.stderr
    state = final_state(tmp_path / "first", 2)
    merged = merge(state.ema["model"], state.ema["lora"], 1.0)
    assert main(["export", "--workdir", str(tmp_path / "first"), "--output", str(tmp_path / "first_model")]) == 0
    exported = flatten_params(load_bundle(tmp_path / "first_model").params)
    for name, value in flatten_params(merged).items():
        np.testing.assert_allclose(exported[name], value, rtol=1e-6, atol=1e-7, err_msg=name)

    workdir = tmp_path / "all"
    settings = arguments(workdir, photographs, "all", teacher, **fields)
    missing = run_trainer(settings)
    assert missing.returncode == 2
    assert "objective.teacher must name a pre-trained CoD or CoD-Lite on pixels, got nothing" in missing.stderr
    missing = run_trainer(arguments(tmp_path / "no_start", photographs, "1", Path(), **{**fields, "init_from": ""}))
    assert missing.returncode == 2
    assert "init_from must name a pre-trained model for objective.kind one_step, got nothing" in missing.stderr
    assert not (tmp_path / "no_start").exists()

    second = arguments(tmp_path / "second", photographs, "2", tmp_path / "first", objective__teacher=teacher, **fields)
    done = run_trainer(second)
    assert done.returncode == 0, done.stderr
    assert "left out (not in this model): none" in done.stdout
    assert main(["export", "--workdir", str(tmp_path / "second"), "--output", str(tmp_path / "model")]) == 0
    assert load_bundle(tmp_path / "model").decoding.num_steps == 1


# Of each photograph the left three quarters are trained on, and the rest is held out.
PHOTOGRAPHS = (*TRAINING_PHOTOGRAPHS, HELD_OUT_PHOTOGRAPH)
SIZE = 32


def tiles(picture: np.ndarray, size: int, step: int) -> list[np.ndarray]:
    height, width, _ = picture.shape
    return [
        picture[top : top + size, left : left + size]
        for top in range(0, height - size + 1, step)
        for left in range(0, width - size + 1, step)
    ]


@pytest.fixture(scope="module")
def real_tiles(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder of pieces of photographs, and crops to train and to test a judge with, uint8 [N, 32, 32, 3]."""
    folder = tmp_path_factory.mktemp("data") / "tiles"
    data = Path(skimage.__file__).parent / "data"
    train, test = [], []
    for name in PHOTOGRAPHS:
        picture = Image.open(data / name).convert("RGB")
        scale = 256 / min(picture.size)
        pixels = np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale))))
        border = pixels.shape[1] * 3 // 4
        for index, tile in enumerate(tiles(pixels[:, :border], 48, 32)):
            save_png(folder / f"{Path(name).stem}_{index:03d}.png", tile)
            train.append(tile[8 : 8 + SIZE, 8 : 8 + SIZE])
        test += tiles(pixels[:, border:], SIZE, SIZE)
    chosen = np.random.default_rng(0).permutation(len(test))[:64]
    return folder, np.stack(train), np.stack(test)[chosen]


def student(path: Path):
    """A function from pictures uint8 [B, H, W, 3] to what a one-step codec makes of them, in [-1, 1]."""
    bundle = load_bundle(path)
    functional = build_model(bundle.config)
    params = jax.tree.map(jnp.asarray, bundle.params)

    @jax.jit
    def run(image_uint8: jax.Array) -> jax.Array:
        model = functional.bind(params)
        quantized = model.codec.quantize(model.codec.encode(image_uint8.astype(jnp.float32) / 255))
        return jnp.clip(model.one_step(model.codec.decode(quantized.values)), -1, 1)

    return run


@pytest.mark.soak
def test_a_distilled_student_looks_more_real_than_its_first_stage(real_tiles, tmp_path, record_property):
    folder, train_crops, test_crops = real_tiles
    assert len(test_crops) == 64

    def train(preset: str, *settings: str) -> None:
        done = run_trainer(
            [
                f"--config={ONE_STEP}:{preset}",
                f"--workdir={tmp_path / preset}",
                f"--config.data.source={folder}",
                "--config.validation.num_images=0",
                "--config.log.every_steps=100",
                *settings,
            ],
            env={**os.environ, "XLA_FLAGS": ""},
            timeout=1500,
        )
        assert done.returncode == 0, done.stderr

    pretrained = tmp_path / "pretrain"
    train("pretrain")
    train("all", f"--config.init_from={pretrained}", f"--config.objective.teacher={pretrained}")
    students = []
    for stage in ("stage1", "stage2"):
        model = tmp_path / f"model_{stage}"
        assert main(["export", "--workdir", str(tmp_path / "all" / stage), "--output", str(model)]) == 0
        students.append(student(model))

    def psnr(pictures: np.ndarray) -> float:
        return float(np.mean(-10 * np.log10(np.mean(((pictures - real) / 2) ** 2, axis=(1, 2, 3)))))

    real = test_crops.astype(np.float32) / 127.5 - 1
    first, second = students
    test = in_batches(first, test_crops), in_batches(second, test_crops)
    seen = train_crops.astype(np.float32) / 127.5 - 1, in_batches(first, train_crops), in_batches(second, train_crops)
    figures = [psnr(pictures) for pictures in test]
    logits = [judge(seen, test, seed) for seed in range(3)]
    record_property("psnr and logits", f"{figures} {logits}")
    assert figures[1] >= figures[0] - 0.5, figures
    assert all(after > before for before, after in logits), logits
