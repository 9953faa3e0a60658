"""`dedupe`: copies within the web, and web samples too close to what the target is tested on (paper, section 3.1)."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.curate.agree import Agreement
from omnisource.curate.closeness import compare
from omnisource.curate.detail import DETAIL
from omnisource.curate.embed import FEATURES
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.hamming import I64, Bools, keep_first
from omnisource.curate.motion import MOTION, equally_long
from omnisource.curate.samples import Sample, Samples
from omnisource.media import Limits
from omnisource.recipe import Recipe
from omnisource.tables import DUPLICATES, Journal, database, view_table, write_table
from omnisource.workspace import StageRecord, Workspace, content_of

Row = dict[str, Any]
Strings = npt.NDArray[np.object_]


def dedupe(recipe: Recipe, workspace: Workspace, engine: Engine = LOCAL) -> StageRecord:
    """Writes the table `duplicates`: one row for every whole web sample; dropped ones name twin, rule and similarity.

    Three rules: equal content (sha256) and like pictures (perceptual hash) within the web, of which the best copy
    stays; and likeness to a frame of the target's val or test split, by whitened trunk features. Kept rows name the
    most similar test sample too.

    Args:
        engine: where to work.

    Raises:
        UserError: the network's weights are not at hand.
    """
    settings = recipe.dedupe
    path = workspace.table("duplicates")
    content: dict[str, Any] = {}
    if settings.against_test and settings.init != "imagenet":
        content = {"init": content_of(recipe.resolve(settings.init), "dedupe.init, or set dedupe.against_test=false")}

    def work(mark: str) -> Mapping[str, Any]:
        rows = _web_rows(workspace)
        if settings.exact:
            _exact(rows)
        if settings.phash_distance is not None:
            _near(recipe, workspace, rows, settings.phash_distance, engine)
        measured: dict[str, Any] = {}
        if settings.against_test and not rows.empty:
            measured = _against_test(recipe, workspace, rows, mark, engine)
        table = rows.table()
        write_table(path, table)
        return _counts(table) | measured

    return workspace.run_stage(
        "dedupe",
        settings=settings.model_dump(mode="json") | content,
        after=["ingest", "probe"],
        outputs=[path],
        work=work,
    )


class _Rows:
    """Web samples, best first, and what became of them. Strings stay Arrow's, for millions of rows."""

    def __init__(self, table: pa.Table) -> None:
        self.ids = table["sample_id"]
        self.file = _numbered(table["sha256"])
        """Equal numbers for files of equal content; -1: unknown."""
        self.content = _numbered(table["content"])
        """The same for samples, which may be different pieces of one file."""
        self.words = table["word"].fill_null(0).to_numpy()
        self.hashed = table["hashed"].to_numpy()
        """Whether the word, the perceptual hash, tells something."""
        self.format = table["format"]
        self.duration_s = np.nan_to_num(table["duration_s"].to_numpy())
        count = table.num_rows
        self.reason: Strings = np.full(count, None, object)
        self.rule: Strings = np.full(count, None, object)
        self.twin: Strings = np.full(count, None, object)
        self.similarity = np.full(count, np.nan)
        self.kept = np.ones(count, bool)

    @property
    def empty(self) -> bool:
        return not len(self.kept)

    def drop(self, which: I64, reason: str, rule: str, twins: Strings, similarity: Any) -> None:
        self.reason[which], self.rule[which] = reason, rule
        self.twin[which], self.similarity[which] = twins, similarity
        self.kept[which] = False

    def names(self, places: I64) -> Strings:
        """The ids there."""
        names: Strings = np.array(self.ids.take(pa.array(places)).to_pylist(), object)
        return names

    def table(self) -> pa.Table:
        order = pc.sort_indices(self.ids.combine_chunks()).to_numpy()
        similarity = self.similarity[order]
        return pa.table(
            {
                "sample_id": self.ids.take(pa.array(order)),
                "status": np.where(self.kept, "ok", "dropped")[order],
                "reason": pa.array(self.reason[order], pa.string()),
                "rule": pa.array(self.rule[order], pa.string()),
                "twin_id": pa.array(self.twin[order], pa.string()),
                # Rounded: the last bits depend on which files shared a batch, and so on where a run was interrupted.
                "similarity": pa.array(np.round(similarity, 4), mask=np.isnan(similarity)),
            },
            schema=DUPLICATES,
        )


def _numbered(strings: pa.ChunkedArray) -> I64:
    """Equal numbers for equal strings, in the order in which they are first met; -1 for none."""
    numbers: I64 = strings.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
    return numbers


def _web_rows(workspace: Workspace) -> _Rows:
    """Whole web samples: those with most pixels first, then most bytes, then by id, so that the best copy stays."""
    with database(workspace.root / "partial") as db:
        view_table(db, "samples", workspace.table("samples"))
        view_table(db, "probe", workspace.table("probe"))
        return _Rows(
            db.sql(
                """SELECT sample_id, nullif(sha256, '') AS sha256, format,
                       nullif(sha256, '') || CASE WHEN s.start_s > 0 OR s.end_s IS NOT NULL
                           THEN format(' {} {}', coalesce(s.start_s, 0), coalesce(s.end_s, -1)) ELSE '' END AS content,
                       least(duration_s, coalesce(s.end_s, duration_s)) - coalesce(s.start_s, 0) AS duration_s,
                       TRY_CAST('0x' || phash AS UBIGINT) AS word,
                       word IS NOT NULL AND NOT coalesce(list_contains(flags, 'black'), false) AS hashed
                FROM samples AS s JOIN probe AS p USING (sample_id)
                WHERE role = 'web' AND s.status = 'ok' AND p.status = 'ok'
                ORDER BY width::BIGINT * height DESC NULLS LAST, p.bytes DESC NULLS LAST, sample_id"""
            ).to_arrow_table()
        )


def _exact(rows: _Rows) -> None:
    """Of samples with the same content, that is the same piece of equal files, the first stays."""
    known = np.flatnonzero(rows.content >= 0)
    _, first, group = np.unique(rows.content[known], return_index=True, return_inverse=True)
    original = known[first][group]
    copies = original != known
    rows.drop(known[copies], "duplicate_exact", "sha256", rows.names(original[copies]), 1.0)


def _near(recipe: Recipe, workspace: Workspace, rows: _Rows, distance: int, engine: Engine) -> None:
    """Of samples of one format with like pictures the first stays; black ones all look alike, so they are left out.

    Videos must also be equally long and move alike, images of which a hash says little be alike in their details.
    Different pieces of one file are no copies, though they have its hash.
    """
    limits = recipe.probe.limits
    hashed = rows.kept & rows.hashed
    for format_ in ("image", "clip", "untrimmed"):
        mine = np.flatnonzero(hashed & pc.equal(rows.format, format_).to_numpy())
        samples = partial(_samples_at, cache(partial(_in_order, workspace, format_, rows.ids.take(pa.array(mine)))))
        glance = DETAIL if format_ == "image" else MOTION
        question = Agreement(glance, samples, Limits.of(limits), limits.memory_bytes, engine.workers)
        possible = None if format_ == "image" else partial(_may_be_copies, rows, mine)
        words = rows.words[mine]
        twin = keep_first(words, distance, possible, question)
        copies = np.flatnonzero(twin >= 0)
        differing = np.bitwise_count(words[copies] ^ words[twin[copies]])
        rows.drop(mine[copies], "duplicate_near", "phash", rows.names(mine[twin[copies]]), 1 - differing / 64)


def _in_order(workspace: Workspace, format_: str, ids: pa.ChunkedArray) -> pa.Table:
    """The samples with these ids as a table in one piece, of which rows are quickly taken."""
    table = Samples(workspace, "web", [format_]).table()
    return table.take(pc.index_in(ids, table["sample_id"])).combine_chunks()


def _samples_at(table: Callable[[], pa.Table], places: I64) -> list[Sample]:
    """Rows of a table that is made when it is first asked for."""
    return [Sample(**row) for row in table().take(pa.array(places)).to_pylist()]


def _may_be_copies(rows: _Rows, mine: I64, a: I64, b: I64) -> Bools:
    """Which pairs of videos are equally long and no pieces of one file.

    Args:
        mine: places of these videos, among which a and b are places.
    """
    first, second = mine[a], mine[b]
    alike = equally_long(rows.duration_s[first], rows.duration_s[second])
    alike &= (rows.file[first] != rows.file[second]) | (rows.content[first] == rows.content[second])
    return alike


def _against_test(recipe: Recipe, workspace: Workspace, rows: _Rows, mark: str, engine: Engine) -> Row:
    """Drops what resembles a frame of the target's val or test split; returns what was measured."""
    held_out = list(Samples(workspace, "target", splits=("val", "test")))
    if not held_out:
        return {}
    web = Samples(workspace, "web").table(without=set(rows.names(np.flatnonzero(~rows.kept))))
    unrelated = list(Samples(workspace, "target", splits=("train",)))
    folder = workspace.partial("dedupe")
    found = compare(recipe, held_out, unrelated, web, Journal(folder, FEATURES, ["sample_id"], mark), folder, engine)
    places = pc.index_in(pa.array(found.closest, pa.string()), rows.ids).to_numpy()
    for place, (twin, similarity) in zip(places, found.closest.values(), strict=True):
        rows.twin[place], rows.similarity[place] = twin, similarity
    close = pc.index_in(pa.array(sorted(found.copies), pa.string()), rows.ids).to_numpy()
    rows.drop(close, "near_test", "feature", rows.twin[close], rows.similarity[close])
    return found.measured | {"threshold": found.threshold}


def _counts(table: pa.Table) -> Row:
    reasons = table["reason"].drop_null().value_counts().to_pylist()
    dropped = sum(row["counts"] for row in reasons)
    return {"rows": table.num_rows, "dropped": dropped, "reasons": {row["values"]: row["counts"] for row in reasons}}
