"""Names of models in files, and models that do not match."""

import hashlib
from typing import NamedTuple

from cod_jax.coding import container
from cod_jax.coding.entropy.prior import Prior
from cod_jax.errors import UserError


class Fingerprints(NamedTuple):
    """The names of a model, 64 hex digits each.

    Attributes:
        folder: Names it with its prior: all that decides what a file stands for.
        weights: Names it without its prior; the same where it has none.
    """

    folder: str
    weights: str

    def of_mode(self, mode: container.Mode) -> str:
        """Return the name of the model in new files of a mode.

        Those of mode raw depend on no table, so they outlive a prior: they are read with any that is fitted later.
        """
        return self.weights if mode == "raw" else self.folder

    def match(self, model: str, mode: container.Mode) -> bool:
        """Return whether a file that names `model` is of this model.

        Files of mode raw may name it with its prior, as they once did.
        """
        names = {self.of_mode(mode), self.folder}
        return model in [container.model_id(name) for name in names]


class OtherModelError(UserError):
    """A file was written by another model.

    Attributes:
        model: The first 8 hex digits of that model's fingerprint.
        mode: How the file is coded.
    """

    def __init__(self, file: container.Container, own: Fingerprints) -> None:
        super().__init__(
            f"the file was made with the model of fingerprint {file.model}, and this one has "
            f"{container.model_id(own.of_mode(file.mode))}; decompress with the model folder, its prior included, that "
            "compressed"
        )
        self.model = file.model
        self.mode: container.Mode = file.mode


def fingerprint_with_prior(weights_fingerprint: str, prior: Prior | None) -> str:
    """Name a model with its prior: SHA-256 of both fingerprints, or that of the weights where there is no prior."""
    if prior is None:
        return weights_fingerprint
    return hashlib.sha256(f"{weights_fingerprint} {prior.fingerprint()}".encode()).hexdigest()
