"""Memory that a picture takes, and memory that is available."""

from pathlib import Path

from cod_jax.codec.engine import Engine
from cod_jax.errors import UserError
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.runtime.platforms import computes_on_cpu

# Of the smallest models, measured at 768x512 on a CPU; what gradients take of a pixel.
REFINING_BYTES_PER_PIXEL = 1500.0
# Pictures of equal size are computed together up to this many pixels. More would save nothing and take more memory.
BATCH_PIXELS = 2**21
_MEMORY_INFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def check(*, height: int, width: int, multiple: int, bytes_per_pixel: float, task: str) -> None:
    """Refuse a picture for which there is not enough memory, by an estimate of what the model takes for a pixel.

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        multiple: The model computes sides that are multiples of this many pixels.
        bytes_per_pixel: Temporary memory of the model.
        task: What is done, such as "encoding".

    Raises:
        UserError: It would take more than is available.
    """
    pixels = (height + -height % multiple) * (width + -width % multiple)
    needed, available = pixels * bytes_per_pixel, available_bytes()
    if available is not None and needed > available:
        raise UserError(
            f"{task} {width}x{height} pixels takes about {needed / 1e9:.2g} GB of memory with this model, and "
            f"{available / 1e9:.2g} GB are available; make the picture smaller, or use a machine with more memory"
        )


def check_picture(engine: Engine, *, height: int, width: int, decoding: DecodingConfig | None) -> None:
    """Refuse a picture for which there is not enough memory, to encode it (None) or to decode it so.

    Raises:
        UserError: It would take more than is available.
    """
    check(
        height=height,
        width=width,
        multiple=engine.size_multiple,
        bytes_per_pixel=engine.bytes_per_pixel(decoding),
        task="encoding" if decoding is None else "decoding",
    )


def largest_batch(engine: Engine, decoding: DecodingConfig | None, *, effort: int = 0) -> int:
    """Return how many pixels may be computed together: `BATCH_PIXELS`, or what there is memory for."""
    available = available_bytes()
    if available is None:
        return BATCH_PIXELS
    bytes_per_pixel = max(engine.bytes_per_pixel(decoding), REFINING_BYTES_PER_PIXEL if effort else 0.0)
    # Powers of two, because each length of a batch is compiled, and memory that is free changes all the time.
    return min(BATCH_PIXELS, 1 << max(0, int(available / bytes_per_pixel).bit_length() - 1))


def check_refining(height: int, width: int) -> None:
    """Refuse a picture whose symbols cannot be refined in the memory that there is.

    Raises:
        UserError: It would take more than is available.
    """
    check(height=height, width=width, multiple=1, bytes_per_pixel=REFINING_BYTES_PER_PIXEL, task="effort on")


def available_bytes() -> int | None:
    """Return the bytes that the device of computation can still give, or None if that is unknown."""
    if not computes_on_cpu():
        import jax

        # Arrays in use count as available: a device also holds on to memory that it can give again.
        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    try:
        lines = dict(line.split(":") for line in _MEMORY_INFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        return None
    try:
        # In a container; the file holds "max" where there is no limit.
        used, limit = (int((_GROUP / name).read_text()) for name in ("memory.current", "memory.max"))
        # Files that were read count as used, and make room as soon as it is needed.
        parts = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        used -= int(parts["inactive_file"]) + int(parts["active_file"])
    except (OSError, LookupError, ValueError):
        return free
    return min(free, max(limit - used, 0))
