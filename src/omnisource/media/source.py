"""Where the bytes of a media file come from: a local path or an fsspec URL."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from omnisource.media.limits import MediaError, Reason


@dataclass(frozen=True)
class Source:
    """A file that exists and can be read. `stamp` differs when the file has changed."""

    path: Path | None  # None for a remote file
    url: str
    bytes: int
    stamp: tuple[int | str, ...]

    def open(self) -> BinaryIO:
        """The content as a binary file (to be closed by the caller); MediaError when it can't be opened."""
        with reading_errors(self.url):
            if self.path is not None:
                return self.path.open("rb")
            import fsspec

            return cast(BinaryIO, fsspec.open(self.url, "rb").open())

    def check_unchanged(self) -> None:
        """Raises MediaError when the file has changed since it was opened."""
        if open_source(self.path if self.path is not None else self.url).stamp != self.stamp:
            raise MediaError(Reason.CHANGED, f"{self.url} changed while it was read")


def open_source(path: str | Path, max_bytes: int | None = None) -> Source:
    """Looks at the file without reading it.

    MediaError when it is missing, empty, too big or no plain file.
    """
    url = str(path)
    if isinstance(path, str) and "://" in path:
        source = _remote(path)
    else:
        local = Path(path)
        with reading_errors(url):
            found = local.stat()
        if not stat.S_ISREG(found.st_mode):
            raise MediaError(Reason.UNREADABLE, f"{url} is not a plain file")
        source = Source(local, url, found.st_size, (found.st_size, found.st_mtime_ns, found.st_ino))
    if source.bytes == 0:
        raise MediaError(Reason.EMPTY, f"{url} has no bytes")
    if max_bytes is not None and source.bytes > max_bytes:
        raise MediaError(Reason.TOO_MANY_BYTES, f"{url} has {source.bytes} bytes, limit {max_bytes}")
    return source


def _remote(url: str) -> Source:
    import fsspec

    with reading_errors(url):
        filesystem, inner = fsspec.core.url_to_fs(url)
        info = filesystem.info(inner)
    if info.get("type") == "directory":
        raise MediaError(Reason.UNREADABLE, f"{url} is a directory")
    changed = next((str(info[key]) for key in ("ETag", "etag", "mtime", "LastModified") if key in info), "")
    return Source(None, url, int(info.get("size") or 0), (int(info.get("size") or 0), changed))


@contextmanager
def reading_errors(url: str) -> Iterator[None]:
    """Turns what the operating system says about a file into MediaError."""
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError(Reason.MISSING, f"{url} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in a name, an unknown fsspec protocol
        raise MediaError(Reason.UNREADABLE, f"{url}: {error}") from error
