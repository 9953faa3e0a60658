"""What is wrong in a list is named in one line: the file, the place in it and what was expected. Good rows go on."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from omnisource.errors import UserError
from omnisource.ingest.conditions import wanted
from omnisource.ingest.listings import (
    Entry,
    detect_layout,
    read_files,
    read_folders,
    read_json,
    read_kinetics,
    read_lines,
    read_table_rows,
    read_ucf101,
)
from omnisource.recipe import Source
from omnisource.tables import write_table

KINETICS = "label,youtube_id,time_start,time_end\n"


def kinetics(path: Path) -> Iterator[Entry]:
    return read_kinetics(path, path.parent)


def pieces(path: Path) -> Iterator[Entry]:
    return read_table_rows(path, {"start_s": "from", "end_s": "to"})


def lines(path: Path) -> Iterator[Entry]:
    return read_lines(path, path.parent)


def database(path: Path) -> Iterator[Entry]:
    return read_json(path, path.parent, {})


def video(facts: object) -> str:
    return json.dumps({"database": {"v": facts}})


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (kinetics, "label,youtube_id,time_start\na,x,1\n", "list:2: no time_end; a Kinetics list has"),
        (kinetics, KINETICS + "a,x,1,2\nb,y,,\n", "list:3: no time_start"),
        (kinetics, KINETICS + "a,x,one,2\n", "list:2: time_start 'one' is not a number"),
        (pieces, "path,from,to\nx.mp4,30,20\n", "list:2: ends at 20 s, but starts at 30 s"),
        (pieces, 'path,from,to\n"' + "x" * 200_000, "not readable as a table .* is a quote missing"),
        (lines, "my film.mp4 jump\n", r"list:1: expected .*names with spaces need a table, such as CSV"),
        (database, video({"annotations": [{"label": "a"}]}), "list: video 'v', segment 0: expected"),
        (
            database,
            video({"annotations": [{"label": "a", "segment": ["p", "q"]}]}),
            "list: video 'v', segment 0: start 'p' is not",
        ),
        (database, video([1]), "list: video 'v': expected"),
        (database, video({"annotations": [{"label": None, "segment": [1, 2]}]}), "segment 0: expected"),
        (database, video({"annotations": [{"label": "a", "segment": [-1, 2]}]}), "segment 0: starts at -1 s"),
        (
            database,
            video({"annotations": [{"label": "a", "segment": [3, 2]}]}),
            "video 'v', segment 0: ends at 2 s, but starts at 3",
        ),
        (database, '[{"path": ["x"], "label": "a"}]', r"list: entry 0: path \['x'\] is not a text"),
        (database, '[{"path": "x", "label": {"a": 1}}]', r"list: entry 0: label \{'a': 1\} is not a text"),
        (
            database,
            '[{"path": "x", "positive_clip_inds": [null]}]',
            "entry 0: positive_clip_inds 'None' is not a number",
        ),
        (database, '[{"path": "x", "positive_clip_inds": [-3]}]', "list: entry 0: starts at -30 s"),
        (database, '[{"path": "x", "positive_clip_inds": "12"}]', "list: entry 0: positive_clip_inds is no list"),
        (lines, "x a 3 ²\n", r"list:1: expected `path label`"),
        (lines, "x a 3 " + "9" * 5000, "list:1: expected"),
        (kinetics, KINETICS + "a,x,inf,2\n", "list:2: time_start 'inf' is not a number"),
        (pieces, "path,from,to\nx.mp4,nan,20\n", "list:2: start 'nan' is not a number"),
        (pieces, "path,from,to\na,b.mp4,1,2\n", "list:2: 4 cells, but 3 columns; put what holds a ',' in quotes"),
        (pieces, 'path,from,to\n"a.mp4,1,2\nb.mp4,1,2\n', "list:2: not readable as a table .* is a quote missing"),
    ],
)
def test_rows_that_are_wrong(read: Callable[[Path], Iterator[Entry]], text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    assert any(re.search(expected, entry.fault or "") for entry in read(path))


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (pieces, "", "list: empty; a table begins with a line"),
        (lines, "x" * 2_000_000, "list: a line of more than"),
        (kinetics, "label,youtube_id,time_start,time_end,label\na,x,1,2,b\n", "two columns are called 'label'"),
        (kinetics, "x" * 200_000, "list:1: not readable as a table"),
        (lines, "caf\udce9 a\nx a\n", "not a text list, or not UTF-8 text; save it as UTF-8"),
        (database, '["caf\udce9"]', "list: not UTF-8 text; save it as UTF-8"),
        (database, "{}", "expected a list of objects, or one under"),
    ],
)
def test_files_that_are_no_lists(
    read: Callable[[Path], Iterator[Entry]], text: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=expected):
        list(read(path))


GOOD = [("x.mp4", 1, 2), ("y.mp4", 1, 2)]


@pytest.mark.parametrize(
    ("read", "text", "bad"),
    [
        (pieces, "path,from,to\r\nx.mp4,1,2\r\nx.mp4,3,2\r\n,1,2\r\ny.mp4,1,2,,\r\nz.mp4,1,2,3\r\n", [3, 4, 6]),
        (pieces, 'path,from,to\nx.mp4,1,2\n"x.mp4,1,2\n"y.mp4",1,2\n"z" q,1,2\n', [3, 5]),
        (pieces, "path,from,to\nx.mp4,1,2\ncaf\udce9.mp4,1,2\ny.mp4,1,2\n", [3]),
        (
            database,
            json.dumps(
                {
                    "database": {
                        "x": {
                            "annotations": [{"label": "a", "segment": s} for s in ([1, 2], [2, 2], [5, 3], [None, 2])]
                        },
                        "none": {"annotations": []},
                        "broken": 3,
                        "y": {"annotations": [{"label": "a", "segment": [1, 2]}]},
                    }
                }
            ),
            ["video 'x', segment 1", "video 'x', segment 2", "video 'x', segment 3", "video 'broken'"],
        ),
        (
            lambda path: read_json(path, path.parent, {"start_s": "from", "end_s": "to"}),
            json.dumps([{"id": i, "from": 1, "to": 2} for i in ("x.mp4", None, True, "y.mp4")] + [7, {}]),
            [f"entry {n}" for n in (1, 2, 4, 5)],
        ),
    ],
)
def test_good_rows_go_on(read: Callable[[Path], Iterator[Entry]], text: str, bad: list[object], tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(text.encode(errors="surrogateescape"))
    found = list(read(path))
    assert [(entry.path, entry.start_s, entry.end_s) for entry in found if entry.fault is None] == GOOD
    wrong = [entry for entry in found if entry.fault is not None]
    assert [entry.place.removeprefix(f"{path}:").strip() for entry in wrong] == [str(place) for place in bad]
    assert all((entry.fault or "").startswith(entry.place) for entry in wrong)


def test_gaps_of_tables(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    table = {"path": ["x", "y"], "label": ["a", "b"], "fold": [1.0, math.nan], "from": [math.nan, 2.0]}
    write_table(path, pa.table(table))
    first, second = read_table_rows(path, {"start_s": "from"})
    assert (first.fold, first.start_s, second.fold, second.start_s) == (1, None, None, 2)


def test_what_text_can_say_in_several_ways(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('path,fold,bad\n"a\nb.mp4",1.0,True\nc.mp4,,\n')
    first, second = read_table_rows(path, {})
    assert (first.path, first.fold, second.fold) == ("a\nb.mp4", 1, None)
    path.write_text("\ufeff" + json.dumps([{"path": "x", "from": 1, "to": 2}]))
    (entry,) = read_json(path, tmp_path, {"start_s": "from", "end_s": "to"})
    assert (entry.start_s, entry.end_s) == (1, 2)
    source = Source(role="web", path="x", where={"fold": 1, "bad": True})
    assert wanted(first.columns, source, "s")
    assert not wanted(second.columns, source, "s")  # an empty cell is no reason to say that there is no such column


@pytest.mark.parametrize("text", ["sep=;\npath;label\na,b;wave", 'path, label\n"a,b", wave', "path\tlabel\na,b\twave"])
def test_tables_as_programs_and_people_write_them(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text + "\nc\n")
    first, second = read_table_rows(path, {})
    assert (first.path, first.label, first.place) == ("a,b", "wave", f"{path}:{2 + text.startswith('sep')}")
    assert (second.path, second.label) == ("c", None)


@pytest.mark.parametrize("web", [True, False])
@pytest.mark.parametrize(
    ("columns", "asked"),
    [({}, "jump"), ({"query": "term"}, "leap"), ({"label": "label"}, "run"), ({"label": "term"}, "leap")],
)
def test_web_data_show_what_was_asked_for(columns: dict[str, str], asked: str, web: bool, tmp_path: Path) -> None:
    """Not what somebody may have labelled them, for scoring a filter, unless the recipe says so."""
    row = {"path": "a.mp4", "label": "run", "query": "jump", "term": "leap"}
    (tmp_path / "list.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    (tmp_path / "list.json").write_text(json.dumps([row]))
    table = read_table_rows(tmp_path / "list.csv", columns, web)
    objects = read_json(tmp_path / "list.json", tmp_path, columns, web)
    target = row[columns.get("label", "label")]
    assert [entry.label for entry in (*table, *objects)] == [asked if web else target] * 2


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label,,\nx.mp4,a,,\n")
    (entry,) = read_table_rows(path, {})
    assert (entry.path, entry.label, entry.fault) == ("x.mp4", "a", None)


def test_a_kinetics_clip_is_looked_for_and_keeps_its_name_where_it_is_not(tmp_path: Path) -> None:
    for name in ("b_000003_000013.mkv", "jump/c_3_13.mp4", "val/jump/d.webm", "e_000003_000014.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / "list.csv"
    path.write_text(KINETICS + "".join(f"jump,{name},3,13\n" for name in "abcde"))
    found = [(entry.path, entry.group, entry.start_s) for entry in kinetics(path)]
    names = ["a_000003_000013.mp4", "b_000003_000013.mkv", "jump/c_3_13.mp4", "val/jump/d.webm", "e_000003_000013.mp4"]
    assert found == [(name, group, None) for name, group in zip(names, "abcde", strict=True)]


def test_a_class_may_be_called_like_a_split_and_splits_may_be_in_capitals(tmp_path: Path) -> None:
    for name in ("classes/train/a.mp4", "classes/car/b.mp4", "splits/Train/jump/a.mp4", "splits/TEST/jump/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    classes, splits = (
        {(entry.path, entry.label, entry.split) for entry in read_folders(tmp_path / name)}
        for name in ("classes", "splits")
    )
    assert classes == {("train/a.mp4", "train", None), ("car/b.mp4", "car", None)}
    assert splits == {("Train/jump/a.mp4", "jump", "train"), ("TEST/jump/b.mp4", "jump", "test")}
    (tmp_path / "empty").touch()
    assert [detect_layout(tmp_path / name) for name in ("classes", "empty")] == ["folders", "lines"]


def test_no_number_is_in_no_range() -> None:
    source = Source(role="web", path="x", where={"score": {"above": 0.5}})
    for value in ("nan", [1], 10**400):
        with pytest.raises(UserError, match=r"sources\.s: column 'score' holds"):
            wanted({"score": value}, source, "s")


def test_a_folder_called_like_a_list(tmp_path: Path) -> None:
    (tmp_path / "trainlist01.txt").mkdir()
    with pytest.raises(UserError, match=r"trainlist01\.txt: cannot be read"):
        list(read_ucf101(tmp_path))


def test_what_begins_with_a_dot_is_left_out(tmp_path: Path) -> None:
    for name in ("train/jump/a.mp4", "test/jump/b.mp4", "train/jump/.thumbs/d.jpg", "test/.x/e.mp4", ".cache/x/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(entry.path, entry.label, entry.split) for entry in read_folders(tmp_path)]
    assert found == [("test/jump/b.mp4", "jump", "test"), ("train/jump/a.mp4", "jump", "train")]
    assert [entry.path for entry in read_files(tmp_path)] == ["test/jump/b.mp4", "train/jump/a.mp4"]


def test_a_column_of_no_name_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="columns: 'lable' is none of our names: path, label"):
        Source.model_validate({"role": "web", "path": "list.csv", "columns": {"lable": "query"}})


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("jump", "wave"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.mp4").touch()
    scan = os.scandir

    def guarded(folder: Path) -> Iterator[os.DirEntry[str]]:
        if folder.name == "jump":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    assert [entry.path for entry in read_folders(tmp_path)] == ["wave/a.mp4"]
    assert f"{tmp_path / 'jump'}: no permission" in capsys.readouterr().err
