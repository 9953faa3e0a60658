"""Parquet tables: written atomically, read with errors that a person understands."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnisource.errors import UserError
from omnisource.tables.database import MISSING, UNREADABLE
from omnisource.tables.files import sync_folder, writing

Row = Mapping[str, Any]
_DIGEST_ROWS = 100_000


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
    sync_folder(path.parent)


def read_table(path: Path, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    """Reads a Parquet file, or the named columns of it, or the rows that satisfy `filters`.

    Raises:
        UserError: the file is missing or is no Parquet table.
    """
    try:
        return pq.read_table(path, columns=list(columns) if columns else None, filters=filters)
    except FileNotFoundError:
        raise UserError(MISSING.format(path=path, stage=path.stem)) from None
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise UserError(UNREADABLE.format(path=path, error=error)) from error


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
