"""The interface of data sources."""

from collections.abc import Sequence

TFDS_PREFIX = "tfds:"
"""Prefix of the names of datasets that were prepared with tensorflow-datasets; see `TfdsSource`."""


class Source:
    """Encoded images by index; a source of another package inherits from this class.

    A config names such a class by "package.module:Class" or "package.module:Class:ARGUMENT" in `data.source`. It is
    made with the argument, "" where there is none.

    Attributes:
        location: Place of the images, for messages.
        names: Name of each image. The split into training and validation depends on them alone, and so does the order
            of the images in training.
        has_names: Whether the names are of the images. Without it they are numbers, by which nothing is held out.
    """

    location: str
    names: Sequence[str]
    has_names: bool = True

    def __init__(self, argument: str) -> None:
        self.location = argument

    def identity(self, indices: Sequence[int]) -> dict[str, int]:
        """Return numbers that change when images are replaced under the same names; cheaply, without reading them.

        A run does not resume if a number has changed, unless its name is `times_crc32`: then it warns, because copying
        a folder changes the times. Numbers that one of the two does not have are not compared.

        Args:
            indices: The images in question.

        Returns:
            Numbers by name; none by default.

        Raises:
            OSError: An image cannot be looked at.
        """
        del indices
        return {}

    def epoch(self, indices: Sequence[int]) -> Sequence[int]:
        """Return the images of an epoch, given those to train on; a source may repeat some."""
        return indices

    def read(self, index: int) -> bytes:
        """Return the encoded image at an index, in a format that Pillow reads.

        Raises:
            UserError: It is damaged.
            OSError: It cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} must define read")
