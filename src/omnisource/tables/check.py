"""What a Parquet file must be like before it is read, and what is said of one that is not."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from omnisource.errors import UserError
from omnisource.tables.schemas import misfit

_MISSING = "{path}: no such table; run the stage that writes it ({stage}) first"
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


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What fails inside because the file is missing or damaged becomes a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(_MISSING.format(path=path, stage=path.stem)) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, str(error).splitlines()[0]) from error


def unreadable(path: Path, error: str) -> UserError:
    """The error of a file in which something is wrong."""
    return UserError(_UNREADABLE.format(path=path, error=error))


def damage(path: Path) -> str | None:
    """What is wrong with a Parquet file, all of it read; None: nothing."""
    try:
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        return " ".join(str(error).split())
    return None
