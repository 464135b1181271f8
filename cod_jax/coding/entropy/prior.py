"""The tables of a model's entropy models, as its folder holds them."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cod_jax.coding.digests import digest_arrays
from cod_jax.coding.entropy.model import EntropyModel


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
    """Tables of integers, and who codes with them.

    Attributes:
        tables: The tables by name.
        kind: "package.module:Class" of the entropy model of another package; "" for those of this one.
    """

    tables: Mapping[str, npt.NDArray[np.integer]]
    kind: str = ""

    @classmethod
    def of(cls, *models: EntropyModel) -> "Prior":
        """Return the prior of entropy models: those of this package, or one of another."""
        tables: dict[str, npt.NDArray[Any]] = {}
        kind = ""
        for model in models:
            tables |= model.arrays()
            if model.mode == EntropyModel.mode:
                kind = f"{type(model).__module__}:{type(model).__qualname__}"
        return cls(tables, kind)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the kind, if any, and of name, shape, type and values of every table, in hex."""
        kind = json.dumps(["kind", self.kind]).encode() if self.kind else b""
        return digest_arrays(self.tables, _header, start=kind)


def _header(name: str, table: npt.NDArray[Any]) -> bytes:
    return json.dumps([name, list(table.shape), table.dtype.name]).encode()
