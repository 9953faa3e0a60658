"""The errors that a person is meant to read."""

import errno
from collections.abc import Sequence

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a disk, a quota or a limit of a file's size that leaves no room."""


class UserError(Exception):
    """Something the user can mend: says what is wrong, where, and how to mend it, in one line.

    The command line prints it without a traceback and exits with status 2.
    """


def no_room(path: object) -> UserError:
    """The error of a disk that is too full for what was to be written at `path`."""
    return UserError(f"{path}: the disk (or its quota) is full; free some space, the same command resumes")


class UserErrors(UserError):
    """Several mistakes at once, each in a line of its own."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
