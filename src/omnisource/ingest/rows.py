"""Rows of list files as they are written: lines of texts, records of CSV and Parquet. What they mean: listings.py."""

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnisource.errors import UserError
from omnisource.ingest.values import NOT_UTF8, is_text
from omnisource.tables import read_batches, read_schema

_MAX_LINE = 2**20  # characters

# Where in its file a row is, and the row, or what is wrong with it.
Rows = Iterator[tuple[str, dict[str, Any] | str]]


def parquet_rows(path: Path) -> tuple[list[str], Rows]:
    """The columns' names and the rows of a Parquet table."""
    rows = (row for batch in read_batches(path) for row in batch.to_pylist())
    return list(read_schema(path).names), ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def csv_rows(path: Path) -> tuple[list[str], Rows]:
    """The columns' names and the rows of a text table with commas, semicolons or tabs.

    Raises:
        UserError: the line of names is not readable, nor is then the rest.
    """
    lines = lines_of(path)
    header, above = next(lines, ""), 0
    delimiter = "\t" if "\t" in header else ";" if ";" in header and "," not in header else ","
    if header.startswith("sep=") and len(told := header.rstrip("\r\n")) == len("sep=;"):  # as Excel writes it
        header, above, delimiter = next(lines, ""), 1, told[-1]
    records = _csv_records(header, above, lines, delimiter)
    _, names = next(records, (0, list[str]()))
    if isinstance(names, str):
        raise UserError(f"{path}:1: {names}")

    def rows() -> Rows:
        for number, cells in records:
            where = f"{path}:{number}"
            if isinstance(cells, str):
                yield where, cells
            elif any(cells[len(names) :]):
                more = f"{len(cells)} cells, but {len(names)} columns"
                yield where, f"{more}; put what holds a {delimiter!r} in quotes"
            elif cells:
                yield where, dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))

    return names, rows()


def _csv_records(
    header: str, above: int, lines: Iterator[str], delimiter: str
) -> Iterator[tuple[int, list[str] | str]]:
    """For each record its last line's number and its cells, or what is wrong with it.

    A blank behind each comma is no part of the cells where the line of names has it, too. Of a quote that is never
    closed only the first line is lost: what the reader took in behind it is read again.

    Args:
        header: the line of names.
        above: lines above it.
        lines: those below it.
    """
    waiting, taken, number = deque([header]), list[str](), above
    spaced = f"{delimiter} " in header

    def taking() -> Iterator[str]:
        while line := waiting.popleft() if waiting else next(lines, ""):
            taken.append(line)
            yield line

    while True:
        try:
            for cells in csv.reader(taking(), delimiter=delimiter, skipinitialspace=spaced, strict=True):
                number += len(taken)
                taken.clear()
                yield number, cells
        except csv.Error as error:
            number += 1
            yield number, f"not readable as a table ({error}); is a quote missing?"
            waiting.extendleft(reversed(taken[1:]))
            taken.clear()
        else:
            return


def numbered(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text that are not empty, and where each is."""
    return ((f"{path}:{number}", line) for number, line in enumerate(lines_of(path), start=1) if line.strip())


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text, with their ends. Bytes behind the first line that are no UTF-8 are halves of characters.

    Raises:
        UserError: the file can't be read, or is no text.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = True
            while line := file.readline(_MAX_LINE):
                if first and not is_text(line):
                    raise UserError(f"{path}: not a text list, or {NOT_UTF8}")
                if len(line) == _MAX_LINE and not line.endswith(("\r", "\n")):
                    raise UserError(f"{path}: a line of more than {_MAX_LINE:,} characters; is this a list?")
                yield line
                first = False
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
