"""Pictures of one colour, shards of them, and settings under which pixels tell which image they come from."""

import numpy as np
from PIL import Image

from cod_jax.input import records
from cod_jax.input.config import DataConfig

SIZE = 8


def write_image(path, colour, size=(SIZE, SIZE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path)


def colour_of(index):
    return (index, 2 * index, 255 - index)


def write_shards(folder, images_folder, per_shard=5):
    folder.mkdir()
    names = sorted(path.name for path in images_folder.iterdir())
    shards = records.write_shards(folder, [(name, (images_folder / name).read_bytes()) for name in names], per_shard)
    records.write_manifest(folder, shards, {}, {})
    return shards


def plain_config(source, **changes):
    """Nothing random but the order, so that pixels tell which image it is."""
    fields = {"image_size": SIZE, "crop": "center", "flip": False, "validation_modulus": 0, "num_threads": 0}
    return DataConfig(source=str(source), **(fields | changes))


def random_config(source, **changes):
    return plain_config(source, **({"image_size": 32, "crop": "random_resized", "flip": True} | changes))


def take(batches, count):
    return np.stack([next(batches)["image"] for _ in range(count)])


def indices(batches, count):
    return take(batches, count)[..., 0, 0, 0]
