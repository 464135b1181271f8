"""The log of an evaluation."""

import resource
from pathlib import Path

import pytest

from cod_jax.errors import UserError
from cod_jax.evaluation.records import Records


def test_what_was_written_is_found_again_and_half_a_line_is_not(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    with Records(path) as records:
        records.add("a", {"psnr": float("inf")})
        records.add("b", {"bytes": 3})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Records(path) as records:
            assert (records.get("a") is not None) == (cut > whole.index(b"\n"))
            records.add("c", {"bytes": 4})
        with Records(path) as records:
            assert records.get("c") == {"bytes": 4}
    path.write_bytes(whole)
    with Records(path) as records:
        assert (records.get("a"), records.get("b"), records.get("c")) == ({"psnr": float("inf")}, {"bytes": 3}, None)


def test_what_failed_is_done_again(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    with Records(path) as records:
        records.add("first", {"error": "no memory"})
        assert records.get("first") == {"error": "no memory"}
    with Records(path) as records:
        assert records.get("first") is None
        records.add("first", {"bytes": 3})
    with Records(path) as records:
        assert records.get("first") == {"bytes": 3}


def test_a_full_disk_names_the_file(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Records(path) as records:
        records.add("first", {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                records.add("second", {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    with Records(path) as records:
        assert (records.get("first"), records.get("second")) == ({}, None)


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "records.jsonl").write_text('{"work": "a"}\nhello\n')
    with pytest.raises(UserError, match="line 2: expected a record of an evaluation"):
        Records(tmp_path / "records.jsonl")


def test_a_second_process_is_refused(tmp_path: Path):
    path = tmp_path / "result" / "records.jsonl"
    path.parent.mkdir()
    with Records(path) as records:
        records.add("a", {"bytes": 1})
        for attempt in (Records, Records.check_unused):
            with pytest.raises(
                UserError, match="result is in use by another evaluation; wait for it or choose another"
            ):
                attempt(path)
    Records.check_unused(path)
    with Records(path) as records:
        assert records.get("a") == {"bytes": 1}
