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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnisource.errors import UserError
from omnisource.tables import read_batches, read_schema

SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "validate": "val", "valid": "val"}
SPLITS |= {"test": "test", "testing": "test"}
MEDIA_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".3gp", ".ogv"),
}
PART_S = 10.0  # length of the numbered parts of a long video in the released lists
_MAX_JSON_BYTES = 2 * 2**30


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
    first = next(_lines(path), "")
    if path.suffix in (".csv", ".tsv") or "," in first or "\t" in first:
        return "kinetics" if {"youtube_id", "time_start"} <= set(re.split(r"[,\t]", first)) else "table"
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
    rows: Iterable[dict[str, Any]]
    if path.suffix == ".parquet":
        names = list(read_schema(path).names)
        rows = (row for batch in read_batches(path) for row in batch.to_pylist())
    else:
        lines = _lines(path)
        header = next(lines, "")
        delimiter = "\t" if "\t" in header else ";" if ";" in header and "," not in header else ","
        names = next(csv.reader([header], delimiter=delimiter), [])
        rows = _csv_rows(path, csv.DictReader(lines, fieldnames=names, delimiter=delimiter))
    if not names:
        raise UserError(f"{path}: empty; a table begins with a line that names its columns, such as path,label")
    for ours, theirs in {"path": "path", **columns}.items():
        if theirs not in names:
            raise UserError(f"{path}: no column '{theirs}' (for {ours}); it has: {', '.join(names)}; set `columns`")
    for number, row in enumerate(rows, start=2):
        row = {name: value for name, value in row.items() if isinstance(name, str) and value not in (None, "")}
        get = {ours: row.get(columns.get(ours, ours)) for ours in ("path", "label", "split", "fold", "group")}
        if get["path"] is None:
            raise UserError(f"{path}:{number}: the row has no path")
        start_s, end_s = (
            _number(row.get(columns.get(name, "")), float, f"{path}:{number}", name) for name in ("start_s", "end_s")
        )
        if start_s is not None and end_s is not None and start_s >= end_s:
            raise UserError(f"{path}:{number}: ends at {end_s:g} s, but starts at {start_s:g} s")
        yield Entry(
            path=str(get["path"]),
            label=_text(get["label"]),
            split=_split(get["split"], f"{path}:{number}"),
            fold=_number(get["fold"], int, f"{path}:{number}", "fold"),
            group=_text(get["group"]),
            start_s=start_s,
            end_s=end_s,
            columns=row | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row},
        )


def _csv_rows(path: Path, rows: "csv.DictReader[str]") -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num + 1}: not readable as a table ({error}); is a quote missing?") from None


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
            if not all(word.isdigit() for word in (count, *positives)):
                raise UserError(
                    f"{path}:{number}: expected `path label` or `path label num_clips positive ...` (names with spaces "
                    f"need a table, such as CSV), found: {line[:80]}"
                )
            yield from _parts(root, name, label, int(count), map(int, positives))


def _parts(root: Path, name: str, label: str, count: int, positives: Iterable[int]) -> Iterator[Entry]:
    """The positive 10 s parts of a long video, as the released lists number them."""
    for part in positives:
        columns = {"label": label, "part": part, "num_clips": count}
        file = f"{name}/part_{part}.mp4"
        if (root / file).exists():
            yield Entry(file, label, group=name, columns=columns)
        else:
            yield Entry(name, label, None, None, name, part * PART_S, (part + 1) * PART_S, columns)


def read_kinetics(path: Path, root: Path) -> Iterator[Entry]:
    """Kinetics CSV. A clip is looked for as ID_START_END.*, ID.*, both also in a folder of its class or split."""
    available = _stems(root)
    for number, entry in enumerate(read_table_rows(path, {"path": "youtube_id"}), start=2):
        start, end = (
            _seconds(entry.columns.get(name), f"{path}:{number}", name) for name in ("time_start", "time_end")
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
            for words in (line.split() for line in _lines(file)):
                if len(words) == 2 and words[1] in ("1", "2"):
                    split = "train" if words[1] == "1" else "test"
                    columns = {"fold": fold, "split": split, "label": label}
                    yield Entry(f"{label}/{words[0]}", label, split, fold, columns=columns)


def read_json(path: Path, root: Path, columns: dict[str, str]) -> Iterator[Entry]:
    """Lists of objects (also under "data_list"), and databases of videos with labelled segments.

    `positive_clip_inds` of an object names positive 10 s parts, as in `read_lines`.
    """
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UserError(f"{path}: a JSON list larger than {_MAX_JSON_BYTES >> 20} MB; give it as Parquet or CSV")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
            raise UserError(f"{path}: entry {number} is no object but {str(item)[:40]!r}")
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
            count = _number(item.get("num_clips", 0), int, where, "num_clips")
            numbers = [_number(part, int, where, "positive_clip_inds") for part in positives]
            yield from _parts(root, str(name), str(label), count, numbers)
            continue
        yield Entry(
            str(name),
            _text(label),
            _split(item.get(columns.get("split", "split")), where),
            _number(item.get(columns.get("fold", "fold")), int, where, "fold"),
            _text(item.get(columns.get("group", "group"))),
            columns={key: value for key, value in item.items() if isinstance(value, bool | int | float | str)},
        )


def _segments(path: Path, database: dict[str, Any], root: Path) -> Iterator[Entry]:
    available = _stems(root)
    for video, facts in database.items():
        where = f"{path}: video '{video}'"
        name = available.get(video) or available.get(f"v_{video}") or f"{video}.mp4"
        try:
            subset = facts.get("subset")
            pieces = [(piece["label"], *piece["segment"]) for piece in facts.get("annotations", [])]
            labelled = [(str(label), float(start), float(end)) for label, start, end in pieces]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                f'{where}: expected {{"subset": ..., "annotations": [{{"label": ..., "segment": [start, end]}}, ...]}}'
            ) from None
        for label, start, end in labelled:
            yield Entry(name, label, _split(subset, where), None, video, start, end, {"subset": subset or ""})


def _stems(root: Path) -> dict[str, str]:
    """Media below `root` by file name without suffix, two folders deep (as the field's downloaders lay them)."""
    found: dict[str, str] = {}
    for pattern in ("*/*/*", "*/*", "*"):
        for file in sorted(root.glob(pattern)):
            if file.suffix.lower() in MEDIA_SUFFIXES:
                found[file.stem] = str(file.relative_to(root))
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text list (it is not UTF-8)") from None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _split(value: object, where: str) -> str | None:
    if value is None:
        return None
    if str(value).lower() not in SPLITS:
        raise UserError(
            f"{where}: split '{value}' is none of train, val, test; map it with `test:` and `val:` conditions"
        )
    return SPLITS[str(value).lower()]


def _seconds(value: object, where: str, name: str) -> int:
    if value is None:
        raise UserError(f"{where}: no {name}; a Kinetics list has label, youtube_id, time_start, time_end")
    return int(_number(value, float, where, name))


def _number(value: object, kind: Callable[[str], Any], where: str, name: str) -> Any:
    if value is None:
        return None
    try:
        return kind(str(value))
    except ValueError:
        raise UserError(f"{where}: {name} '{value}' is not a number") from None
