"""A list that is wrong somewhere is named in one line: the file, the place in it and what was expected."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omnisource.errors import UserError
from omnisource.ingest.listings import Entry, read_json, read_kinetics, read_lines, read_table_rows
from omnisource.recipe import Source

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
        (pieces, "", "list: empty; a table begins with a line"),
        (pieces, "path,from,to\nx.mp4,30,20\n", "list:2: ends at 20 s, but starts at 30 s"),
        (pieces, 'path,from,to\n"' + "x" * 200_000, "not readable as a table .* is a quote missing"),
        (lines, "my film.mp4 jump\n", r"list:1: expected .*names with spaces need a table, such as CSV"),
        (database, video({"annotations": [{"label": "a"}]}), "list: video 'v': expected"),
        (database, video({"annotations": [{"label": "a", "segment": ["p", "q"]}]}), "list: video 'v': expected"),
        (database, video([1]), "list: video 'v': expected"),
    ],
)
def test_one_line(read: Callable[[Path], Iterator[Entry]], text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(UserError, match=expected):
        list(read(path))


def test_a_column_of_no_name_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="columns: 'lable' is none of our names: path, label"):
        Source.model_validate({"role": "web", "path": "list.csv", "columns": {"lable": "query"}})
