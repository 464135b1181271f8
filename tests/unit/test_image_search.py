import logging
import os

import numpy as np
import pytest
from PIL import Image

from cod_jax.image_search import find_files, find_images

PIXELS = Image.fromarray(np.zeros((4, 4, 3), np.uint8))


def test_find_images_is_recursive_sorted_and_leaves_hidden_files_out(tmp_path):
    pictures = ["a.jpg", "a/b/c.webp", "a/z.jpeg", "b.PNG", "c.TIF", "d.tiff", "e.bmp", "f.gif"]
    for name in (*reversed(pictures), "notes.txt", ".hidden.png", ".cache/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_images(tmp_path) == pictures


def test_find_images_says_what_is_wrong_with_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_images(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="not a folder"):
        find_images(tmp_path / "file")


def write(path, image_format="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIXELS.save(path, image_format)


def test_linked_folders_are_searched_once_and_loops_end(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    write(root / "b" / "1.png")
    write(other / "2.png")
    write(other / "deeper" / "3.png")
    (root / "a").symlink_to(root / "b")  # under its own name only
    (root / "c").symlink_to(other)
    (root / "d").symlink_to(other / "deeper")
    (other / "loop").symlink_to(root)
    (root / "self").symlink_to(root)
    assert find_images(root) == ["b/1.png", "c/2.png", "c/deeper/3.png"]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_pictures_are_found_by_their_content(image_format, tmp_path):
    for name in ("no_suffix", "photo.jpg_large", "photo.JFIF", "photo.jpe", "notes.txt"):
        write(tmp_path / name, image_format)
    (tmp_path / "BMBMBM").write_bytes(b"BMBMBMBMBMBMBMBMBMBMBM")
    (tmp_path / "empty").touch()
    assert find_images(tmp_path) == ["no_suffix", "photo.JFIF", "photo.jpe", "photo.jpg_large"]


def test_what_is_left_out_is_counted_and_named(tmp_path, caplog):
    write(tmp_path / "1.png")
    (tmp_path / "2.heic").write_bytes(bytes(20))
    os.mkfifo(tmp_path / "3.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "4.jpg").symlink_to(tmp_path / "absent")
    with caplog.at_level(logging.WARNING):
        assert find_images(tmp_path) == ["1.png", "4.jpg"]
    assert "left out 2: 2.heic: not a kind of picture that is read; 3.jpg: not a regular file" in caplog.text


def test_folders_that_cannot_be_read_are_named(tmp_path, caplog, monkeypatch):
    write(tmp_path / "1.png")
    write(tmp_path / "closed" / "2.png")
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests may run as root, who can read everything
    with caplog.at_level(logging.WARNING):
        assert find_images(tmp_path) == ["1.png"]
    assert "left out 1: closed/: the folder cannot be read (Permission denied)" in caplog.text
    with pytest.raises(PermissionError):
        find_images(tmp_path / "closed")


def test_links_that_cannot_be_followed_are_named(tmp_path, caplog):
    write(tmp_path / "1.png")
    for name in ("loop", "loop.png"):
        (tmp_path / name).symlink_to(name)
    with caplog.at_level(logging.WARNING):
        assert find_images(tmp_path) == ["1.png"]
    assert "left out 2: loop: the link cannot be followed (Too many levels" in caplog.text


def test_other_files_are_found_as_pictures_are(tmp_path, caplog):
    root, other = tmp_path / "root", tmp_path / "other"
    for path in (root / "b" / "1.cod", other / "2.COD", root / ".cache" / "3.cod", root / "4.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "linked").symlink_to(other)
    (root / "absent.cod").symlink_to("nothing")
    os.mkfifo(root / "pipe.cod")
    with caplog.at_level(logging.WARNING):
        assert find_files(root, ".cod") == ["absent.cod", "b/1.cod", "linked/2.COD"]
    assert "left out 1: pipe.cod: not a regular file" in caplog.text
