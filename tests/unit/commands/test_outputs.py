"""Where `cod compress` and `cod decompress` read and write: streams, folders, names, and what is never replaced."""

import functools
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cod_jax import files, images
from cod_jax.commands import frame
from cod_jax.model_folder.bundle import load_bundle
from cod_jax.specialize.folder import write_compiled
from tests.conftest import REPOSITORY
from tests.model_fixtures import gradient_image, load_tiny, save_tiny_model, tiny_codec
from tests.unit.commands.conftest import Cod

DATA = b"content"
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="pipes and modes differ there")


def _tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@functools.cache
def compressed() -> bytes:
    return tiny_codec().compress(gradient_image(30, 45))


@pytest.fixture
def feed(monkeypatch):
    """Put bytes on standard input, and collect those on standard output."""

    def feed(data: bytes) -> io.BytesIO:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        out = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, write_through=True))
        return out

    return feed


@pytest.mark.parametrize("options", [(), ("-o", "-"), ("-o", "-", "--json")])
def test_a_dash_is_standard_input_and_output(cod: Cod, photo: Path, tmp_path: Path, feed, options):
    out = feed(photo.read_bytes())
    result = cod("compress", "-m", "MODEL", "-", *options)
    assert result.status == 0
    assert out.getvalue() == compressed()
    if "--json" in options:  # beside the data
        assert json.loads(result.err)["output"] == "-"
    else:
        assert result.err == ""
    out = feed(compressed())
    assert cod("decompress", "-m", "MODEL", "-", *options).status == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), tiny_codec().decompress(compressed()))
    out = feed(compressed())
    assert cod("info", "-").status == 0
    assert b"picture  45x30 pixels" in out.getvalue()
    assert _tree(tmp_path) == {"photo.png"}


def test_a_dash_goes_with_a_file_on_the_other_side(cod: Cod, photo: Path, tmp_path: Path, feed):
    feed(photo.read_bytes())
    assert cod("compress", "-m", "MODEL", "-", "-o", "out/small.cod").status == 0
    assert (tmp_path / "out" / "small.cod").read_bytes() == compressed()
    out = feed(b"")
    assert cod("compress", "-m", "MODEL", "photo.png", "-o", "-").status == 0
    assert out.getvalue() == compressed()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "photo.png"], "the name of a file is empty"),
        (["photo.png", "-m", ""], "the name of the model is empty"),
        (["photo.png", "-m", "x1://bucket/model"], "x1://bucket/model cannot be used (ValueError: Protocol not known"),
        (["-", "photo.png"], "- is one stream but there are 2 inputs"),
        (["photo.png", "photo.png", "-o", "-"], "- is one stream but there are 2 inputs"),
        (["-", "-o", "out/"], "standard input has no name; give one ending in .cod with -o"),
        (["-", "-o", "x.png"], "end the name in .cod"),
    ],
)
def test_one_stream_is_one_file_and_names_are_checked(
    cod: Cod, photo: Path, tmp_path: Path, arguments: list[str], message: str
):
    result = cod("compress", "-m", "MODEL", *arguments)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
    assert _tree(tmp_path) == {"photo.png"}


def test_what_is_on_standard_input_is_checked(cod: Cod, feed, monkeypatch):
    feed(b"hello")
    assert cod("compress", "-m", "MODEL", "-").err.startswith("cod compress: error: -: not an image")
    monkeypatch.setattr("cod_jax.coding.container.MAX_BYTES", 100)
    feed(b"\xff\xd8\xff\xe0" + bytes(200))
    result = cod("decompress", "-m", "MODEL", "-")
    assert (result.status, result.err) == (
        1,
        "cod decompress: error: -: this is a JPEG picture, not a .cod file; compress it first\n",
    )


@posix_only
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [("| true", "Broken pipe"), (">&-", "it is closed"), ("> /dev/full", "No space left on device")],
)
def test_data_that_cannot_be_written_on_standard_output_are_an_error(tmp_path: Path, redirection: str, reason: str):
    # A pipe holds 64 kilobytes without a reader.
    script = (
        "import sys; from cod_jax.commands import frame\n"
        "from cod_jax.errors import UserError\n"
        "with frame.standard_streams('cod') as checked:\n"
        "    try:\n"
        "        frame.write_data(bytes(10**6)); status = 0\n"
        "    except UserError as error:\n"
        "        frame.print_error('cod', str(error)); status = 1\n"
        "    sys.exit(checked(status))\n"
    )
    command = f"set -o pipefail; '{sys.executable}' -c \"{script}\" {redirection}"
    done = subprocess.run(["bash", "-c", command], check=False, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"cod: error: standard output cannot be written ({reason})\n")


@posix_only
@pytest.mark.parametrize("redirection", ["2>&1 | true", "2>/dev/full", "2>&- >&-"])
def test_files_that_are_not_done_show_in_the_status_whoever_reads(tmp_path: Path, redirection: str):
    save_tiny_model(tmp_path / "model")
    (tmp_path / "text.png").write_text("hello")
    command = f"set -o pipefail; '{sys.executable}' -m cod_jax compress -m model nothing.png gone.png {redirection}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", command], check=False, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 2


@posix_only
def test_errors_that_nobody_can_read_show_in_the_status(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stderr", full)
        with frame.standard_streams("cod") as checked:
            frame.print_error("cod", "one picture was left out")
            assert checked(frame.DONE) == frame.FAILED
        monkeypatch.undo()


def test_cheap_mistakes_are_found_before_jax_is_loaded(tmp_path: Path):
    (tmp_path / "photo.png").write_bytes(b"x")
    (tmp_path / "photo.cod").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").touch()
    commands = [
        ["compress", "-m", "nothing", "photo.png"],
        ["compress", "-m", "photos", "photo.png"],
        ["compress", "-m", "model", "photo.png", "nothing.png", "photos"],
        ["decompress", "photo.png"],
        ["decompress", "-m", "nothing", "photo.cod"],
        ["evaluate", "--model", "model", "--images", "nothing", "--output", "out"],
        ["evaluate", "--model", "model", "--images", "photos", "--output", "out"],
        ["evaluate", "--model", "nothing", "--images", ".", "--output", "/tmp/out"],
        ["export", "--workdir", "run", "--output", "model"],
        ["compile", "--model", "nothing", "--output", "out"],
        ["compile", "--model", "model", "--output", "model"],
        ["fit-prior", "--model", "nothing", "--images", "photos"],
        ["import", "--checkpoint", "x.pt", "--config", "x.yaml", "--output", "model"],
        ["export-published", "--model", "nothing", "--output", "x.safetensors"],
    ]
    (tmp_path / "photo.decoded.png").write_bytes(b"x")
    commands[3] = ["decompress", "-m", "model", "photo.cod"]
    script = (
        "import sys, json; from cod_jax.commands.main import main\n"
        "statuses = [main(command) for command in json.loads(sys.argv[1])]\n"
        'sys.exit(f\'{statuses} {sorted({"jax", "flax"} & set(sys.modules))}\')'
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stderr.splitlines()[-1] == f"{[2] * len(commands)} []", done.stderr


def test_names_that_differ_in_their_suffix_keep_it(cod: Cod, photo: Path, tmp_path: Path):
    Image.fromarray(gradient_image(30, 45)).save(tmp_path / "photo.jpg")
    images.save_png(tmp_path / "other.png", gradient_image(30, 45))
    for output in ([], ["-o", "out"]):
        assert cod("compress", "-m", "MODEL", "photo.png", "photo.jpg", "other.png", *output).status == 0
    expected = {"photo.png.cod", "photo.jpg.cod", "other.cod"}
    assert _tree(tmp_path / "out") == expected
    assert expected < _tree(tmp_path)


def test_a_folder_keeps_its_tree(cod: Cod, tmp_path: Path):
    for name in ("a.png", "x/a.png", "x/y/b.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(gradient_image(30, 45)).save(path)
    (tmp_path / "photos" / "notes.txt").touch()
    assert cod("compress", "-m", "MODEL", "-r", "photos", "-o", "out").status == 0
    assert _tree(tmp_path / "out") == {"a.cod", "x/a.cod", "x/y/b.cod"}
    assert cod("decompress", "-m", "MODEL", "-r", "out", "-o", "back").status == 0
    assert _tree(tmp_path / "back") == {"a.png", "x/a.png", "x/y/b.png"}
    assert cod("decompress", "-m", "MODEL", "-r", "out").status == 0
    assert "x/y/b.decoded.png" in _tree(tmp_path / "out")
    result = cod("decompress", "-m", "MODEL", "-r", "photos")
    assert (result.status, "photos holds no files to take" in result.err) == (2, True)
    result = cod("compress", "-m", "MODEL", ".")
    assert (result.status, result.err) == (2, "cod compress: error: . is a folder; add -r to take the files in it\n")


def test_a_line_of_json_for_each_file(cod: Cod, photo: Path, tmp_path: Path):
    (tmp_path / "text.png").write_text("hello")
    result = cod("compress", "-m", "MODEL", "--json", "photo.png", "text.png")
    assert result.status == 1
    good, bad = map(json.loads, result.out.splitlines())
    rate = 8 * 15 / (30 * 45)
    facts = {"width": 45, "height": 30, "file_bytes": 15, "bits_per_pixel": rate}
    assert good == {"input": "photo.png", "output": "photo.cod", **facts}
    assert (bad["input"], bad["error"].startswith("text.png: not an image")) == ("text.png", True)
    result = cod("decompress", "-m", "MODEL", "--json", "photo.cod")
    expected = {"input": "photo.cod", "output": "photo.decoded.png", "width": 45, "height": 30}
    assert json.loads(result.out) == expected


def test_the_original_is_never_replaced_by_a_default_name(cod: Cod, photo: Path, tmp_path: Path):
    original = photo.read_bytes()
    assert cod("compress", "-m", "MODEL", "photo.png").status == 0
    for force in ([], ["--force"], ["--force"]):
        assert cod("decompress", "-m", "MODEL", "photo.cod", *force).out == "photo.cod -> photo.decoded.png: 45x30\n"
    result = cod("decompress", "-m", "MODEL", "photo.cod", "-o", ".", "--force")
    assert result.status == 2
    assert result.err.startswith("cod decompress: error: photo.cod: photo.png was not written by cod, so --force does")
    assert photo.read_bytes() == original
    # Named by the user, it is.
    assert cod("decompress", "-m", "MODEL", "photo.cod", "-o", "photo.png", "--force").status == 0
    assert photo.read_bytes() != original


@pytest.mark.parametrize("content", [b"my notes", b"\xcd but cut off"])
def test_a_file_of_another_kind_is_not_replaced_by_a_default_name(cod: Cod, photo: Path, tmp_path: Path, content):
    (tmp_path / "photo.cod").write_bytes(content)
    assert "not written by cod" in cod("compress", "-m", "MODEL", "photo.png", "--force").err
    assert (tmp_path / "photo.cod").read_bytes() == content
    assert cod("compress", "-m", "MODEL", "photo.png", "--force", "-o", "photo.cod").status == 0


def test_files_of_a_published_tool_are_replaced_by_force(cod: Cod, photo: Path):
    for force in ([], ["--force"]):
        assert cod("compress", "-m", "MODEL", "photo.png", "--format", "legacy-lite", *force).status == 0


def test_of_two_writers_the_first_one_wins(cod: Cod, photo: Path, tmp_path: Path, monkeypatch):
    def load(path: str):
        (tmp_path / "photo.cod").write_bytes(b"of another process")
        return load_tiny(path)

    monkeypatch.setattr("cod_jax.codec.kept.load_kept", load)
    result = cod("compress", "-m", "MODEL", "photo.png")
    assert result.status == 1
    assert "photo.cod already exists; choose another output or pass --force" in result.err
    assert (tmp_path / "photo.cod").read_bytes() == b"of another process"
    assert _tree(tmp_path) == {"photo.png", "photo.cod"}


@posix_only
def test_force_keeps_the_mode_of_a_file(cod: Cod, photo: Path, tmp_path: Path):
    assert cod("compress", "-m", "MODEL", "photo.png").status == 0
    (tmp_path / "photo.cod").chmod(0o640)
    assert cod("compress", "-m", "MODEL", "photo.png", "--force").status == 0
    assert stat.S_IMODE((tmp_path / "photo.cod").stat().st_mode) == 0o640


def test_the_model_of_a_file_is_found(photo: Path, tmp_path: Path, monkeypatch, capsys):
    from cod_jax.commands.main import main

    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "models" / "tiny")
    assert main(["compress", "-m", "models/tiny", "photo.png"]) == 0
    capsys.readouterr()
    assert main(["decompress", "photo.cod"]) == 1
    assert "which is not in COD_JAX_MODELS; name its folder with -m" in capsys.readouterr().err
    monkeypatch.setenv("COD_JAX_MODELS", "models")
    assert main(["decompress", "photo.cod"]) == 0
    assert capsys.readouterr().out == "photo.cod -> photo.decoded.png: 45x30\n"
    write_compiled(tmp_path / "compiled", load_bundle("models/tiny"), platforms=["cpu"], dtype="float32")
    monkeypatch.setenv("COD_JAX_MODELS", "compiled")
    assert main(["decompress", "photo.cod", "--force"]) == 0
    assert capsys.readouterr().out == "photo.cod -> photo.decoded.png: 45x30\n"
    assert main(["decompress", "photo.cod", "--format", "legacy-lite"]) == 2
    assert "do not name their model" in capsys.readouterr().err


@posix_only
def test_names_of_any_script_work_where_the_terminal_knows_ascii_only(tmp_path: Path):
    script = (
        "import sys; from cod_jax import files\n"
        "from pathlib import Path\n"
        "files.write_bytes(sys.argv[1], b'x')\n"
        "with files.new_directory(sys.argv[2]) as folder: (folder / 'x').touch()\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", script, str(tmp_path / "写真.cod"), str(tmp_path / "modèle")]
    done = subprocess.run(command, check=False, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path)) == ["modèle", "写真.cod"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "b.png"], ["a", "b"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.png", "a.jpg.png"]),
        (["x/a.jpg", "y/a.png"], ["x/a", "y/a"]),
        (["a.b.jpg"], ["a.b"]),
        (["a.jpg", "a.jpg"], ["a", "a"]),
    ],
)
def test_suffixes_are_kept_where_names_need_them(names: list[str], expected: list[str]):
    assert files.without_suffixes([Path(name) for name in names]) == [Path(name) for name in expected]
