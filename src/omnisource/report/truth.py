"""What web samples really show, where a recipe's `truth` files say it."""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnisource.errors import UserError
from omnisource.recipe import Recipe, Truth

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """The truth about web samples, as far as it is known."""

    files: dict[str, Row]  # sample id -> row of the truth file
    column: str
    segments: dict[str, list[tuple[float, float, str]]]  # sample id -> (start, end, class)
    min_overlap: float

    def shown(self, sample_id: str, unit: Row) -> set[str] | None:
        """The classes that a unit shows; None: not known."""
        if unit["unit"] in ("window", "frame"):
            pieces = self.segments.get(sample_id)
            if pieces is None:
                return None
            start, end = unit["start_s"], unit["end_s"]
            if unit["unit"] == "frame" or end is None:
                return {name for first, last, name in pieces if first <= start < last}
            filled: Counter[str] = Counter()
            ends: dict[str, float] = {}  # what several segments of a class say counts once
            for first, last, name in sorted(pieces):
                begin, last = max(start, first, ends.get(name, start)), min(end, last)
                filled[name] += max(0.0, last - begin)
                ends[name] = max(last, ends.get(name, start))
            return {name for name, seconds in filled.items() if seconds >= self.min_overlap * (end - start)}
        row = self.files.get(sample_id)
        return None if row is None else {row.get(self.column) or ""}


def read_truth(recipe: Recipe, truth: Truth, samples: Iterable[Row]) -> Known:
    """The truth about `samples` (rows of the samples table).

    Raises:
        UserError: a file is missing, lacks a column, or has a time that is no number.
    """
    ids: dict[Path | None, list[str]] = defaultdict(list)  # a file may be listed piece by piece
    for row in samples:
        ids[Path(row["uri"])].append(row["sample_id"])
    files: dict[str, Row] = {}
    for name in truth.files:
        path = recipe.resolve(name)
        for _, row in _rows(path, ["path", truth.column], "truth.files"):
            files |= dict.fromkeys(ids.get(_beside(path, row["path"]), ()), row)
    segments: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    if truth.segments:
        path = recipe.resolve(truth.segments)
        for line, row in _rows(path, ["start_s", "end_s", "label"], "truth.segments"):
            start, end = _seconds(row["start_s"]), _seconds(row["end_s"])
            if not start <= end:
                raise UserError(f"{path}:{line}: start_s and end_s are '{row['start_s']}' and '{row['end_s']}'")
            for sample_id in ids.get(_beside(path, row.get("path") or row.get("video") or ""), ()):
                segments[sample_id].append((start, end, row["label"]))
    return Known(files, truth.column, dict(segments), truth.min_overlap)


def _rows(path: Path, columns: Sequence[str], key: str) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV with their numbers; an absent value is empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            names = list(reader.fieldnames or [])
            for column in columns:
                if column not in names:
                    raise UserError(f"{path}: no column '{column}' ({key}); it has: {', '.join(names)}")
            return [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend {key}") from None


def _beside(path: Path, name: str) -> Path | None:
    """The file that a list means; None for a name that no file can have."""
    try:
        return (path.parent / name).resolve()
    except (OSError, ValueError):
        return None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
