"""Equal blocks with stacked parameters, run by one scan."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from cod_jax.parallel import LAYERS, gather_block, gathers_blocks

Remat = Literal["none", "dots", "full"]

_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
# What only moves numbers, or changes their dtype. Nothing of it is kept for the backward pass where blocks are gathered
# one after the other: kept weights of all blocks would be all weights again.
_MOVES = frozenset(
    {"broadcast_in_dim", "convert_element_type", "custom_vjp_call", "reshape", "sharding_constraint", "transpose"}
)


def _all_but_moves(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name not in _MOVES


class Stack(nnx.Module):
    """`num_layers` equal blocks, stored as one block whose parameters have a leading axis "layers".

    The layout of the parameters is the same for both ways of running the blocks: scanned, so that compile time does not
    grow with depth, or unrolled.

    Args:
        build: Function that makes one block from its rngs.
        num_layers: Number of blocks.
        remat: Values that the backward pass computes again instead of keeping them: "none"; "dots", all but matrix
            products with weights; "full", everything inside a block.
        unroll: Whether the blocks are compiled one after another instead of as a loop.
        rngs: Source of the initial values. Every block gets its own key.
    """

    def __init__(
        self,
        build: Callable[[nnx.Rngs], nnx.Module],
        num_layers: int,
        *,
        remat: Remat = "none",
        unroll: bool = False,
        rngs: nnx.Rngs,
    ):
        self.remat, self.unroll, self.num_layers = remat, unroll, num_layers
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
        keys = jax.random.split(rngs.params(), num_layers)
        state = jax.vmap(lambda key: nnx.state(build(nnx.Rngs(key))))(keys)
        for _, variable in nnx.to_flat_state(state):
            variable.set_metadata(axes=(LAYERS, *variable.get_metadata()["axes"]))
        self.block = nnx.merge(graphdef, state)

    def __call__(self, x: jax.Array, *args: jax.Array) -> jax.Array:
        """Run block after block on x; `args` are the same for every block."""
        return self.run(x, *args)[0]

    def run(
        self, x: jax.Array, *args: jax.Array, features_after: int | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Run block after block on x.

        Args:
            x: Input of the first block.
            *args: Further arguments, the same for every block.
            features_after: Number of the block whose output is returned too; 1 is the first.

        Returns:
            The output of the last block, and that of block `features_after`, or None.
        """
        if features_after is None:
            return self.scan(lambda carry, block, _: (block(carry, *args), None), x)[0], None

        def body(carry, block, index):
            x, features = carry
            x = block(x, *args)
            return (x, jnp.where(index == features_after - 1, x, features)), None

        return self.scan(body, (x, jnp.zeros_like(x)))[0]

    def scan(self, apply: Callable, carry: Any) -> tuple[Any, Any]:
        """Run a function of carry, block and its index (0 is the first) for block after block.

        Returns:
            The last carry, and what the function returned beside it, stacked.
        """
        graphdef, state = nnx.split(self.block)

        def whole(variable: nnx.Variable) -> nnx.Variable:
            return variable.replace(gather_block(variable.get_value(), variable.get_metadata()["axes"][1:]))

        def body(carry, layer_and_index):
            layer, index = layer_and_index
            layer = jax.tree.map(whole, layer, is_leaf=lambda x: isinstance(x, nnx.Variable))
            return apply(carry, nnx.merge(graphdef, layer), index)

        policy = _POLICIES.get(self.remat, _all_but_moves if gathers_blocks() else None)
        if policy is not None:
            # A scan keeps the compiler from undoing the recomputation; unrolled blocks need the barrier.
            body = jax.checkpoint(body, policy=policy, prevent_cse=self.unroll)
        return jax.lax.scan(body, carry, (state, jnp.arange(self.num_layers)), unroll=self.unroll)
