"""The one error that a person is meant to read."""


class UserError(Exception):
    """Something the user can mend: says what is wrong, where, and how to mend it, in one line.

    The command line prints it without a traceback and exits with status 2.
    """
