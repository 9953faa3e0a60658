"""A journal, from which a killed stage resumes row by row."""

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.tables.files import write_atomic
from omnisource.tables.io import Row, read_table, table_from_rows, write_table

_PART_ROWS = 5_000  # of a journal, saved when there are so many,
_PART_S = 10.0  # or after so long


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
