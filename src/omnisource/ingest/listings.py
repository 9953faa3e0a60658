"""The field's list formats, each a small reader that yields entries: a path as written, a label, what else is there.

folders   <class>/<file>, or train|val|test/<class>/<file>
table     CSV, TSV or Parquet with named columns
lines     `path label` and `path label num_clips positive positive ...` (10-second parts of a long video)
kinetics  CSV of label, youtube_id, time_start, time_end[, split]
ucf101    the folder of trainlistNN.txt and testlistNN.txt (fold = NN)
hmdb51    the folder of CLASS_test_splitN.txt (1 train, 2 test, 0 unused; fold = N)
json      a list of objects, {"data_list": [...]}, or {"database": {...}} with segments
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from omnisource.errors import UserError
from omnisource.ingest.values import SPLITS, number_of, piece_of, shown, split_of, text_of, whole_of
from omnisource.tables import read_batches, read_schema

MEDIA_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".3gp", ".ogv"),
}
PART_S = 10.0  # length of the numbered parts of a long video in the released lists
_MAX_JSON_BYTES = 2 * 2**30
_MAX_LINE = 2**20  # characters


@dataclass(frozen=True)
class Entry:
    """One line of a list. `path` is as written there; `columns` keeps every value under its name."""

    path: str
    label: str | None = None
    split: str | None = None
    fold: int | None = None
    group: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    columns: dict[str, Any] = field(default_factory=dict)


def detect_layout(path: Path) -> str:
    """The layout of a folder or file, by its name and first lines."""
    if path.is_dir():
        names = [child.name for child in sorted(path.iterdir())]
        if any(re.fullmatch(r"(train|test)list0?\d\.txt", name) for name in names):
            return "ucf101"
        return "hmdb51" if any(re.fullmatch(r".+_test_split\d\.txt", name) for name in names) else "folders"
    if path.suffix in (".json", ".parquet"):
        return {".json": "json", ".parquet": "table"}[path.suffix]
    first = next(_lines(path), "").strip()
    if path.suffix in (".csv", ".tsv") or "," in first or "\t" in first:
        columns = {word.strip('"') for word in re.split(r"[,\t]", first)}
        return "kinetics" if {"youtube_id", "time_start"} <= columns else "table"
    return "lines"


def read_folders(path: Path) -> Iterator[Entry]:
    """Every media file below `path`; the last folder but the file's own splits is its class."""
    folders = [child for child in sorted(path.iterdir()) if child.is_dir()]
    by_split = bool(folders) and all(child.name.lower() in SPLITS for child in folders)
    for top in folders if by_split else [path]:
        classes = [child for child in sorted(top.iterdir()) if child.is_dir() and not child.name.startswith(".")]
        for folder in classes:
            split = SPLITS[top.name.lower()] if by_split else None
            # Any file in a class folder is a claim to be media: what it really is, `probe` finds out.
            for name in _files(folder, f"{folder.relative_to(path)}/"):
                yield Entry(name, folder.name, split, columns={"label": folder.name})


def read_files(path: Path) -> Iterator[Entry]:
    """Every file below `path`, without a label."""
    for name in _files(path):
        yield Entry(name, columns={"path": name})


def _files(folder: Path, prefix: str = "") -> Iterator[str]:
    """The files below a folder by name, `prefix` before each; not hidden ones, nor those behind links to folders."""
    try:
        with os.scandir(folder) as found:
            here = sorted(found, key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in here:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/")
        elif not entry.name.startswith(".") and os.path.isfile(entry.path):  # noqa: PTH113
            yield f"{prefix}{entry.name}"


def read_table_rows(path: Path, columns: dict[str, str]) -> Iterator[Entry]:
    """Rows of a table; `columns` maps our names to the file's where they differ."""
    return (entry for _, entry in _table_entries(path, columns))


def _table_entries(path: Path, columns: dict[str, str]) -> Iterator[tuple[str, Entry]]:
    """Where in the file each row of a table is, and what it says."""
    names, rows = _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)
    if not names:
        raise UserError(f"{path}: empty; a table begins with a line that names its columns, such as path,label")
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise UserError(f"{path}: two columns are called {shown(twice[0])}; rename one of them")
    for ours, theirs in {"path": "path", **columns}.items():
        if theirs not in names:
            has = shown(", ".join(names)).strip("'\"")
            raise UserError(f"{path}: no column '{theirs}' (for {ours}); it has: {has}; set `columns`")
    for where, row in rows:
        row = {name: None if value == "" else value for name, value in row.items()}
        name, label = (row.get(columns.get(ours, ours)) for ours in ("path", "label"))
        if name is None:
            raise UserError(f"{where}: the row has no path")
        yield where, _entry(row, columns, name, label, where)


def _entry(row: dict[str, Any], columns: dict[str, str], path: object, label: object, where: str) -> Entry:
    """What a row of a table, or an object of a JSON list, says of its file."""
    split, fold, group = (row.get(columns.get(ours, ours)) for ours in ("split", "fold", "group"))
    start, end = (row.get(columns.get(ours, "")) for ours in ("start_s", "end_s"))
    said = row | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    name = text_of(path, where, "path")
    if name is None:
        raise UserError(f"{where}: its path is empty")
    return Entry(
        name,
        text_of(label, where, "label"),
        split_of(split, where),
        whole_of(fold, where, "fold"),
        text_of(group, where, "group"),
        *piece_of(start, end, where),
        columns={name: value for name, value in said.items() if not isinstance(value, list | dict)},
    )


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, Any]]]]:
    rows = (row for batch in read_batches(path) for row in batch.to_pylist())
    return list(read_schema(path).names), ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def _csv_rows(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, Any]]]]:
    lines = _lines(path)
    header = next(lines, "")
    delimiter = "\t" if "\t" in header else ";" if ";" in header and "," not in header else ","
    # Strict: what follows a quote that is never closed would else be swallowed without a word.
    table = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)

    def cells() -> Iterator[list[str]]:
        try:
            yield from table
        except csv.Error as error:
            raise UserError(
                f"{path}:{table.line_num}: not readable as a table ({error}); is a quote missing?"
            ) from None

    found = cells()
    names = next(found, [])

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for row in found:
            where = f"{path}:{table.line_num}"
            if any(row[len(names) :]):
                raise UserError(
                    f"{where}: {len(row)} cells, but {len(names)} columns; put what holds a {delimiter!r} in quotes"
                )
            if row:
                yield where, dict.fromkeys(names, "") | dict(zip(names, row, strict=False))

    return names, rows()


def read_lines(path: Path, root: Path) -> Iterator[Entry]:
    """`path label` lines, and the released untrimmed form whose numbers after the label name positive 10 s parts.

    A part is the file `path/part_K.mp4` where it exists, else seconds 10 K to 10 K + 10 of the video `path`.
    """
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) == 1:
            yield Entry(words[0])
        elif len(words) == 2:
            yield Entry(words[0], words[1], columns={"label": words[1]})
        else:
            name, label, count, *positives = words
            if not all(re.fullmatch(r"[0-9]{1,9}", word) for word in (count, *positives)):
                raise UserError(
                    f"{path}:{number}: expected `path label` or `path label num_clips positive ...` (names with spaces "
                    f"need a table, such as CSV), found: {shown(line.strip())}"
                )
            yield from _parts(root, name, label, int(count), map(int, positives), f"{path}:{number}")


def _parts(
    root: Path, name: str, label: str | None, count: int, positives: Iterable[int], where: str
) -> Iterator[Entry]:
    """The positive 10 s parts of a long video, as the released lists number them."""
    for part in positives:
        columns = {"label": label, "part": part, "num_clips": count}
        start_s, end_s = piece_of(part * PART_S, (part + 1) * PART_S, where)
        file = f"{name}/part_{part}.mp4"
        if os.path.exists(root / file):  # noqa: PTH110 (pathlib's raises for a name that is too long)
            yield Entry(file, label, group=name, columns=columns)
        else:
            yield Entry(name, label, None, None, name, start_s, end_s, columns)


def read_kinetics(path: Path, root: Path) -> Iterator[Entry]:
    """Kinetics CSV. A clip is looked for as ID_START_END.*, ID.*, both also in a folder of its class or split."""
    available = _stems(root)
    for where, entry in _table_entries(path, {"path": "youtube_id"}):
        for name in ("time_start", "time_end"):
            if entry.columns.get(name) is None:
                raise UserError(f"{where}: no {name}; a Kinetics list has label, youtube_id, time_start, time_end")
            number_of(entry.columns[name], where, name)
        start, end = (
            int(second or 0) for second in piece_of(entry.columns["time_start"], entry.columns["time_end"], where)
        )
        stem = f"{entry.path}_{start:06d}_{end:06d}"
        found = available.get(stem) or available.get(f"{entry.path}_{start}_{end}") or available.get(entry.path)
        yield Entry(found or f"{stem}.mp4", entry.label, entry.split, columns=entry.columns, group=entry.path)


def read_ucf101(path: Path) -> Iterator[Entry]:
    """The three official splits: every video appears once per fold, as train or test."""
    for file in sorted(path.iterdir()):
        if match := re.fullmatch(r"(train|test)list0?(\d)\.txt", file.name):
            split, fold = match[1], int(match[2])
            for words in (line.split() for line in _lines(file)):
                if words:
                    group = re.sub(r"_c\d+\.\w+$", "", Path(words[0]).name)
                    label = Path(words[0]).parent.name
                    columns = {"fold": fold, "split": split, "label": label}
                    yield Entry(words[0], label, split, fold, group, columns=columns)


def read_hmdb51(path: Path) -> Iterator[Entry]:
    """The three official splits; videos marked 0 take no part in a fold."""
    for file in sorted(path.iterdir()):
        if match := re.fullmatch(r"(.+)_test_split(\d)\.txt", file.name):
            label, fold = match[1], int(match[2])
            for number, line in enumerate(_lines(file), start=1):
                words = line.split()
                if words and (len(words) != 2 or words[1] not in ("0", "1", "2")):
                    raise UserError(f"{file}:{number}: expected `video 0`, 1 or 2, found: {shown(line.strip())}")
                if words and words[1] != "0":
                    split = "train" if words[1] == "1" else "test"
                    columns = {"fold": fold, "split": split, "label": label}
                    yield Entry(f"{label}/{words[0]}", label, split, fold, columns=columns)


def read_json(path: Path, root: Path, columns: dict[str, str]) -> Iterator[Entry]:
    """Lists of objects (also under "data_list"), and databases of videos with labelled segments.

    `positive_clip_inds` of an object names positive 10 s parts, as in `read_lines`.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise UserError(f"{path}: a JSON list larger than {_MAX_JSON_BYTES >> 20} MB; give it as Parquet or CSV")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if isinstance(content, dict) and isinstance(content.get("database"), dict):
        yield from _segments(path, content["database"], root)
        return
    items = content.get("data_list") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise UserError(f"{path}: expected a list of objects, or one under 'data_list' or 'database'")
    path_names = [columns.get("path", ""), "path", "filename", "video_path", "filepath", "video", "id"]
    label_names = [columns.get("label", ""), "label", "class", "query", "template"]
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise UserError(f"{path}: entry {number} is no object but {shown(item)}")
        name = next((item[key] for key in path_names if key in item), None)
        if name is None:
            raise UserError(
                f"{path}: entry {number} has none of: {', '.join(path_names[1:])}; set `columns: {{path: ...}}`"
            )
        label = next((item[key] for key in label_names if key in item), None)
        where = f"{path}: entry {number}"
        if positives := item.get("positive_clip_inds"):
            if not isinstance(positives, list):
                raise UserError(f"{where}: positive_clip_inds is no list of numbers")
            count = whole_of(item.get("num_clips"), where, "num_clips") or 0
            numbers = [whole_of(str(part), where, "positive_clip_inds") or 0 for part in positives]
            video, label = text_of(name, where, "path"), text_of(label, where, "label")
            yield from _parts(root, video or "", label, count, numbers, where)
            continue
        yield _entry(item, columns, name, label, where)


def _segments(path: Path, database: dict[str, Any], root: Path) -> Iterator[Entry]:
    available = _stems(root)
    for video, facts in database.items():
        where = f"{path}: video '{video}'"
        name = available.get(video) or available.get(f"v_{video}") or f"{video}.mp4"
        try:
            subset = facts.get("subset")
            pieces = [(piece["label"], *piece["segment"]) for piece in facts.get("annotations", [])]
            labelled = [(label, start, end) for label, start, end in pieces if None not in (label, start, end)]
            if len(labelled) < len(pieces):
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                f'{where}: expected {{"subset": ..., "annotations": [{{"label": ..., "segment": [start, end]}}, ...]}}'
            ) from None
        for label, start, end in labelled:
            said = text_of(label, where, "label")
            times = piece_of(start, end, where)
            yield Entry(name, said, split_of(subset, where), None, video, *times, {"subset": subset})


def _stems(root: Path) -> dict[str, str]:
    """Media below `root` by file name without suffix, two folders deep (as the field's downloaders lay them)."""
    found: dict[str, str] = {}
    for pattern in ("*/*/*", "*/*", "*"):
        for file in sorted(root.glob(pattern)):
            if file.suffix.lower() in MEDIA_SUFFIXES:
                found[file.stem] = str(file.relative_to(root))
    return found


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text, with their ends."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while line := file.readline(_MAX_LINE):
                if len(line) == _MAX_LINE and not line.endswith(("\r", "\n")):
                    raise UserError(f"{path}: a line of more than {_MAX_LINE:,} characters; is this a list?")
                yield line
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text list (it is not UTF-8)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
