"""Probabilities of many scored units as one array: of so many that memory stays small, and of the same ones always."""

import math
from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

F64 = npt.NDArray[np.float64]

_UNITS = 50_000  # about


def drawn_probs(db: duckdb.DuckDBPyConnection, view: str, where: str, values: Mapping[str, Any], classes: int) -> F64:
    """Probabilities (N, classes) of up to about `_UNITS` rows of a view that satisfy `where`, the same in any order.

    Args:
        view: has sample_id, start_s, probs, status.
        where: SQL, in which `values` stand as $name.
    """
    query = f"""SELECT probs FROM {view} WHERE status = 'ok' AND probs IS NOT NULL AND {where}
        AND hash(sample_id, start_s) % $step = 0 ORDER BY sample_id, start_s"""
    (count,) = db.execute(f"SELECT count(*) FROM ({query})", {**values, "step": 1}).fetchall()[0]
    step = max(1, math.ceil(count / _UNITS))
    return as_array(db.sql(query, params={**values, "step": step}).to_arrow_table()["probs"], classes)


def as_array(lists: pa.ChunkedArray, classes: int) -> F64:
    """Lists of one length as an array (N, classes)."""
    flat = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    found: F64 = flat.reshape(-1, classes)
    return found
