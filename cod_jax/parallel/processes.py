"""Join the other processes of a run, and leave when one of them is lost."""

import contextlib
import ipaddress
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator

import jax

from cod_jax.errors import UserError
from cod_jax.parallel import last_words

_logger = logging.getLogger(__name__)

# What the libraries that exchange arrays say when another process is gone.
_LOST = re.compile(r"Gloo \w+ failed|NCCL|coordination service|heartbeat", re.IGNORECASE)
# What they may say too, and remote storage as well.
_LOST_OR_CUT = re.compile(rf"{_LOST.pattern}|Connection (closed|reset) by peer", re.IGNORECASE)
# Status of work that failed after it had begun, and of one that was never tried.
_FAILED, _NOTHING_TRIED = 1, 2
_ADVICE = "the same command resumes from the newest checkpoint, if one is saved"
# What is said of a process that cannot say it itself.
_ABORTED = (
    "cod train: error: this process was killed or aborted, or hung; if JAX names its distributed service above, "
    f"another process of the run is gone; {_ADVICE}"
)


def join_processes(
    distributed: bool,
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    join_seconds: int = 300,
    heartbeat_seconds: int = 100,
) -> None:
    """Start `jax.distributed` if this process is one of several.

    If the process is killed, or aborted by JAX, from then on, a line on standard error says so.

    Several processes on CPUs do without JAX's cache of compiled programs, so that all of them compile at the same time.

    Args:
        distributed: Whether it is one of several; the system says which if the other arguments are None.
        coordinator_address: HOST:PORT of the first process.
        num_processes: How many processes there are.
        process_id: Number of this process, from 0.
        join_seconds: Longest time to wait for the others. Then a line on standard error says so, and the process ends.
        heartbeat_seconds: Time after which a process without a sign of life counts as lost. JAX then ends the others;
            it is also how long a process that has failed waits for the others at its end.

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
    last_words.prepare(_ABORTED)
    try:
        with _giving_up_after(join_seconds):
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                coordinator_bind_address=_bind_address(coordinator_address),
                # JAX would end the process with a stack trace of its own; it never comes to that.
                initialization_timeout=2 * join_seconds,
                heartbeat_timeout_seconds=heartbeat_seconds,
                shutdown_timeout_seconds=heartbeat_seconds,
            )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes ({_last_line(error)}); give --coordinator-address, --num-processes and "
            "--process-id"
        ) from error
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # On a CPU only the first process keeps programs and finds them again. It would wait in a collective, for half a
        # minute at most, while the others still compile.
        jax.config.update("jax_enable_compilation_cache", False)


@contextlib.contextmanager
def leaving_with_lost_processes() -> Iterator[None]:
    """End this process at once if the block fails because another process of the run is gone.

    Nothing can be saved then, because the arrays are spread over all processes, and a tidy end would wait for the lost
    one.
    """
    try:
        yield
    except Exception as error:
        if (line := lost_contact(error)) is None:
            raise
        last_words.dismiss()  # JAX may find out at the same time
        _logger.error(
            "error: process %d of %d lost contact with another one (%s); %s",
            jax.process_index(),
            jax.process_count(),
            line,
            _ADVICE,
        )
        last_words.leave(_FAILED)


def lost_contact(error: BaseException) -> str | None:
    """Return the line in which an error says that another process of the run is gone, None if it says something else.

    An error for the user says it only through its cause, for example one about a save that failed. What broke may also
    be the connection to remote storage, unless the cause is JAX's.
    """
    if jax.process_count() == 1:
        return None
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for_user = [one for one in causes if isinstance(one, UserError | OSError)]
    # The last cause first, because others may repeat it with advice of their own.
    for one in reversed([one for one in causes if one not in for_user]):
        pattern = _LOST if for_user and not isinstance(one, jax.errors.JaxRuntimeError) else _LOST_OR_CUT
        if found := pattern.search(str(one)):
            return next(line.strip() for line in str(one).splitlines() if found[0] in line)
    return None


@contextlib.contextmanager
def _giving_up_after(seconds: float | int) -> Iterator[None]:
    """End the process with a line if the block takes longer."""

    def give_up() -> None:
        text = f"the other processes have not all joined within {seconds:g} s; start all of them, see that they reach "
        text += "the coordinator's address, or set limits.join_seconds"
        os.write(2, f"cod train: error: {text}\n".encode())
        last_words.leave(_NOTHING_TRIED)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
