"""Errors that a user can mend."""


class UserError(ValueError):
    """Something is wrong with what the user gave: settings, files, pictures or arguments.

    The message is one sentence: what was expected, what was found, and what to do. Commands print it and exit; any
    other exception is a bug and keeps its traceback.
    """


class WorkError(UserError):
    """The work had begun when it failed, for example because none of many pictures can be used."""


def stops_one_file(error: Exception) -> bool:
    """Return whether an error stops the work on one file only, so that the next one can be tried.

    The file may be damaged, missing or too large for the memory that is left; anything else is a bug.
    """
    out_of_memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)  # the latter is JAX's
    return isinstance(error, (UserError, OSError)) or out_of_memory
