"""Tables in, tables out: schemas, atomic Parquet files, the journal."""

from omnisource.tables.check import check_table, missing
from omnisource.tables.database import database, view_table
from omnisource.tables.files import sync_folder, write_atomic, write_json, writing
from omnisource.tables.io import (
    digest_file,
    digest_table,
    read_batches,
    read_parquet,
    read_schema,
    read_table,
    table_from_rows,
    table_writer,
    write_batches,
    write_table,
)
from omnisource.tables.journal import Journal, merge
from omnisource.tables.schemas import DECISIONS, DUPLICATES, FLOW, PREDICTIONS, PREPARED, PROBE, SAMPLES, SCORES

__all__ = [
    "DECISIONS",
    "DUPLICATES",
    "FLOW",
    "PREDICTIONS",
    "PREPARED",
    "PROBE",
    "SAMPLES",
    "SCORES",
    "Journal",
    "check_table",
    "database",
    "digest_file",
    "digest_table",
    "merge",
    "missing",
    "read_batches",
    "read_parquet",
    "read_schema",
    "read_table",
    "sync_folder",
    "table_from_rows",
    "table_writer",
    "view_table",
    "write_atomic",
    "write_batches",
    "write_json",
    "write_table",
    "writing",
]
