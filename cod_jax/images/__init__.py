"""Pictures as arrays: reading every kind as uint8 RGB, value ranges, padding, encoding and saving."""

from cod_jax.images.arrays import pad_to_multiple, signed_to_uint8, uint8_to_unit, unit_to_signed
from cod_jax.images.encoding import encode, save_png
from cod_jax.images.reading import MAX_PIXELS, ImageSource, SizeCheck, to_uint8_rgb

__all__ = [
    "MAX_PIXELS",
    "ImageSource",
    "SizeCheck",
    "encode",
    "pad_to_multiple",
    "save_png",
    "signed_to_uint8",
    "to_uint8_rgb",
    "uint8_to_unit",
    "unit_to_signed",
]
