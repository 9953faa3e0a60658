"""Columns of tables as arrays: read once, wide ones mapped into memory, and rows found by 64-bit keys."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnisource.errors import UserError
from omnisource.train.pool import I32, Rows

U64 = npt.NDArray[np.uint64]
Columns = dict[str, npt.NDArray[Any]]

_ROWS = 65_536  # in one piece of a mapped file


class Index:
    """Finds rows by 64-bit keys that are spread evenly: a table of buckets by the keys' first bits.

    Ten million ids hold two of one key with a probability of 1 in 400,000; such a table is refused.
    """

    def __init__(self, keys: U64) -> None:
        bits = max(len(keys).bit_length(), 2)
        self._shift = np.uint64(64 - bits)
        # Numbers sort much faster than they are argsorted, so each row's number takes the last bits of its key.
        low = np.uint64((1 << bits) - 1)
        packed = (keys & ~low) | np.arange(len(keys), dtype=np.uint64)
        packed.sort()
        self._rows = (packed & low).astype(np.int32)
        del packed
        self._keys = keys[self._rows]
        counts = np.bincount((self._keys >> self._shift).view(np.int64), minlength=1 << bits)
        self._first = np.cumsum(counts, dtype=np.int32)
        self._first -= counts
        if (self._keys[1:] == self._keys[:-1]).any():
            raise UserError("the samples table lists a sample twice; run `omnisource ingest` again")

    def find(self, keys: U64) -> I32:
        """The row of each key, or -1."""
        found = np.full(len(keys), -1, np.int32)
        if len(self._keys):
            for start in range(0, len(keys), _ROWS):  # what a piece needs stays in the processor's cache
                self._find(keys[start : start + _ROWS], found[start : start + _ROWS])
        return found

    def _find(self, keys: U64, found: I32) -> None:
        last = len(self._keys) - 1
        bucket = keys >> self._shift
        at = np.minimum(self._first[bucket], last)
        here = self._keys[at]
        hit = here == keys
        np.copyto(found, self._rows[at], where=hit)
        left = np.flatnonzero(~hit & (here >> self._shift == bucket) & (at < last))
        while len(left):
            at[left] += 1
            here = self._keys[at[left]]
            hit = here == keys[left]
            found[left[hit]] = self._rows[at[left[hit]]]
            left = left[~hit & (here >> self._shift == bucket[left]) & (at[left] < last)]


def positions_of(ascending: I32, wanted: I32) -> I32:
    """The position of each wanted number among ascending ones, or -1."""
    if not len(ascending):
        return np.full(len(wanted), -1, np.int32)
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[at] == wanted, at, -1).astype(np.int32)


def columns_of(tables: duckdb.DuckDBPyConnection, table: str, query: str) -> Columns:
    """The columns of a query over a table, in the order of its rows."""
    return _gather(tables, table, query, (), lambda batch: None)


def columns_and_rows(
    tables: duckdb.DuckDBPyConnection, table: str, query: str, wide: pa.Schema, spill: Path
) -> tuple[Columns, Rows]:
    """Like `columns_of`, but the columns of `wide` become the rows of a nameless file that is mapped into memory."""
    with tempfile.NamedTemporaryFile(dir=spill, suffix=".arrow") as file:
        with pa.OSFile(file.name, "wb") as sink, pa.ipc.new_file(sink, wide) as writer:
            columns = _gather(
                tables, table, query, wide.names, lambda batch: writer.write_batch(batch.select(wide.names).cast(wide))
            )
        with pa.memory_map(file.name) as content:
            pieces = pa.ipc.open_file(content)
            return columns, Rows([pieces.get_batch(number) for number in range(pieces.num_record_batches)])


def _gather(
    tables: duckdb.DuckDBPyConnection,
    table: str,
    query: str,
    without: Sequence[str],
    each: Callable[[pa.RecordBatch], None],
) -> Columns:
    most = tables.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    reader = tables.sql(query).to_arrow_reader(_ROWS)
    fields = [field for field in reader.schema if field.name not in without]
    columns = {field.name: np.empty(most, field.type.to_pandas_dtype()) for field in fields}
    done = 0
    for batch in reader:
        each(batch)
        for name, column in columns.items():
            column[done : done + len(batch)] = batch[name].to_numpy(zero_copy_only=False)
        done += len(batch)
    return {name: column[:done] for name, column in columns.items()}


def mapped(values: npt.NDArray[Any], spill: Path) -> npt.NDArray[Any]:
    """The same array in a nameless file that is mapped into memory."""
    if not len(values):
        return values
    with tempfile.TemporaryFile(dir=spill) as file:
        values.tofile(file)
        return np.memmap(file, values.dtype, "r", shape=values.shape)
