"""The query as evidence (ours, not the paper's): how often queries are right, and what query and teacher say together.

A web sample's query names its true class with probability r, else any other class alike. A teacher that saw the sample
believes p. Together (Bayes):

    P(class c) ~ p_c r                       for the query's class
    P(class c) ~ p_c (1 - r) / (C - 1)       for every other, and for "none of ours" of a teacher from elsewhere

Where the teacher is unsure the query decides, where it is sure the teacher does. r is found for each source and kind of
unit: the likeliest, given what the teacher says of all its samples, and of four more of which two are right ("plus
four": Agresti and Coull, 1998). Without these the r of a few dozen samples about which the teacher says little runs to
0 or 1 by chance.
"""

from collections import defaultdict

import duckdb
import numpy as np

_BINS = 2000  # of the probability of the query's class
_PRIOR = 2.0  # samples whose query is right, and as many whose query is wrong, that are counted beside a source's own
_HALVINGS = 40
_LEAST, MOST_TRUST = 1e-3, 0.99  # what may come out

Trust = dict[tuple[str, str], float]
"""(source, unit) -> r."""


def query_trust(db: duckdb.DuckDBPyConnection, view: str, classes: int) -> Trust:
    """r for every source and kind of unit in a view of `units`; one pass over it, memory does not grow with it."""
    found: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    rows = db.execute(f"""
        SELECT source, unit, round(query_prob * {_BINS}) / {_BINS} AS prob, count(*)
        FROM {view} WHERE status = 'ok' AND query_prob IS NOT NULL GROUP BY ALL ORDER BY ALL""").fetchall()
    for source, unit, prob, count in rows:
        found[source, unit].append((prob, count))
    return {key: _likeliest(np.array(bins), classes) for key, bins in found.items()}


def _likeliest(bins: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", classes: int) -> float:
    """The r of the greatest posterior. Its logarithm is concave, so the slope's only zero is halved in on.

    bins: rows of (probability of the query's class, how many samples have it).
    """
    right, count = bins[:, 0], bins[:, 1]
    wrong = (1 - right) / max(classes - 1, 1)
    low, high = _LEAST, MOST_TRUST
    for _ in range(_HALVINGS):
        trust = (low + high) / 2
        either = np.maximum(right * trust + wrong * (1 - trust), 1e-12)
        slope = (count * (right - wrong) / either).sum() + _PRIOR / trust - _PRIOR / (1 - trust)
        low, high = (trust, high) if slope > 0 else (low, trust)
    return high


# `units` with the probabilities of query and teacher together; {plain} has the teacher's, {none} is what these give to
# none of our classes (units.py).
BELIEVED = """
    SELECT * EXCLUDE (belief) REPLACE (
        belief AS probs,
        CASE WHEN belief IS NULL THEN top ELSE list_position(belief, list_max(belief)) - 1 END AS top,
        CASE WHEN belief IS NULL THEN top_prob ELSE list_max(belief) END AS top_prob,
        CASE WHEN belief IS NULL THEN query_prob ELSE belief[query + 1] END AS query_prob
    ) FROM (
        SELECT * EXCLUDE (raised, trust, other),
               list_transform(raised, lambda p: (p / (list_sum(raised) + {none} * other))::FLOAT) AS belief
        FROM (
            SELECT plain.*, trust.trust, (1 - coalesce(trust, 0.5)) / {others} AS other, list_transform(probs,
                lambda p, i: p::DOUBLE * CASE WHEN i = query + 1 THEN coalesce(trust, 0.5) ELSE other END) AS raised
            FROM {plain} AS plain LEFT JOIN trust USING (source, unit)
        )
    )"""
