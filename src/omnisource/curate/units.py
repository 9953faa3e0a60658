"""The scores table as one row a scored unit, its teachers averaged; read range by range, so that memory stays small."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from omnisource.curate.align import ALIGNED, class_shares, class_weights
from omnisource.curate.trust import BELIEVED, query_trust
from omnisource.errors import UserError
from omnisource.recipe.curation import UNITS
from omnisource.tables import database, view_table

RANGE_ROWS = 500_000  # in one range, about
_DRAWN = 20_000  # sample ids from which the ranges are estimated

Temperatures = Mapping[tuple[str, str], float]
"""(teacher, unit) -> T."""


@contextmanager
def units(
    scores: Path,
    samples: Path,
    classes: Sequence[str],
    need_probs: bool = False,
    temperatures: Temperatures | None = None,
    query_evidence: bool = False,
    align: float = 0.0,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database whose view `units` has one row a scored unit, and whose table `classes` lists (place, name).

    Columns of `units`: sample_id, source, unit, start_s, end_s, query and top (places in the class list), query_prob,
    top_prob, probs (null unless `need_probs` or several teachers), unanimous (all its teachers' best class is the same
    one), status, reason. A unit that one of its teachers could not score is dropped. Inside `in_ranges` the view is a
    part of itself.

    Args:
        temperatures: probabilities p become p^(1/T), scaled to their old sum, before teachers are averaged.
        align: probabilities of units without a query are brought so far to the target's class shares (align.py), after
            the above. The table `class_weights` tells how.
        query_evidence: probabilities are those of teacher and query together (trust.py), after all the above.

    Raises:
        UserError: a column of the scores is missing or not filled; they lack `probs`, but several teachers, soft labels
            or a temperature need them; the disk is full.
    """
    with database(scores.parent) as db:
        db.execute("SET preserve_insertion_order=false")
        places = pa.array(range(len(classes)), pa.int32())
        db.register("class_list", pa.table({"place": places, "name": pa.array(classes, pa.string())}))
        db.execute("CREATE TABLE classes AS FROM class_list")
        for name, path in (("scores", scores), ("samples", samples)):
            view_table(db, f"all_{name}", path)
            db.execute(f"CREATE VIEW {name} AS FROM all_{name} WHERE {_IN_RANGE}")
        _check_words(db, scores)
        (teachers,) = db.execute(
            "SELECT coalesce(max(n), 0) FROM (SELECT count(DISTINCT teacher) AS n FROM scores GROUP BY unit)"
        ).fetchall()[0]
        several = teachers > 1
        need_probs = need_probs or query_evidence or align > 0
        if several or need_probs or temperatures:
            missing = db.execute("SELECT count(*) FROM scores WHERE status = 'ok' AND probs IS NULL").fetchall()[0][0]
            if missing:
                why = (
                    "several teachers score a unit"
                    if several
                    else "soft labels, a temperature, class shares or the query's evidence are asked for"
                )
                raise UserError(f"{scores}: {why}, but the scores hold no full probabilities; set score.probs=true")
        if temperatures:
            keys = [pa.array(column, pa.string()) for column in zip(*temperatures, strict=True)]
            power = pa.array([1 / value for value in temperatures.values()], pa.float64())
            db.register("powers", pa.table([*keys, power], ["teacher", "unit", "power"]))
            db.execute(f"CREATE VIEW tempered AS {_TEMPERED}")
        scored = (_SEVERAL if several else _SINGLE).format(
            scores="tempered" if temperatures else "scores", probs="probs" if need_probs else "NULL::FLOAT[]"
        )
        db.execute(f"CREATE VIEW plain AS {_UNITS.format(scored=scored)}")
        if align:
            db.execute("CREATE TABLE class_weights (source VARCHAR, unit VARCHAR, weights DOUBLE[])")
            for (source, unit), weights in class_weights(db, "plain", class_shares(samples, classes)).items():
                db.execute("INSERT INTO class_weights VALUES (?, ?, ?)", [source, unit, (weights**align).tolist()])
        db.execute(f"CREATE VIEW aligned AS {ALIGNED.format(plain='plain', none=_NONE) if align else 'FROM plain'}")
        if query_evidence:
            trust = query_trust(db, "aligned", len(classes))
            rows = [(source, unit, value) for (source, unit), value in trust.items()]
            db.execute("CREATE TABLE trust (source VARCHAR, unit VARCHAR, trust DOUBLE)")
            if rows:
                db.executemany("INSERT INTO trust VALUES (?, ?, ?)", rows)
            believed = BELIEVED.format(plain="aligned", none=_NONE, others=max(len(classes) - 1, 1))
            db.execute(f"CREATE VIEW units AS {believed}")
        else:
            db.execute("CREATE VIEW units AS FROM aligned")
        yield db


def _check_words(db: duckdb.DuckDBPyConnection, scores: Path) -> None:
    """Refuses scores (which may be made by hand) with other words in `unit` and `status` than there are, or with
    probabilities that are none: NaN would count as more than any threshold."""
    for name, allowed in (("unit", UNITS), ("status", ("ok", "dropped"))):
        values = ", ".join(f"'{value}'" for value in allowed)
        (count,) = db.execute(f"SELECT count(*) FROM all_scores WHERE {name} NOT IN ({values})").fetchall()[0]
        if count:
            raise UserError(
                f"{scores}: {count} rows have no valid `{name}`; write one of {', '.join(allowed)}, "
                "or delete the table and score again"
            )
    for name, value in (("query_prob", "query_prob"), ("top_probs", "top_probs[1]")):
        (count,) = db.execute(
            # Not by WHERE: it skips rows by a Parquet file's statistics, which know no NaN.
            f"SELECT count(*) FILTER (status = 'ok' AND {value} NOT BETWEEN -0.001 AND 1.001) FROM all_scores"
        ).fetchall()[0]
        if count:
            raise UserError(
                f"{scores}: {count} rows have no probability from 0 to 1 in `{name}`; mend them, or delete the table "
                "and score again"
            )


def in_ranges(db: duckdb.DuckDBPyConnection, rows: int = RANGE_ROWS) -> Iterator[None]:
    """Makes `units` one range of sample ids after another, about `rows` rows each; in the end all of it again.

    Together the ranges are everything, in the order of ids, and the pieces of one sample lie in one range.
    """
    count = db.execute("SELECT count(*) FROM all_scores").fetchall()[0][0]
    bounds: list[str | None] = []
    if count > rows:
        drawn = db.execute(
            f"SELECT sample_id FROM all_scores USING SAMPLE reservoir({_DRAWN} ROWS) REPEATABLE (0) ORDER BY 1"
        ).fetchnumpy()["sample_id"]
        parts = -(-count // rows)
        bounds = list(dict.fromkeys(str(drawn[len(drawn) * part // parts]) for part in range(1, parts)))
    try:
        for first, beyond in zip([None, *bounds], [*bounds, None], strict=True):
            db.execute("SET VARIABLE first = ?::VARCHAR", [first])
            db.execute("SET VARIABLE beyond = ?::VARCHAR", [beyond])
            yield
    finally:
        db.execute("SET VARIABLE first = NULL::VARCHAR")
        db.execute("SET VARIABLE beyond = NULL::VARCHAR")


_IN_RANGE = """
    (getvariable('first') IS NULL OR sample_id >= getvariable('first'))
    AND (getvariable('beyond') IS NULL OR sample_id < getvariable('beyond'))"""

# What a teacher from elsewhere gives to none of our classes; our own teachers' probabilities sum to 1, to rounding.
_NONE = "CASE WHEN list_sum(probs) < 0.999 THEN 1 - list_sum(probs)::DOUBLE ELSE 0.0::DOUBLE END"

# Where all powers would be too small for a number (a file from elsewhere gives our classes next to nothing) they are
# taken of shares of the largest probability, elsewhere of the probabilities as they are.
_TEMPERED = """
    SELECT sample_id, teacher, unit, start_s, end_s, top_classes,
           [((top_probs[1] / unit_of) ** power / total * mass)::FLOAT] AS top_probs,
           ((query_prob / unit_of) ** power / total * mass)::FLOAT AS query_prob,
           list_transform(probs, lambda p: ((p / unit_of) ** power / total * mass)::FLOAT) AS probs, status, reason
    FROM (
        SELECT *, greatest(list_sum(list_transform(probs, lambda p: (p / unit_of) ** power)), 1e-300) AS total
        FROM (
            SELECT scores.*, power, list_sum(probs)::DOUBLE AS mass,
                   CASE WHEN list_max(probs)::DOUBLE ** power > 1e-200 THEN 1.0::DOUBLE
                        ELSE greatest(list_max(probs)::DOUBLE, 1e-300) END AS unit_of
            FROM scores JOIN powers USING (teacher, unit)
        )
    )"""

_SINGLE = """
    SELECT sample_id, unit, start_s, end_s, top_classes[1] AS top, top_probs[1] AS top_prob, query_prob,
           {probs} AS probs, true AS unanimous, status, reason
    FROM {scores}"""

# Averages class by class; lists are in the order of the class list.
_SEVERAL = """
    SELECT sample_id, unit, start_s, end_s, list_position(probs, list_max(probs)) - 1 AS top,
           list_max(probs) AS top_prob, query_prob, probs, unanimous, status, reason
    FROM (
        SELECT sample_id, unit, start_s, any_value(end_s) AS end_s, avg(query_prob)::FLOAT AS query_prob,
               coalesce(min(top_classes[1]) = max(top_classes[1]), false) AS unanimous,
               CASE WHEN bool_and(status = 'ok') THEN list_transform(
                   range(1, len(any_value(probs)) + 1),
                   lambda i: list_avg(list_transform(list(probs), lambda p: p[i]))::FLOAT
               ) END AS probs,
               CASE WHEN bool_and(status = 'ok') THEN 'ok' ELSE 'dropped' END AS status, any_value(reason) AS reason
        FROM {scores} GROUP BY sample_id, unit, start_s
    )"""

_UNITS = """
    SELECT scored.sample_id, samples.source, scored.unit, scored.start_s, scored.end_s, classes.place AS query,
           scored.top, scored.query_prob, scored.top_prob, scored.probs, scored.unanimous,
           scored.status, scored.reason
    FROM ({scored}) AS scored JOIN samples USING (sample_id) LEFT JOIN classes ON classes.name = samples.query_label"""
