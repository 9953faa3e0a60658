"""Tables in, tables out: schemas, atomic Parquet files, the journal."""

from omnisource.tables.io import (
    NO_ROOM,
    Journal,
    check_table,
    database,
    digest_table,
    read_parquet,
    read_table,
    table_from_rows,
    table_writer,
    view_table,
    write_atomic,
    write_json,
    write_table,
    writing,
)
from omnisource.tables.schemas import DECISIONS, DUPLICATES, FLOW, PREDICTIONS, PREPARED, PROBE, SAMPLES, SCORES

__all__ = [
    "DECISIONS",
    "DUPLICATES",
    "FLOW",
    "NO_ROOM",
    "PREDICTIONS",
    "PREPARED",
    "PROBE",
    "SAMPLES",
    "SCORES",
    "Journal",
    "check_table",
    "database",
    "digest_table",
    "read_parquet",
    "read_table",
    "table_from_rows",
    "table_writer",
    "view_table",
    "write_atomic",
    "write_json",
    "write_table",
    "writing",
]
