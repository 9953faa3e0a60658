"""Where collected files lie: named by the hash of their content, `ab/abcd….jpg`, so the same bytes lie there once.

No name in the store comes from the network. A file appears under its final name only when it is whole.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnisource.errors import NO_ROOM

_CHECK_DISK_EVERY_S = 1.0
_CHUNK = 2**20


class StoreFull(Exception):
    """The quota is used up, or the disk nearly is. The collection stops; nothing is lost."""


class Store:
    """A folder of content-named files within a quota.

    Args:
        root: the folder; made if need be.
        used: bytes that its finished files take already; those of unfinished ones are counted here.
        quota: bytes that they may take; None: any number.
        min_free: bytes that must stay free on the disk.
    """

    def __init__(self, root: Path, used: int, quota: int | None, min_free: int) -> None:
        self.root = root
        self.used = used
        self._quota, self._min_free = quota, min_free
        self._checked = 0.0
        self._partial = root / "partial"
        self._partial.mkdir(parents=True, exist_ok=True)
        self._folders: set[Path] = set()
        for left in self._partial.iterdir():  # by a run that was killed; names with a dot are of no further use
            if left.is_dir():
                shutil.rmtree(left)
            elif "." in left.name:
                left.unlink()
            else:
                self.used += left.stat().st_size

    def partial(self, url: str) -> Path:
        """Where the unfinished body of a URL lies."""
        return self._partial / hashlib.sha256(url.encode()).hexdigest()

    def scratch(self, name: str) -> Path:
        """A file name for work in progress, on the same disk."""
        return self._partial / name

    def make_room(self, size: int) -> None:
        """Raises `StoreFull` if `size` more bytes would be too many."""
        if self._quota is not None and self.used + size > self._quota:
            raise StoreFull(f"the quota of {self._quota} bytes is used up (collect.quota_bytes)")
        now = time.monotonic()
        if now - self._checked > _CHECK_DISK_EVERY_S:
            self._checked = now
            if shutil.disk_usage(self.root).free < self._min_free + size:
                raise StoreFull(f"less than {self._min_free} bytes would stay free (collect.min_free_bytes)")

    def path(self, sha256: str, extension: str) -> Path:
        """The final place of a content."""
        return self.root / sha256[:2] / f"{sha256}.{extension}"

    def put(self, body: bytes, sha256: str, extension: str) -> Path:
        """Stores a whole body; returns its path."""
        path = self.path(sha256, extension)
        if path.exists():
            return path
        partial = self.scratch(f"{sha256}.new")
        with _writing():
            partial.write_bytes(body)
            self._move(partial, path)
        self.used += len(body)
        return path

    def append(self, partial: Path, body: bytes | bytearray) -> None:
        """Adds to an unfinished file. Raises `StoreFull`."""
        self.make_room(len(body))
        with _writing(), partial.open("ab") as file:
            file.write(body)
        self.used += len(body)

    def take_in(self, partial: Path) -> int:
        """Counts an unfinished file that somebody else wrote; returns its bytes."""
        size = partial.stat().st_size
        self.used += size
        return size

    def adopt(self, partial: Path, sha256: str, extension: str) -> Path:
        """Moves a finished file, which is counted already, into the store; returns its path."""
        path = self.path(sha256, extension)
        if path.exists():
            self.remove(partial)
        else:
            with _writing():
                self._move(partial, path)
        return path

    def remove(self, path: Path) -> None:
        """Deletes a finished or unfinished file, if it is there."""
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return
        self.used -= size

    def _move(self, partial: Path, path: Path) -> None:
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        partial.replace(path)


def file_chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a MiB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def copy_in(source: Path, target: Path) -> Path:
    """Copies a local file; returns `target`. Raises `StoreFull`."""
    with _writing():
        shutil.copyfile(source, target)
    return target


@contextmanager
def _writing() -> Iterator[None]:
    """A disk or a quota that turns out to be full is no fault of the URL that is being written."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StoreFull(f"the disk (or its quota) is full: {error}") from error
        raise
