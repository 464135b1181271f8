"""Writing folders of compiled models."""

import os
from collections.abc import Sequence

import jax
import safetensors.numpy

from cod_jax import files, storage
from cod_jax.model_folder.bundle import Bundle
from cod_jax.model_folder.prior_file import PRIOR_FILE, to_bytes
from cod_jax.models.compute import Dtype
from cod_jax.runtime.folder import (
    DESCRIPTION_FILE,
    ENCODING_BYTES_PER_PIXEL,
    WEIGHTS_FILES,
    Description,
    FileFacts,
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
    """Write a model as a compiled folder for `cod_jax.runtime`, atomically.

    Args:
        path: Folder to create, or an address of remote storage.
        bundle: The model.
        platforms: Platforms of the programs; this machine does not need to have them.
        dtype: Dtype of the computation and of most weights.
        force: Whether to replace an existing compiled folder.

    Raises:
        UserError: The model cannot be compiled, see `programs.check_supported`, or lacks the tables that code its
            symbols.
        FileExistsError: The folder exists and may not be replaced.
    """
    codec = bundle.config.codec
    bundle.symbol_coder()  # its tables are there and fit
    halves = list(split(bundle.config, bundle.params, dtype))
    written: dict[str, FileFacts] = {}
    programs: list[Program] = []
    with storage.new_directory(path, force=force, marker=DESCRIPTION_FILE) as folder:

        def write(name: str, data: bytes) -> None:
            files.write_bytes(folder / name, data)
            written[name] = facts_of(data)

        # Weights can take gigabytes, so only one half at a time has a second copy in memory.
        while halves:
            half = halves.pop(0)
            for number, sizes in enumerate(size_ranges(bundle.config, half.part)):
                for platform in platforms:
                    program = Program(half.part, platform, sizes, f"{half.part}-{platform}-{number}.stablehlo")
                    write(program.file, export_program(half, sizes, platform))
                    programs.append(program)
            write(WEIGHTS_FILES[half.part], safetensors.numpy.save(half.weights))
        if bundle.prior:
            write(PRIOR_FILE, to_bytes(bundle.prior))
        description = Description(
            weights_fingerprint=bundle.fingerprint,
            pitch=codec.pitch,
            symbols=codec.symbols,
            size_multiple=bundle.config.size_multiple,
            dtype=dtype,
            jax_version=".".join(map(str, jax.__version_info__[:3])),
            programs=tuple(programs),
            files=written,
            encoding_bytes_per_pixel=min(int(codec.encoding_bytes_per_pixel), ENCODING_BYTES_PER_PIXEL),
            reach=codec.reach(bundle.config.denoiser),
        )
        files.write_bytes(folder / DESCRIPTION_FILE, description.to_json())
    return description
