"""The exception for mistakes that the user can correct."""


class UserError(Exception):
    """A mistake the user can mend; the message says what was given, what was expected and what to do.

    The run scripts print the message without a traceback and exit with status 2.
    """
