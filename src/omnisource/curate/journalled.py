"""Saving the rows of a long stage as they come."""

import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

from omnisource.tables import Journal

_PART_ROWS = 2000  # finished rows are saved when there are so many,
_PART_S = 10.0  # or after so long


def save_rows(journal: Journal, rows: Generator[dict[str, Any], None, None]) -> None:
    """Appends rows to the journal in parts; those that are finished survive an interruption."""
    part: list[dict[str, Any]] = []
    saved_at = time.monotonic()
    with closing(rows):
        try:
            for row in rows:
                part.append(row)
                if len(part) >= _PART_ROWS or time.monotonic() - saved_at > _PART_S:
                    journal.append(part)
                    part, saved_at = [], time.monotonic()
        finally:
            journal.append(part)
