"""The pool: every unit that a run may train on, joined from the stage tables.

A unit is what one slot of a batch holds: an image, a clip, a window of an untrimmed video (3D networks), or a
positive frame of one together with the other frames of its video (2D networks).
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnisource.clips import piece_frames
from omnisource.errors import UserError
from omnisource.flow import use_flow
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.train.keys import name_key
from omnisource.workspace import Workspace

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
Kind = Literal["image", "clip", "window", "frame"]

UNITS = pa.schema(
    [
        pa.field("source", pa.int32(), nullable=False),  # position in the pool's sources
        pa.field("place", pa.int64(), nullable=False),  # of the sample in the samples table
        pa.field("label", pa.int32()),  # position in the pool's classes
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # image | clip | window | frame
        pa.field("start_s", pa.float64()),  # of the piece of the file, or the time of the frame; null: the whole file
        pa.field("end_s", pa.float64()),
        pa.field("fps", pa.float64()),  # of the file; null for images
        pa.field("num_frames", pa.int64()),  # of the file; null where unknown
        pa.field("side", pa.int32()),  # shorter side of the picture in pixels; null where unknown
        pa.field("sound", pa.bool_()),  # every frame that was looked at decodes
        pa.field("probs", pa.list_(pa.float32())),  # soft pseudo-label; null: `label`
    ]
)

_ROWS = 65_536  # in one piece of the file that holds the units
_ROWS_JOINED = 2_000_000  # at once
_MEMORY = "700MB"  # what the join may use before it goes to disk
POSITIVE, NEGATIVE = 1, 0


@dataclass(frozen=True)
class Frames:
    """The 1-FPS frames of untrimmed videos, video after video: those of video v are offsets[v]:offsets[v + 1]."""

    place: I64  # of each video in the samples table, ascending
    offsets: I64
    time_s: F64
    side: I32  # POSITIVE, NEGATIVE, or -1: the teacher put it on neither side
    label: I32

    def of(self, place: int) -> tuple[F64, I32, I32]:
        """Times, sides and labels of the frames of the video at `place` in the samples table."""
        video = int(np.searchsorted(self.place, place))
        part = slice(int(self.offsets[video]), int(self.offsets[video + 1]))
        return self.time_s[part], self.side[part], self.label[part]


@dataclass(frozen=True)
class Unit:
    """One unit, as `Pool.unit` gives it."""

    source: str
    label: int
    sample_id: str
    uri: str
    kind: Kind
    start_s: float
    end_s: float | None
    fps: float | None
    num_frames: int  # of the piece; 1 for images and frames
    side: int | None
    sound: bool
    probs: tuple[float, ...] | None
    place: int  # of the sample in the samples table


@dataclass(frozen=True)
class Pool:
    """All units of a run, in the order of sources, of the samples table and of time."""

    sources: tuple[str, ...]
    roles: tuple[str, ...]  # target or web, one a source
    classes: tuple[str, ...]
    source: I32  # (units,)
    label: I32  # (units,)
    digest: str  # of everything but the places of the files: the identity of this list
    frames: Frames | None
    _pieces: list[pa.RecordBatch] = field(repr=False)
    _order: I64 = field(repr=False)  # unit -> row of the pieces, taken together
    _starts: I64 = field(repr=False)  # of the pieces, and their end

    @classmethod
    def from_rows(
        cls, sources: Sequence[str], roles: Sequence[str], classes: Sequence[str], rows: Sequence[dict[str, Any]]
    ) -> "Pool":
        """A pool of units that lie in no tables: `rows` of the schema UNITS, sorted by source."""
        pieces = [pa.RecordBatch.from_pylist([dict(row) for row in rows], schema=UNITS)]
        identities = np.array([name_key(row["sample_id"]) for row in rows], np.uint64)
        order = np.arange(len(rows))
        return cls(
            sources=tuple(sources),
            roles=tuple(roles),
            classes=tuple(classes),
            source=_column(pieces, "source"),
            label=_column(pieces, "label"),
            digest=_digest(pieces, identities, order),
            frames=None,
            _pieces=pieces,
            _order=order,
            _starts=np.array([0, len(rows)]),
        )

    def __len__(self) -> int:
        return len(self.label)

    def unit(self, number: int) -> Unit:
        """Everything about one unit."""
        row_number = int(self._order[number])
        piece = int(np.searchsorted(self._starts, row_number, side="right")) - 1
        place = row_number - int(self._starts[piece])
        row: dict[str, Any] = {name: self._pieces[piece][name][place].as_py() for name in UNITS.names}
        start_s, end_s, fps, total = row["start_s"] or 0.0, row["end_s"], row["fps"], row["num_frames"]
        probs = row["probs"]
        return Unit(
            source=self.sources[row["source"]],
            label=row["label"],
            sample_id=row["sample_id"],
            uri=row["uri"],
            kind=row["kind"],
            start_s=start_s,
            end_s=end_s,
            fps=fps,
            num_frames=1 if row["kind"] in ("image", "frame") else piece_frames(start_s, end_s, fps, total),
            side=row["side"],
            sound=bool(row["sound"]),
            probs=tuple(probs) if probs is not None else None,
            place=row["place"],
        )

    @property
    def soft(self) -> bool:
        """Whether some unit has a soft pseudo-label."""
        return any(piece["probs"].null_count < piece.num_rows for piece in self._pieces)

    @property
    def has_images(self) -> bool:
        """Whether some unit is an image."""
        return any(pc.any(pc.equal(piece["kind"], "image")).as_py() for piece in self._pieces)

    def counts(self) -> dict[str, int]:
        """Units of each source."""
        found = np.bincount(self.source, minlength=len(self.sources))
        return {name: int(count) for name, count in zip(self.sources, found, strict=True)}

    def class_counts(self, source: str) -> dict[str, int]:
        """Units of each class of a source."""
        mine = self.label[self.source == self.sources.index(source)]
        found = np.bincount(mine, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, found, strict=True)}


def build_pool(
    recipe: Recipe,
    workspace: Workspace,
    sources: Sequence[str],
    spatial: bool,
    split: str = "train",
    flow: bool = False,
    prepared: bool = False,
) -> Pool:
    """Joins the tables into the units of a run.

    Args:
        sources: names of sources; web sources give what `select` kept.
        spatial: True for a 2D network: of untrimmed videos it takes frames, a 3D network takes windows.
        split: of target samples.
        flow: read the target's flow videos (stage `flow`) in place of the videos; samples without flow are left out.
        prepared: read the files of the stage `prepare`; samples without one are left out.

    Raises:
        UserError: an unknown source, web sources for a network of flow, a source with nothing to train on, a class that
            no source has, a label outside of the class list.
    """
    for name in sources:
        if name not in recipe.sources:
            raise UserError(f"'{name}' is no source of the recipe; sources are: {', '.join(recipe.sources)}")
    names = tuple(name for name in recipe.sources if name in set(sources))
    classes = tuple(workspace.classes())
    spill = workspace.root / "partial"
    spill.mkdir(exist_ok=True)
    settings = {"memory_limit": _MEMORY, "temp_directory": str(spill), "preserve_insertion_order": "false"}
    with duckdb.connect(config=settings) as tables:
        _declare(tables, recipe, workspace, names, classes)
        if flow:
            _turn_to_flow(tables, recipe, workspace, names)
        if prepared:
            _turn_to_prepared(tables, workspace)
        web = any(recipe.sources[name].role == "web" for name in names)
        parts = 1 + pq.read_metadata(workspace.table("samples")).num_rows // _ROWS_JOINED
        queries = [_units(web, spatial, split, part, parts) for part in range(parts)]
        pieces, identities = _stream(tables, queries, spill)
        frames = _frames(tables) if web and spatial else None
    order = np.lexsort([_column(pieces, name) for name in ("start_s", "place", "source")])
    pool = Pool(
        sources=names,
        roles=tuple(recipe.sources[name].role for name in names),
        classes=classes,
        source=_column(pieces, "source")[order],
        label=_column(pieces, "label")[order],
        digest=_digest(pieces, identities, order),
        frames=frames,
        _pieces=pieces,
        _order=order,
        _starts=np.cumsum([0, *(piece.num_rows for piece in pieces)]),
    )
    _check(pool, recipe, split)
    return pool


def _declare(
    tables: duckdb.DuckDBPyConnection,
    recipe: Recipe,
    workspace: Workspace,
    names: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Gives the queries their tables: those of the stages, and the names with their positions."""
    for name, values in (("wanted", names), ("class", classes)):
        ranks = pa.array(range(len(values)), pa.int32())
        tables.register(name, pa.table({"name": pa.array(values, pa.string()), "rank": ranks}))
    for name, table in (
        ("samples", "samples"),
        ("probe", "probe"),
        ("duplicates", "duplicates"),
        ("decisions", f"decisions-{recipe.select.name}"),
    ):
        path = workspace.table(table)
        if path.exists():
            quoted = str(path).replace("'", "''")
            tables.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{quoted}', file_row_number = true)")
        elif name in ("samples", "probe") or any(recipe.sources[source].role == "web" for source in names):
            stage = "select" if name == "decisions" else "dedupe" if name == "duplicates" else name
            raise UserError(f"{path}: no such table; run `omnisource {stage.replace('samples', 'ingest')}` first")


def _turn_to_flow(
    tables: duckdb.DuckDBPyConnection, recipe: Recipe, workspace: Workspace, names: Sequence[str]
) -> None:
    """Lets `samples` name the flow videos in place of the videos."""
    if web := [name for name in names if recipe.sources[name].role == "web"]:
        raise UserError(f"a network with `modality: flow` trains on target sources alone; leave out {', '.join(web)}")
    samples = read_table(workspace.table("samples"))
    samples = samples.append_column("file_row_number", pa.array(range(samples.num_rows), pa.int64()))
    wanted = samples.filter(pc.is_in(samples["source"], pa.array(names, pa.string())))
    tables.execute("DROP VIEW samples")
    tables.register("samples", use_flow(workspace, wanted))


def _turn_to_prepared(tables: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Lets `samples` name the prepared files in place of the originals."""
    path = workspace.table("prepared")
    if not path.exists():
        raise UserError(f"{path}: no such table; run `omnisource prepare` first")
    quoted = str(path).replace("'", "''")
    tables.execute("ALTER VIEW samples RENAME TO originals")
    tables.execute(f"""
        CREATE VIEW samples AS SELECT o.* REPLACE (q.uri AS uri)
        FROM originals o JOIN read_parquet('{quoted}') q USING (sample_id) WHERE q.status = 'ok'""")


# Joins of wide rows cost memory, so they are made for one part of the samples at a time.
_GOOD = """
    good AS (
        SELECT w.rank AS source, s.file_row_number AS place, s.* EXCLUDE (source, status, reason, file_row_number),
            p.fps, coalesce(p.num_frames, round(p.duration_s * p.fps)::BIGINT) AS num_frames,
            least(p.width, p.height) AS side, coalesce(p.decodable_share, 1) >= 1 AS sound
        FROM samples s JOIN wanted w ON s.source = w.name JOIN probe p USING (sample_id)
        WHERE s.status = 'ok' AND p.status = 'ok'
            AND hash(s.sample_id) % {parts} = {part} AND hash(p.sample_id) % {parts} = {part})"""

_JUDGED = """
    judged AS (
        SELECT g.source, g.place, d.label, g.sample_id, g.uri, d.unit AS kind, d.start_s, d.end_s, g.fps, g.num_frames,
            g.side, g.sound, d.probs, d.keep, d.negative
        FROM good g JOIN decisions d ON d.sample_id = g.sample_id
        WHERE g.role = 'web' AND d.unit = CASE g.format WHEN 'untrimmed' THEN '{piece}' ELSE g.format END
            AND hash(d.sample_id) % {parts} = {part}
            AND g.sample_id NOT IN (SELECT sample_id FROM duplicates WHERE status = 'dropped'))"""

_COLUMNS = "source, place, label, sample_id, uri, kind, start_s, end_s, fps, num_frames, side, sound"


def _units(web: bool, spatial: bool, split: str, part: int, parts: int) -> str:
    """The query of all units that belong to one part."""
    named = {"piece": "frame" if spatial else "window", "part": part, "parts": parts}
    tables = [_GOOD.format(**named)]
    units = f"""
        SELECT {_COLUMNS.replace("kind", "CASE format WHEN 'image' THEN 'image' ELSE 'clip' END AS kind")},
            NULL::FLOAT[] AS probs
        FROM good WHERE role = 'target' AND split = '{split}'"""
    if web:
        tables += [_JUDGED.format(**named)]
        units += f" UNION ALL SELECT {_COLUMNS}, probs FROM judged WHERE keep"
    return f"""
        WITH {",".join(tables)}, units AS ({units})
        SELECT u.* REPLACE (c.rank AS label), md5_number_lower(u.sample_id) AS identity,
            CASE WHEN c.rank IS NULL THEN coalesce(u.label, '') END AS unknown
        FROM units u LEFT JOIN class c ON c.name = u.label"""


def _frames(tables: duckdb.DuckDBPyConnection) -> Frames:
    """All judged 1-FPS frames, in the order of their videos in the samples table."""
    named = {"piece": "frame", "part": 0, "parts": 1}
    found = tables.execute(f"""
        WITH {_GOOD.format(**named)}, {_JUDGED.format(**named)}
        SELECT place, start_s, CASE WHEN keep THEN {POSITIVE} WHEN negative THEN {NEGATIVE} ELSE -1 END AS side,
            coalesce(c.rank, -1) AS label
        FROM judged LEFT JOIN class c ON c.name = label
        WHERE kind = 'frame' ORDER BY place, start_s""").fetchnumpy()
    places, starts = np.unique(found["place"].astype(np.int64), return_index=True)
    return Frames(
        place=places,
        offsets=np.append(starts, len(found["place"])),
        time_s=found["start_s"].astype(np.float64),
        side=found["side"].astype(np.int32),
        label=found["label"].astype(np.int32),
    )


def _stream(
    tables: duckdb.DuckDBPyConnection, queries: Sequence[str], folder: Path
) -> tuple[list[pa.RecordBatch], U64]:
    """Moves the rows to a nameless file that is mapped into memory, so that ten million of them weigh little.

    Returns the pieces of the file and 64 bits of each sample's identity.
    """
    identities: list[U64] = []
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".arrow") as file:
        with pa.ipc.new_file(file, UNITS) as writer:
            for query in queries:
                for batch in tables.sql(query).to_arrow_reader(_ROWS):
                    unknown = batch["unknown"].drop_null()
                    if len(unknown):
                        raise UserError(
                            f"the label '{unknown[0]}' is not in the class list; mend `classes` or the label"
                        )
                    identities.append(batch["identity"].to_numpy())
                    writer.write_batch(batch.select(UNITS.names).cast(UNITS))
        file.flush()
        with pa.memory_map(file.name) as mapped:
            reader = pa.ipc.open_file(mapped)
            pieces = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    return pieces, np.concatenate([np.empty(0, np.uint64), *identities])


def _digest(pieces: Sequence[pa.RecordBatch], identities: U64, order: I64) -> str:
    """A hash of the units in their order: everything that training depends on but the places of the files."""
    whole = hashlib.blake2b(identities[order].tobytes(), digest_size=8)
    for name in ("source", "label", "start_s", "end_s", "fps", "num_frames"):
        whole.update(_column(pieces, name)[order].tobytes())
    if any(piece["probs"].null_count < piece.num_rows for piece in pieces):  # soft labels are rare, and big
        table = pa.Table.from_batches(pieces).select(["probs"]).take(order)
        whole.update(np.concatenate([chunk.flatten().to_numpy() for chunk in table["probs"].chunks]).tobytes())
    return whole.hexdigest()


def _column(pieces: Sequence[pa.RecordBatch], name: str) -> npt.NDArray[Any]:
    """A numeric column of all pieces; null becomes -1."""
    empty = np.empty(0, UNITS.field(name).type.to_pandas_dtype())
    return np.concatenate([empty, *(piece[name].fill_null(-1).to_numpy() for piece in pieces)])


def _check(pool: Pool, recipe: Recipe, split: str) -> None:
    if split != "train":
        return
    for name, count in pool.counts().items():
        source = recipe.sources[name]
        if source.split in ("val", "test"):
            continue
        if count == 0 and source.role == "target":
            raise UserError(
                f"source '{name}' has no usable training sample; see its rows in the samples and probe tables"
            )
        if count == 0:
            raise UserError(
                f"source '{name}' has no kept rows in the selection '{recipe.select.name}'; lower `select.threshold`, "
                "or leave the source out of the run"
            )
    seen = np.bincount(pool.label, minlength=len(pool.classes))
    absent = [name for name, count in zip(pool.classes, seen, strict=True) if count == 0]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(f"class '{absent[0]}'{more} has no sample in any source of the run; remove it from `classes`")
