"""Join the other processes of a run."""

import ipaddress
import os
import re
import socket

import jax

from cod_jax.errors import UserError


def join_processes(
    distributed: bool, coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Start `jax.distributed` if this process is one of several.

    Args:
        distributed: Whether it is one of several; the system says which if the other arguments are None.
        coordinator_address: HOST:PORT of the first process.
        num_processes: How many processes there are.
        process_id: Number of this process, from 0.

    Raises:
        UserError: The arguments are incomplete, or the processes do not find each other.
    """
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    if len(missing) == len(given) and not distributed:
        return
    if missing and len(missing) < len(given):
        raise UserError(f"{' and '.join(missing)} missing; give all three options of a process, or none")
    # Processes exchange arrays in this way on CPUs; other devices do not look at it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, coordinator_bind_address=_bind_address(coordinator_address)
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes ({_last_line(error)}); give --coordinator-address, --num-processes and "
            "--process-id"
        ) from error


def _bind_address(coordinator_address: str | None) -> str | None:
    """Return where the first process listens: at the address that it is given, not on all interfaces as by default.

    None keeps the default, where the address says nothing about this machine: JAX finds it itself, it is translated on
    the way here, or it is the machine's own name for itself, which others resolve in another way.
    JAX_COORDINATOR_BIND_ADDRESS decides if it is set.
    """
    if coordinator_address is None or "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return None
    host = coordinator_address.rpartition(":")[0].strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        for family, kind, _, _, address in found:
            with socket.socket(family, kind) as probe:
                probe.bind(address)
    except (OSError, UnicodeError):
        return None
    is_loopback = any(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)
    is_own_name = is_loopback and host != "localhost" and host not in {address[0] for *_, address in found}
    return None if is_own_name else coordinator_address


def _last_line(error: BaseException) -> str:
    """Return the part of a message that is for people: libraries put tracebacks in front of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^\w+Error: ", "", lines[-1]) if lines else type(error).__name__
