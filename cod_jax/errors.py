"""Errors that a user can mend, and how their messages show what a file says."""

import os
import reprlib
import sys

# Longest text of a file that a message repeats, as a value and as a whole reason.
_MAX_VALUE, _MAX_REASON = 80, 500
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 1, _MAX_VALUE


class UserError(ValueError):
    """Something is wrong with what the user gave: settings, files, pictures or arguments.

    The message is one sentence: what was expected, what was found, and what to do. Commands print it and exit; any
    other exception is a bug and keeps its traceback.
    """


class WorkError(UserError):
    """The work had begun when it failed, for example because none of many pictures can be used."""


def quoted(value: object) -> str:
    """Return a value from an untrusted file as printable text of at most 80 characters, quoted if it is text."""
    if isinstance(value, str):
        return repr(value if len(value) <= _MAX_VALUE else value[: _MAX_VALUE - 3] + "...")
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no numbers of more than 4300 digits
        return "a number of very many digits"
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 3] + "..."


def reason_of(error: Exception) -> str:
    """Return the message of an error, which may repeat what an untrusted file says, as one line of 500 characters."""
    text = " ".join(str(error)[: 10 * _MAX_REASON].split())
    return (text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 3] + "...") or type(error).__name__


def stops_one_file(error: Exception) -> bool:
    """Return whether an error stops the work on one file only, so that the next one can be tried.

    The file may be damaged, missing or too large for the memory that is left; anything else is a bug.
    """
    return isinstance(error, (UserError, OSError)) or is_out_of_memory(error)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether the memory of the host or of a device was too small."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)  # the latter is JAX's


def too_little_memory(error: Exception, advice: str, doing: str = "") -> WorkError | None:
    """Return the error about memory that was too small, None if something else stopped the work.

    Args:
        error: What stopped it.
        advice: What to do.
        doing: What was done, such as "compiling"; "" if that is not known.
    """
    if isinstance(error, UserError) or not is_out_of_memory(error):  # the former says itself what to do
        return None
    what = f"out of memory while {doing}" if doing else "out of memory"
    found = WorkError(f"{what} ({reason_of(error)}); {advice}")
    found.__cause__ = error  # for --debug
    return found


def unusable_platform() -> UserError | None:
    """Return why JAX cannot compute on the platform that it was told to, or None if it can."""
    jax = sys.modules.get("jax")
    if jax is None:
        return None
    try:
        jax.devices()
    except Exception as error:  # noqa: BLE001 (each platform fails in its own way)
        platforms = os.environ.get("JAX_PLATFORMS", "")
        return UserError(
            f"JAX cannot compute here with JAX_PLATFORMS={platforms} ({reason_of(error)}); unset it, or set "
            "JAX_PLATFORMS=cpu"
        )
    return None
