"""The field's list formats, each a small reader that yields entries: a path as written, a label, what else is there.

folders   <class>/<file>, or train|val|test/<class>/<file>
table     CSV, TSV or Parquet with named columns
lines     `path label` and `path label num_clips positive positive ...` (10-second parts of a long video)
kinetics  CSV of label, youtube_id, time_start, time_end[, split]
ucf101    the folder of trainlistNN.txt and testlistNN.txt (fold = NN)
hmdb51    the folder of CLASS_test_splitN.txt (1 train, 2 test, 0 unused; fold = N)
json      a list of objects, {"data_list": [...]}, or {"database": {...}} with segments

A row that is wrong is an entry that says so (`fault`), and the others go on; a file that is none of these a UserError.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, ParamSpec

from omnisource.errors import UserError
from omnisource.ingest.rows import csv_rows, lines_of, numbered, parquet_rows
from omnisource.ingest.values import NOT_UTF8, SPLITS, check_text, number_of, piece_of, shown, text_of, whole_of
from omnisource.progress import say

P = ParamSpec("P")

MEDIA_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".3gp", ".ogv"),
}
PART_S = 10.0  # length of the numbered parts of a long video in the released lists
_MAX_JSON_BYTES = 2 * 2**30
_VIDEO = 'expected {"subset": ..., "annotations": [{"label": ..., "segment": [start, end]}, ...]}'


@dataclass(frozen=True)
class Entry:
    """One line of a list. `path` and `split` are as written there; `columns` keeps every value under its name."""

    path: str
    label: str | None = None
    split: str | None = None
    fold: int | None = None
    group: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    place: str = ""  # the file and where in it, of what has no other place than its row
    fault: str | None = None  # what is wrong with the row, of which then nothing but the place is known


def _tried(where: str, read: Callable[P, Iterable[Entry]], *args: P.args, **kwargs: P.kwargs) -> list[Entry]:
    """What `read` makes of the row at `where`; of one that is wrong an entry that says so."""
    try:
        return list(read(*args, **kwargs))
    except UserError as error:
        return [faulty(where, str(error))]


def faulty(where: str, fault: str) -> Entry:
    """The entry of a row with which something is wrong."""
    return Entry("", place=where, fault=fault)


def detect_layout(path: Path) -> str:
    """The layout of a folder or file, by its name and first lines."""
    if path.is_dir():
        names = [child.name for child in sorted(path.iterdir())]
        if any(re.fullmatch(r"(train|test)list0?\d\.txt", name) for name in names):
            return "ucf101"
        return "hmdb51" if any(re.fullmatch(r".+_test_split\d\.txt", name) for name in names) else "folders"
    if path.suffix in (".json", ".parquet"):
        return {".json": "json", ".parquet": "table"}[path.suffix]
    first = next(lines_of(path), "").strip()
    if path.suffix in (".csv", ".tsv") or "," in first or "\t" in first:
        columns = {word.strip('"') for word in re.split(r"[,\t]", first)}
        return "kinetics" if {"youtube_id", "time_start"} <= columns else "table"
    return "lines"


def folders_in(path: Path) -> list[Path]:
    """The folders in a folder, by name; not hidden ones."""
    return [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]


def is_by_split(path: Path) -> bool:
    """Whether the folders in a folder are called train, val and test.

    Raises:
        UserError: two of them are, and others are not: that would make classes of all.
    """
    folders = folders_in(path)
    others = [child.name for child in folders if child.name.lower() not in SPLITS]
    if others and len({SPLITS[child.name.lower()] for child in folders if child.name.lower() in SPLITS}) > 1:
        raise UserError(
            f"{path / others[0]}: beside folders called as splits, so these can't be told from classes; move it "
            "elsewhere, or what belongs to a split into that one's class folders"
        )
    return bool(folders) and not others


def read_folders(path: Path) -> Iterator[Entry]:
    """Every file in the class folders of `path`, or of its folders train, val and test.

    Says which class folders are empty, and of which media it makes nothing because they lie in none.

    Raises:
        UserError: folders beside train, val and test.
    """
    by_split = is_by_split(path)
    for top in folders_in(path) if by_split else [path]:
        for folder in folders_in(top):
            split = SPLITS[top.name.lower()] if by_split else None
            # Any file in a class folder is a claim to be media: what it really is, `probe` finds out.
            names = _files(folder, f"{folder.relative_to(path)}/")
            first = next(names, None)
            if first is None:
                say(f"{folder}: no files in this class folder")
                continue
            for name in chain([first], names):
                yield Entry(name, folder.name, split, columns={"label": folder.name})
    _tell_loose([path, *folders_in(path)] if by_split else [path])


def _tell_loose(folders: Iterable[Path]) -> None:
    """Says of which media files in these folders no sample is made."""
    found = [file for folder in folders for file in sorted(folder.glob("[!.]*")) if file.is_file()]
    loose = [file for file in found if file.suffix.lower() in MEDIA_SUFFIXES]
    if loose:
        say(f"left out (in no class folder): {len(loose)} media files, first {loose[0]}")


def read_files(path: Path) -> Iterator[Entry]:
    """Every file below `path`, without a label."""
    for name in _files(path):
        yield Entry(name, columns={"path": name})


def _files(folder: Path, prefix: str = "") -> Iterator[str]:
    """The files below a folder by name, `prefix` before each; not in links to folders, nor what is hidden."""
    try:
        with os.scandir(folder) as found:
            here = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except PermissionError:
        say(f"{folder}: no permission to read this folder; its files are left out")
        return
    for entry in here:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/")
        elif os.path.isfile(entry.path):  # noqa: PTH113
            yield f"{prefix}{entry.name}"


def read_table_rows(path: Path, columns: dict[str, str], web: bool = False) -> Iterator[Entry]:
    """Rows of a table, of `web` data or the target's; `columns` maps our names to the file's where they differ."""
    names, rows = parquet_rows(path) if path.suffix == ".parquet" else csv_rows(path)
    if not names:
        raise UserError(f"{path}: empty; a table begins with a line that names its columns, such as path,label")
    columns = _of_queries(columns, names) if web else columns
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise UserError(f"{path}: two columns are called {shown(twice[0])}; rename one of them")
    for ours, theirs in {"path": "path", **columns}.items():
        if theirs not in names:
            has = shown(", ".join(names)).strip("'\"")
            raise UserError(f"{path}: no column '{theirs}' (for {ours}); it has: {has}; set `columns`")
    for where, row in rows:
        if isinstance(row, str):
            yield faulty(where, f"{where}: {row}")
        else:
            yield from _tried(where, _table_entry, row, columns, where)


def _of_queries(columns: dict[str, str], names: Container[str]) -> dict[str, str]:
    """The columns of web data: what was asked for is the label, where one says that and none is mapped to it."""
    asked = columns.get("query", "query")
    return {"label": asked, **columns} if asked in names else columns


def _table_entry(row: dict[str, Any], columns: dict[str, str], where: str) -> Iterator[Entry]:
    # NaN is how tables with gaps write what is not there.
    row = {name: None if value == "" or value != value else value for name, value in row.items()}
    name, label = (row.get(columns.get(ours, ours)) for ours in ("path", "label"))
    if name is None:
        raise UserError(f"{where}: the row has no path")
    yield _entry(row, columns, name, label, where)


def _entry(row: dict[str, Any], columns: dict[str, str], path: object, label: object, where: str) -> Entry:
    """What a row of a table, or an object of a JSON list, says of its file."""
    split, fold, group = (row.get(columns.get(ours, ours)) for ours in ("split", "fold", "group"))
    start, end = (row.get(columns.get(ours, "")) for ours in ("start_s", "end_s"))
    said = row | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    name = text_of(path, where, "path")
    if name is None:
        raise UserError(f"{where}: its path is empty")
    for column, value in row.items():
        check_text(value, where, column)
    return Entry(
        name,
        text_of(label, where, "label"),
        None if split is None else str(split),
        whole_of(fold, where, "fold"),
        text_of(group, where, "group"),
        *piece_of(start, end, where),
        columns={name: value for name, value in said.items() if not isinstance(value, list | dict)},
        place=where,
    )


def read_lines(path: Path, root: Path) -> Iterator[Entry]:
    """`path label` lines, and the released untrimmed form whose numbers after the label name positive 10 s parts.

    A part is the file `path/part_K.mp4` where it exists, else seconds 10 K to 10 K + 10 of the video `path`.
    """
    for where, line in numbered(path):
        yield from _tried(where, _line_entries, line, root, where)


def _line_entries(line: str, root: Path, where: str) -> Iterator[Entry]:
    check_text(line, where, "line")
    words = line.split()
    if len(words) == 1:
        yield Entry(words[0], place=where)
    elif len(words) == 2:
        yield Entry(words[0], words[1], columns={"label": words[1]}, place=where)
    else:
        name, label, count, *positives = words
        if not all(re.fullmatch(r"[0-9]{1,9}", word) for word in (count, *positives)):
            raise UserError(
                f"{where}: expected `path label` or `path label num_clips positive ...` (names with spaces "
                f"need a table, such as CSV), found: {shown(line.strip())}"
            )
        yield from _parts(root, name, label, int(count), map(int, positives), where)


def _parts(
    root: Path, name: str, label: str | None, count: int, positives: Iterable[int], where: str
) -> Iterator[Entry]:
    """The positive 10 s parts of a long video, as the released lists number them."""
    for part in positives:
        columns = {"label": label, "part": part, "num_clips": count}
        start_s, end_s = piece_of(part * PART_S, (part + 1) * PART_S, where)
        file = f"{name}/part_{part}.mp4"
        if os.path.exists(root / file):  # noqa: PTH110 (pathlib's raises for a name that is too long)
            yield Entry(file, label, group=name, columns=columns, place=where)
        else:
            yield Entry(name, label, None, None, name, start_s, end_s, columns, where)


def read_kinetics(path: Path, root: Path) -> Iterator[Entry]:
    """Kinetics CSV. A clip is looked for as ID_START_END.*, ID.*, both also in a folder of its class or split."""
    available = _stems(root)
    for entry in read_table_rows(path, {"path": "youtube_id"}):
        if entry.fault is None:
            yield from _tried(entry.place, _kinetics_clip, entry, available)
        else:
            yield entry


def _kinetics_clip(entry: Entry, available: dict[str, str]) -> Iterator[Entry]:
    for name in ("time_start", "time_end"):
        if entry.columns.get(name) is None:
            raise UserError(f"{entry.place}: no {name}; a Kinetics list has label, youtube_id, time_start, time_end")
        number_of(entry.columns[name], entry.place, name)
    start, end = (
        int(second or 0) for second in piece_of(entry.columns["time_start"], entry.columns["time_end"], entry.place)
    )
    stem = f"{entry.path}_{start:06d}_{end:06d}"
    found = available.get(stem) or available.get(f"{entry.path}_{start}_{end}") or available.get(entry.path)
    yield replace(entry, path=found or f"{stem}.mp4", group=entry.path)


def read_ucf101(path: Path) -> Iterator[Entry]:
    """The three official splits: every video appears once per fold, as train or test."""
    for file in sorted(path.iterdir()):
        if match := re.fullmatch(r"(train|test)list0?(\d)\.txt", file.name):
            for where, line in numbered(file):
                yield from _tried(where, _ucf101_clip, line, match[1], int(match[2]), where)


def _ucf101_clip(line: str, split: str, fold: int, where: str) -> Iterator[Entry]:
    check_text(line, where, "line")
    name = line.split()[0]
    label = Path(name).parent.name
    columns = {"fold": fold, "split": split, "label": label}
    yield Entry(name, label, split, fold, columns=columns, place=where)


def read_hmdb51(path: Path) -> Iterator[Entry]:
    """The three official splits; videos marked 0 take no part in a fold."""
    for file in sorted(path.iterdir()):
        if match := re.fullmatch(r"(.+)_test_split(\d)\.txt", file.name):
            for where, line in numbered(file):
                yield from _tried(where, _hmdb51_clip, line, match[1], int(match[2]), where)


def _hmdb51_clip(line: str, label: str, fold: int, where: str) -> Iterator[Entry]:
    check_text(line, where, "line")
    words = line.split()
    if len(words) != 2 or words[1] not in ("0", "1", "2"):
        raise UserError(f"{where}: expected `video 0`, 1 or 2, found: {shown(line.strip())}")
    if words[1] != "0":
        split = "train" if words[1] == "1" else "test"
        columns = {"fold": fold, "split": split, "label": label}
        yield Entry(f"{label}/{words[0]}", label, split, fold, columns=columns, place=where)


def read_json(path: Path, root: Path, columns: dict[str, str], web: bool = False) -> Iterator[Entry]:
    """Lists of objects (also under "data_list"), and databases of videos with labelled segments.

    `positive_clip_inds` of an object names positive 10 s parts, as in `read_lines`. An `id` may be the name of a file
    without its suffix (Something-Something).
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise UserError(f"{path}: a JSON list larger than {_MAX_JSON_BYTES >> 20} MB; give it as Parquet or CSV")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: {NOT_UTF8}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if isinstance(content, dict) and isinstance(content.get("database"), dict):
        yield from _segments(path, content["database"], root)
        return
    items = content.get("data_list") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise UserError(f"{path}: expected a list of objects, or one under 'data_list' or 'database'")
    by_id = any(isinstance(item, dict) and "id" in item for item in items)
    available = _stems(root) if by_id else {}
    for number, item in enumerate(items):
        where = f"{path}: entry {number}"
        ours = _of_queries(columns, item) if web and isinstance(item, dict) else columns
        yield from _tried(where, _object_entries, item, root, available, ours, where)


def _object_entries(
    item: Any, root: Path, available: dict[str, str], columns: dict[str, str], where: str
) -> Iterator[Entry]:
    """What an object of a JSON list says."""
    path_names = [columns.get("path", ""), "path", "filename", "video_path", "filepath", "video", "id"]
    label_names = [columns.get("label", ""), "label", "class", "query", "template"]
    if not isinstance(item, dict):
        raise UserError(f"{where} is no object but {shown(item)}")
    key, name = next(((key, item[key]) for key in path_names if key in item), ("", None))
    if key == "id":
        name = available.get(str(name), name)
    if name is None:
        raise UserError(f"{where} has none of: {', '.join(path_names[1:])}; set `columns: {{path: ...}}`")
    label = next((item[key] for key in label_names if key in item), None)
    if positives := item.get("positive_clip_inds"):
        if not isinstance(positives, list):
            raise UserError(f"{where}: positive_clip_inds is no list of numbers")
        count = whole_of(item.get("num_clips"), where, "num_clips") or 0
        numbers = [whole_of(str(part), where, "positive_clip_inds") or 0 for part in positives]
        video, label = text_of(name, where, "path"), text_of(label, where, "label")
        yield from _parts(root, video or "", label, count, numbers, where)
    else:
        yield _entry(item, columns, name, label, where)


def _segments(path: Path, database: dict[str, Any], root: Path) -> Iterator[Entry]:
    """The labelled segments of a database's videos; without any a video has no rows."""
    available = _stems(root)
    for video, facts in database.items():
        where, name = f"{path}: video '{video}'", available.get(video) or available.get(f"v_{video}") or f"{video}.mp4"
        pieces = facts.get("annotations", []) if isinstance(facts, dict) else None
        if not isinstance(pieces, list):
            yield faulty(where, f"{where}: {_VIDEO}")
            continue
        for number, piece in enumerate(pieces):
            at = f"{where}, segment {number}"
            yield from _tried(at, _segment, piece, name, video, facts.get("subset"), at)


def _segment(piece: Any, name: str, video: str, subset: Any, where: str) -> Iterator[Entry]:
    try:
        label, (start, end) = piece["label"], piece["segment"]
    except (KeyError, TypeError, ValueError):
        label = start = end = None
    if None in (label, start, end):
        raise UserError(f"{where}: {_VIDEO}")
    label, group, times = text_of(label, where, "label"), text_of(video, where, "name"), piece_of(start, end, where)
    split = None if subset is None else str(subset)
    yield Entry(name, label, split, None, group, *times, {"subset": subset}, where)


def _stems(root: Path) -> dict[str, str]:
    """Media below `root` by file name without suffix, two folders deep (as the field's downloaders lay them)."""
    found: dict[str, str] = {}
    for pattern in ("*/*/*", "*/*", "*"):
        for file in sorted(root.glob(pattern)):
            if file.suffix.lower() in MEDIA_SUFFIXES:
                found[file.stem] = str(file.relative_to(root))
    return found
