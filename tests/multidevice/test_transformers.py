"""The transformers and the frozen networks on a mesh of eight devices compute what they compute on one."""

import math

import jax
import numpy as np
import pytest

from cod_jax.features.dinov2 import DINOv2Config
from cod_jax.features.sd_vae import SDVAEConfig
from cod_jax.models import ComputeConfig, ConditionCodecConfig, DDTConfig, ModelConfig, PixNerDiTConfig
from cod_jax.parallel import MeshConfig, batch_sharding, gathered, make_mesh, replicated, tree_shardings
from cod_jax.training.objectives.frozen_networks import FrozenNetworks
from cod_jax.training.objectives.objective import ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from configs import base
from tests.model_fixtures import numpy_params

DENOISERS = {
    "pixel": PixNerDiTConfig(hidden=32, num_heads=4, hidden_pixel=8, num_blocks=2, num_pixel_blocks=1),
    "latent": DDTConfig(hidden=32, num_heads=4, num_blocks=2, num_decoder_blocks=1),
}
NETWORKS = FrozenNetworks(
    dinov2=DINOv2Config(width=32, num_heads=4, num_blocks=1, mlp_width=32, table_side=4),
    vae=SDVAEConfig(widths=(8, 8, 8, 8), encoder_blocks=1, num_groups=4),
)


def loss_and_gradients(kind: str, mesh_sizes: tuple[int, int, int]):
    codec = ConditionCodecConfig(pitch=16, input_stride=2, encoder_width=16, latent_channels=16, num_groups=4)
    config = PretrainConfig(feature_alignment_weight=0.5, condition_alignment_weight=0.5, alignment_block=1)
    objective = Pretrain(
        config, ObjectiveContext(ModelConfig(codec, DENOISERS[kind]), ComputeConfig(remat="dots"), networks=NETWORKS)
    )
    mesh = make_mesh(MeshConfig(*mesh_sizes), jax.devices()[: math.prod(mesh_sizes)])
    rules = base.get_config().to_dict()["sharding"]["rules"]
    shapes = jax.eval_shape(objective.init_params, jax.random.key(0))
    frozen_shapes = {name: network.shapes for name, network in objective.frozen.items()}
    frozen_axes = {name: network.axes for name, network in objective.frozen.items()}
    where = tree_shardings(shapes, objective.axes, rules, mesh)
    frozen_where = tree_shardings(frozen_shapes, frozen_axes, rules, mesh)
    batch = batch_sharding(mesh, ("data", "fsdp"))
    images = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)
    draws = objective.draw(jax.random.key(3), images.shape)

    def loss(params, frozen, images, draws):
        return objective.loss(gathered(params, where), gathered(frozen, frozen_where), images, draws)

    step = jax.jit(
        jax.value_and_grad(loss, has_aux=True),
        in_shardings=(where, frozen_where, batch, replicated(mesh)),
        out_shardings=((replicated(mesh), None), where),
    )
    params = jax.device_put(numpy_params(shapes), where)
    frozen = jax.device_put(numpy_params(frozen_shapes), frozen_where)
    (value, _), gradients = step(params, frozen, jax.device_put(images, batch), draws)
    return float(value), jax.device_get(gradients)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DENOISERS)
def test_eight_devices_agree_with_one(kind):
    value, gradients = loss_and_gradients(kind, (1, 1, 1))
    split_value, split_gradients = loss_and_gradients(kind, (2, 2, 2))
    assert split_value == pytest.approx(value, rel=1e-5)
    pairs = list(zip(jax.tree.leaves(gradients), jax.tree.leaves(split_gradients), strict=True))
    distance = math.sqrt(sum(float(np.sum((a - b) ** 2)) for a, b in pairs))
    assert distance <= 2e-5 * math.sqrt(sum(float(np.sum(a**2)) for a, _ in pairs))
