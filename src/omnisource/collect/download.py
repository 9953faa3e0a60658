"""The downloader: many hosts side by side, each within its limits, every URL's fate in the state table.

A host is worked by `per_host` workers that take its URLs in order. A URL that may succeed later goes back with the time
of its next try; a killed run finds it there. What the server says about type and length is checked against what comes.
"""

import asyncio
import hashlib
import heapq
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from omnisource.collect.addresses import Refused
from omnisource.collect.fetch import Answer, Fetcher, FetchError
from omnisource.collect.state import CollectState, UrlRow
from omnisource.collect.store import Store, file_chunks
from omnisource.media import sniff_bytes

_HEAD_BYTES = 4096  # what the type is told by
_BATCH = 200  # rows of one host held in memory
_MOST_DELAYED = 1000
_IN_MEMORY = 2**20  # larger bodies go to a partial file, from which a broken download continues
_KEEP_PARTIAL_FROM = 2**16
_DEAD_AFTER = 12  # failures to reach a host, one after the other, before its remaining URLs are given up
_UNREACHABLE = frozenset({"connect", "timeout", "dns", "robots_unreachable"})


class Taker(Protocol):
    """Gets the file of a URL in another way than by a plain request."""

    async def __call__(self, row: UrlRow) -> Path:
        """Returns a file in the store's partial folder. Raises `FetchError` or `Refused`."""
        ...


class HostQueue:
    """The pending URLs of one host, a batch in memory at a time, with those to be tried again later.

    Args:
        most_s: seconds that a URL may have to wait; a longer wait is that of a clock which was set back.
    """

    def __init__(self, state: CollectState, host: str, most_s: float) -> None:
        self._state, self._host, self._most_s = state, host, most_s
        self._ready: deque[UrlRow] = deque()
        self._later: list[tuple[float, int, UrlRow]] = []
        self._after = 0

    async def next(self) -> UrlRow | None:
        """The next URL, as soon as it may be asked; None when there is none left."""
        while True:
            now = time.monotonic()
            if self._later and (self._later[0][0] <= now or len(self._later) >= _MOST_DELAYED):
                due, _, row = heapq.heappop(self._later)
                await asyncio.sleep(max(0.0, due - now))
                return row
            if not self._ready:
                self._refill()
            if self._ready:
                row = self._ready.popleft()
                if row.not_before <= time.time():
                    return row
                self.later(row)
            elif not self._later:
                return None
            else:
                await asyncio.sleep(min(1.0, max(0.0, self._later[0][0] - now)))

    def later(self, row: UrlRow) -> None:
        """Puts a URL back until its `not_before`."""
        wait_s = min(row.not_before - time.time(), self._most_s)
        heapq.heappush(self._later, (time.monotonic() + wait_s, row.id, row))

    def drop(self) -> None:
        """Forgets the URLs held in memory, so that the workers end."""
        self._ready.clear()
        self._later.clear()

    def _refill(self) -> None:
        rows = self._state.pending(self._host, self._after, _BATCH)
        if rows:
            self._after = rows[-1].id
            self._ready.extend(rows)


class Downloader:
    """Downloads what the state table says is pending.

    Args:
        takers: other ways to get a file, by the `fetcher` of the URL's row.
        finished: called with each URL's row and final state.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        state: CollectState,
        store: Store,
        takers: dict[str, Taker] | None = None,
        finished: Callable[[UrlRow, str], None] = lambda row, state: None,
    ) -> None:
        self.settings = fetcher.settings
        self._fetcher, self._state, self._store = fetcher, state, store
        self._takers = takers or {}
        self._finished = finished
        self._unreached: dict[str, int] = {}

    async def run(self, more_to_come: Callable[[], bool] = lambda: False) -> None:
        """Works until nothing is pending and `more_to_come` is false. Raises `StoreFull`."""
        active: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                searching = more_to_come()  # asked first: what it found before it ended is seen below
                for host in self._state.hosts(active, self.settings.hosts - len(active)):
                    active[host] = asyncio.create_task(self._work(host))
                if not active and not searching:
                    return
                if active:
                    await asyncio.wait(active.values(), timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(0.1)
                for host in [host for host, task in active.items() if task.done()]:
                    active.pop(host).result()
        finally:
            for task in active.values():
                task.cancel()
            await asyncio.gather(*active.values(), return_exceptions=True)

    async def _work(self, host: str) -> None:
        queue = HostQueue(self._state, host, self._fetcher.longest_wait_s)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.settings.per_host):
                    group.create_task(self._worker(queue))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _worker(self, queue: HostQueue) -> None:
        while (row := await queue.next()) is not None:
            try:
                await self._one(row)
                self._unreached.pop(row.host, None)
                self._finished(row, "done")
            except (Refused, FetchError) as error:
                self._missed(row, error, queue)

    def _missed(self, row: UrlRow, error: Refused | FetchError, queue: HostQueue) -> None:
        """Puts a URL back for another try, or gives it up; gives up its host if that cannot be reached at all."""
        row.attempts += 1
        reached = error.reason not in _UNREACHABLE
        self._unreached[row.host] = 0 if reached else self._unreached.get(row.host, 0) + 1
        dead = self._unreached[row.host] >= _DEAD_AFTER
        shut = isinstance(error, FetchError) and (error.wait_s or 0.0) > self.settings.max_wait_s
        retry = isinstance(error, FetchError) and error.retry and row.attempts < self.settings.attempts
        if retry and not dead:
            assert isinstance(error, FetchError)
            row.not_before = time.time() + self._fetcher.wait_before_retry(row.attempts, error)
            self._state.postpone(row.id, error.reason, row.attempts, row.not_before)
            queue.later(row)
            return
        self._state.fail(row.id, error.reason, row.attempts)
        self._finished(row, error.reason)
        if dead or shut:
            queue.drop()
            self._state.abandon(row.host, "host_down" if dead else error.reason)

    # --- one URL -----------------------------------------------------------------------------------------------------

    async def _one(self, row: UrlRow) -> None:
        twin = self._state.twin(row)
        if twin:
            self._state.adopt(row.id, twin, None, None)
        elif row.fetcher == "http":
            await self._download(row)
        else:
            await self._keep_file(row, await self._takers[row.fetcher](row))

    async def _download(self, row: UrlRow) -> None:
        partial = self._store.partial(row.url)
        start = partial.stat().st_size if partial.exists() else 0
        headers: dict[str, str] = {}
        if start and row.validator:
            headers = {"range": f"bytes={start}-", "if-range": row.validator}
        elif row.path and (row.etag or row.modified):  # finished before: has it changed?
            headers = {"if-none-match": row.etag} if row.etag else {"if-modified-since": row.modified or ""}
        async with self._fetcher.get(row.url, headers) as answer:
            if answer.status == 304 and row.path:
                self._state.unchanged(row.id)
                return
            if answer.status == 304 or answer.status == 416:
                self._store.remove(partial)
                raise FetchError("range", "the partial file does not fit", retry=True)
            if answer.status == 206 and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise FetchError("range", "another part than asked for", retry=True)
            await self._receive(row, answer, partial, start if answer.status == 206 else 0)

    async def _receive(self, row: UrlRow, answer: Answer, partial: Path, start: int) -> None:
        """Reads a body, into memory while it is small; checks size and content as it comes."""
        most = self.settings.max_bytes(row.format)
        length = answer.headers.get("content-length", "")
        if length.isdigit() and start + int(length) > most:
            raise FetchError("too_big", f"{start + int(length)} bytes announced")
        if length.isdigit():
            self._store.make_room(int(length))
        etag, modified = answer.headers.get("etag"), answer.headers.get("last-modified")
        validator = etag if etag and not etag.startswith("W/") else modified
        body, size, digest, checked = bytearray(), start, hashlib.sha256(), False
        if start:
            digest = await asyncio.to_thread(hash_file, partial)
            checked = True
        else:
            self._store.remove(partial)
        try:
            async for chunk in answer.chunks:
                size += len(chunk)
                if size > most:
                    raise FetchError("too_big", f"more than {most} bytes")
                body += chunk
                digest.update(chunk)
                if not checked and len(body) >= _HEAD_BYTES:
                    _check_type(row, bytes(body[:_HEAD_BYTES]))
                    checked = True
                if len(body) >= _IN_MEMORY:
                    self._spill(row, partial, body, validator)
        except FetchError as error:
            if error.retry and validator and (len(body) >= _KEEP_PARTIAL_FROM or partial.exists()):
                self._spill(row, partial, body, validator)
            else:
                self._store.remove(partial)
            raise
        if not size:
            raise FetchError("empty")
        if not checked:
            _check_type(row, bytes(body[:_HEAD_BYTES]))
        if partial.exists():
            self._spill(row, partial, body, validator)
            self._keep(row, digest.hexdigest(), size, partial, etag, modified)
        else:
            self._keep(row, digest.hexdigest(), size, bytes(body), etag, modified)

    def _spill(self, row: UrlRow, partial: Path, body: bytearray, validator: str | None) -> None:
        if not partial.exists():
            row.validator = validator
            self._state.set_validator(row.id, validator or "")
        self._store.append(partial, body)
        body.clear()

    async def _keep_file(self, row: UrlRow, partial: Path) -> None:
        """Stores a file that a taker has brought, under the same limits."""
        size = self._store.take_in(partial)
        try:
            self._store.make_room(0)
            if size > self.settings.max_bytes(row.format):
                raise FetchError("too_big", f"{size} bytes")
            _check_type(row, _head(partial))
            digest = await asyncio.to_thread(hash_file, partial)
            self._keep(row, digest.hexdigest(), size, partial, None, None)
        finally:
            self._store.remove(partial)

    def _keep(
        self, row: UrlRow, sha256: str, size: int, body: bytes | Path, etag: str | None, modified: str | None
    ) -> None:
        """Stores a whole body, unless its content is here already or must be forgotten."""
        if self._state.is_forgotten(sha256=sha256):
            raise Refused("forgotten", "its content was asked to be forgotten")
        known = self._state.by_content(sha256)
        if known:
            if isinstance(body, Path):
                self._store.remove(body)
            self._state.adopt(row.id, known, etag, modified)
            return
        head = body[:_HEAD_BYTES] if isinstance(body, bytes) else _head(body)
        extension = _check_type(row, head)
        if isinstance(body, Path):
            stored = self._store.adopt(body, sha256, extension)
        else:
            self._store.make_room(size)
            stored = self._store.put(body, sha256, extension)
        relative = str(stored.relative_to(self._store.root))
        self._state.finish(
            row.id,
            "fetched" if self.settings.shrink else "done",
            sha256=sha256,
            size=size,
            path=relative,
            etag=etag,
            modified=modified,
        )


def _check_type(row: UrlRow, head: bytes) -> str:
    """The file extension by content, if it is of the family that was promised."""
    found = sniff_bytes(head)
    wanted = "image" if row.format == "image" else "video"
    if found.family != wanted:
        raise FetchError("wrong_type", f"{found.format} where a {wanted} was promised")
    return found.suffix.lstrip(".")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def hash_file(path: Path) -> "hashlib._Hash":
    """The running SHA-256 of a file."""
    digest = hashlib.sha256()
    for chunk in file_chunks(path):
        digest.update(chunk)
    return digest
