"""The programs of a compiled model on this machine: read, checked, compiled for each size, and run."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from cod_jax.errors import UserError
from cod_jax.runtime.folder import WEIGHTS_FILES, Description, Part, Program, read_file
from cod_jax.runtime.platforms import current_platform
from cod_jax.runtime.weights import read_weights

# Calls of code outside StableHLO that a program may hold: JAX's checks of symbolic sizes, which vanish in compilation.
_HARMLESS_CALL = "custom_call @shape_assertion("
# What JAX raises for programs that are damaged or newer than it.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, RuntimeError, struct.error)


class Programs:
    """One part of a compiled model, for pictures of all sizes.

    Nothing but the description is read before the first call; weights stay on the device from then on. They get there
    only when a program has been found to take just these.

    Args:
        folder: The folder.
        description: What it says about itself.
        part: Which part this is.

    Raises:
        UserError: The folder has no programs for this machine.
    """

    def __init__(self, folder: Path, description: Description, part: Part):
        self._folder, self._description = folder, description
        self._part: Part = part
        platform = current_platform()
        self._programs = [p for p in description.programs if p.part == part and p.platform == platform]
        if not self._programs:
            raise UserError(
                f"{folder} is compiled for {', '.join(description.platforms)}, and JAX computes on {platform} here; "
                f"make it again with cod compile --platforms {platform}"
            )
        self._weights: dict[str, jax.Array] = {}
        self._callables: dict[str, Callable[[dict[str, jax.Array], Any], jax.Array]] = {}

    def __call__(self, batch: Any, grid: tuple[int, int]) -> np.ndarray:
        """Run on a batch of pictures of (rows, columns) cells, and copy the result to host memory.

        Args:
            batch: The input of the program beside its weights: an array, or a pair of them, see `Description`.
            grid: Rows and columns of each picture.

        Raises:
            UserError: The files of the programs or weights are damaged, or made for a newer JAX.
        """
        return np.asarray(self.on_device(batch, grid))

    def on_device(self, batch: Any, grid: tuple[int, int]) -> jax.Array:
        """Run as a call does, and leave the result on the device.

        Returns when the work is handed to the device, which may be before it is done; `jax.block_until_ready` waits.

        Args:
            batch: As for a call; arrays in host memory are copied to the device.
            grid: Rows and columns of each picture.

        Raises:
            UserError: As of a call.
        """
        return self._program(self._program_for(grid))(self._weights, batch)

    def compiled(self, batch: Any, grid: tuple[int, int]) -> jax.stages.Compiled:
        """Return the program that such a call runs, to ask what it costs.

        Args:
            batch: As for a call.
            grid: As for a call.

        Raises:
            UserError: As of a call.
        """
        program: Any = self.function(grid)
        return program.lower(self._weights, batch).compile()

    def function(self, grid: tuple[int, int]) -> Callable[[dict[str, Any], Any], jax.Array]:
        """Return the function of weights by name and a batch, as for a call, that such a call runs.

        Args:
            grid: As for a call.

        Raises:
            UserError: As of a call.
        """
        return self._program(self._program_for(grid))

    def _program_for(self, grid: tuple[int, int]) -> Program:
        program = next((program for program in self._programs if grid in program.sizes), None)
        if program is None:
            raise UserError(f"{self._folder} has no program for {grid[0]}x{grid[1]} cells; make it again")
        return program

    def _program(self, program: Program) -> Callable[[dict[str, jax.Array], Any], jax.Array]:
        if program.file not in self._callables:
            self._callables[program.file] = self._load_program(program)
        return self._callables[program.file]

    def _load_program(self, program: Program) -> Callable[[dict[str, jax.Array], Any], jax.Array]:
        """Return a program, compiled when it is called; once one is loaded, the weights are on the device."""
        data = read_file(self._folder, self._description, program.file)
        file = self._folder / program.file
        try:
            exported = export.deserialize(bytearray(data))
            is_foreign = calls_other_code(exported)
        except _UNREADABLE as error:
            raise UserError(
                f"{file} cannot be read by jax {jax.__version__}; it was made with {self._description.jax_version}: "
                "install that release or a newer one, or make the folder again with this one"
            ) from error
        if is_foreign:
            raise UserError(f"{file} calls code outside of itself, which compiled models never do; do not use it")
        if exported.platforms != (program.platform,):
            raise UserError(
                f"{file} is made for {', '.join(exported.platforms)}, not for {program.platform}; make the folder again"
            )
        expected = _weights_taken(exported, program.part, self._description)
        if expected is None:
            raise UserError(
                f"{file} takes or returns other arrays than programs that {program.part} do; make the folder again"
            )
        weights = self._weights or read_weights(self._folder, self._description, self._part, expected)
        if expected != {name: (value.shape, value.dtype) for name, value in weights.items()}:
            raise UserError(f"{file} takes other weights than {WEIGHTS_FILES[self._part]} holds; make the folder again")
        # What is there already stays where it is.
        self._weights = jax.device_put(weights)
        return jax.jit(exported.call)


def calls_other_code(exported: export.Exported) -> bool:
    """Return whether a program calls code outside of StableHLO, which could do anything."""
    text = exported.mlir_module()
    return len(re.findall("custom_call", text)) != text.count(_HARMLESS_CALL)


def _weights_taken(
    exported: export.Exported, part: Part, description: Description
) -> dict[str, tuple[tuple[int, ...], Any]] | None:
    """Return shapes and dtypes of the weights that a program takes; None if it is not one of that part of a model.

    Such a program takes weights by name and pictures [B, pitch h, pitch w, 3] or their symbols [B, h, w], for B, h and
    w that are not fixed, and returns the other. If `takes_levels`, symbols are [B, h, w, C], and what is taken is a
    pair with the quality levels [B].
    """
    try:
        (weights, taken), keywords = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        taken, levels = taken if description.takes_levels else (taken, None)
        returned = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        pictures, symbols = (taken, returned) if part == "encode" else (returned, taken)
        batch, rows, columns = symbols.shape[:3]
        fits = (
            not keywords
            and (pictures.dtype, symbols.dtype) == (np.uint8, np.int32)
            and all(map(export.is_symbolic_dim, (batch, rows, columns)))
            and symbols.ndim == (4 if description.takes_levels else 3)
            and pictures.shape == (batch, description.pitch * rows, description.pitch * columns, 3)
            and (levels is None or (levels.shape, levels.dtype) == ((batch,), np.int32))
        )
        return {name: (value.shape, value.dtype) for name, value in weights.items()} if fits else None
    except (TypeError, ValueError, AttributeError):
        return None
