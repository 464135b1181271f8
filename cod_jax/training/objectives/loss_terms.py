"""Loss terms of other packages, named in a config."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.models.fields import Part


class LossTermConfig(Part):
    """A loss between pictures and their one-step reconstructions; subclasses are frozen dataclasses.

    Attributes:
        kind: "package.module:Class" of the loss.
        weight: Weight of the term in the loss.
        NAME: Name of the term in logs.
    """

    NAME: ClassVar[str]
    weight: float

    def __call__(self, reconstruction: Float[Array, "B H W 3"], image: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Return the unweighted loss of each picture, given images of about [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")


def checked(losses: Sequence[LossTermConfig], others: Iterable[str]) -> tuple[LossTermConfig, ...]:
    """Return the terms that have a weight.

    Args:
        losses: Terms of other packages.
        others: Names of the objective's own terms.

    Raises:
        UserError: Two terms have one name, of which logs and the sum would keep one.
    """
    taken = set(others)
    for loss in losses:
        if loss.NAME in taken:
            raise UserError(
                f"objective.losses must have terms with names of their own, got {loss.NAME} twice; rename the class's "
                "NAME"
            )
        taken.add(loss.NAME)
    return tuple(loss for loss in losses if loss.weight != 0)
