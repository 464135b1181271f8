"""Checks of the sides of pictures that a network takes."""

import jax

from cod_jax.errors import UserError


def require_multiple(image: jax.Array, multiple: int) -> None:
    """Refuse pictures [B, H, W, C] whose sides are not multiples of a number of pixels.

    Raises:
        UserError: A side is not.
    """
    _, height, width, _ = image.shape
    if height % multiple or width % multiple:
        raise UserError(
            f"expected both sides to be multiples of {multiple} pixels, got {height}x{width}; use "
            "images.pad_to_multiple first"
        )
