"""Loss terms of other packages, named in a config."""

from typing import ClassVar

from jaxtyping import Array, Float

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
