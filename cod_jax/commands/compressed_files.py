"""Read `.cod` files, and tell them from files of other kinds."""

from pathlib import Path

from cod_jax.errors import UserError

SUFFIX = ".cod"


def read(path: Path) -> bytes:
    """Read a file that may be a `.cod` file.

    Raises:
        UserError: It is too long to be one.
        OSError: It cannot be read.
    """
    from cod_jax.coding import container

    size = path.stat().st_size
    if size > container.MAX_BYTES:
        raise UserError(
            explain_picture(path) or f"{size} bytes are too many for a .cod file; this is a file of another kind"
        )
    return path.read_bytes()


def looks_compressed(path: Path) -> bool:
    """Return whether a file has the name and the first byte of a `.cod` file."""
    from cod_jax.coding import container

    with path.open("rb") as file:
        return path.suffix.lower() == SUFFIX and file.read(1) == bytes([container.MAGIC])


def explain_picture(path: Path) -> str:
    """Say that a file is a picture, and of which format; "" where it is none."""
    from cod_jax.coding import other_formats

    with path.open("rb") as file:
        return other_formats.explain_picture(file.read(16))
