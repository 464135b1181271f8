"""Warnings of Pillow, collected so that they can be given with the name of the picture."""

import contextlib
import threading
import warnings
from collections.abc import Generator

from PIL import Image


@contextlib.contextmanager
def collected_warnings() -> Generator[dict[str, type[Warning]]]:
    """Collect warnings in place of showing them, so that they can be given with the name of the picture.

    Python's filters belong to all threads: in other threads than the main one warnings are shown as Pillow has them.
    """
    said: dict[str, type[Warning]] = {}
    if threading.current_thread() is not threading.main_thread():
        yield said
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    for warning in caught:
        # There is a limit on the size of pictures already.
        if not issubclass(warning.category, Image.DecompressionBombWarning):
            said[" ".join(str(warning.message).split())] = warning.category
