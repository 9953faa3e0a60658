"""DuckDB takes a bounded share of memory and disk, and nothing from the network."""

from importlib import import_module
from pathlib import Path

import duckdb
import pytest

from omnisource.scratch import sweep
from omnisource.tables import database
from omnisource.tables.database import machine_bytes


def setting(db: duckdb.DuckDBPyConnection, name: str) -> str:
    return str(db.execute("SELECT current_setting(?)", [name]).fetchall()[0][0])


def test_memory_is_a_share_of_the_machine_and_spills_beside_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("omnisource.tables.database"), "machine_bytes", lambda: 120 * 2**20)
    with database(tmp_path / "partial") as db:
        assert setting(db, "memory_limit") == "30.0 MiB"
        assert setting(db, "threads") == "1"
        (spill,) = (tmp_path / "partial").iterdir()
        assert setting(db, "temp_directory") == str(spill)
        sweep(tmp_path / "partial")  # by another process: this one still works here
        db.execute("CREATE TABLE big AS SELECT hash(i) AS h, repeat('x', 90) || i AS s FROM range(300000) AS t(i)")
        assert db.execute("SELECT count(*), count(DISTINCT h) FROM big").fetchall() == [(300_000, 300_000)]
    assert not list((tmp_path / "partial").iterdir())
    with database(tmp_path / "partial", 30_000_000) as db:
        assert setting(db, "memory_limit") == "28.6 MiB"


def test_nothing_is_fetched_from_the_network(tmp_path: Path) -> None:
    with database(tmp_path) as db, pytest.raises(duckdb.Error, match="httpfs"):
        db.sql("FROM read_parquet('http://127.0.0.1:9/t.parquet')")


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"memory.max": "max", "job/memory.max": "4096", "job/step/memory.max": "max"}, 4096),
        ("0::/\n", {"memory.max": "8192"}, 8192),
        ("0::/elsewhere\n", {"memory.max": "8192"}, 8192),
        (
            "4:cpu:/b\n5:memory:/a:1\n",
            {"memory/a:1/memory.limit_in_bytes": "20", "memory/b/memory.limit_in_bytes": "1"},
            20,
        ),
        ("5:cpu,memory:/a\n2:pids:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "2048"}, 2048),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, groups: str, limits: dict[str, str], expected: int) -> None:
    for name, content in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in limits.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert machine_bytes(tmp_path) == expected
    assert machine_bytes(tmp_path / "none") > expected  # the machine's own
