"""`build_pool`: joins samples, probe, duplicates and decisions into the units of a run.

Ten million rows are joined by their numbers: the tables are read once, a column at a time, sample ids stand for
themselves as 64-bit hashes, and whatever is wide (ids, paths, soft labels) goes from the tables straight to files that
are mapped into memory.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.errors import UserError
from omnisource.flow import use_flow
from omnisource.progress import say
from omnisource.recipe import Recipe
from omnisource.scratch import scratch
from omnisource.tables import database, read_table, view_table, writing
from omnisource.train.columns import Columns, Index, columns_and_rows, columns_of, mapped, positions_of
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

_FILES = pa.schema([("sample_id", pa.string()), ("uri", pa.string())])
_SOFT = pa.schema([("probs", pa.list_(pa.float32()))])
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
    samples, listed = columns_and_rows(tables, "samples", wanted, _FILES, spill)
    index = Index(samples.pop("hash"))
    file, files = np.arange(len(samples["place"]), dtype=np.int32), listed
    if prepared:
        file, files = _prepared(tables, workspace, index, len(file), spill)
    probe = columns_of(tables, "probe", _PROBE)
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
        dropped = index.find(columns_of(tables, "duplicates", _DROPPED)["hash"])
        good[dropped[dropped >= 0]] = False
        judged = columns_of(tables, "decisions", _DECISIONS.format(or_frame="OR unit = 'frame'" if by_frame else ""))
        at = index.find(judged.pop("hash"))
        fits = at >= 0
        fits[fits] = good[at[fits]] & (samples["kind"][at[fits]] == judged["kind"][fits])
        if by_frame:
            mine = fits & (judged["kind"] == piece)
            frames = _frames(samples["place"][at[mine]], {name: judged[name][mine] for name in judged})
        kept = np.flatnonzero(fits & judged["keep"])
        numbers, soft_labels = columns_and_rows(tables, "decisions", _PROBS, _SOFT, spill)
        judged["soft"] = positions_of(numbers["row"], judged["row"])
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
        file=mapped(file[sample], spill),
        **{name: mapped(own.pop(name)[order], spill) for name in list(own)},
        **{name: mapped(samples.pop(name)[sample], spill) for name in ("place", "fps", "num_frames", "side", "sound")},
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
    tables: duckdb.DuckDBPyConnection, workspace: Workspace, index: Index, count: int, spill: Path
) -> tuple[I32, Rows]:
    """The prepared files, and for each sample the row of its own, or -1."""
    path = workspace.table("prepared")
    if not path.exists():
        raise UserError(f"{path}: no such table; run `omnisource prepare` first")
    view_table(tables, "prepared", path, numbered=True)
    query = "SELECT sample_id, uri, hash(sample_id) AS hash FROM prepared WHERE status = 'ok'"
    found, files = columns_and_rows(tables, "prepared", query, _FILES, spill)
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
