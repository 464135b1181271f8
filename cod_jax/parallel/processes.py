"""Join the other processes of a run."""

import re

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
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given) and not distributed:
        return
    if missing and len(missing) < len(given):
        raise UserError(f"{', '.join(missing)} is missing; the three flags of a process go together")
    # Processes exchange arrays in this way on CPUs; other devices do not look at it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes ({_last_line(error)}); give --coordinator_address, --num_processes and "
            "--process_id"
        ) from error


def _last_line(error: BaseException) -> str:
    """Return the part of a message that is for people: libraries put tracebacks in front of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^\w+Error: ", "", lines[-1]) if lines else type(error).__name__
