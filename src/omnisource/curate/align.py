"""Class shares: what teachers say of web units without a query, brought nearer to the target's classes (ours).

Of data from elsewhere a teacher may call half `walk` that shows something else. The shares of the classes in the target
tell how often it should. For each source and kind of unit there are weights w with which the mean of p_c w_c, scaled to
sum to 1, is the target's share of every class (Saerens et al. 2002; distribution alignment, Berthelot et al. 2020).
Applied is w^a: 1 brings the shares there, 0 leaves them, for the web need not show what the target does.

A unit with a query is left alone: how many samples of a class there are was then the search's doing.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from omnisource.curate.drawn import drawn_probs
from omnisource.tables import database, view_table

F64 = npt.NDArray[np.float64]

_LEAST = 50  # units of a source and kind; the shares of fewer say little
_ROUNDS = 500
_CLOSE = 1e-6

Weights = dict[tuple[str, str], F64]
"""(source, unit) -> (classes,), scaled so that their geometric mean is 1."""


def class_shares(samples: Path, classes: Sequence[str]) -> F64:
    """(classes,) shares of the classes in the target's training samples, each counted once more than it is there."""
    with database(samples.parent) as db:
        view_table(db, "samples", samples)
        rows = db.execute(
            """SELECT label, count(*) FROM samples WHERE role = 'target' AND split = 'train' AND status = 'ok'
            GROUP BY label"""
        ).fetchall()
    counts = dict(rows)
    found = np.array([1.0 + counts.get(label, 0) for label in classes])
    shares: F64 = found / found.sum()
    return shares


def class_weights(db: duckdb.DuckDBPyConnection, view: str, shares: F64) -> Weights:
    """The weights of every source and kind of unit without queries in a view of `units`."""
    kinds = db.execute(f"SELECT DISTINCT source, unit FROM {view} WHERE query IS NULL ORDER BY ALL").fetchall()
    where = "query IS NULL AND source = $source AND unit = $unit"
    found: Weights = {}
    for source, unit in kinds:
        probs = drawn_probs(db, view, where, {"source": source, "unit": unit}, len(shares))
        if len(probs) >= _LEAST:
            found[source, unit] = weights_for(probs, shares)
    return found


def weights_for(probs: F64, shares: F64) -> F64:
    """w with which the mean over rows of p_c w_c, scaled to sum to 1, is `shares`; scaled to a geometric mean of 1.

    Args:
        probs: (N, classes).
        shares: (classes,), above 0, of sum 1.
    """
    logs = np.log(np.maximum(probs, 1e-12))
    added = np.zeros(len(shares))
    for _ in range(_ROUNDS):
        raised = logs + added
        raised = np.exp(raised - raised.max(1, keepdims=True))
        change = np.log(shares) - np.log((raised / raised.sum(1, keepdims=True)).mean(0))
        added += change
        if np.abs(change).max() < _CLOSE:
            break
    weights: F64 = np.exp(added - added.mean())
    return weights


# `units` with the classes of units without a query weighted by the table `class_weights`; {plain} has the teacher's,
# {none} is what these give to none of our classes (units.py).
ALIGNED = """
    SELECT * EXCLUDE (aligned) REPLACE (
        coalesce(aligned, probs) AS probs,
        CASE WHEN aligned IS NULL THEN top ELSE list_position(aligned, list_max(aligned)) - 1 END AS top,
        CASE WHEN aligned IS NULL THEN top_prob ELSE list_max(aligned) END AS top_prob
    ) FROM (
        SELECT * EXCLUDE (raised),
               list_transform(raised, lambda p: (p / list_sum(raised) * (1 - {none}))::FLOAT) AS aligned
        FROM (
            SELECT plain.*, CASE WHEN weights IS NOT NULL AND query IS NULL
                THEN list_transform(probs, lambda p, i: p::DOUBLE * weights[i]) END AS raised
            FROM {plain} AS plain LEFT JOIN class_weights USING (source, unit)
        )
    )"""
