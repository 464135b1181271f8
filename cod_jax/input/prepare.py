"""Turn a folder of photographs into resized ArrayRecord shards."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

from tqdm import tqdm

from cod_jax import files, images, storage
from cod_jax.errors import UserError, WorkError
from cod_jax.image_search import find_images
from cod_jax.input import records, transforms

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class TooSmallError(UserError):
    """The photograph would have to be enlarged."""


def shrink(data: bytes, name: str, size: int, image_format: str = "jpeg", quality: int = 95) -> bytes:
    """Return a photograph with the shorter side of a given length, upright and in sRGB, encoded again.

    Args:
        data: The file.
        name: Its name, for messages.
        size: Length of the shorter side, pixels.
        image_format: "jpeg" (full colour resolution) or "png".
        quality: JPEG quality, 1 to 100.

    Raises:
        TooSmallError: The shorter side has fewer pixels.
        UserError: The file is damaged, or not a photograph.
    """
    image_uint8 = images.to_uint8_rgb(data, name, warn=False)
    height, width = image_uint8.shape[:2]
    if min(height, width) < size:
        raise TooSmallError(f"{width}x{height} is smaller than {size}")
    options = {"quality": quality, "subsampling": 0} if image_format == "jpeg" else {}
    return images.encode(transforms.resize_short_edge(image_uint8, size), image_format, **options)


def prepare(
    source: str,
    output: str,
    size: int,
    *,
    image_format: str = "jpeg",
    quality: int = 95,
    images_per_shard: int = 4096,
    num_threads: int = 2,
    force: bool = False,
) -> tuple[int, dict[str, str], dict[str, str]]:
    """Write the photographs of a folder as shards of images whose shorter side has a given length.

    The output folder appears when it is complete. The result depends on the photographs and settings alone.

    Args:
        source: Folder of photographs, or an address of remote storage.
        output: Folder to make, or an address.
        size: Length of the shorter side, pixels.
        image_format: "jpeg" (full colour resolution) or "png".
        quality: JPEG quality, 1 to 100.
        images_per_shard: Largest number of images in a shard.
        num_threads: Threads that decode, resize and encode.
        force: Replace an existing output, if an earlier run made it.

    Returns:
        The number of images written; the photographs skipped because they are too small, and those that cannot be read,
        by name with the reason.

    Raises:
        OSError: The source does not exist, or the output exists or cannot be written.
        UserError: A setting is out of range, the source holds no photographs, or storage does not answer.
        WorkError: No photograph can be used.
    """
    for name, value in (("size", size), ("images per shard", images_per_shard), ("threads", num_threads)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if not 1 <= quality <= 100:
        raise UserError(f"quality must be from 1 to 100, got {quality}")
    storage.check_new_directory(output, force, records.MANIFEST_NAME)
    names, folder = find_images(source), source.rstrip("/")
    if not names:
        raise UserError(f"{source} holds no {files.IMAGE_FORMATS} files; give a folder of photographs with --source")
    too_small: dict[str, str] = {}
    unreadable: dict[str, str] = {}

    def convert(name: str) -> bytes | None:
        try:
            return shrink(storage.read_bytes(f"{folder}/{name}"), name, size, image_format, quality)
        except storage.StorageError:
            raise  # all photographs would be skipped
        except TooSmallError as error:
            too_small[name] = str(error)
        except (OSError, UserError) as error:
            unreadable[name] = str(error).removeprefix(f"{name}: ")
        return None

    with storage.new_directory(output, force=force, marker=records.MANIFEST_NAME) as made:
        converted = map_in_order(convert, names, num_threads)
        pairs = zip(names, tqdm(converted, total=len(names), unit="image", disable=None), strict=True)
        shards = records.write_shards(made, ((n, data) for n, data in pairs if data is not None), images_per_shard)
        skipped = dict(sorted((too_small | unreadable).items()))
        if not shards:
            name, reason = next(iter(skipped.items()))
            raise WorkError(
                f"{source}: none of the {len(names)} photographs can be used (for example {name}: {reason}); "
                "give larger or intact photographs, or a smaller --size"
            )
        settings = {"size": size, "format": image_format, **({"quality": quality} if image_format == "jpeg" else {})}
        records.write_manifest(made, shards, skipped, settings)
    return len(names) - len(skipped), dict(sorted(too_small.items())), dict(sorted(unreadable.items()))


def map_in_order(function: Callable[[_In], _Out], items: Iterable[_In], num_threads: int) -> Iterator[_Out]:
    """Call a function in threads and yield the results in order, holding only a few at a time."""
    with futures.ThreadPoolExecutor(num_threads) as executor:
        pending: collections.deque[futures.Future[_Out]] = collections.deque()
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= 4 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
