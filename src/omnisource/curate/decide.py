"""The rules of a selection as SQL over the scores table (paper, section 3.2): one decision per scored unit."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from omnisource.curate.overrides import OVERRIDES
from omnisource.errors import UserError
from omnisource.recipe import Select

MEMORY = "3GB"  # DuckDB spills to disk beyond it, so that 10 million rows fit beside a training


@contextmanager
def units(scores: Path, samples: Path, classes: Sequence[str], need_probs: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database whose view `units` has one row a scored unit, its teachers averaged.

    Columns: sample_id, source, unit, start_s, end_s, query, top (class names), query_prob, top_prob, probs (null unless
    `need_probs` or several teachers), status, reason. A unit that one of its teachers could not score is dropped.

    Raises:
        UserError: several teachers scored one unit, or soft labels are asked for, and the scores lack `probs`.
    """
    with tempfile.TemporaryDirectory(dir=scores.parent, prefix=".select-") as spill, duckdb.connect() as db:
        db.execute(f"SET memory_limit='{MEMORY}'")
        db.execute("SET temp_directory=?", [spill])
        db.execute("SET preserve_insertion_order=false")
        db.execute(f"SET threads={max(1, len(os.sched_getaffinity(0)))}")
        db.register("class_names", pa.table({"number": range(1, len(classes) + 1), "name": list(classes)}))
        db.execute("CREATE TABLE names AS SELECT list(name ORDER BY number) AS names FROM class_names")
        db.read_parquet(str(scores)).create_view("scores")
        db.read_parquet(str(samples)).create_view("samples")
        teachers = _one(
            db, "SELECT coalesce(max(n), 0) FROM (SELECT count(DISTINCT teacher) AS n FROM scores GROUP BY unit)"
        )
        several = teachers > 1
        if several or need_probs:
            missing = _one(db, "SELECT count(*) FROM scores WHERE status = 'ok' AND probs IS NULL")
            if missing:
                why = "several teachers score a unit" if several else "soft labels are asked for"
                raise UserError(f"{scores}: {why}, but the scores hold no full probabilities; set score.probs=true")
        db.execute(f"CREATE VIEW units AS {_UNITS.format(scored=_SEVERAL if several else _SINGLE)}")
        yield db


_SINGLE = """
    SELECT sample_id, unit, start_s, end_s, top_classes[1] + 1 AS top_at, top_probs[1] AS top_prob, query_prob, probs,
           status, reason
    FROM scores"""

# Averages class by class; lists are in the order of the class list.
_SEVERAL = """
    SELECT sample_id, unit, start_s, end_s, list_position(probs, list_max(probs)) AS top_at,
           list_max(probs) AS top_prob, query_prob, probs, status, reason
    FROM (
        SELECT sample_id, unit, start_s, any_value(end_s) AS end_s, avg(query_prob)::FLOAT AS query_prob,
               CASE WHEN bool_and(status = 'ok') THEN list_transform(
                   range(1, len(any_value(probs)) + 1),
                   lambda i: list_avg(list_transform(list(probs), lambda p: p[i]))::FLOAT
               ) END AS probs,
               CASE WHEN bool_and(status = 'ok') THEN 'ok' ELSE 'dropped' END AS status, any_value(reason) AS reason
        FROM scores GROUP BY sample_id, unit, start_s
    )"""

_UNITS = """
    SELECT scored.sample_id, samples.source, scored.unit, scored.start_s, scored.end_s,
           samples.query_label AS query, names.names[scored.top_at] AS top,
           scored.query_prob, scored.top_prob, scored.probs, scored.status, scored.reason
    FROM ({scored}) AS scored JOIN samples USING (sample_id), names"""


def _one(db: duckdb.DuckDBPyConnection, query: str) -> int:
    row = db.execute(query).fetchone()
    return int(row[0]) if row else 0


def judged(select: Select) -> str:
    """The column that holds the class whose probability a rule looks at: `query` or `top`."""
    if select.rule == "all":
        return "query" if select.label == "query" else "top"
    return "top" if select.rule == "teacher" else "query"


def decide(db: duckdb.DuckDBPyConnection, select: Select, overrides: pa.Table | None = None) -> duckdb.DuckDBPyRelation:
    """Decisions (columns of DECISIONS, ordered by sample, unit and start) for every row of the view `units`.

    Args:
        db: from `units`.
        select: the rule and its settings.
        overrides: human decisions, from `read_overrides`.
    """
    db.register("per_class", _mapping(select.per_class))
    db.register("per_source", _mapping(select.per_source))
    db.register("overrides", overrides if overrides is not None else OVERRIDES.empty_table())
    query = _DECIDE.format(
        judged=judged(select),
        prob=f"{judged(select)}_prob",
        label="top" if select.label in ("teacher", "soft") else "query",
        probs="probs" if select.label == "soft" else "NULL::FLOAT[]",
        threshold=select.threshold,
        negative_below=select.negative_below,
        disagrees="top <> query" if select.rule == "agree" else "false",
        judges="false" if select.rule == "all" else "true",
        cap=_CAPPED.format(cap=select.cap_per_class) if select.cap_per_class else "SELECT * FROM ruled",
        human=_HUMAN if overrides is not None and overrides.num_rows else _NOBODY,
        merge=_MERGED if select.merge_windows else "SELECT * FROM overruled",
    )
    return db.sql(query)


def _mapping(values: dict[str, float]) -> pa.Table:
    return pa.table({"name": pa.array(values.keys(), pa.string()), "value": pa.array(values.values(), pa.float64())})


# Settings enter as numbers and fixed words; names only ever through registered tables.
_DECIDE = """
    WITH judged AS (
        SELECT units.*, {judged} AS class, {prob} AS confidence, {label} AS given,
               coalesce(per_class.value, per_source.value, {threshold}) AS threshold
        FROM units
        LEFT JOIN per_class ON per_class.name = {judged}
        LEFT JOIN per_source ON per_source.name = units.source
    ), ruled AS (
        SELECT *, CASE
                WHEN status <> 'ok' THEN coalesce(reason, 'not_scored')
                WHEN class IS NULL OR given IS NULL THEN 'no_query'
                WHEN {disagrees} THEN 'teacher_disagrees'
                WHEN {judges} AND confidence < threshold THEN 'below_threshold'
            END AS why
        FROM judged
    ), capped AS ({cap}
    ), human AS ({human}
    ), overruled AS (
        SELECT capped.* EXCLUDE (probs), human.keep IS NOT NULL AS by_human,
               coalesce(human.keep, why IS NULL) AS keep,
               coalesce(human.label, given, query, top) AS label,
               CASE WHEN human.label IS NULL THEN {probs} END AS probs
        FROM capped LEFT JOIN human ON human.sample_id = capped.sample_id AND human.unit = capped.unit
            AND human.start_s IS NOT DISTINCT FROM capped.start_s
    ), merged AS ({merge}
    )
    SELECT sample_id, source, unit, start_s, end_s, keep,
           unit = 'frame' AND status = 'ok' AND NOT keep AND NOT by_human
               AND coalesce(query_prob < {negative_below}, why = 'below_threshold') AS negative,
           label, CASE WHEN keep THEN probs END AS probs, confidence,
           CASE WHEN NOT keep THEN CASE WHEN by_human THEN 'human' ELSE why END END AS reason,
           CASE WHEN by_human THEN 'human' ELSE 'rule' END AS decided_by
    FROM merged
    ORDER BY sample_id, unit, start_s"""

# The most specific of several decisions about one unit wins.
_HUMAN = """
        SELECT units.sample_id, units.unit, units.start_s,
               arg_min(overrides.keep, rank) AS keep, arg_min(overrides.label, rank) AS label
        FROM units JOIN (
            SELECT *, (start_s IS NULL)::INT * 2 + (unit IS NULL)::INT AS rank FROM overrides
        ) AS overrides ON overrides.sample_id = units.sample_id
            AND (overrides.unit IS NULL OR overrides.unit = units.unit)
            AND (overrides.start_s IS NULL OR abs(overrides.start_s - units.start_s) < 1e-3)
        GROUP BY ALL"""

_NOBODY = """
        SELECT NULL::VARCHAR AS sample_id, NULL::VARCHAR AS unit, NULL::DOUBLE AS start_s, NULL::BOOLEAN AS keep,
               NULL::VARCHAR AS label WHERE false"""

_CAPPED = """
        SELECT * REPLACE (CASE WHEN why IS NULL AND row_number() OVER (
            PARTITION BY source, unit, given, why IS NULL ORDER BY confidence DESC, sample_id, start_s
        ) > {cap} THEN 'over_cap' ELSE why END AS why) FROM ruled"""

# A run of kept windows of one label, each beginning before or where the last ended, becomes its first window.
_MERGED = """
        SELECT * EXCLUDE (begins, run, first, last) REPLACE (
            CASE WHEN first THEN last ELSE end_s END AS end_s,
            keep AND first AS keep,
            CASE WHEN keep AND NOT first THEN 'merged' ELSE why END AS why
        ) FROM (
            SELECT *, unit <> 'window' OR NOT keep OR begins AS first,
                   CASE WHEN unit = 'window' AND keep THEN max(end_s) OVER runs ELSE end_s END AS last
            FROM (SELECT *, sum(begins::INT) OVER pieces AS run FROM (
                SELECT *, coalesce(label <> lag(label) OVER pieces OR start_s > lag(end_s) OVER pieces + 1e-3, true)
                    AS begins
                FROM overruled WINDOW pieces AS (PARTITION BY sample_id, unit, keep ORDER BY start_s)
            ) WINDOW pieces AS (PARTITION BY sample_id, unit, keep ORDER BY start_s))
            WINDOW runs AS (PARTITION BY sample_id, unit, keep, run)
        )"""
