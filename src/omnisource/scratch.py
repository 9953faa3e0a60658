"""Folders for what does not fit into memory."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".scratch-"
_LOCK = "lock"


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`, which is made if need be, for this process alone; removed when the block ends.

    What a killed process leaves is removed by `sweep`, and only that: other processes may have theirs beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    try:
        with (place / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            place = place.rename(folder / f"{_PREFIX}{place.name.removeprefix('.new-')}")  # from here on it is locked
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes the folders of `scratch` whose processes are no more."""
    for place in folder.glob(f"{_PREFIX}*"):
        try:
            with (place / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when its owner ends
                shutil.rmtree(place, ignore_errors=True)
        except OSError:  # in use, or just removed by its owner
            continue
