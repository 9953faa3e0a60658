"""What is known about every URL, in one SQLite file: pending, fetched, done or failed, and how it was found.

Every change is committed by itself (a WAL commit costs some 20 microseconds), so a killed run has lost nothing and
repeats nothing that was done. A URL has one row in `urls`, and one in `finds` for every result that led to it.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from omnisource.collect.addresses import Refused, canonical_url, host_of
from omnisource.collect.candidate import Candidate

SearchKey = tuple[str, str, str, str]  # source, query, class, period
_SAID = ("page_url", "title", "author", "licence", "label", "query", "digest")
_LONGEST = 4096  # characters of what a service says of a file
State = Literal["pending", "fetched", "done", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, host TEXT NOT NULL, fetcher TEXT NOT NULL, format TEXT NOT NULL,
    digest TEXT, state TEXT NOT NULL DEFAULT 'pending', reason TEXT, attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, validator TEXT, etag TEXT, modified TEXT, sha256 TEXT, original_sha256 TEXT,
    bytes INTEGER, path TEXT, retrieved_at REAL
);
CREATE INDEX IF NOT EXISTS urls_work ON urls (state, host, id);
CREATE INDEX IF NOT EXISTS urls_sha256 ON urls (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX IF NOT EXISTS urls_original ON urls (original_sha256) WHERE original_sha256 IS NOT NULL;
CREATE INDEX IF NOT EXISTS urls_digest ON urls (digest) WHERE digest IS NOT NULL;
CREATE TABLE IF NOT EXISTS finds (
    url_id INTEGER NOT NULL REFERENCES urls (id), source TEXT NOT NULL, label TEXT, query TEXT, page_url TEXT,
    title TEXT, author TEXT, licence TEXT, found_at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS finds_once ON finds (url_id, source, IFNULL(label, ''), IFNULL(query, ''));
CREATE TABLE IF NOT EXISTS searches (
    source TEXT NOT NULL, query TEXT NOT NULL, label TEXT NOT NULL, period TEXT NOT NULL, state TEXT NOT NULL,
    found INTEGER NOT NULL, asked INTEGER NOT NULL, filters TEXT NOT NULL, reason TEXT,
    PRIMARY KEY (source, query, label, period)
);
CREATE TABLE IF NOT EXISTS forgotten (kind TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (kind, hash));
"""


@dataclass
class UrlRow:
    """One URL that is being worked on."""

    id: int
    url: str
    host: str
    fetcher: str
    format: str
    digest: str | None
    attempts: int
    not_before: float
    validator: str | None  # of the partial file
    etag: str | None
    modified: str | None
    path: str | None


@dataclass(frozen=True)
class Matching:
    """What is to be forgotten."""

    urls: list[int]  # their ids
    paths: list[str]  # of files, relative to the store
    contents: list[str]  # SHA-256 of those files


_ROW = "id, url, host, fetcher, format, digest, attempts, not_before, validator, etag, modified, path"


class CollectState:
    """The state table. Usable from several threads; calls take turns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        # SQLite's LOWER knows no letters but those of ASCII, its TRIM no blanks but the space.
        self._db.create_function("plain", 1, lambda text: text and _plain(text), deterministic=True)
        self._forgotten = set(self._db.execute("SELECT kind, hash FROM forgotten"))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a question."""
        with self._lock:
            return self._db.execute(sql, parameters).fetchall()

    def _change(self, sql: str, parameters: tuple[Any, ...]) -> int:
        with self._lock:
            return self._db.execute(sql, parameters).rowcount

    # --- finding -----------------------------------------------------------------------------------------------------

    def add(self, candidates: Iterable[Candidate]) -> tuple[int, int]:
        """Remembers candidates; a URL that is known gains the find but is not asked again.

        Returns (new URLs, refused ones: bad URLs and those to be forgotten).
        """
        new = refused = 0
        with self._transaction() as db:
            for candidate in map(_storable, candidates):
                try:
                    url = candidate.url if candidate.fetcher == "file" else canonical_url(candidate.url)
                except Refused:
                    refused += 1
                    continue
                host = "" if candidate.fetcher == "file" else host_of(url)
                if self.is_forgotten(url=url, author=candidate.author, host=host):
                    refused += 1
                    continue
                cursor = db.execute(
                    "INSERT OR IGNORE INTO urls (url, host, fetcher, format, digest) VALUES (?, ?, ?, ?, ?)",
                    (url, host, candidate.fetcher, candidate.format, candidate.digest),
                )
                new += cursor.rowcount
                db.execute(
                    "INSERT OR IGNORE INTO finds SELECT id, ?, ?, ?, ?, ?, ?, ?, ? FROM urls WHERE url = ?",
                    (
                        candidate.source,
                        candidate.label,
                        candidate.query,
                        candidate.page_url,
                        candidate.title,
                        candidate.author,
                        candidate.licence,
                        time.time(),
                        url,
                    ),
                )
        return new, refused

    def search_done(self, key: SearchKey, asked: int, filters: str) -> bool:
        """Whether a search has been answered to its end, or as far as `asked` results, under the same filters."""
        sql = (
            "SELECT 1 FROM searches WHERE source = ? AND query = ? AND label = ? AND period = ? AND state = 'done' "
            "AND filters = ? AND (asked >= ? OR found < asked)"
        )
        return bool(self.rows(sql, (*key, filters, asked)))

    def record_search(self, key: SearchKey, found: int, asked: int, filters: str, reason: str | None) -> None:
        """Keeps the end of a search; `reason` is why it failed."""
        self._change(
            "INSERT OR REPLACE INTO searches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, "failed" if reason else "done", found, asked, filters, reason),
        )

    # --- downloading -------------------------------------------------------------------------------------------------

    def hosts(self, exclude: Iterable[str], limit: int) -> list[str]:
        """Hosts with pending URLs, those with the most first."""
        excluded = list(exclude)
        marks = ",".join("?" * len(excluded))
        sql = f"SELECT host FROM urls WHERE state = 'pending' AND host NOT IN ({marks}) "
        return [row[0] for row in self.rows(sql + "GROUP BY host ORDER BY COUNT(*) DESC LIMIT ?", (*excluded, limit))]

    def pending(self, host: str, after_id: int, limit: int) -> list[UrlRow]:
        """Pending URLs of a host, in the order in which they were found."""
        sql = f"SELECT {_ROW} FROM urls WHERE state = 'pending' AND host = ? AND id > ? ORDER BY id LIMIT ?"
        return [UrlRow(*row) for row in self.rows(sql, (host, after_id, limit))]

    def fetched(self, limit: int) -> list[str]:
        """Files, relative to the store, that lie here and are still to be made small."""
        return [row[0] for row in self.rows("SELECT DISTINCT path FROM urls WHERE state = 'fetched' LIMIT ?", (limit,))]

    def keep_fetched(self) -> None:
        """Files are to stay as they are after all."""
        self._change("UPDATE urls SET state = 'done' WHERE state = 'fetched'", ())

    def set_validator(self, url_id: int, validator: str) -> None:
        """What the server must still say about a body for its partial file to be continued."""
        self._change("UPDATE urls SET validator = ? WHERE id = ?", (validator, url_id))

    def finish(
        self, url_id: int, state: State, *, sha256: str, size: int, path: str, etag: str | None, modified: str | None
    ) -> None:
        """The file of a URL lies in the store; `fetched` if it is still to be made small."""
        self._change(
            "UPDATE urls SET state = ?, reason = NULL, sha256 = ?, original_sha256 = ?, bytes = ?, path = ?, etag = ?, "
            "modified = ?, retrieved_at = ? WHERE id = ?",
            (state, sha256, sha256, size, path, etag, modified, time.time(), url_id),
        )

    def adopt(self, url_id: int, twin: int, etag: str | None, modified: str | None) -> None:
        """The file of a URL is that of another one."""
        self._change(
            "UPDATE urls SET (state, sha256, original_sha256, bytes, path) = "
            "(SELECT state, sha256, original_sha256, bytes, path FROM urls WHERE id = ?), "
            "reason = NULL, etag = ?, modified = ?, retrieved_at = ? WHERE id = ?",
            (twin, etag, modified, time.time(), url_id),
        )

    def settle(self, original_sha256: str, *, sha256: str, size: int, path: str, problem: str | None) -> None:
        """All URLs with this original are done: their file is the small copy, or the original where that failed."""
        self._change(
            "UPDATE urls SET state = 'done', sha256 = ?, bytes = ?, path = ?, reason = ? "
            "WHERE original_sha256 = ? AND state = 'fetched'",
            (sha256, size, path, problem, original_sha256),
        )

    def fail(self, url_id: int, reason: str, attempts: int) -> None:
        """A URL is given up."""
        self._change(
            "UPDATE urls SET state = 'failed', reason = ?, attempts = ? WHERE id = ?", (reason, attempts, url_id)
        )

    def abandon(self, host: str, reason: str) -> None:
        """Gives up all pending URLs of a host."""
        self._change(
            "UPDATE urls SET state = 'failed', reason = ? WHERE state = 'pending' AND host = ?", (reason, host)
        )

    def postpone(self, url_id: int, reason: str, attempts: int, not_before: float) -> None:
        """A URL is tried again, not before a time (seconds since the epoch)."""
        self._change(
            "UPDATE urls SET reason = ?, attempts = ?, not_before = ? WHERE id = ?",
            (reason, attempts, not_before, url_id),
        )

    def retry_failed(self) -> int:
        """Makes the failed URLs pending again; returns their number. Those refused for good stay failed."""
        return self._change(
            "UPDATE urls SET state = 'pending', attempts = 0, not_before = 0 WHERE state = 'failed' "
            "AND reason NOT IN ('forgotten', 'licence')",
            (),
        )

    def refresh(self) -> int:
        """Makes finished URLs that have a validator pending again, to be asked whether they changed."""
        return self._change(
            "UPDATE urls SET state = 'pending', attempts = 0, not_before = 0, retrieved_at = NULL WHERE state = 'done' "
            "AND (etag IS NOT NULL OR modified IS NOT NULL)",
            (),
        )

    def twin(self, row: UrlRow) -> int | None:
        """Another URL that has its file and of which the service says that it has the same content."""
        if row.digest is None:
            return None
        sql = "SELECT id FROM urls WHERE digest = ? AND state IN ('fetched', 'done') AND id != ? LIMIT 1"
        found = self.rows(sql, (row.digest, row.id))
        return found[0][0] if found else None

    def by_content(self, sha256: str) -> int | None:
        """A URL whose file came from the same bytes, small by now or not."""
        sql = "SELECT id FROM urls WHERE original_sha256 = ? AND state IN ('fetched', 'done') LIMIT 1"
        found = self.rows(sql, (sha256,))
        return found[0][0] if found else None

    def unchanged(self, url_id: int) -> None:
        """A finished URL was asked again, and its content is still the same."""
        self._change(
            "UPDATE urls SET state = 'done', reason = NULL, retrieved_at = ? WHERE id = ?", (time.time(), url_id)
        )

    def stored_bytes(self) -> int:
        """Bytes of all files in the store."""
        sql = "SELECT SUM(bytes) FROM (SELECT MAX(bytes) AS bytes FROM urls WHERE path IS NOT NULL GROUP BY path)"
        return self.rows(sql)[0][0] or 0

    def first_finds(self, after_id: int, limit: int) -> list[dict[str, Any]]:
        """For the next files in the order of their URLs' ids: the URL and the search that found each first."""
        columns = ("id", "sha256", "path", "bytes", "format", "fetcher", "url", "retrieved_at")
        said = ("source", "label", "query", "page_url", "title", "author", "licence")
        chosen = ", ".join([*(f"u.{name}" for name in columns), *(f"f.{name}" for name in said)])
        sql = f"""
            SELECT {chosen} FROM urls u JOIN finds f ON f.rowid = (SELECT MIN(rowid) FROM finds WHERE url_id = u.id)
            WHERE u.state = 'done' AND u.id > ? AND NOT EXISTS (
                SELECT 1 FROM urls e WHERE e.sha256 = u.sha256 AND e.id < u.id AND e.state = 'done')
            ORDER BY u.id LIMIT ?
        """
        return [dict(zip((*columns, *said), row, strict=True)) for row in self.rows(sql, (after_id, limit))]

    def by_source(self, classes: bool = False) -> list[tuple[Any, ...]]:
        """(source, URLs found, URLs finished), or (source, class, found, finished, failed)."""
        group = "f.source, f.label" if classes else "f.source"
        failed = ", SUM(u.state = 'failed')" if classes else ""
        return self.rows(
            f"SELECT {group}, COUNT(*), SUM(u.state IN ('done', 'failed')){failed} "
            f"FROM finds f JOIN urls u ON u.id = f.url_id GROUP BY {group} ORDER BY {group}"
        )

    def recent(self, seconds: float) -> int:
        """Files that came in the last `seconds`."""
        return int(self.rows("SELECT COUNT(*) FROM urls WHERE retrieved_at > ?", (time.time() - seconds,))[0][0])

    def counts(self) -> dict[str, int]:
        """Number of URLs by state."""
        return dict(self.rows("SELECT state, COUNT(*) FROM urls GROUP BY state"))

    def reasons(self) -> dict[str, int]:
        """Number of failed URLs by reason, most frequent first."""
        return dict(
            self.rows("SELECT reason, COUNT(*) FROM urls WHERE state = 'failed' GROUP BY reason ORDER BY COUNT(*) DESC")
        )

    def finds_of(self, sha256: str) -> list[dict[str, Any]]:
        """Every search result that led to a file, with the fate of its URL."""
        columns = ("url", "state", "etag", "modified", "original_sha256")
        said = ("source", "label", "query", "page_url", "title", "author", "licence")
        chosen = ", ".join([*(f"u.{name}" for name in columns), *(f"f.{name}" for name in said)])
        sql = f"SELECT {chosen} FROM finds f JOIN urls u ON u.id = f.url_id WHERE u.sha256 = ? ORDER BY f.rowid"
        return [dict(zip((*columns, *said), row, strict=True)) for row in self.rows(sql, (sha256,))]

    # --- forgetting --------------------------------------------------------------------------------------------------

    def is_forgotten(self, *, url: str = "", author: str | None = None, host: str = "", sha256: str = "") -> bool:
        """Whether something of this URL, author, host or content was asked to be forgotten."""
        if not self._forgotten:
            return False
        asked = [("url", url), ("author", author or ""), ("host", host), ("sha256", sha256)]
        asked.append(("host", host.rpartition(":")[0]))  # a host is forgotten on all its ports
        return any(value and (kind, _fingerprint(kind, value)) in self._forgotten for kind, value in asked)

    def remember_forgotten(self, kind: str, value: str) -> None:
        """Never fetch this again. Only a hash is kept, so that the memory holds no personal data."""
        key = (kind, _fingerprint(kind, value))
        self._change("INSERT OR IGNORE INTO forgotten VALUES (?, ?)", key)
        self._forgotten.add(key)

    def matching(self, kind: str, value: str) -> Matching:
        """Every URL of a URL, author, host or content, and those that led to the same files."""
        conditions = {
            "url": "url = ?",
            "host": "(host = ? OR substr(host, 1, length(?) + 1) = ? || ':')",
            "sha256": "? IN (sha256, original_sha256)",
            "author": "id IN (SELECT url_id FROM finds WHERE plain(author) = plain(?))",
        }
        parameters = (value,) * conditions[kind].count("?")
        with self._lock:
            found = self.rows(f"SELECT id, path, sha256 FROM urls WHERE {conditions[kind]}", parameters)
            ids = {row[0] for row in found}
            contents = {sha256 for _, _, sha256 in found if sha256}
            for sha256 in contents:
                ids.update(row[0] for row in self.rows("SELECT id FROM urls WHERE sha256 = ?", (sha256,)))
        return Matching(sorted(ids), sorted({path for _, path, _ in found if path}), sorted(contents))

    def remove(self, url_ids: Iterable[int]) -> None:
        """Takes out every row of these URLs."""
        with self._transaction() as db:
            for url_id in url_ids:
                db.execute("DELETE FROM finds WHERE url_id = ?", (url_id,))
                db.execute("DELETE FROM urls WHERE id = ?", (url_id,))


def _storable(candidate: Candidate) -> Candidate:
    """A candidate whose words can be stored: a service may answer with anything that JSON can hold."""
    said = {name: getattr(candidate, name) for name in _SAID}
    texts: dict[str, Any] = {
        name: str(value)[:_LONGEST].encode(errors="replace").decode()
        for name, value in said.items()
        if value is not None
    }
    return replace(candidate, url=str(candidate.url), **texts)


def _fingerprint(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}:{_plain(value) if kind != 'url' else value}".encode()).hexdigest()


def _plain(text: str) -> str:
    """A name as it is compared."""
    return text.strip().lower()
