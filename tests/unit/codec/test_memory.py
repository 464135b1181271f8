from pathlib import Path

import pytest

from cod_jax.codec import memory


@pytest.fixture
def group(tmp_path, monkeypatch) -> Path:
    """A machine with 8 GB, of which a container may take 4 GB and uses 3.5 GB, most of it for files that were read."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "memory.current").write_text("3500000000\n")
    (tmp_path / "memory.max").write_text("4000000000\n")
    (tmp_path / "memory.stat").write_text("anon 500000000\ninactive_file 2000000000\nactive_file 1000000000\n")
    monkeypatch.setattr(memory, "_MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    return tmp_path


def test_files_that_were_read_do_not_count_as_memory_in_use(group: Path):
    assert memory.available_bytes() == 3_500_000_000


def test_without_a_limit_the_machine_has_what_is_available(group: Path):
    (group / "memory.max").write_text("max\n")
    assert memory.available_bytes() == 8_192_000_000


def test_memory_that_is_not_known_refuses_nothing(group: Path):
    (group / "meminfo").unlink()
    assert memory.available_bytes() is None
    memory.check(height=10**6, width=10**6, multiple=16, bytes_per_pixel=1e6, task="encoding")


def test_a_picture_that_needs_more_than_there_is_is_refused(group: Path):
    with pytest.raises(ValueError, match=r"encoding 2000x1990 pixels takes about 4 GB .* and 3\.5 GB are available"):
        memory.check(height=1990, width=2000, multiple=16, bytes_per_pixel=1000.0, task="encoding")
