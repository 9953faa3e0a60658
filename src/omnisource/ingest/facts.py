"""What the file system says about listed files, many at a time."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from omnisource.ingest.listings import Entry

T = TypeVar("T")

BAD_ROW = "bad_row"  # reason of a row in which something is wrong

_ENDS_BYTES = 65536  # of a file's beginning and end that go into its sample id
_THREADS = 8  # files on a network come one after the other, too, but slowly
_SHARE = 128  # files that a thread looks at in one go
_FOLDERS = 4096  # whose real places are remembered


def look(
    root: Path, source: str, entries: Iterable[Entry], listed: Path
) -> Iterator[list[tuple[Entry, dict[str, Any]]]]:
    """Entries of the list at `listed` with the facts of their files, in order, in groups."""
    real = lru_cache(_FOLDERS)(os.path.realpath)
    inside = real(root)

    def share(entries: list[Entry]) -> list[tuple[Entry, dict[str, Any]]]:
        return [(entry, _facts(root, inside, real, entry, source, listed)) for entry in entries]

    with ThreadPoolExecutor(_THREADS) as pool:
        for group in batched(entries, _THREADS * _SHARE):
            parts = [group[start : start + _SHARE] for start in range(0, len(group), _SHARE)]
            yield [found for part in pool.map(share, parts) for found in part]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _facts(root: Path, inside: str, real: Any, entry: Entry, source: str, listed: Path) -> dict[str, Any]:
    """Where the file is, its size, an id from the source, the path below the root, the piece and the file's ends."""
    if entry.fault is not None:
        # Where the list lies does not count: an id depends on nothing but the data.
        mark = hashlib.sha256(repr((source, BAD_ROW, entry.place.removeprefix(f"{listed}"))).encode())
        facts = {"sample_id": mark.hexdigest()[:20], "uri": _spelt(entry.place), "bytes": None}
        return facts | {"status": "dropped", "reason": BAD_ROW}
    digest = hashlib.sha256(repr((source, entry.path, entry.start_s, entry.end_s)).encode())
    size, reason = None, None
    path = os.path.join(root, entry.path)  # noqa: PTH118 (many times faster than pathlib, and there are millions)
    try:
        path = _real(path, real)
        if ".." in Path(entry.path).parts and not Path(path).is_relative_to(inside):
            reason = "outside_root"
        else:
            status = os.stat(path)  # noqa: PTH116
            size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                raise OSError  # a folder; a pipe, from which reading might never end
            with open(path, "rb") as file:  # noqa: PTH123
                digest.update(file.read(_ENDS_BYTES))
                if size > _ENDS_BYTES:
                    file.seek(max(size - _ENDS_BYTES, _ENDS_BYTES))
                    digest.update(file.read(_ENDS_BYTES))
            digest.update(str(size).encode())
    except (FileNotFoundError, NotADirectoryError):
        reason = "missing"
    except (OSError, ValueError):  # no file, no permission, links in a circle, a name with a NUL
        reason = "unreadable"
    uri = _spelt(path)
    if uri != path:
        reason = "bad_name"  # bytes that are no UTF-8: a table can't hold it, so nothing could find the file again
    return {
        "sample_id": digest.hexdigest()[:20],
        "uri": uri,
        "bytes": size,
        "status": "dropped" if reason else "ok",
        "reason": reason,
    }


def _spelt(path: str) -> str:
    """The path as text that a table can hold."""
    try:
        return os.fsencode(path).decode(errors="replace")
    except UnicodeEncodeError:  # half a character, as JSON can write it: no file has such a name
        return path.encode(errors="replace").decode()


def _real(path: str, real: Any) -> str:
    """The absolute path without links; that of a folder is looked up once."""
    folder, _, name = path.rpartition("/")
    if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114
        return os.path.realpath(path)
    place = real(folder or "/")
    return f"{place}{name}" if place.endswith("/") else f"{place}/{name}"
