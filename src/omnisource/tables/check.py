"""What a Parquet file must be like before it is read, and what is said of one that is not."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnisource.errors import UserError
from omnisource.tables.schemas import misfit

_ROWS = 2048  # in one piece
# table -> the verb that writes it
_WRITERS = {
    "collected": "collect",
    "samples": "ingest",
    "probe": "probe",
    "flow": "flow",
    "prepared": "prepare",
    "duplicates": "dedupe",
    "scores": "score",
    "calibration": "calibrate",
    "decisions": "select",
    "predictions": "test",
}
_UNREADABLE = "{path}: not a readable Parquet table ({error}); delete it to have it made again"


def check_table(path: Path, schema: pa.Schema | None, columns: Sequence[str] | None = None) -> None:
    """Checks a Parquet file's columns (all of `schema`, or those named) against the schema, without reading its rows.

    Raises:
        UserError: the file is missing, is no Parquet table, lacks a column, has one of another type, or a null where
            there must be none.
    """
    with reading(path):
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
            raise unreadable(path, problem)


def check_numbers(path: Path, table: pa.Table) -> None:
    """Raises UserError where a column of the table at `path` holds NaN or infinity: what is not known is null."""
    for field in table.schema:
        if pa.types.is_floating(field.type) and not pc.all(pc.is_finite(table[field.name]), min_count=0).as_py():
            raise unreadable(path, f"column '{field.name}' has rows with NaN or infinity")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What fails inside because the file is missing or damaged becomes a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise missing(path) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, str(error).splitlines()[0]) from error


def missing(path: Path) -> UserError:
    """The error of a table that is not there, with the verb that writes it if it is one of a workspace."""
    verb = _WRITERS.get(path.stem.split("-")[0])
    return UserError(f"{path}: no such table" + (f"; run `omnisource {verb}` first" if verb else ""))


def unreadable(path: Path, error: str) -> UserError:
    """The error of a file in which something is wrong."""
    return UserError(_UNREADABLE.format(path=path, error=error))


def damage(path: Path) -> str | None:
    """What is wrong with a Parquet file, all of it read, as pyarrow and as DuckDB read it; None: nothing."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                batch.validate(full=True)
        with duckdb.connect() as db:
            for _ in db.execute("FROM read_parquet(?)", [str(path)]).to_arrow_reader(_ROWS):
                pass
    except (pa.ArrowException, OSError, duckdb.Error) as error:
        return " ".join(str(error).split())
    return None
