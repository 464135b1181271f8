"""The published sizes on a mesh of eight devices: their step lowers and compiles without taking their memory."""

import jax
import pytest

from cod_jax.models.functional import count_params
from cod_jax.parallel import batch_sharding, make_mesh
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import Plan, compile_step, make_plan
from configs import base, latent, pixel, tiny


def planned(config) -> tuple[TrainConfig, Plan, jax.sharding.NamedSharding]:
    base.apply(config, {"mesh.data": 2, "mesh.fsdp": 4})
    config = TrainConfig.from_dict(config.to_dict())
    mesh = make_mesh(config.mesh)
    return config, make_plan(config, mesh), batch_sharding(mesh, config.sharding.batch)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "parameters"), [(pixel, 897_063_843), (latent, 853_553_232)])
def test_the_step_of_the_published_size_compiles_for_eight_devices(module, parameters):
    config = module.get_config("2")
    base.apply(config, {"batch_size": 8, "frozen.sharded": True})
    config, plan, batch = planned(config)
    assert count_params(plan.shapes.params["model"]) == parameters
    compiled = compile_step(plan, config, plan.objective.updates[0], batch)
    analysis = compiled.memory_analysis()  # pyright: ignore[reportFunctionMemberAccess]
    # Parameters, average and two moments over four devices, with what is not split.
    state = 4 * 4 * count_params(plan.shapes.params)
    assert state / 4 < analysis.argument_size_in_bytes < state / 4 * 1.2
    # Blocks are gathered one after the other: with all of them it would be 4 GiB more.
    assert analysis.temp_size_in_bytes < 6.5 * 2**30


@pytest.mark.slow
def test_the_step_does_not_grow_with_depth_when_scanned_but_does_when_unrolled():
    def length(num_blocks: int, unroll: bool) -> int:
        config = tiny.get_config("kind=pixel")
        base.apply(config, {"model.denoiser.num_blocks": num_blocks, "compute.unroll": unroll})
        config, plan, _ = planned(config)
        draws = jax.eval_shape(lambda key: plan.objective.draw(key, plan.batch_shape.shape), jax.random.key(0))
        gradient = jax.jit(jax.grad(plan.objective.updates[0].loss, has_aux=True))
        return len(gradient.lower(plan.shapes.params, {}, {}, plan.batch_shape, draws).as_text())

    assert length(8, unroll=False) < 1.02 * length(2, unroll=False)
    assert length(8, unroll=True) > 1.1 * length(2, unroll=True)
