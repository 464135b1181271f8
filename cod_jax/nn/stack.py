"""Equal blocks with stacked parameters, run by one scan."""

from collections.abc import Callable

import jax
from flax import nnx


class Stack(nnx.Module):
    """`num_layers` equal blocks stored as one block whose parameters have a leading axis "layers".

    Compile time does not grow with depth, and there is one parameter layout whether the scan is unrolled or not.

    Args:
      build: Makes one block from its rngs.
      num_layers: Number of blocks.
      rngs: Source of the initial values; every block gets its own key.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module], num_layers: int, *, rngs: nnx.Rngs):
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
        keys = jax.random.split(rngs.params(), num_layers)
        state = jax.vmap(lambda key: nnx.state(build(nnx.Rngs(key))))(keys)
        for _, variable in nnx.to_flat_state(state):
            variable.set_metadata(axes=("layers", *variable.get_metadata()["axes"]))
        self.block = nnx.merge(graphdef, state)

    def __call__(self, x: jax.Array, *args: jax.Array) -> jax.Array:
        """Run block after block on x; `args` are the same for every block."""
        graphdef, state = nnx.split(self.block)

        def body(carry: jax.Array, layer):
            return nnx.merge(graphdef, layer)(carry, *args), None

        return jax.lax.scan(body, x, state)[0]
