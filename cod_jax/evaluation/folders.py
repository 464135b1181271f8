"""The folders of an evaluation: what is read and what is written, checked without JAX."""

from pathlib import Path

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.image_search import find_images

SUMMARY_FILE = "summary.json"
TABLE_FILE = "per_image.csv"


def checked_pictures(images_folder: str | Path, output: str | Path, *, force: bool) -> list[str]:
    """Return the names of the pictures to measure, after checks that need no model.

    Raises:
        UserError: There are no pictures, or one of the folders holds the other.
        OSError: A folder cannot be read, or the output may not be replaced.
    """
    names = find_images(images_folder)
    if not names:
        raise UserError(f"{images_folder} holds no {files.IMAGE_FORMATS} files; give another folder of pictures")
    files.check_outside(output, images_folder)
    files.check_not_around(output, images_folder)
    files.check_new_directory(output, force, SUMMARY_FILE)
    return names
