"""Parquet tables: atomic writes, and a journal from which a killed stage resumes row by row."""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnisource.errors import UserError
from omnisource.tables.schemas import misfit, schema_of

Row = Mapping[str, Any]
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DIGEST_ROWS = 100_000
_MISSING = "{path}: no such table; run the stage that writes it ({stage}) first"
_UNREADABLE = "{path}: not a readable Parquet table ({error}); delete it to have it made again"
_PART_ROWS = 5_000  # of a journal, saved when there are so many,
_PART_S = 10.0  # or after so long


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
            cure = "the disk (or its quota) is full; free some space, the same command resumes"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            cure = f"not writable ({error.strerror}); choose another --workspace or mend its permissions"
        else:
            raise
        raise UserError(f"{path}: {cure}") from error


def write_atomic(path: Path, content: bytes) -> None:
    """Writes `content` so that `path` holds either its old content or all of the new, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path), partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as readable JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode())


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically (temporary file, fsync, rename)."""
    with table_writer(path, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Opens a Parquet file for writing in pieces; it appears under `path` only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path), partial.open("wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def check_table(path: Path, schema: pa.Schema | None, columns: Sequence[str] | None = None) -> None:
    """Checks a Parquet file's columns (all of `schema`, or those named) against the schema, without reading its rows.

    Raises:
        UserError: the file is missing, is no Parquet table, lacks a column, has one of another type, or a null where
            there must be none.
    """
    with _reading(path):
        with pq.ParquetFile(path) as file:
            found, facts = file.schema_arrow, file.metadata
        if schema is None:
            return
        wanted = pa.schema([field for field in schema if columns is None or field.name in columns])
        problem = misfit(found, wanted)
        needed = {field.name for field in wanted if not field.nullable}
        for group in range(facts.num_row_groups):
            for place in range(facts.num_columns):
                column = facts.row_group(group).column(place)
                known = column.statistics if column.path_in_schema in needed else None
                if known is not None and known.has_null_count and known.null_count:
                    problem = problem or f"column '{column.path_in_schema}' has rows without a value"
        if problem:
            raise UserError(_UNREADABLE.format(path=path, error=problem))


def read_table(path: Path, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    """Reads a Parquet file, or the named columns of it, or the rows that satisfy `filters`.

    Raises:
        UserError: the file is missing, is no Parquet table, or not what a workspace's table of its name holds.
    """
    check_table(path, schema_of(path.stem), columns)
    return read_parquet(path, columns, filters)


def read_parquet(path: Path, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    """`read_table` for a file from elsewhere, whatever its columns are."""
    with _reading(path):
        return pq.read_table(path, columns=list(columns) if columns else None, filters=filters)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(_MISSING.format(path=path, stage=path.stem)) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(_UNREADABLE.format(path=path, error=str(error).splitlines()[0])) from error


@contextmanager
def database(config: Mapping[str, str] | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A new database of DuckDB in memory, for `view_table` and queries.

    Raises:
        UserError: a Parquet file turns out to be damaged while it is queried.
    """
    with duckdb.connect(config=dict(config or {})) as db:
        viewed = _viewed[id(db)] = []
        try:
            yield db
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, OSError) as error:  # an OSError where a query is read batch by batch
            for path in viewed:  # DuckDB does not always say which file it is
                if damage := _damage(path):
                    raise UserError(_UNREADABLE.format(path=path, error=damage)) from error
            raise
        finally:
            del _viewed[id(db)]


_viewed: dict[int, list[Path]] = {}  # the files behind the views of each open `database`


def _damage(path: Path) -> str | None:
    """What is wrong with a Parquet file, all of it read; None: nothing."""
    try:
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        return " ".join(str(error).split())
    return None


def view_table(db: duckdb.DuckDBPyConnection, name: str, path: Path, numbered: bool = False) -> None:
    """Makes a Parquet file the view `name` of a database; `numbered` adds the column `file_row_number`.

    Raises:
        UserError: as `read_table`.
    """
    check_table(path, schema_of(path.stem))
    try:
        db.read_parquet(str(path), file_row_number=numbered).create_view(name)
    except duckdb.Error as error:
        raise UserError(_UNREADABLE.format(path=path, error=str(error).splitlines()[0])) from error
    _viewed.get(id(db), []).append(path)


def table_from_rows(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """Builds a table from dictionaries; absent keys become null, unknown keys are a programming error."""
    rows = list(rows)
    for row in rows:
        if unknown := set(row) - set(schema.names):
            raise KeyError(f"columns not in the schema: {sorted(unknown)}")
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def digest_table(table: pa.Table) -> str:
    """A short hash of a table's content, independent of how the file was written: the identity of a list."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(f"{name}:{table.num_rows}".encode())
        for start in range(0, table.num_rows, _DIGEST_ROWS):
            values = table[name].slice(start, _DIGEST_ROWS).to_pylist()
            digest.update(json.dumps(values, default=str).encode())
    return digest.hexdigest()[:16]


class Journal:
    """Rows that a running stage has finished, kept in small Parquet parts until `compact` makes one table of them.

    A journal belongs to one `fingerprint` (the stage's settings and inputs): opened under another, it is emptied.
    """

    def __init__(self, folder: Path, schema: pa.Schema, keys: Sequence[str], fingerprint: str) -> None:
        self._folder, self._schema, self._keys = folder, schema, list(keys)
        mark = folder / "fingerprint"
        if folder.exists() and (not mark.exists() or mark.read_text() != fingerprint):
            shutil.rmtree(folder)
        if not folder.exists():
            write_atomic(mark, fingerprint.encode())
        for stray in folder.glob(".*.tmp"):
            stray.unlink()
        self._next = 1 + max((int(part.stem) for part in folder.glob("*.parquet")), default=-1)

    def done(self, column: str = "sample_id") -> set[Any]:
        """The values of `column` in the rows written so far."""
        found: set[Any] = set()
        for part in self._parts():
            found.update(read_table(part, [column])[column].to_pylist())
        return found

    def append(self, rows: Iterable[Row]) -> None:
        """Writes the rows as one part; after it returns they survive any crash."""
        self.append_table(table_from_rows(rows, self._schema))

    def append_table(self, table: pa.Table) -> None:
        """Like `append`, for rows that are a table already."""
        if table.num_rows:
            write_table(self._folder / f"{self._next:08d}.parquet", table)
            self._next += 1

    def fill(self, groups: Iterable[Sequence[Row]]) -> None:
        """Appends groups of rows as they come, every few seconds; those that came survive an interruption.

        A group (say, the pieces of one file) is never split.
        """
        rows: list[Row] = []
        written = time.monotonic()
        try:
            for group in groups:
                rows += group
                if len(rows) >= _PART_ROWS or time.monotonic() - written > _PART_S:
                    # Emptied before it is written: Ctrl-C between the two costs rows, which are made again; emptied
                    # after, it would let the last line write them twice.
                    part, rows, written = rows, [], time.monotonic()
                    self.append(part)
        finally:
            self.append(rows)

    def table(self) -> pa.Table:
        """All rows so far, sorted by the keys, so that the order of work leaves no trace."""
        parts = [read_table(part) for part in self._parts()]
        table = pa.concat_tables(parts) if parts else self._schema.empty_table()
        order = pc.sort_indices(table, sort_keys=[(key, "ascending") for key in self._keys])
        return table.take(order)

    def compact(self, path: Path) -> pa.Table:
        """Writes all rows to `path` and removes the parts."""
        table = self.table()
        write_table(path, table)
        shutil.rmtree(self._folder)
        return table

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once the folder itself is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
