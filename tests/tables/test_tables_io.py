"""Tables survive crashes; journals resume and leave no trace of the order of work."""

import errno
import math
import os
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisource.errors import UserError
from omnisource.tables import (
    DUPLICATES,
    SCORES,
    Journal,
    database,
    digest_file,
    digest_table,
    merge,
    read_batches,
    read_table,
    table_from_rows,
    view_table,
    write_atomic,
    write_batches,
    write_table,
    writing,
)

ROWS = [{"sample_id": f"s{i:03d}", "status": "ok", "similarity": i / 7} for i in range(50)]


def test_pieces_gather_into_groups_of_rows_or_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = table_from_rows(ROWS[:7], DUPLICATES).to_batches(max_chunksize=1)
    path = tmp_path / "duplicates.parquet"

    def groups(pieces: list[pa.RecordBatch]) -> list[int]:
        write_batches(path, DUPLICATES, pieces)
        found = pq.ParquetFile(path).metadata
        return [found.row_group(number).num_rows for number in range(found.num_row_groups)]

    assert groups(pieces) == [7] and read_table(path).to_pylist() == table_from_rows(ROWS[:7], DUPLICATES).to_pylist()
    assert sum(groups([])) == 0 and read_table(path).schema.equals(DUPLICATES)
    monkeypatch.setattr("omnisource.tables.io._GROUP_ROWS", 3)
    assert groups(pieces) == [3, 3, 1]
    assert groups(pieces[:6]) == [3, 3]
    monkeypatch.setattr("omnisource.tables.io._GROUP_ROWS", 1000)
    monkeypatch.setattr("omnisource.tables.io._GROUP_BYTES", 2 * pieces[0].nbytes)
    assert groups(pieces) == [2, 2, 2, 1]


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[bool] = []
    sizes: list[int] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        named.append((tmp_path / "t").exists())
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_atomic(tmp_path / "t", b"content")
    assert named == [False, True], "first what is in it, then the folder that names it"
    assert sizes[0] == len(b"content")


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.ENOSPC, "space"), (errno.EDQUOT, "space"), (errno.EACCES, "not writable"), (errno.EROFS, "not writable")],
)
def test_what_hinders_writing_is_said_in_one_line(tmp_path: Path, code: int, says: str) -> None:
    with pytest.raises(UserError, match=f"t: .*{says}"), writing(tmp_path / "t"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), writing(tmp_path / "t"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_only_the_columns_that_are_asked_for_must_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "duplicates.parquet"
    rows = [{"sample_id": name, "status": "ok", "similarity": value} for name, value in (("a", 0.5), ("b", math.nan))]
    write_table(path, table_from_rows(rows, DUPLICATES).drop_columns(["rule"]))
    assert read_table(path, ["sample_id"])["sample_id"].to_pylist() == ["a", "b"]
    for column, says in (("rule", "no column 'rule'"), ("similarity", "column 'similarity' has rows with NaN")):
        with pytest.raises(UserError, match=says):
            read_table(path, [column])


def test_write_and_read(tmp_path: Path) -> None:
    table = table_from_rows(ROWS, DUPLICATES)
    write_table(tmp_path / "deep" / "t.parquet", table)
    assert read_table(tmp_path / "deep" / "t.parquet").equals(table)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["t.parquet"]


def test_a_full_disk_leaves_the_old_table(tmp_path: Path) -> None:
    table = table_from_rows(ROWS, DUPLICATES)
    write_table(tmp_path / "t.parquet", table.slice(0, 3))
    (tmp_path / f".t.parquet.{os.getpid()}.tmp").symlink_to("/dev/full")  # every write there: no space left
    with pytest.raises(UserError, match=r"t\.parquet: the disk"):
        write_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet").num_rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        table_from_rows([{"sample_id": "a", "status": "ok", "colour": 1}], DUPLICATES)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `omnisource score` first"):
        read_table(tmp_path / "scores.parquet")
    (tmp_path / "bad.parquet").write_text("hello")
    with pytest.raises(UserError, match="not a readable Parquet table"):
        read_table(tmp_path / "bad.parquet")


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(5, 25))
def test_order_and_interruptions_leave_no_trace(tmp_path_factory: pytest.TempPathFactory, seed: int, step: int) -> None:
    folder = tmp_path_factory.mktemp("journal")
    rows = list(ROWS)
    random.Random(seed).shuffle(rows)
    for start in range(0, len(rows), step):
        journal = Journal(folder / "part", DUPLICATES, ["sample_id"], "f1")  # reopened: as after a crash
        assert journal.done() == {row["sample_id"] for row in rows[:start]}
        journal.append(rows[start : start + step])
    journal = Journal(folder / "part", DUPLICATES, ["sample_id"], "f1")
    table = journal.table()
    journal.compact(folder / "t.parquet")
    assert read_table(folder / "t.parquet").equals(table)
    assert digest_file(folder / "t.parquet") == digest_table(table_from_rows(ROWS, DUPLICATES))
    assert journal.done() == {row["sample_id"] for row in rows}  # until the stage has its record


@pytest.mark.parametrize("written", [False, True])
def test_ctrl_c_while_a_part_is_saved_writes_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    monkeypatch.setattr("omnisource.tables.journal._PART_ROWS", 5)

    class Interrupted(Journal):
        def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
            rows = list(rows)
            if written:
                super().append(rows)
            if rows == ROWS[5:10]:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted(tmp_path / "part", DUPLICATES, ["sample_id"], "f1").fill([row] for row in ROWS)
    journal = Journal(tmp_path / "part", DUPLICATES, ["sample_id"], "f1")
    assert len(journal.done()) == (10 if written else 0)
    done = journal.done()
    journal.fill([row] for row in ROWS if row["sample_id"] not in done)
    journal.compact(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").equals(table_from_rows(ROWS, DUPLICATES))


def test_a_journal_of_other_settings_is_emptied(tmp_path: Path) -> None:
    Journal(tmp_path / "part", DUPLICATES, ["sample_id"], "f1").append(ROWS[:3])
    assert Journal(tmp_path / "part", DUPLICATES, ["sample_id"], "f2").done() == set()


def test_half_written_parts_are_ignored(tmp_path: Path) -> None:
    Journal(tmp_path / "part", DUPLICATES, ["sample_id"], "f1").append(ROWS[:3])
    (tmp_path / "part" / ".00000001.parquet.123.tmp").write_bytes(b"PAR1 half")
    journal = Journal(tmp_path / "part", DUPLICATES, ["sample_id"], "f1")
    assert len(journal.done()) == 3
    assert not list((tmp_path / "part").glob(".*.tmp"))


@pytest.mark.parametrize("query", ["FROM numbers", "FROM numbers ORDER BY name"])
def test_damage_behind_the_first_rows_is_named_too(tmp_path: Path, query: str) -> None:
    path = tmp_path / "numbers.parquet"
    names = pa.table({"name": [f"{number:x}" for number in range(20_000)]})
    pq.write_table(names, path, compression="zstd", row_group_size=5_000)
    begin = pq.read_metadata(path).row_group(3).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 2_000] = bytes(2_000)
    path.write_bytes(content)
    with (
        pytest.raises(UserError, match=r"numbers\.parquet: not a readable Parquet table .*delete it"),
        database(tmp_path) as db,
    ):
        view_table(db, "numbers", path)
        for _ in db.sql(query).to_arrow_reader(1_000):
            pass


def test_a_damaged_table_is_named_to_whoever_queries_it(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    with duckdb.connect() as db:
        with pytest.raises(UserError, match=r"scores\.parquet: no such table; run `omnisource score` first"):
            view_table(db, "scores", path)
        path.write_bytes(b"PAR1 and then nothing")
        with pytest.raises(UserError, match=r"scores\.parquet: not a readable Parquet table .*delete it"):
            view_table(db, "scores", path)
        write_table(path, pa.table({"sample_id": ["a", "b"]}))
        with pytest.raises(UserError, match=r"scores\.parquet: .*no column 'teacher'"):
            view_table(db, "scores", path)
        path = tmp_path / "others.parquet"
        write_table(path, pa.table({"sample_id": ["a", "b"]}))
        view_table(db, "scores", path, numbered=True)
        assert db.sql("SELECT sample_id, file_row_number FROM scores ORDER BY 1").fetchall() == [("a", 0), ("b", 1)]


def test_a_table_made_by_hand_is_checked_column_by_column(tmp_path: Path) -> None:
    path = tmp_path / "duplicates.parquet"
    good = {"sample_id": ["a"], "status": ["ok"], "reason": [None], "rule": [None], "twin_id": [None]}
    table = pa.table(good, schema=pa.schema([DUPLICATES.field(name) for name in good]))
    wide = table.append_column("similarity", pa.array([0.5], pa.float32())).append_column("note", pa.array([1]))
    wide = wide.set_column(1, "status", wide["status"].dictionary_encode())
    write_table(path, wide)
    assert read_table(path).num_rows == 1, "other widths of a type and columns of one's own are taken"
    for changed, says in (
        (wide.drop_columns(["twin_id"]), "no column 'twin_id'"),
        (wide.set_column(0, "sample_id", pa.array([7])), "column 'sample_id' is int64, not string"),
        (wide.set_column(0, "sample_id", pa.array([None], pa.string())), "'sample_id' has rows without a value"),
    ):
        write_table(path, changed)
        with pytest.raises(UserError, match=f"duplicates.parquet: .*{says}"):
            read_table(path)
    assert read_table(path, ["similarity"]).num_rows == 1, "only what is asked for must be there"


def test_journals_merge_on_disk_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties and unknown times among them, lists of all kinds, in more pieces than one."""
    monkeypatch.setattr("omnisource.tables.io._GROUP_ROWS", 50)
    monkeypatch.setattr("omnisource.tables.journal._MERGE_ROWS", 7)
    draw, keys = random.Random(0), ["sample_id", "teacher", "unit", "start_s"]
    journals = [Journal(tmp_path / name, SCORES, keys, "f1") for name in ("second", "first")]
    for journal in journals:
        for _ in range(12):
            journal.append(
                {
                    "sample_id": f"s{draw.randrange(6)}",
                    "teacher": draw.choice("tu"),
                    "unit": "frame",
                    "start_s": draw.choice([None, 0.5, 1.0]),
                    "entropy": draw.random(),
                    "probs": draw.choice([None, [], [draw.random(), 0.5]]),
                    "feature": draw.choice([None, [np.float16(draw.random()), np.float16(6e-8)]]),
                    "status": "ok",
                }
                for _ in range(7)
            )
    merge(journals, tmp_path / "t.parquet", SCORES)
    rows = pa.concat_tables(journal.table() for journal in journals)
    expected = rows.take(pc.sort_indices(rows, sort_keys=[(key, "ascending") for key in keys]))
    assert read_table(tmp_path / "t.parquet").equals(expected)
    damaged = next((tmp_path / "first").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"{damaged}: not a readable Parquet table .*delete it"):
        merge(journals, tmp_path / "t.parquet", SCORES)


def test_numbers_and_texts_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "duplicates.parquet"
    table = table_from_rows(ROWS, DUPLICATES)
    place = table.schema.get_field_index("similarity")
    for value in (float("nan"), float("inf")):
        spoilt = pa.array([value] * len(table), table.schema.field(place).type)
        write_table(path, table.set_column(place, table.schema.field(place), spoilt))
        with pytest.raises(UserError, match=r"duplicates\.parquet: .*'similarity' has rows with NaN or infinity"):
            read_table(path)
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")]
    )
    write_table(tmp_path / "t.parquet", pa.table({"path": text}))
    for read in (lambda path: read_table(path), lambda path: list(read_batches(path))):
        with pytest.raises(UserError, match=r"t\.parquet: not a readable Parquet table .*UTF8"):
            read(tmp_path / "t.parquet")
    write_table(path, table.append_column("rule", table["rule"]))
    with pytest.raises(UserError, match="two columns 'rule'"):
        read_table(path)


def _cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-20])


def _poor(part: Path) -> None:
    write_table(part, read_table(part).drop_columns(["sample_id"]))


def _other(part: Path) -> None:
    write_table(part, read_table(part).drop_columns(["sample_id"]).append_column("sample_id", [[[1]] * 25]))


@pytest.mark.parametrize("spoil", [_cut, _poor, _other])
def test_a_spoilt_part_of_a_journal_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    journal = Journal(tmp_path / "journal", DUPLICATES, ["sample_id"], "mark")
    journal.append(ROWS[:25])
    journal.append(ROWS[25:])
    spoil(journal.parts()[1])
    for use in (journal.done, journal.table, lambda: journal.compact(tmp_path / "duplicates.parquet")):
        with pytest.raises(UserError, match=r"00000001\.parquet: not a readable Parquet table"):
            use()
