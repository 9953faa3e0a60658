"""Parquet tables: written atomically, read with errors that a person understands."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnisource.tables.check import check_numbers, check_table, reading
from omnisource.tables.files import replacing
from omnisource.tables.schemas import schema_of

Row = Mapping[str, Any]
_DIGEST_ROWS = 100_000
_ROWS = 4096  # of a table that is read in pieces
_GROUP_ROWS = 131_072  # of a table that is written in pieces, in one piece of the file,
_GROUP_BYTES = 64 * 2**20  # or fewer, where rows are wide


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically (temporary file, fsync, rename)."""
    with table_writer(path, table.schema) as writer:
        writer.write_table(table)


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Opens a Parquet file for writing in pieces; it appears under `path` only when the block ends without an error."""
    with replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer


def read_table(path: Path, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    """Reads a Parquet file, or the named columns of it, or the rows that satisfy `filters`.

    Raises:
        UserError: the file is missing, is no Parquet table, or not what a workspace's table of its name holds.
    """
    schema = schema_of(path.stem)
    check_table(path, schema, columns)
    table = read_parquet(path, columns, filters)
    if schema is not None:
        check_numbers(path, table)
    return table


def read_parquet(path: Path, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    """`read_table` for a file from elsewhere, whatever its columns are."""
    with reading(path):
        table = pq.read_table(path, columns=list(columns) if columns else None, filters=filters)
        table.validate(full=True)  # texts that are none, lists that end before they begin
        return table


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A Parquet file, or the named columns of it, in pieces of some thousand rows.

    Raises:
        UserError: as `read_table`.
    """
    with reading(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=list(columns) if columns else None):
            batch.validate(full=True)
            yield batch


def read_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        UserError: as `read_table`.
    """
    with reading(path):
        return pq.read_schema(path)


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes a Parquet file atomically from pieces whose columns are those of `schema`, holding few of them at once."""
    with table_writer(path, schema) as writer:
        held: list[pa.RecordBatch] = []
        written = False
        for batch in batches:
            held.append(batch)
            if sum(map(len, held)) >= _GROUP_ROWS or sum(piece.nbytes for piece in held) >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held).cast(schema))
                written, held = True, []
        if held or not written:
            writer.write_table(pa.Table.from_batches(held).cast(schema) if held else schema.empty_table())


def table_from_rows(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """Builds a table from dictionaries; absent keys become null, unknown keys are a programming error."""
    rows = list(rows)
    for row in rows:
        if unknown := set(row) - set(schema.names):
            raise KeyError(f"columns not in the schema: {sorted(unknown)}")
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def digest_table(table: pa.Table) -> str:
    """A short hash of a table's content, independent of how the file was written: the identity of a list."""
    starts = range(0, table.num_rows, _DIGEST_ROWS)
    return _digest(
        (name, table.num_rows, (table[name].slice(start, _DIGEST_ROWS) for start in starts))
        for name in table.column_names
    )


def digest_file(path: Path) -> str:
    """The `digest_table` of what is in a Parquet file, of which a piece of a column is read at a time."""
    with reading(path), pq.ParquetFile(path) as file:
        return _digest(
            (
                name,
                file.metadata.num_rows,
                (batch.column(0) for batch in file.iter_batches(_DIGEST_ROWS, columns=[name])),
            )
            for name in file.schema_arrow.names
        )


def _digest(columns: Iterable[tuple[str, int, Iterable[pa.Array]]]) -> str:
    digest = hashlib.sha256()
    for name, rows, pieces in columns:
        digest.update(f"{name}:{rows}".encode())
        for piece in pieces:  # of _DIGEST_ROWS rows each, but the last
            digest.update(json.dumps(piece.to_pylist(), default=str).encode())
    return digest.hexdigest()[:16]
