"""What devices send each other, and blocks that are gathered one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cod_jax.nn.layers import Linear
from cod_jax.nn.stack import Stack
from cod_jax.parallel import MeshConfig, batch_sharding, gathered, gathering_blocks, make_mesh, tree_shardings
from cod_jax.parallel.collectives import Traffic, traffic

PROGRAM = """\
HloModule jit_step

%inner (p: f32[4]) -> f32[4] {
  %g = (f32[2,8]{1,0}, bf16[4]{0}) all-gather(%a), replica_groups=mesh['x'=2,'y'=4], device_ids=([2,4]T(1,0)) {'y'}
}

%body.1 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %c = f32[4]{0} fusion(%p), kind=kLoop, calls=%inner
  %r = f32[16]{0} all-reduce(%c), replica_groups={{0,1},{2,3}}, to_apply=%sum
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%body.1, backend_config={"known_trip_count":{"n":"3"}}
  %s = f32[4]{0} reduce-scatter(%x), replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%sum
}
"""


def test_collectives_count_as_often_as_their_loop_runs():
    assert traffic(PROGRAM) == [
        Traffic("all-gather", 3, 3 * (64 + 8) * 3 // 4),
        Traffic("all-reduce", 3, 3 * 64),
        Traffic("reduce-scatter", 1, 16 * 3),
    ]


@pytest.fixture(scope="module")
def step():
    """The compiled gradient of six blocks of 32 x 32 numbers over 4 devices, gathered at once or one by one."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    rules = {"embed": "fsdp", "mlp": None, "layers": None}
    graphdef, state = nnx.split(
        Stack(lambda rngs: Linear(32, 32, axes=("embed", "mlp"), dtype="float32", rngs=rngs), 6, rngs=nnx.Rngs(0))
    )
    params = nnx.to_pure_dict(state)
    axes = {"block": {"bias": ("layers", "mlp"), "kernel": ("layers", "embed", "mlp")}}
    shardings = tree_shardings(params, axes, rules, mesh)
    x = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)

    def gradient(one_by_one: bool):
        def loss(params, x):
            whole = gathered(params, shardings, axes if one_by_one else None)
            return jnp.sum(jnp.tanh(nnx.merge(graphdef, whole)(x)))

        batch = batch_sharding(mesh, ("data", "fsdp"))
        function = jax.jit(jax.grad(loss), in_shardings=(shardings, batch), out_shardings=shardings)
        if one_by_one:
            with gathering_blocks(rules, mesh):
                return function.lower(params, x).compile()
        return function.lower(params, x).compile()

    return gradient, jax.device_put((params, x), (shardings, batch_sharding(mesh, ("data", "fsdp"))))


def test_blocks_are_gathered_one_after_the_other_with_the_same_gradient(step):
    gradient, arguments = step
    once, one_by_one = gradient(False), gradient(True)
    for one, other in zip(jax.tree.leaves(once(*arguments)), jax.tree.leaves(one_by_one(*arguments)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    block = 32 * 32 * 4
    (gathers,) = [kind for kind in traffic(once.as_text()) if kind.kind == "all-gather"]
    assert (gathers.count, gathers.sent_bytes) == (1, 6 * block * 3 // 4)
    # Forward and backward.
    (gathers,) = [kind for kind in traffic(one_by_one.as_text()) if kind.kind == "all-gather"]
    assert (gathers.count, gathers.sent_bytes) == (12, 12 * block * 3 // 4)
    held = [compiled.memory_analysis().temp_size_in_bytes for compiled in (once, one_by_one)]
    # Not the weights of all blocks, and not the whole of their gradients.
    assert held[1] < held[0] - 6 * block
