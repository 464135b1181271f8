"""Read `.cod` files, and tell them from files of other kinds."""

from pathlib import Path

from cod_jax import files
from cod_jax.coding.container import Layout
from cod_jax.commands import frame
from cod_jax.errors import UserError

SUFFIX = ".cod"


def read(path: Path | None) -> bytes:
    """Read a file that may be a `.cod` file, or standard input where the path is None.

    Raises:
        UserError: It is too long to be one.
        OSError: It cannot be read.
    """
    from cod_jax.coding import container

    limit = container.MAX_BYTES
    if path is None:
        data = frame.read_data(limit + 1)
        size, start = len(data), data[:16]
    else:
        size = path.stat().st_size
        data = b"" if size > limit else files.read_bytes(path)
        start = _first_bytes(path, 16) if size > limit else b""
    if size > limit:
        told = f"{size} bytes" if path else f"more than {limit} bytes"
        raise UserError(_explain(start) or f"{told} are too many for a .cod file; this is a file of another kind")
    return data


def looks_compressed(content: bytes, name: str) -> bool:
    """Return whether a file has the name and the first byte of a `.cod` file."""
    from cod_jax.coding import container

    return Path(name).suffix.lower() == SUFFIX and content[:1] == bytes([container.MAGIC])


def is_compressed(path: Path, layout: Layout) -> bool:
    """Return whether a file is a whole `.cod` file, of the container or of the given layout."""
    from cod_jax.coding.describe import describe_file

    layouts: tuple[Layout, ...] = ("cod", layout)
    for known in layouts:
        try:
            describe_file(read(path), layout=known)
        except (UserError, OSError):
            continue
        return True
    return False


def explain_picture(path: Path) -> str:
    """Say that a file is a picture, and of which format; "" if it is not a picture."""
    return _explain(_first_bytes(path, 16))


def _explain(start: bytes) -> str:
    from cod_jax.coding import other_formats

    return other_formats.explain_picture(start)


def _first_bytes(path: Path, number: int) -> bytes:
    with path.open("rb") as file:
        return file.read(number)
