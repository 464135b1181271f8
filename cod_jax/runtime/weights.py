"""The weights of a compiled model."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cod_jax.errors import UserError
from cod_jax.runtime.arrays import WEIGHT_TYPES, open_tensors
from cod_jax.runtime.folder import WEIGHTS_FILES, Description, Part, check_file


def read_weights(
    folder: Path,
    description: Description,
    part: Part,
    expected: dict[str, tuple[tuple[int, ...], Any]] | None = None,
) -> dict[str, np.ndarray]:
    """Return the weights of a part of a model by name.

    Args:
        folder: The folder.
        description: What it says about itself.
        part: The part.
        expected: Shapes and dtypes that a program takes. If the file has others, no more than its table is read. None
            compares nothing, for folders that this machine made for itself.

    Returns:
        The weights, or {} if they are not those expected.

    Raises:
        UserError: The file is damaged.
    """
    file = folder / WEIGHTS_FILES[part]
    with contextlib.ExitStack() as stack:
        with _named(file):
            tensors = stack.enter_context(open_tensors(file))
        if expected and {name: shape for name, (shape, _) in expected.items()} != tensors.shapes:
            return {}
        check_file(folder, description, file.name)
        with _named(file):
            return tensors.read(WEIGHT_TYPES)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Say which file is damaged."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file} is damaged ({error}); make the folder again") from error
