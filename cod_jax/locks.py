"""Locks of files, which keep two processes from working in one folder."""

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file until it is closed, and return whether it was free.

    Where there are no locks, as on Windows and on some network file systems, every file is free, so users must not
    start two processes in one folder there.

    Args:
        file: The file.
        shared: Whether others may lock it too, if they share it as well.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
