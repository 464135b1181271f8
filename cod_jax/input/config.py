"""Settings of the input pipeline."""

import dataclasses
from typing import Literal, get_args

from cod_jax.errors import UserError

Crop = Literal["random_resized", "random", "center"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Source of the images, and how they are cropped.

    Attributes:
        source: One of four kinds. A folder of pictures (`files.IMAGE_FORMATS`), searched with all folders below
            it. A folder or file of ArrayRecord shards made by `cod prepare`. Or "tfds:NAME[:SPLIT]", a
            dataset that tensorflow-datasets has prepared as ArrayRecord files; see `TfdsSource`. Or
            "mix:WEIGHT=SOURCE,WEIGHT=SOURCE", a mixture of these with shares of the training images. All may be at
            addresses of remote storage, such as "gs://bucket/photos" or "tfds:gs://bucket/NAME/SIZE/1.0.0:SPLIT".
        validation_source: The same for validation. If empty, a part of `source` is held out instead.
        validation_modulus: An image of `source` is held out if the CRC-32 of its file name (without folders) is
            divisible by this number; 0 holds nothing out. The name of a dataset's record is its file and its place
            there. Not used when `validation_source` is given.
        image_size: Side of the square crops, in pixels. Smaller images are left out, never enlarged.
        crop: "random_resized" (a random square, resized), "random" (a random square of `image_size` that keeps the
            pixels of the file) or "center" (the largest centred square, resized).
        min_scale: Smallest area of the random square to be resized as a fraction of the largest square that fits, in
            (0, 1]. The square is never smaller than `image_size`.
        flip: Whether half of the training images, at random, are mirrored left to right.
        num_threads: Decoding threads of each process that reads; 0 decodes in the calling thread.
        num_workers: Worker processes that read for each training process; 0 reads in the training process. Threads of
            one process share Python's interpreter lock; worker processes take some seconds to start, and memory.
        prefetch: Batches kept ready by the threads of each process, at least 1; never fewer than `num_threads`.
    """

    source: str = ""
    validation_source: str = ""
    validation_modulus: int = 20
    image_size: int = 256
    crop: Crop = "random_resized"
    min_scale: float = 0.5
    flip: bool = True
    num_threads: int = 4
    num_workers: int = 0
    prefetch: int = 2

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: A value is outside its range.
        """
        if self.image_size < 1:
            raise UserError(f"expected data.image_size to be at least 1, got {self.image_size}")
        if self.crop not in get_args(Crop):
            raise UserError(f"expected data.crop to be one of {', '.join(get_args(Crop))}, got {self.crop!r}")
        if not 0 < self.min_scale <= 1:
            raise UserError(f"expected data.min_scale above 0 and at most 1, got {self.min_scale}")
        if self.validation_modulus < 0 or self.validation_modulus == 1:
            raise UserError(
                f"expected data.validation_modulus to be 0, which holds nothing out, or at least 2, "
                f"got {self.validation_modulus}"
            )
        for name, value in (("num_threads", self.num_threads), ("num_workers", self.num_workers)):
            if value < 0:
                raise UserError(f"expected data.{name} to be at least 0, got {value}")
        if self.prefetch < 1:
            raise UserError(f"expected data.prefetch to be at least 1, got {self.prefetch}")
