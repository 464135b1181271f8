"""A loss of your own beside those of the package: errors at edges count more.

    export PYTHONPATH=. COD_JAX_PLUGINS=examples
    cod train --config examples/own_loss.py --workdir runs/own_loss --config.data.source=PHOTOS

Every objective has a list of such terms, `objective.losses`. They compare pictures with what one step makes of them.
The log shows the term under its name, here `loss/edges`.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from cod_jax.training.objectives.loss_terms import LossTermConfig


@dataclasses.dataclass(frozen=True)
class EdgeLossConfig(LossTermConfig):
    """Mean absolute difference of horizontal and vertical gradients.

    Attributes:
        kind: Name of this class, by which a config finds it.
        weight: Weight of the term in the loss.
    """

    NAME = "edges"
    kind: str = "examples.own_loss:EdgeLossConfig"
    weight: float = 1.0

    def __call__(self, reconstruction: Float[Array, "B H W 3"], image: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Return the loss of each picture, for images of about [-1, 1]."""
        difference = (reconstruction - image).astype(jnp.float32)
        down = jnp.abs(jnp.diff(difference, axis=1)).mean(axis=(1, 2, 3))
        across = jnp.abs(jnp.diff(difference, axis=2)).mean(axis=(1, 2, 3))
        return down + across


def get_config():
    """The tiny recipe, trained for decoding in one step with this loss."""
    from configs import base, tiny

    config = tiny.get_config()
    losses = (dataclasses.asdict(EdgeLossConfig(weight=0.5)),)
    one_step = {"objective.one_step_weight": 1.0, "objective.one_step_noise_level": 0.0}
    base.apply(config, one_step, {"objective.losses": losses})
    return config
