"""Raw files of datasets as they are downloaded, and the command that prepares them."""

import io

import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax.commands.main import main
from tests.unit.datasets.test_raw import write_archive

NUM = 12


def piece(index, size=(60, 48)):
    """A part of a photograph as a JPEG file."""
    left, top = 40 * (index % 8), 50 * (index // 8)
    part = Image.fromarray(photographs.coffee()[top : top + size[1], left : left + size[0]])
    buffer = io.BytesIO()
    part.save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Raw files of all datasets, laid out as they are downloaded."""
    root = tmp_path_factory.mktemp("raw")
    for name in ("imagenet21k/winter21_whole", "openimages", "sa1b", "folder"):
        (root / name).mkdir(parents=True)
    for number in range(3):
        stem = f"n0000000{number}"
        members = {f"{stem}_{index}.JPEG": piece(3 * number + index) for index in range(3)}
        write_archive(root / "imagenet21k" / "winter21_whole" / f"{stem}.tar", members)
    for stem in ("train_0", "train_f", "validation"):
        write_archive(root / "openimages" / f"{stem}.tar.gz", {f"{stem}/{stem}.jpg": piece(len(stem))}, "w:gz")
    for number in range(2):
        members = {f"./sa_{number}.jpg": piece(number), f"./sa_{number}.json": b"{}"}
        write_archive(root / "sa1b" / f"sa_00000{number}.tar", members)
    for index in range(NUM):
        (root / "folder" / f"{index:02d}.jpg").write_bytes(piece(index))
    (root / "folder" / "small.jpg").write_bytes(piece(0, (60, 20)))
    (root / "folder" / "broken.jpg").write_bytes(piece(0)[:500])
    return root


def prepare(dataset, source, output, *options, size=32):
    arguments = ["--dataset", dataset, "--source", str(source), "--output", str(output), "--size", str(size)]
    name = ["--name", "photos"] if dataset == "folder" else []
    return main(["prepare", *arguments, *name, "--workers", "1", *options])
