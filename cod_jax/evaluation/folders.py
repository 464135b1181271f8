"""The folders of an evaluation: what is read and what is written, checked without JAX."""

from pathlib import Path

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.image_search import find_images

PLAN_FILE, RESULTS_FILE, REPORT_FILE = "plan.json", "results.json", "report.html"
# Of plan.json and results.json.
FORMAT = 1


def checked_pictures(images_folder: str | Path, output: str | Path, *, force: bool) -> list[str]:
    """Return the names of the pictures to measure, after checks that need no model.

    Args:
        images_folder: Folder of pictures.
        output: Folder of results; that of an earlier evaluation is taken for one that goes on.
        force: Whether that of another evaluation may be deleted.

    Raises:
        UserError: There are no pictures, or one of the folders holds the other.
        OSError: A folder cannot be read, or the output holds something else.
    """
    names = find_images(images_folder)
    if not names:
        raise UserError(f"{images_folder} holds no {files.IMAGE_FORMATS} files; give another folder of pictures")
    files.check_outside(output, images_folder)
    files.check_not_around(output, images_folder)
    if not (Path(output) / PLAN_FILE).is_file():
        files.check_new_directory(output, force, PLAN_FILE)
    return names
