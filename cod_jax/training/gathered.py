"""Fully sharded parameters: kept in pieces, gathered where they are used."""

from typing import Any

import jax
from jaxtyping import Array, Float

from cod_jax.models.functional import Params
from cod_jax.parallel import without_axis
from cod_jax.training.objectives.pretrain import Draws, LossOutput, Pretrain


def gather(params: Params, shardings: Any) -> Params:
    """The parameters inside a jitted function, no longer split over "fsdp".

    Left to itself the partitioner may split activations where the batch and a kernel want the same mesh axis, and on
    a mesh of 2 x 2 x 2 devices it then computed wrong convolutions (jax 0.10.2, seen as an error of order one behind
    a strided convolution).

    Args:
      params: Parameters of a model and its heads.
      shardings: How they are kept between steps.
    """
    return jax.lax.with_sharding_constraint(params, without_axis(shardings, "fsdp"))


class GatheredPretrain(Pretrain):
    """An objective that gathers its parameters; their gradients are spread again by the sharding of the state.

    Args:
      objective: The objective.
      shardings: How its parameters are kept between steps.
    """

    def __init__(self, objective: Pretrain, shardings: Any):
        self.__dict__.update(objective.__dict__)
        self._shardings = shardings

    def loss(self, params: Params, image_uint8: jax.Array, draws: Draws) -> tuple[Float[Array, ""], LossOutput]:
        """See `Pretrain.loss`."""
        return super().loss(gather(params, self._shardings), image_uint8, draws)
