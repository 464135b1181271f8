"""Memory that is too small for a run, in one line that says what to do."""

import contextlib
from collections.abc import Iterator

from cod_jax.errors import too_little_memory

_ADVICE = (
    "set a larger --config.accumulation_steps or a smaller --config.images_per_device, --config.compute.remat=full, or "
    "a larger --config.mesh.fsdp; cod memory prints what a run takes"
)


@contextlib.contextmanager
def naming_memory(doing: str) -> Iterator[None]:
    """Turn the error of a device or host whose memory is too small into one line.

    Args:
        doing: What the block does, such as "validating".

    Raises:
        WorkError: The memory is too small.
    """
    try:
        yield
    except Exception as error:
        if (small := too_little_memory(error, _ADVICE, doing)) is None:
            raise
        raise small from error
