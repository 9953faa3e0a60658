"""Rows found by their keys against a dictionary, tables read piece by piece against the whole."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.errors import UserError
from omnisource.tables import database
from omnisource.train.columns import Index, mapped, positions, read_columns, read_rows

# Some keys fall into one bucket, the others are spread.
KEYS = st.integers(0, 2**64 - 1) | st.integers(0, 9).map(lambda low: 7 << 58 | low << 40)


@given(st.lists(KEYS, unique=True, max_size=40), st.lists(KEYS, max_size=10))
def test_each_key_is_found_in_its_row_and_no_other(keys: list[int], others: list[int]) -> None:
    rows = {key: row for row, key in enumerate(keys)}
    wanted = [*others, *keys[::-1], 0, 2**64 - 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnisource.train.columns._ROWS", 3)
        found = Index(np.array(keys, np.uint64)).find(np.array(wanted, np.uint64))
    assert found.tolist() == [rows.get(key, -1) for key in wanted]


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(UserError, match="lists a sample twice"):
        Index(np.array([5 << 40, 1 << 60, 5 << 40], np.uint64))


@given(st.sets(st.integers(0, 20)), st.lists(st.integers(-1, 21)))
def test_positions_among_ascending_numbers(numbers: set[int], wanted: list[int]) -> None:
    ascending = sorted(numbers)
    found = positions(np.array(ascending, np.int32), np.array(wanted, np.int32))
    assert found.tolist() == [ascending.index(number) if number in numbers else -1 for number in wanted]


def test_tables_come_in_pieces_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.train.columns._ROWS", 2048)
    query = "SELECT i::INTEGER AS number, i / 2 AS half, 'name ' || i AS name FROM t WHERE i % 3 > 0"
    expected = np.array([i for i in range(9000) if i % 3])
    with database(tmp_path) as db:
        db.execute("CREATE TABLE t AS SELECT range AS i FROM range(9000)")
        whole = read_columns(db, "t", query)
        columns, rows = read_rows(db, "t", query, pa.schema([("name", pa.string())]), tmp_path)
        assert list(whole) == ["number", "half", "name"] and list(columns) == ["number", "half"]
        for found in (whole, columns):
            assert np.array_equal(found["number"], expected) and np.array_equal(found["half"], expected / 2)
        assert whole["name"].tolist() == [f"name {i}" for i in expected]
        assert len(rows) == 6000 and rows[5999] == {"name": "name 8999"} and rows[0] == {"name": "name 1"}
        assert np.array_equal(mapped(columns["number"], tmp_path), expected)
        assert len(mapped(columns["number"][:0], tmp_path)) == 0
    assert not list(tmp_path.iterdir())
