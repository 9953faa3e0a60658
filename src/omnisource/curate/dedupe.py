"""`dedupe`: copies within the web, and web samples too close to what the target is tested on (paper, section 3.1)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.curate.agree import Agreement
from omnisource.curate.closeness import compare
from omnisource.curate.detail import DETAIL
from omnisource.curate.embed import FEATURES
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.hamming import I64, keep_first, near_pairs
from omnisource.curate.motion import MOTION
from omnisource.curate.samples import Samples
from omnisource.media import Limits
from omnisource.recipe import Recipe
from omnisource.tables import DUPLICATES, Journal, view_table, write_table
from omnisource.workspace import StageRecord, Workspace

_SAME_LENGTH = 0.02  # videos with like pictures are copies only if their lengths differ by no more

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
        settings=settings.model_dump(mode="json"),
        after=["ingest", "probe"],
        outputs=[path],
        work=work,
    )


class _Rows:
    """Web samples, best first, and what became of them."""

    def __init__(self, table: pa.Table) -> None:
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
        self.ids: Strings = columns["sample_id"]
        self.sha256: Strings = columns["sha256"]
        self.phash: Strings = columns["phash"]
        self.format: Strings = columns["format"]
        self.duration_s = np.nan_to_num(columns["duration_s"].astype(np.float64))
        self.flat = columns["flat"].astype(bool)
        count = len(self.ids)
        self.reason: Strings = np.full(count, None, object)
        self.rule: Strings = np.full(count, None, object)
        self.twin: Strings = np.full(count, None, object)
        self.similarity = np.full(count, np.nan)

    @property
    def empty(self) -> bool:
        return len(self.ids) == 0

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        return ~_known(self.reason)

    def drop(self, which: npt.NDArray[np.int64], reason: str, rule: str, twins: Strings, similarity: Any) -> None:
        self.reason[which], self.rule[which] = reason, rule
        self.twin[which], self.similarity[which] = twins, similarity

    def table(self) -> pa.Table:
        order = np.argsort(self.ids.astype(str), kind="stable")
        similarity = self.similarity[order]
        return pa.table(
            {
                "sample_id": self.ids[order],
                "status": np.where(self.kept, "ok", "dropped")[order],
                "reason": pa.array(self.reason[order], pa.string()),
                "rule": pa.array(self.rule[order], pa.string()),
                "twin_id": pa.array(self.twin[order], pa.string()),
                # Rounded: the last bits depend on which files shared a batch, and so on where a run was interrupted.
                "similarity": pa.array(np.round(similarity, 4), mask=np.isnan(similarity)),
            },
            schema=DUPLICATES,
        )


def _web_rows(workspace: Workspace) -> _Rows:
    """Whole web samples: those with most pixels first, then most bytes, then by id, so that the best copy stays."""
    with duckdb.connect() as db:
        view_table(db, "samples", workspace.table("samples"))
        view_table(db, "probe", workspace.table("probe"))
        return _Rows(
            db.sql(
                """SELECT sample_id, sha256, phash, format, duration_s,
                       coalesce(list_contains(flags, 'black'), false) AS flat
                FROM samples AS s JOIN probe AS p USING (sample_id)
                WHERE role = 'web' AND s.status = 'ok' AND p.status = 'ok'
                ORDER BY width::BIGINT * height DESC NULLS LAST, p.bytes DESC NULLS LAST, sample_id"""
            ).to_arrow_table()
        )


def _known(values: Strings) -> npt.NDArray[np.bool_]:
    return np.array([bool(value) for value in values], bool)


def _exact(rows: _Rows) -> None:
    """Of files with the same content the first stays."""
    known = np.flatnonzero(_known(rows.sha256))
    if not len(known):
        return
    _, first, group = np.unique(rows.sha256[known].astype(str), return_index=True, return_inverse=True)
    original = known[first][group]
    copies = original != known
    rows.drop(known[copies], "duplicate_exact", "sha256", rows.ids[original[copies]], 1.0)


def _near(recipe: Recipe, workspace: Workspace, rows: _Rows, distance: int, engine: Engine) -> None:
    """Of samples of one format with like pictures the first stays; black ones all look alike, so they are left out.

    Videos must also be equally long and move alike, images of which a hash says little be alike in their details.
    """
    limits = recipe.probe.limits
    bounds = Limits(**limits.model_dump(exclude={"memory_bytes"}))
    hashed = rows.kept & ~rows.flat & _known(rows.phash)
    for format_ in ("image", "clip", "untrimmed"):
        mine = np.flatnonzero(hashed & (rows.format == format_))
        words = np.array([int(word, 16) for word in rows.phash[mine]], np.uint64)
        pairs = near_pairs(words, distance)
        samples = Samples(workspace, "web", [format_]).table()
        samples = samples.take(pc.index_in(pa.array(rows.ids[mine], pa.string()), samples["sample_id"]))
        if format_ != "image":
            pairs = _of_one_length(pairs, rows.duration_s[mine])
        glance = DETAIL if format_ == "image" else MOTION
        pairs = Agreement(glance, bounds, limits.memory_bytes, engine.workers).agreeing(pairs, samples)
        twin = keep_first(len(mine), pairs)
        copies = np.flatnonzero(twin >= 0)
        differing = np.bitwise_count(words[copies] ^ words[twin[copies]])
        rows.drop(mine[copies], "duplicate_near", "phash", rows.ids[mine[twin[copies]]], 1 - differing / 64)


def _of_one_length(pairs: Iterable[tuple[I64, I64]], duration_s: npt.NDArray[np.float64]) -> Iterator[tuple[I64, I64]]:
    """The pairs of videos that are equally long: one frame alone says too little about a video."""
    for a, b in pairs:
        longer = np.maximum(duration_s[a], duration_s[b])
        alike = np.abs(duration_s[a] - duration_s[b]) <= _SAME_LENGTH * longer
        yield a[alike], b[alike]


def _against_test(recipe: Recipe, workspace: Workspace, rows: _Rows, mark: str, engine: Engine) -> Row:
    """Drops what resembles a frame of the target's val or test split; returns what was measured."""
    held_out = list(Samples(workspace, "target", splits=("val", "test")))
    if not held_out:
        return {}
    web = Samples(workspace, "web").table(without=set(rows.ids[~rows.kept]))
    unrelated = list(Samples(workspace, "target", splits=("train",)))
    folder = workspace.partial("dedupe")
    found = compare(recipe, held_out, unrelated, web, Journal(folder, FEATURES, ["sample_id"], mark), folder, engine)
    places = np.flatnonzero(np.isin(rows.ids.astype(str), list(found.closest)))
    for place in places:
        rows.twin[place], rows.similarity[place] = found.closest[rows.ids[place]]
    close = places[np.isin(rows.ids[places].astype(str), list(found.copies))]
    rows.drop(close, "near_test", "feature", rows.twin[close], rows.similarity[close])
    return found.measured | {"threshold": found.threshold}


def _counts(table: pa.Table) -> Row:
    reasons = table["reason"].drop_null().value_counts().to_pylist()
    dropped = sum(row["counts"] for row in reasons)
    return {"rows": table.num_rows, "dropped": dropped, "reasons": {row["values"]: row["counts"] for row in reasons}}
