"""The rules of a selection as SQL over the scores table (paper, section 3.2): one decision per scored unit.

DuckDB does all that is done to a row. Rules look at one sample at a time, so a big table is decided range by range of
sample ids, in their order, and memory does not grow with the table. What needs a look at all rows first (a quantile, a
cap) is brought down to one boundary per class beforehand.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from omnisource.curate.units import RANGE_ROWS, in_ranges
from omnisource.recipe import Select
from omnisource.tables import DECISIONS


@dataclass(frozen=True)
class Threshold:
    """A threshold that was found in data: of one class in units of one kind; None: of every source."""

    source: str | None
    unit: str
    label: str
    value: float


def judged(select: Select) -> str:
    """The column that holds the class whose probability a rule looks at: `query` or `top`."""
    if select.rule == "all":
        return "query" if select.label == "query" else "top"
    return "top" if select.rule == "teacher" else "query"


def decide(
    db: duckdb.DuckDBPyConnection,
    select: Select,
    overrides: pa.Table | None = None,
    found: Sequence[Threshold] = (),
    rows: int = RANGE_ROWS,
) -> Iterator[pa.Table]:
    """Tables of DECISIONS, which together have one row for every row of the view `units`, by sample, unit and start.

    Args:
        db: from `units`.
        select: the rule and its settings.
        overrides: human decisions, from `read_overrides`.
        found: thresholds that stand above those of sources and below those that `select` sets for classes.
        rows: decided at once, about.
    """
    _set_up(db, select, overrides, found)
    query = _DECIDE.format(
        ruled=_ruled(select),
        probs="probs" if select.label == "soft" else "NULL::FLOAT[]",
        negative_below=select.negative_below,
        capped=_OVER_CAP if select.cap_per_class else "SELECT * FROM ruled",
        human=_HUMAN if overrides is not None and overrides.num_rows else _NOBODY,
        merged=_MERGED if select.merge_windows else "SELECT * FROM overruled",
    )
    if select.cap_per_class:
        _gather(db, "candidates", _CANDIDATES.format(ruled=_ruled(select), by="given"), rows)
        db.execute(f"CREATE OR REPLACE TEMP TABLE last_kept AS {_LAST_KEPT.format(cap=select.cap_per_class)}")
        db.execute("DROP TABLE candidates")
    for _ in in_ranges(db, rows):
        yield db.sql(query).to_arrow_table().cast(DECISIONS)


def quantile_thresholds(
    db: duckdb.DuckDBPyConnection, select: Select, share: float, rows: int = RANGE_ROWS
) -> list[Threshold]:
    """For each source, unit and class the threshold that keeps `share` of what the rule would keep without threshold.

    At least one unit of each is kept, and all that are as sure as the last one kept.
    """
    open_ = select.model_copy(update={"threshold": 0.0, "per_source": {}, "per_class": {}})
    _set_up(db, open_, None, ())
    _gather(db, "candidates", _CANDIDATES.format(ruled=_ruled(open_), by="class"), rows)
    found = db.execute(
        """SELECT source, unit, name, confidence FROM (
            SELECT *, row_number() OVER groups AS number, count(*) OVER (PARTITION BY source, unit, class) AS size
            FROM candidates WINDOW groups AS (PARTITION BY source, unit, class ORDER BY confidence DESC)
        ) JOIN classes ON classes.place = class WHERE number = greatest(1, ceil(size * ? - 1e-9))""",
        [share],
    ).fetchall()
    db.execute("DROP TABLE candidates")
    return [Threshold(*row) for row in found]


def _set_up(
    db: duckdb.DuckDBPyConnection, select: Select, overrides: pa.Table | None, found: Sequence[Threshold]
) -> None:
    """Gives the queries the tables that they join."""
    for name, values in (("per_class", select.per_class), ("per_source", select.per_source)):
        db.register(name, pa.table({"name": pa.array(values, pa.string()), "value": pa.array(values.values(), _F64)}))
    rows = [(t.source, t.unit, t.label, t.value) for t in found]
    columns = [
        pa.array(column, kind)
        for column, kind in zip(zip(*rows, strict=True) if rows else [()] * 4, _FOUND, strict=True)
    ]
    db.register("found", pa.table(columns, ["source", "unit", "name", "value"]))
    if overrides is not None:
        db.register("overrides", overrides)


def _gather(db: duckdb.DuckDBPyConnection, name: str, query: str, rows: int) -> None:
    """Fills the new temporary table `name` with the query's rows of all ranges."""
    for number, _ in enumerate(in_ranges(db, rows)):
        db.execute(f"INSERT INTO {name} {query}" if number else f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")


def _ruled(select: Select) -> str:
    """The units and why the rule drops them."""
    return _RULED.format(
        judged=judged(select),
        given="top" if select.label in ("teacher", "soft") else "query",
        threshold=select.threshold,
        disagrees="top <> query" if select.rule == "agree" else "false",
        judges="false" if select.rule == "all" else "true",
        divided="NOT unanimous" if select.unanimous else "false",
    )


_F64 = pa.float64()
_FOUND = (pa.string(), pa.string(), pa.string(), _F64)

# Settings enter as numbers and fixed words; names only ever through registered tables.
_RULED = """
        SELECT judged.*, CASE
                WHEN status <> 'ok' THEN coalesce(reason, 'not_scored')
                WHEN class IS NULL OR given IS NULL THEN 'no_query'
                WHEN {disagrees} THEN 'teacher_disagrees'
                WHEN {judges} AND confidence < threshold THEN 'below_threshold'
                WHEN {divided} THEN 'teachers_divided'
            END AS why
        FROM (
            SELECT units.*, {judged} AS class, {judged}_prob AS confidence, {given} AS given,
                   coalesce(by_class.value, by_data.value, per_source.value, {threshold}) AS threshold
            FROM units
            LEFT JOIN (SELECT place, value FROM per_class JOIN classes USING (name)) AS by_class
                ON by_class.place = {judged}
            LEFT JOIN (SELECT source, unit, place, value FROM found JOIN classes USING (name)) AS by_data
                ON by_data.place = {judged} AND by_data.unit = units.unit
                AND (by_data.source IS NULL OR by_data.source = units.source)
            LEFT JOIN per_source ON per_source.name = units.source
        ) AS judged"""

_CANDIDATES = """
    SELECT source, unit, {by}, coalesce(confidence, -1) AS confidence, sample_id, coalesce(start_s, 0) AS start_s
    FROM ({ruled}) WHERE why IS NULL"""

# The boundary of each class: what comes after it, in this order, is over the cap.
_LAST_KEPT = """
    SELECT source, unit, given, confidence, sample_id, start_s FROM candidates
    QUALIFY row_number() OVER (
        PARTITION BY source, unit, given ORDER BY confidence DESC, sample_id, start_s
    ) = {cap}"""

_OVER_CAP = """
        SELECT ruled.* REPLACE (CASE WHEN why IS NULL AND (
            coalesce(ruled.confidence, -1) < last.confidence OR coalesce(ruled.confidence, -1) = last.confidence
            AND (ruled.sample_id > last.sample_id OR ruled.sample_id = last.sample_id AND ruled.start_s > last.start_s)
        ) THEN 'over_cap' ELSE why END AS why)
        FROM ruled LEFT JOIN last_kept AS last USING (source, unit, given)"""

_DECIDE = """
    WITH ruled AS ({ruled}
    ), capped AS ({capped}
    ), human AS ({human}
    ), overruled AS (
        SELECT capped.* EXCLUDE (probs), human.keep IS NOT NULL AS by_human,
               coalesce(human.keep, why IS NULL) AS keep,
               coalesce(human.label, given, query, top) AS label,
               CASE WHEN human.label IS NULL THEN {probs} END AS probs
        FROM capped LEFT JOIN human ON human.sample_id = capped.sample_id AND human.unit = capped.unit
            AND human.start_s IS NOT DISTINCT FROM capped.start_s
    ), merged AS ({merged}
    )
    SELECT sample_id, source, unit, start_s, end_s, keep,
           unit = 'frame' AND status = 'ok' AND NOT keep AND NOT by_human
               AND coalesce(query_prob < {negative_below}, why = 'below_threshold') AS negative,
           classes.name AS label, CASE WHEN keep THEN probs END AS probs, confidence,
           CASE WHEN NOT keep THEN CASE WHEN by_human THEN 'human' ELSE why END END AS reason,
           CASE WHEN by_human THEN 'human' ELSE 'rule' END AS decided_by
    FROM merged LEFT JOIN classes ON classes.place = label
    ORDER BY sample_id, unit, start_s"""

# The most specific of several decisions about one unit wins.
_HUMAN = """
        SELECT capped.sample_id, capped.unit, capped.start_s,
               arg_min(overrides.keep, rank) AS keep, arg_min_null(overrides.place, rank) AS label
        FROM capped JOIN (
            SELECT *, (start_s IS NULL)::INT * 2 + (unit IS NULL)::INT AS rank
            FROM overrides LEFT JOIN classes ON classes.name = overrides.label
        ) AS overrides ON overrides.sample_id = capped.sample_id
            AND (overrides.unit IS NULL OR overrides.unit = capped.unit)
            AND (overrides.start_s IS NULL OR abs(overrides.start_s - capped.start_s) < 1e-3)
        GROUP BY ALL"""

_NOBODY = """
        SELECT NULL::VARCHAR AS sample_id, NULL::VARCHAR AS unit, NULL::DOUBLE AS start_s, NULL::BOOLEAN AS keep,
               NULL::INT AS label WHERE false"""

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
