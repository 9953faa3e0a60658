"""The samples that are still in, with what the probe found in their files."""

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.tables import database, view_table
from omnisource.workspace import Workspace

_BATCH = 4096  # rows read at a time


@dataclass(frozen=True)
class Sample:
    """A sample whose file is whole."""

    sample_id: str
    source: str
    format: str
    uri: str
    query: int | None
    """Class index of a web sample's query, of a target sample's label."""
    start_s: float | None
    end_s: float | None
    width: int
    height: int
    fps: float | None
    variable_fps: bool
    num_frames: int | None
    duration_s: float | None
    bytes: int | None = None


SAMPLE = pa.struct(
    [
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("format", pa.string()),
        ("uri", pa.string()),
        ("query", pa.int64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("variable_fps", pa.bool_()),
        ("num_frames", pa.int64()),
        ("duration_s", pa.float64()),
        ("bytes", pa.int64()),
    ]
)
"""A Sample in a table."""


class Samples:
    """Samples of a workspace by role, in the order of source and id; read from disk as they are asked for.

    Args:
        workspace: holds the tables.
        role: web or target.
        formats: image, clip, untrimmed.
        splits: of target samples; empty: any.
        unique: leave out what `dedupe` dropped.
    """

    def __init__(
        self,
        workspace: Workspace,
        role: Literal["web", "target"],
        formats: Sequence[str] = ("image", "clip", "untrimmed"),
        splits: Sequence[str] = (),
        unique: bool = False,
    ) -> None:
        self._workspace, self._role, self._unique = workspace, role, unique
        self._formats, self._splits = list(formats), list(splits)

    def __len__(self) -> int:
        with database(self._workspace.root / "partial") as db:
            return int(self._query(db, "count(*)").fetchall()[0][0])

    def __iter__(self) -> Iterator[Sample]:
        with database(self._workspace.root / "partial") as db:
            for batch in self._query(db, _COLUMNS, "ORDER BY source, sample_id").to_arrow_reader(_BATCH):
                for row in batch.to_pylist():
                    yield Sample(**row)

    def table(self, without: Set[str] = frozenset()) -> pa.Table:
        """All of them at once, as a table of the fields of Sample, but for some ids."""
        with database(self._workspace.root / "partial") as db:
            table = self._query(db, _COLUMNS, "ORDER BY source, sample_id").to_arrow_table()
        return table.filter(pc.invert(pc.is_in(table["sample_id"], pa.array(sorted(without), pa.string()))))

    def _query(self, db: duckdb.DuckDBPyConnection, columns: str, order: str = "") -> duckdb.DuckDBPyRelation:
        labels = self._workspace.classes()
        db.register("classes", pa.table({"name": pa.array(labels, pa.string()), "number": range(len(labels))}))
        for name in ("samples", "probe") + (("duplicates",) if self._unique else ()):
            view_table(db, name, self._workspace.table(name))
        unique = "sample_id NOT IN (SELECT sample_id FROM duplicates WHERE status <> 'ok')" if self._unique else "true"
        return db.sql(
            f"""SELECT {columns} FROM samples AS s JOIN probe AS p USING (sample_id)
            LEFT JOIN classes ON classes.name = CASE role WHEN 'web' THEN query_label ELSE label END
            WHERE s.status = 'ok' AND p.status = 'ok' AND role = $role AND list_contains($formats, format)
                AND (len($splits) = 0 OR list_contains($splits, split)) AND {unique} {order}""",
            params={"role": self._role, "formats": self._formats, "splits": self._splits},
        )


_COLUMNS = """sample_id, source, format, uri, classes.number AS query, s.start_s, s.end_s, coalesce(width, 0) AS width,
    coalesce(height, 0) AS height, fps, coalesce(variable_fps, false) AS variable_fps, num_frames, duration_s,
    p.bytes AS bytes"""


def frame_at(sample: Sample, seconds: float) -> int:
    """Number of frames before the first one at or after `seconds`."""
    return math.ceil(seconds * (sample.fps or 25.0) - 1e-6)


def frames_between(sample: Sample, start_s: float, end_s: float | None) -> int:
    """Frames of a piece of the sample's file; at least 1."""
    total = sample.num_frames or round((sample.duration_s or 0.0) * (sample.fps or 25.0))
    last = total if end_s is None else min(frame_at(sample, end_s), total)
    return max(last - frame_at(sample, start_s), 1)
