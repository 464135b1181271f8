"""The programs of a compiled form that this machine made for itself, run without JAX once they are kept."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cod_jax.runtime import native
from cod_jax.runtime.executables import Executables
from cod_jax.runtime.folder import Description, Part
from cod_jax.runtime.weights import read_weights


class KeptPrograms:
    """One part of a compiled model on the processor, for pictures of all sizes; called as `Programs` is.

    Args:
        folder: The folder.
        description: What it says about itself.
        part: Which part this is.
        executables: Where programs are kept as they are compiled for each size.
    """

    def __init__(self, folder: Path, description: Description, part: Part, executables: Executables):
        self._folder, self._description, self._executables = folder, description, executables
        self._part: Part = part
        self._calls: dict[str, Callable[[Any], np.ndarray]] = {}

    def __call__(self, batch: Any, grid: tuple[int, int]) -> np.ndarray:
        """Run on a batch of pictures of (rows, columns) cells; see `Programs`.

        Raises:
            UserError: The files of the programs or weights are damaged.
        """
        name = "-".join([self._part, *map(str, _inputs(batch)[0].shape)])
        if name not in self._calls:
            self._calls[name] = self._call_for(name, batch, grid)
        return self._calls[name](batch)

    def _call_for(self, name: str, batch: Any, grid: tuple[int, int]) -> Callable[[Any], np.ndarray]:
        program = self._executables.load(name) or self._made(name, batch, grid)
        if program is None:
            return functools.partial(self._with_jax, grid=grid)
        weights = [placed for _, placed in self._weights.values()]
        return lambda given: program(*weights, *_inputs(given))

    @functools.cached_property
    def _weights(self) -> dict[str, tuple[native.Shaped, Any]]:
        """Shape of each weight, and the weight as programs take it, by name."""
        read = sorted(read_weights(self._folder, self._description, self._part).items())
        return {name: (native.Shaped(weight.shape, weight.dtype), native.put(weight)) for name, weight in read}

    def _made(self, name: str, batch: Any, grid: tuple[int, int]) -> native.Program | None:
        """Compile the program for a size with JAX, as a function of all weights and then the inputs, each an array."""
        if not native.works():
            return None
        function, names = self._plain().function(grid), list(self._weights)

        def of_arrays(*arrays: Any) -> Any:
            inputs = arrays[len(names) :]
            weights = dict(zip(names, arrays[: len(names)], strict=True))
            return function(weights, inputs if self._description.takes_levels else inputs[0])

        inputs = [native.Shaped(array.shape, array.dtype) for array in _inputs(batch)]
        return self._executables.make(name, of_arrays, [*(shaped for shaped, _ in self._weights.values()), *inputs])

    def _plain(self) -> Any:
        from cod_jax.runtime.programs import Programs

        return Programs(self._folder, self._description, self._part)

    @functools.cached_property
    def _programs(self) -> Any:
        return self._plain()

    def _with_jax(self, batch: Any, grid: tuple[int, int]) -> np.ndarray:
        return self._programs(batch, grid)


def _inputs(batch: Any) -> tuple[np.ndarray, ...]:
    return batch if isinstance(batch, tuple) else (batch,)
