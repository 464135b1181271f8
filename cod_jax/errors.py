"""The error that a user can mend."""


class UserError(ValueError):
    """Something is wrong with what the user gave: settings, files, pictures or arguments.

    The message is one sentence: what was expected, what was found, and what to do. Commands print it and exit; any
    other exception is a bug and keeps its traceback.
    """
