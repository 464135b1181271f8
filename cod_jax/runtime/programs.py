"""The programs of a compiled model on this machine: read, checked, compiled for each size, and run."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from cod_jax.runtime.arrays import read_arrays
from cod_jax.runtime.folder import WEIGHTS_FILES, Description, Part, Platform, Program, read_file

# Calls of code outside StableHLO that a program may hold: JAX's checks of symbolic sizes, which vanish in compilation.
_HARMLESS_CALL = "custom_call @shape_assertion("
# What JAX raises for programs that are damaged or newer than it.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, RuntimeError, struct.error)


def current_platform() -> Platform:
    """Where JAX computes by default.

    Raises:
        ValueError: a kind of device that programs cannot be made for.
    """
    backend = jax.default_backend()
    if backend == "gpu":
        return "rocm" if "rocm" in jax.devices()[0].client.platform_version.lower() else "cuda"
    if backend not in ("cpu", "tpu"):
        raise ValueError(f"JAX computes on {backend} here, for which there are no programs; set JAX_PLATFORMS=cpu")
    return backend


class Programs:
    """One part of a compiled model, for pictures of all sizes.

    Nothing but the description is read before the first call; weights stay on the device from then on.

    Args:
        folder: the folder.
        description: what it says about itself.
        part: which part this is.

    Raises:
        ValueError: the folder has no programs for this machine.
    """

    def __init__(self, folder: Path, description: Description, part: Part):
        self._folder, self._description = folder, description
        self._weights_file = WEIGHTS_FILES[part]
        platform = current_platform()
        self._programs = [p for p in description.programs if p.part == part and p.platform == platform]
        if not self._programs:
            raise ValueError(
                f"{folder} is compiled for {', '.join(description.platforms)}, and JAX computes on {platform} here; "
                f"make it again with python -m cod_jax.compile --platforms {platform}"
            )
        self._weights: dict[str, jax.Array] | None = None
        self._callables: dict[str, Callable[[dict[str, jax.Array], Any], jax.Array]] = {}

    def __call__(self, batch: Any, grid: tuple[int, int]) -> np.ndarray:
        """Run on a batch of pictures of (rows, columns) cells.

        Args:
            batch: what the program takes beside its weights: an array, or a pair of them, see `Description`.
            grid: rows and columns of each picture.

        Raises:
            ValueError: the files of the programs or weights are damaged, or made for a newer JAX.
        """
        program = next((program for program in self._programs if grid in program.sizes), None)
        if program is None:
            raise ValueError(f"{self._folder} has no program for {grid[0]}x{grid[1]} cells; make it again")
        if self._weights is None:
            self._weights = self._load_weights()
        if program.file not in self._callables:
            self._callables[program.file] = self._load_program(program)
        return np.asarray(self._callables[program.file](self._weights, batch))

    def _load_weights(self) -> dict[str, jax.Array]:
        data = read_file(self._folder, self._description, self._weights_file)
        try:
            weights = read_arrays(data)
        except ValueError as error:
            raise ValueError(
                f"{self._folder / self._weights_file} is damaged ({error}); make the folder again"
            ) from error
        return {name: jax.device_put(value) for name, value in weights.items()}

    def _load_program(self, program: Program) -> Callable[[dict[str, jax.Array], Any], jax.Array]:
        data = read_file(self._folder, self._description, program.file)
        file = self._folder / program.file
        try:
            exported = export.deserialize(bytearray(data))
            text = exported.mlir_module()
            (weights, _), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
            expected = {name: (value.shape, value.dtype) for name, value in weights.items()}
        except _UNREADABLE as error:
            raise ValueError(
                f"{file} cannot be read by jax {jax.__version__}; it was made with {self._description.jax_version}: "
                "install that release or a newer one, or make the folder again with this one"
            ) from error
        if len(re.findall("custom_call", text)) != text.count(_HARMLESS_CALL):
            raise ValueError(f"{file} calls code outside of itself, which compiled models never do; it is not trusted")
        if expected != {name: (value.shape, value.dtype) for name, value in (self._weights or {}).items()}:
            raise ValueError(f"{file} takes other weights than {self._weights_file} holds; make the folder again")
        return jax.jit(exported.call)
