"""`build_pool`: joins samples, probe, duplicates and decisions into the units of a run.

Ten million rows are joined by their numbers: the tables are read once, a column at a time, sample ids stand for
themselves as 64-bit hashes, and whatever is wide (ids, paths, soft labels) goes from the tables straight to files that
are mapped into memory.
"""

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.errors import UserError
from omnisource.flow import use_flow
from omnisource.progress import say
from omnisource.recipe import Recipe
from omnisource.scratch import scratch
from omnisource.tables import database, read_table, view_table, writing
from omnisource.train.pool import (
    FACTS,
    I32,
    KINDS,
    NEGATIVE,
    POSITIVE,
    Facts,
    Frames,
    Pool,
    Rows,
    digest_units,
)
from omnisource.workspace import Workspace, fingerprint

U64 = npt.NDArray[np.uint64]
Columns = dict[str, npt.NDArray[Any]]

_FILES = pa.schema([("sample_id", pa.string()), ("uri", pa.string())])
_SOFT = pa.schema([("probs", pa.list_(pa.float32()))])
_ROWS = 65_536  # in one piece of a mapped file
_MEMORY = 500_000_000  # what reading the tables may use


def build_pool(
    recipe: Recipe,
    workspace: Workspace,
    sources: Sequence[str],
    by_frame: bool,
    split: str = "train",
    flow: bool = False,
    prepared: bool = False,
    leave_out: Collection[str] = (),
) -> Pool:
    """Joins the tables into the units of a run.

    Args:
        recipe: its sources and its selection.
        workspace: where the tables lie.
        sources: names of sources; web sources give what `select` kept.
        by_frame: of untrimmed videos take 1-FPS frames (`networks.takes_frames`), not windows.
        split: of target samples.
        flow: read the target's flow videos (stage `flow`) in place of the videos; samples without flow are left out.
        prepared: read the files of the stage `prepare`; samples without one are left out.
        leave_out: ids of samples that are left out; then a class or a source may be left without any.

    Raises:
        UserError: an unknown source, web sources for a network of flow, a target with nothing to train on, a class that
            no source has, a label outside of the class list, a sample that is listed twice, a full disk.
    """
    for name in sources:
        if name not in recipe.sources:
            raise UserError(f"'{name}' is no source of the recipe; sources are: {', '.join(recipe.sources)}")
    names = tuple(name for name in recipe.sources if name in set(sources))
    classes = tuple(workspace.classes())
    partial = workspace.root / "partial"
    with (
        writing(partial),
        scratch(partial) as spill,
        database(partial, _MEMORY) as tables,
    ):
        _declare(tables, recipe, workspace, names, classes)
        if flow:
            _turn_to_flow(tables, recipe, workspace, names)
        pool = _join(tables, recipe, workspace, names, classes, by_frame, split, prepared, leave_out, spill)
    if not leave_out:
        _check(pool, recipe, split)
    for stage in [*(["flow"] if flow else []), *(["prepare"] if prepared else [])]:
        if made := workspace.record(stage):
            # The same samples under other settings of flow or of prepared media are other inputs: a run begins anew.
            pool = replace(pool, digest=fingerprint([pool.digest, made.settings]))
    return pool


def _declare(
    tables: duckdb.DuckDBPyConnection,
    recipe: Recipe,
    workspace: Workspace,
    names: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Gives the queries their tables: those of the stages, and the names with their positions."""
    for name, values in (("source_name", names), ("class_name", classes)):
        quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        tables.execute(f"CREATE TYPE {name} AS ENUM ({quoted})")
    for name, table in (
        ("samples", "samples"),
        ("probe", "probe"),
        ("duplicates", "duplicates"),
        ("decisions", f"decisions-{recipe.select.name}"),
    ):
        path = workspace.table(table)
        if path.exists():
            view_table(tables, name, path, numbered=True)
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


# A format is the kind of its units, but for untrimmed videos: their kind is that of their pieces.
_SAMPLES = """
    SELECT sample_id, uri, hash(sample_id) AS hash, file_row_number::INTEGER AS place, role = 'target' AS target,
        enum_code(TRY_CAST(source AS source_name))::INTEGER AS source,
        CASE format WHEN 'image' THEN 0 WHEN 'clip' THEN 1 ELSE {piece} END::TINYINT AS kind,
        coalesce(enum_code(TRY_CAST(label AS class_name))::INTEGER, -1) AS label,
        coalesce(start_s, -1) AS start_s, coalesce(end_s, -1) AS end_s
    FROM samples
    WHERE status = 'ok' AND TRY_CAST(source AS source_name) IS NOT NULL AND (role = 'web' OR split = '{split}')"""

_PROBE = """
    SELECT hash(sample_id) AS hash, coalesce(fps, -1) AS fps,
        coalesce(num_frames, round(duration_s * fps)::BIGINT, -1)::INTEGER AS num_frames,
        coalesce(least(width, height), -1)::INTEGER AS side, coalesce(decodable_share, 1) >= 1 AS sound
    FROM probe WHERE status = 'ok'"""

_DROPPED = "SELECT hash(sample_id) AS hash FROM duplicates WHERE status = 'dropped'"

_DECISIONS = """
    SELECT hash(sample_id) AS hash, file_row_number::INTEGER AS row, keep, negative,
        CASE unit WHEN 'image' THEN 0 WHEN 'clip' THEN 1 WHEN 'window' THEN 2 ELSE 3 END::TINYINT AS kind,
        coalesce(enum_code(TRY_CAST(label AS class_name))::INTEGER, -1) AS label,
        coalesce(start_s, -1) AS start_s, coalesce(end_s, -1) AS end_s
    FROM decisions WHERE keep {or_frame}"""

_PROBS = "SELECT file_row_number::INTEGER AS row, probs FROM decisions WHERE keep AND probs IS NOT NULL"


def _join(
    tables: duckdb.DuckDBPyConnection,
    recipe: Recipe,
    workspace: Workspace,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    by_frame: bool,
    split: str,
    prepared: bool,
    leave_out: Collection[str],
    spill: Path,
) -> Pool:
    roles = tuple(recipe.sources[name].role for name in names)
    piece = KINDS.index("frame" if by_frame else "window")
    wanted = _SAMPLES.format(piece=piece, split=split.replace("'", "''"))
    if leave_out:
        tables.register("left_out", pa.table({"sample_id": pa.array(sorted(leave_out), pa.string())}))
        wanted += " AND sample_id NOT IN (FROM left_out)"
    samples, listed = _read(tables, "samples", wanted, _FILES, spill)
    index = _Index(samples.pop("hash"))
    file, files = np.arange(len(samples["place"]), dtype=np.int32), listed
    if prepared:
        file, files = _prepared(tables, workspace, index, len(file), spill)
    probe = _columns(tables, "probe", _PROBE)
    at = index.find(probe.pop("hash"))
    hit = at >= 0
    at = at[hit]
    good = np.zeros(len(file), np.bool_)
    good[at] = True
    good &= file >= 0
    for name in list(probe):
        samples[name] = np.full(len(file), -1, FACTS[name])
        samples[name][at] = probe.pop(name)[hit]
    del at, hit

    # Units, as rows of the samples and, for those of the web, of the decisions.
    sample = np.flatnonzero(good & samples["target"]).astype(np.int32)
    own = {name: samples[name][sample] for name in ("label", "kind", "start_s", "end_s")}
    own["kind"] = np.minimum(own["kind"], KINDS.index("clip"))
    own["soft"] = np.full(len(sample), -1, np.int32)
    frames, soft_labels = None, Rows([])
    if "web" in roles:
        good &= ~samples.pop("target")
        dropped = index.find(_columns(tables, "duplicates", _DROPPED)["hash"])
        good[dropped[dropped >= 0]] = False
        judged = _columns(tables, "decisions", _DECISIONS.format(or_frame="OR unit = 'frame'" if by_frame else ""))
        at = index.find(judged.pop("hash"))
        fits = at >= 0
        fits[fits] = good[at[fits]] & (samples["kind"][at[fits]] == judged["kind"][fits])
        if by_frame:
            mine = fits & (judged["kind"] == piece)
            frames = _frames(samples["place"][at[mine]], {name: judged[name][mine] for name in judged})
        kept = np.flatnonzero(fits & judged["keep"])
        numbers, soft_labels = _read(tables, "decisions", _PROBS, _SOFT, spill)
        judged["soft"] = _positions(numbers["row"], judged["row"])
        sample = np.concatenate([sample, at[kept]])
        for name in own:
            own[name] = np.concatenate([own[name], judged.pop(name)[kept]])
        del judged, at, fits
    del index

    order = np.lexsort((own["start_s"], samples["place"][sample], samples["source"][sample]))
    sample = sample[order]
    label = own.pop("label")[order]
    if len(unknown := np.flatnonzero(label < 0)):
        first = sample[unknown[0]]
        raise _unknown_label(tables, files[int(file[first])]["sample_id"], roles[samples["source"][first]] == "web")
    facts = Facts(
        file=_mapped(file[sample], spill),
        **{name: _mapped(own.pop(name)[order], spill) for name in list(own)},
        **{name: _mapped(samples.pop(name)[sample], spill) for name in ("place", "fps", "num_frames", "side", "sound")},
    )
    source = samples["source"][sample]
    return Pool(
        sources=names,
        roles=roles,
        classes=classes,
        source=source,
        label=label,
        digest=digest_units(listed, sample, source, label, facts, soft_labels),
        frames=frames,
        facts=facts,
        files=files,
        soft_labels=soft_labels,
    )


def _prepared(
    tables: duckdb.DuckDBPyConnection, workspace: Workspace, index: "_Index", count: int, spill: Path
) -> tuple[I32, Rows]:
    """The prepared files, and for each sample the row of its own, or -1."""
    path = workspace.table("prepared")
    if not path.exists():
        raise UserError(f"{path}: no such table; run `omnisource prepare` first")
    view_table(tables, "prepared", path, numbered=True)
    query = "SELECT sample_id, uri, hash(sample_id) AS hash FROM prepared WHERE status = 'ok'"
    found, files = _read(tables, "prepared", query, _FILES, spill)
    at = index.find(found["hash"])
    file = np.full(count, -1, np.int32)
    file[at[at >= 0]] = np.flatnonzero(at >= 0)
    return file, files


def _frames(place: I32, judged: Columns) -> Frames:
    """Judged 1-FPS frames, in the order of their videos in the samples table."""
    order = np.lexsort((judged["start_s"], place))
    places, starts = np.unique(place[order].astype(np.int64), return_index=True)
    side = np.where(judged["keep"], POSITIVE, np.where(judged["negative"], NEGATIVE, -1)).astype(np.int32)
    return Frames(
        place=places,
        offsets=np.append(starts, len(place)),
        time_s=judged["start_s"][order],
        side=side[order],
        label=judged["label"][order],
    )


class _Index:
    """Finds rows by 64-bit keys that are spread evenly: a table of buckets by the keys' first bits.

    Ten million ids hold two of one key with a probability of 1 in 400,000; such a table is refused.
    """

    def __init__(self, keys: U64) -> None:
        bits = max(len(keys).bit_length(), 2)
        self._shift = np.uint64(64 - bits)
        # Numbers sort much faster than they are argsorted, so each row's number takes the last bits of its key.
        low = np.uint64((1 << bits) - 1)
        packed = (keys & ~low) | np.arange(len(keys), dtype=np.uint64)
        packed.sort()
        self._rows = (packed & low).astype(np.int32)
        del packed
        self._keys = keys[self._rows]
        counts = np.bincount((self._keys >> self._shift).view(np.int64), minlength=1 << bits)
        self._first = np.cumsum(counts, dtype=np.int32)
        self._first -= counts
        if (self._keys[1:] == self._keys[:-1]).any():
            raise UserError("the samples table lists a sample twice; run `omnisource ingest` again")

    def find(self, keys: U64) -> I32:
        """The row of each key, or -1."""
        found = np.full(len(keys), -1, np.int32)
        if len(self._keys):
            for start in range(0, len(keys), _ROWS):  # what a piece needs stays in the processor's cache
                self._find(keys[start : start + _ROWS], found[start : start + _ROWS])
        return found

    def _find(self, keys: U64, found: I32) -> None:
        last = len(self._keys) - 1
        bucket = keys >> self._shift
        at = np.minimum(self._first[bucket], last)
        here = self._keys[at]
        hit = here == keys
        np.copyto(found, self._rows[at], where=hit)
        left = np.flatnonzero(~hit & (here >> self._shift == bucket) & (at < last))
        while len(left):
            at[left] += 1
            here = self._keys[at[left]]
            hit = here == keys[left]
            found[left[hit]] = self._rows[at[left[hit]]]
            left = left[~hit & (here >> self._shift == bucket[left]) & (at[left] < last)]


def _positions(ascending: I32, wanted: I32) -> I32:
    """The position of each wanted number among ascending ones, or -1."""
    if not len(ascending):
        return np.full(len(wanted), -1, np.int32)
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[at] == wanted, at, -1).astype(np.int32)


def _columns(tables: duckdb.DuckDBPyConnection, table: str, query: str) -> Columns:
    """The columns of a query over a table, in the order of its rows."""
    return _gather(tables, table, query, (), lambda batch: None)


def _read(
    tables: duckdb.DuckDBPyConnection, table: str, query: str, wide: pa.Schema, spill: Path
) -> tuple[Columns, Rows]:
    """Like `_columns`, but the columns of `wide` become the rows of a nameless file that is mapped into memory."""
    with tempfile.NamedTemporaryFile(dir=spill, suffix=".arrow") as file:
        with pa.OSFile(file.name, "wb") as sink, pa.ipc.new_file(sink, wide) as writer:
            columns = _gather(
                tables, table, query, wide.names, lambda batch: writer.write_batch(batch.select(wide.names).cast(wide))
            )
        with pa.memory_map(file.name) as mapped:
            pieces = pa.ipc.open_file(mapped)
            return columns, Rows([pieces.get_batch(number) for number in range(pieces.num_record_batches)])


def _gather(
    tables: duckdb.DuckDBPyConnection,
    table: str,
    query: str,
    without: Sequence[str],
    each: Callable[[pa.RecordBatch], None],
) -> Columns:
    most = tables.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    reader = tables.sql(query).to_arrow_reader(_ROWS)
    fields = [field for field in reader.schema if field.name not in without]
    columns = {field.name: np.empty(most, field.type.to_pandas_dtype()) for field in fields}
    done = 0
    for batch in reader:
        each(batch)
        for name, column in columns.items():
            column[done : done + len(batch)] = batch[name].to_numpy(zero_copy_only=False)
        done += len(batch)
    return {name: column[:done] for name, column in columns.items()}


def _mapped(values: npt.NDArray[Any], spill: Path) -> npt.NDArray[Any]:
    """The same array in a nameless file that is mapped into memory."""
    if not len(values):
        return values
    with tempfile.TemporaryFile(dir=spill) as file:
        values.tofile(file)
        return np.memmap(file, values.dtype, "r", shape=values.shape)


def _unknown_label(tables: duckdb.DuckDBPyConnection, sample_id: str, web: bool) -> UserError:
    """The label of a sample, or of its kept pieces, that is not in the class list."""
    table, kept = ("decisions", "keep") if web else ("samples", "true")
    found = tables.execute(
        f"SELECT coalesce(label, '') FROM {table} "
        f"WHERE sample_id = ? AND {kept} AND TRY_CAST(label AS class_name) IS NULL",
        [sample_id],
    ).fetchone()
    label = found[0] if found else ""
    return UserError(f"the label '{label}' is not in the class list; mend `classes` or the label")


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
            # Not the user's fault, nor the other sources': the training does without, and its record says 0 units.
            say(
                f"source '{name}' has no kept rows in the selection '{recipe.select.name}'; this run trains without it "
                "(lower `select.threshold` to keep some)"
            )
    seen = np.bincount(pool.label, minlength=len(pool.classes))
    absent = [name for name, count in zip(pool.classes, seen, strict=True) if count == 0]
    if absent and recipe.unlabelled_classes == "refuse":
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(
            f"class '{absent[0]}'{more} has no sample in any source of the run that is of use; `probe` names target "
            "files of none; add some, or leave it out with the source's `exclude`"
        )
