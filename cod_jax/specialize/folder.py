"""Writing folders of compiled models."""

import os
from collections.abc import Sequence

import jax
import numpy as np
import safetensors.numpy

from cod_jax import files
from cod_jax.bundle import Bundle
from cod_jax.models.config import Dtype
from cod_jax.runtime.folder import (
    DESCRIPTION_FILE,
    PRIOR_FILE,
    WEIGHTS_FILES,
    Description,
    Platform,
    Program,
    facts_of,
)
from cod_jax.specialize.programs import export_program, size_ranges, split


def write_compiled(
    path: str | os.PathLike[str],
    bundle: Bundle,
    *,
    platforms: Sequence[Platform],
    dtype: Dtype,
    force: bool = False,
) -> Description:
    """Write a model as a folder for `cod_jax.runtime`, whole or not at all.

    Args:
        path: folder to make.
        bundle: the model.
        platforms: where the programs shall run; none of them needs to be present.
        dtype: dtype of the computation and of most weights.
        force: replace an existing folder of a compiled model.

    Raises:
        ValueError: the model cannot be compiled, see `programs.check_supported`.
        FileExistsError: the folder exists and may not be replaced.
    """
    contents: dict[str, bytes] = {}
    programs: list[Program] = []
    halves = split(bundle.config, bundle.params, dtype)
    with files.new_directory(path, force=force, marker=DESCRIPTION_FILE) as folder:
        for half in halves:
            contents[WEIGHTS_FILES[half.part]] = safetensors.numpy.save(half.weights)
            for number, sizes in enumerate(size_ranges(bundle.config)):
                for platform in platforms:
                    program = Program(half.part, platform, sizes, f"{half.part}-{platform}-{number}.stablehlo")
                    contents[program.file] = export_program(half, sizes, platform)
                    programs.append(program)
        if bundle.prior:
            tables = {name: np.ascontiguousarray(table) for name, table in bundle.prior.to_arrays().items()}
            contents[PRIOR_FILE] = safetensors.numpy.save(tables)
        description = Description(
            weights_fingerprint=bundle.fingerprint,
            pitch=bundle.config.codec.pitch,
            codebook_bits=bundle.config.codec.codebook_bits,
            size_multiple=bundle.config.size_multiple,
            dtype=dtype,
            jax_version=".".join(map(str, jax.__version_info__[:3])),
            programs=tuple(programs),
            files={name: facts_of(data) for name, data in contents.items()},
        )
        for name, data in contents.items():
            files.write_bytes(folder / name, data)
        files.write_bytes(folder / DESCRIPTION_FILE, description.to_json())
    return description
