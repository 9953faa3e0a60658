"""Files that appear whole or not at all, and what is said when the disk is full."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import duckdb

from omnisource.errors import NO_ROOM, UserError, no_room


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What fails inside because the disk is full, or because `path` may not be written, becomes a UserError.

    So does what DuckDB can't hold in memory and finds no room for on disk.
    """
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        what = str(error).splitlines()[0]  # the other lines speak of settings that are not the user's
        full = isinstance(error, duckdb.OutOfMemoryException) or any(os.strerror(code) in what for code in NO_ROOM)
        cure = "free some space (or memory)" if full else "mend the file or the disk"
        raise UserError(f"{path}: {what}; {cure}, the same command resumes") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(path) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            cure = "choose another --workspace or mend its permissions"
            raise UserError(f"{path}: not writable ({error.strerror}); {cure}") from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the name `path`, with all that was written, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path), partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Writes `content` so that `path` holds either its old content or all of the new, whatever happens meanwhile."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as readable JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Lets a rename inside `folder` survive a power cut: it does only once the folder itself is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
