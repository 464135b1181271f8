import jax
import pytest

from cod_jax.parallel.processes import join_processes


@pytest.fixture
def bind_address(monkeypatch):
    """Join with an address of the first process, and return where it listens."""
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)

    def join(address: str | None) -> str | None:
        given = {}
        monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **options: given.update(options))
        join_processes(True, address, None if address is None else 2, None if address is None else 0)
        return given["coordinator_bind_address"]

    return join


@pytest.mark.parametrize("address", ["localhost:1234", "127.0.0.1:1234"])
def test_the_coordinator_listens_at_the_address_that_it_is_given(bind_address, address: str):
    assert bind_address(address) == address


@pytest.mark.parametrize("address", [None, "192.0.2.1:1234", "no-such-host.invalid:1234"])
def test_an_address_that_is_not_of_this_machine_decides_nothing(bind_address, address: str | None):
    assert bind_address(address) is None


def test_a_name_that_only_this_machine_takes_for_itself_decides_nothing(bind_address, monkeypatch):
    found = [(2, 1, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert bind_address("node0:1234") is None


def test_a_variable_decides_where_the_coordinator_listens(bind_address, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "[::]:1234")
    assert bind_address("localhost:1234") is None
