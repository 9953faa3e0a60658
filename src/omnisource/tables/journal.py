"""A journal, from which a killed stage resumes row by row."""

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.tables.check import check_table, reading
from omnisource.tables.database import database, reads
from omnisource.tables.files import write_atomic
from omnisource.tables.io import Row, read_parquet, table_from_rows, write_batches, write_table

_PART_ROWS = 5_000  # of a journal, saved when there are so many,
_PART_S = 10.0  # or after so long
_MERGE_BYTES = 1_000_000_000  # of memory for sorting; what exceeds it is sorted on disk
_MERGE_ROWS = 2048  # in one piece of what comes sorted


class Journal:
    """Rows that a running stage has finished, kept in small Parquet parts until `compact` makes one table of them.

    A journal belongs to one `fingerprint` (the stage's settings and inputs): opened under another, it is emptied.
    """

    def __init__(self, folder: Path, schema: pa.Schema, keys: Sequence[str], fingerprint: str) -> None:
        self._folder, self._schema, self.keys = folder, schema, list(keys)
        mark = folder / "fingerprint"
        if folder.exists() and (not mark.exists() or mark.read_bytes() != fingerprint.encode()):
            shutil.rmtree(folder)
        if not folder.exists():
            write_atomic(mark, fingerprint.encode())
        for stray in folder.glob(".*.tmp"):
            stray.unlink()
        self._next = 1 + max((int(part.stem) for part in folder.glob("*.parquet")), default=-1)

    def done(self, column: str = "sample_id") -> set[Any]:
        """The values of `column` in the rows written so far."""
        return set(self.column(column).to_pylist())

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the rows written so far."""
        kind = self._schema.field(name).type
        return pa.chunked_array([chunk for part in self.tables([name]) for chunk in part[name].chunks], kind)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of the rows written so far, part by part.

        Raises:
            UserError: a part is damaged, or not of this journal's schema.
        """
        wanted = pa.schema([self._schema.field(name) for name in columns])
        for part in self.parts():
            check_table(part, self._schema, columns)
            with reading(part):
                table = read_parquet(part, columns).cast(wanted)
            yield table

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
        """All rows so far, sorted by the keys, so that the order of work leaves no trace. For few rows: see `merge`."""
        parts = list(self.tables(self._schema.names))
        table = pa.concat_tables(parts) if parts else self._schema.empty_table()
        order = pc.sort_indices(table, sort_keys=[(key, "ascending") for key in self.keys])
        return table.take(order)

    def compact(self, path: Path) -> None:
        """Writes all rows to `path`, sorted by the keys. Memory does not grow with the rows; the parts stay."""
        merge([self], path, self._schema)

    def parts(self) -> list[Path]:
        """The files of the rows so far, in the order in which they were written."""
        return sorted(self._folder.glob("*.parquet"))


def merge(journals: Sequence[Journal], path: Path, schema: pa.Schema) -> None:
    """Writes the rows of journals of one schema to `path`, sorted by their keys, in bounded memory; none: no rows.

    Rows of equal keys keep the order of the journals and of what was appended to them; unknown values come last.

    Raises:
        UserError: a damaged part, a full disk.
    """
    parts = [part for journal in journals for part in journal.parts()]
    for part in parts:
        check_table(part, schema)  # one that is damaged is named before the work
    if not parts:
        write_table(path, schema.empty_table())
        return
    order = ", ".join([f'"{key}" NULLS LAST' for key in journals[0].keys] + ["file_index", "file_row_number"])
    with database(path.parent, _MERGE_BYTES) as db:
        reads(db, parts)
        columns = ", ".join(f'"{name}"' for name in schema.names)
        rows = db.sql(f"SELECT {columns} FROM read_parquet(?) ORDER BY {order}", params=[list(map(str, parts))])
        write_batches(path, schema, rows.to_arrow_reader(_MERGE_ROWS))
