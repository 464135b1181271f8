import pytest

from tests.sweep_fixtures import SweepFolder


@pytest.fixture
def sweep_folder(tmp_path, monkeypatch) -> SweepFolder:
    return SweepFolder(tmp_path, monkeypatch)
