"""Gradients of fresh models: no picture of 8-bit values may stop a run or drown the other pictures of its batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cod_jax.training.config import TrainConfig
from cod_jax.training.config_files import read_settings
from cod_jax.training.objectives.pretrain import Pretrain
from cod_jax.training.plan import build_objective
from tests.model_fixtures import gradient_image
from tests.training_fixtures import CONFIG, SMALL

# Even bright pictures have about 5 times the gradient of a photograph, because a fresh denoiser predicts grey. Before
# the bias of the first layer started with random values, one pixel of value 1 had 400 times that gradient.
LARGEST_RATIO = 15


def pictures(side: int) -> dict[str, np.ndarray]:
    """Return uint8 pictures [side, side, 3] that are hard for chains of normalisations."""
    generator = np.random.default_rng(0)
    black = np.zeros((side, side, 3), np.uint8)
    pixel, corner, half = black.copy(), black.copy(), black.copy()
    pixel[side // 2, side // 3] = 1
    corner[0, 0, 2] = 1
    half[:, : side // 2] = 1
    return {
        "black": black,
        "one pixel of value 1": pixel,
        "one blue corner of value 1": corner,
        "half of value 1": half,
        "values 0 and 1": generator.integers(0, 2, black.shape).astype(np.uint8),
        "even, value 1": black + np.uint8(1),
        "even, dark": black + np.uint8(16),
        "even, grey": black + np.uint8(128),
        "white": black + np.uint8(255),
        "red": black + np.array([255, 0, 0], np.uint8),
        "black below": np.concatenate([gradient_image(side, side)[: side // 2], black[side // 2 :]]),
    }


def gradient_norms(config: TrainConfig, images: np.ndarray) -> np.ndarray:
    """Return the norm of the gradient of each picture [N, S, S, 3] by itself, for a fresh model."""
    objective = build_objective(config)
    assert isinstance(objective, Pretrain)

    def norm_of(params, image):
        draws = objective.draw(jax.random.key(1), (1, *image.shape))._replace(drop=jnp.ones((1,)))
        gradient = jax.grad(lambda params: objective.loss(params, {}, image[None], draws)[0])(params)
        return optax.tree.norm(gradient)

    params = jax.jit(objective.init_params)(jax.random.key(0))
    return np.asarray(jax.jit(lambda params, images: jax.lax.map(lambda x: norm_of(params, x), images))(params, images))


def check(config: TrainConfig) -> None:
    """Compare hard pictures with an ordinary one."""
    side = config.data.image_size
    hard = pictures(side)
    usual, *norms = gradient_norms(config, np.stack([gradient_image(side, side), *hard.values()]))
    far = {name: norm / usual for name, norm in zip(hard, norms, strict=True) if not norm < LARGEST_RATIO * usual}
    assert not far


def settings(option: str, **changes: object) -> TrainConfig:
    """Return the settings of a config file with changed fields, without DINOv2."""
    fields = {**changes, "objective.feature_alignment_weight": 0.0, "objective.condition_alignment_weight": 0.0}
    return TrainConfig.from_dict(read_settings(option, [f"--config.{name}={value}" for name, value in fields.items()]))


@pytest.mark.slow
def test_no_picture_has_a_gradient_out_of_scale():
    check(settings(str(CONFIG), **SMALL))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("configs/tiny.py", {}),
        # With as many groups as channels, even pictures leave nothing to normalise.
        pytest.param("configs/tiny.py", {"model.codec.num_groups": 16}, marks=pytest.mark.soak),
        ("configs/tiny.py:bottleneck=factorized", {}),
        pytest.param("configs/tiny.py:kind=pixel", {}, marks=pytest.mark.soak),
        pytest.param("configs/tiny.py:kind=latent", {}, marks=pytest.mark.soak),
        pytest.param("configs/tiny.py:3", {}, marks=pytest.mark.soak),
        pytest.param("configs/lite.py", {"compute.dtype": "float32", "data.image_size": 64}, marks=pytest.mark.soak),
        pytest.param("configs/lite.py:3", {"data.image_size": 64}, marks=pytest.mark.soak),
    ],
)
def test_no_picture_has_a_gradient_out_of_scale_at_published_sizes(option, changes):
    check(settings(option, **changes))
