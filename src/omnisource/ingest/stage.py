"""`ingest`: the recipe's sources become the samples table."""

import difflib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.errors import UserError
from omnisource.ingest import listings
from omnisource.ingest.listings import Entry
from omnisource.progress import track
from omnisource.recipe import Range, Recipe, Source
from omnisource.tables import SAMPLES, digest_table, read_table, table_from_rows, write_table
from omnisource.workspace import StageRecord, Workspace

_ENDS_BYTES = 65536  # of a file's beginning and end that go into its sample id
_THREADS = 8
COLLECTED = "collected"  # table of the collect stage
_PASSED_ON = ("url", "page_url", "query", "author", "licence")


def ingest(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Lists every source, checks labels and splits, and writes the `samples` table.

    The listing is always read anew (it is cheap); when it comes out the same, the stage counts as current.

    Raises:
        UserError: a missing or empty source, an unknown label, a class without training clips, no test split.
    """
    rows: list[dict[str, Any]] = []
    for name, source in recipe.sources.items():
        rows += _source_rows(recipe, workspace, name, source)
    classes = recipe.class_list() or sorted({row["label"] for row in rows if row["role"] == "target" and row["label"]})
    _check_classes(recipe, classes)
    _settle_labels(recipe, rows, classes)
    table = table_from_rows(rows, SAMPLES)
    order = pc.sort_indices(table, sort_keys=[("source", "ascending"), ("sample_id", "ascending")])
    table = table.take(order)
    _check_unique(table)
    _check_target(recipe, table, classes)
    counts = _counts(table, classes)
    path = workspace.table("samples")

    def work(_: str) -> Mapping[str, Any]:
        write_table(path, table)
        return counts

    settings = {"table": digest_table(table), "classes": classes}
    return workspace.run_stage("ingest", settings=settings, after=[], outputs=[path], work=work)


def _source_rows(recipe: Recipe, workspace: Workspace, name: str, source: Source) -> list[dict[str, Any]]:
    if source.layout == "collected":
        return _collected_rows(workspace, name, source)
    path, layout = source_place(recipe, name)
    root = recipe.resolve(source.root) if source.root else path if path.is_dir() else path.parent
    entries = [entry for entry in _entries(path, root, source, layout) if _wanted(entry, source, name)]
    if not entries:
        raise UserError(
            f"{path}: source '{name}' has no files here; expected <class>/<file> folders or a list of paths"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        facts = list(track(pool.map(lambda e: _facts(root, e, name), entries), len(entries), f"listing {name}"))
    missing = [entry.path for entry, fact in zip(entries, facts, strict=True) if fact["reason"] == "missing"]
    if len(missing) == len(entries) or (missing and source.missing == "refuse"):
        raise UserError(
            f"{path}: {len(missing)} of {len(entries)} listed files are missing below {root}, first {missing[0]!r}; "
            f"set sources.{name}.root to where they are"
            + ("" if len(missing) == len(entries) else f", or sources.{name}.missing: drop")
        )
    names = _class_names(recipe, source)
    rows = [
        {
            "source": name,
            "role": source.role,
            "format": source.format,
            "label" if source.role == "target" else "query_label": source.labels.get(label or "", label),
            "split": (source.split or entry.split) if source.role == "target" else None,
            "fold": entry.fold,
            "group": entry.group,
            "start_s": entry.start_s,
            "end_s": entry.end_s,
            **{key: str(entry.columns[key]) for key in _PASSED_ON if key in entry.columns},
            **fact,
        }
        for entry, fact in zip(entries, facts, strict=True)
        for label in [names.get(entry.label or "", entry.label)]
    ]
    if source.licence:
        _keep_licences(rows, source)
    if source.role == "target":
        _split_target(rows, entries, source, name)
    return _first_of_class(rows, source.max_per_class)


def source_place(recipe: Recipe, name: str) -> tuple[Path, str]:
    """Where a source lies that is not collected, and in which layout.

    Raises:
        UserError: it, its root or its class_index is missing, or it is not of the kind that its layout needs.
    """
    source = recipe.sources[name]
    path = recipe.resolve(source.path)
    for key in ("path", "root", "class_index"):
        given = getattr(source, key)
        if given and not recipe.resolve(given).exists():
            raise UserError(
                f"{recipe.resolve(given)}: missing (sources.{name}.{key}); mend the recipe or give its place with "
                "--set data=PATH"
            )
    if not (path.is_dir() or path.is_file()):
        raise UserError(f"{path}: sources.{name}.path is neither a folder nor a file")
    layout = listings.detect_layout(path) if source.layout == "auto" else source.layout
    folder = {
        "folders": "a folder of class folders",
        "files": "a folder",
        "ucf101": "the folder of the split files",
        "hmdb51": "the folder of the split files",
    }.get(layout)
    if not (path.is_dir() if folder else path.is_file()):
        raise UserError(f"{path}: sources.{name} has layout '{layout}', which needs {folder or 'a list file'}")
    return path, layout


def _entries(path: Path, root: Path, source: Source, layout: str) -> Iterator[Entry]:
    match layout:
        case "folders":
            return listings.read_folders(path)
        case "files":
            return listings.read_files(path)
        case "ucf101":
            return listings.read_ucf101(path)
        case "hmdb51":
            return listings.read_hmdb51(path)
        case "table":
            return listings.read_table_rows(path, source.columns)
        case "lines":
            return listings.read_lines(path, root)
        case "kinetics":
            return listings.read_kinetics(path, root)
        case _:
            return listings.read_json(path, root, source.columns)


def _facts(root: Path, entry: Entry, source: str) -> dict[str, Any]:
    """Where the file is, its size, an id from the source, the path below the root, the piece and the file's ends."""
    path = (root / entry.path).resolve()
    digest = hashlib.sha256(repr((source, entry.path, entry.start_s, entry.end_s)).encode())
    size, reason = None, None
    if ".." in Path(entry.path).parts and not path.is_relative_to(root.resolve()):
        reason = "outside_root"
    else:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(file.read(_ENDS_BYTES))
                if size > _ENDS_BYTES:
                    file.seek(max(size - _ENDS_BYTES, _ENDS_BYTES))
                    digest.update(file.read(_ENDS_BYTES))
            digest.update(str(size).encode())
        except (FileNotFoundError, NotADirectoryError):
            reason = "missing"
        except (OSError, ValueError):  # a directory, no permission, a name with a NUL
            reason = "unreadable"
    uri = os.fsencode(path).decode(errors="replace")
    if uri != str(path):
        reason = "bad_name"  # bytes that are no UTF-8: a table can't hold it, so nothing could find the file again
    return {
        "sample_id": digest.hexdigest()[:20],
        "uri": uri,
        "bytes": size,
        "status": "dropped" if reason else "ok",
        "reason": reason,
    }


def _wanted(entry: Entry, source: Source, name: str) -> bool:
    if source.where and not matches(entry.columns, source.where, name):
        return False
    return not (source.exclude and matches(entry.columns, source.exclude, name))


def matches(columns: Mapping[str, Any], where: Mapping[str, Any], name: str) -> bool:
    """Whether a list row satisfies all conditions of `where`, `exclude`, `test` or `val`."""
    for column, condition in where.items():
        if column not in columns:
            raise UserError(
                f"sources.{name}: no column '{column}' to compare; the list has: {', '.join(sorted(columns))}"
            )
        value = columns[column]
        if isinstance(condition, Range):
            try:
                number = float(value)
            except ValueError:
                raise UserError(f"sources.{name}: column '{column}' holds {value!r}, which is not a number") from None
            if condition.above is not None and number < condition.above:
                return False
            if condition.below is not None and number >= condition.below:
                return False
        elif str(value) not in {
            str(allowed) for allowed in (condition if isinstance(condition, list) else [condition])
        }:
            return False
    return True


def _class_names(recipe: Recipe, source: Source) -> dict[str, str]:
    """Number -> name for lists that write labels as numbers: from `class_index`, else by position in the class list."""
    if source.class_index:
        path = recipe.resolve(source.class_index)
        try:
            lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: class_index cannot be read ({error})") from None
        if all(len(words) >= 2 and words[0].isdigit() for words in lines):
            return {words[0]: " ".join(words[1:]) for words in lines}
        return {str(index): " ".join(words) for index, words in enumerate(lines)}
    classes = recipe.class_list() or []
    return {str(index): name for index, name in enumerate(classes) if str(index) not in classes}


def _keep_licences(rows: list[dict[str, Any]], source: Source) -> None:
    allowed = {licence.lower() for licence in source.licence}
    for row in rows:
        if row["status"] == "ok" and (row.get("licence") or "").lower() not in allowed:
            row.update(status="dropped", reason="licence")


def _split_target(rows: list[dict[str, Any]], entries: Sequence[Entry], source: Source, name: str) -> None:
    for row, entry in zip(rows, entries, strict=True):
        if source.test and matches(entry.columns, source.test, name):
            row["split"] = "test"
        elif source.val and matches(entry.columns, source.val, name):
            row["split"] = "val"
        elif row["split"] is None:
            row["split"] = "train"
    if source.test_share and not any(row["split"] == "test" for row in rows):
        _share_out(rows, source.test_share)


def _share_out(rows: list[dict[str, Any]], share: float) -> None:
    """Moves a share of each class to the test split, by a hash that no other row influences; whole groups together."""
    by_class: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        unit = row["group"] or row["sample_id"]
        by_class.setdefault(row["label"] or "", {}).setdefault(unit, []).append(row)
    grouped = any(row["group"] for row in rows)
    for units in by_class.values():
        ordered = sorted(units, key=lambda unit: hashlib.sha256(unit.encode()).hexdigest())
        # A group may span classes, so it must fall by its hash alone; single clips can be shared out evenly.
        chosen = (
            [unit for unit in ordered if int(hashlib.sha256(unit.encode()).hexdigest()[:8], 16) / 2**32 < share]
            if grouped
            else ordered[: max(1, round(share * len(ordered)))]
            if len(ordered) > 1
            else []
        )
        for unit in chosen:
            for row in units[unit]:
                row["split"] = "test"


def _first_of_class(rows: list[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    if limit is None:
        return rows
    seen: Counter[tuple[str | None, ...]] = Counter()
    kept = []
    for row in sorted(rows, key=lambda row: str(row["sample_id"])):
        key = (row.get("label"), row.get("query_label"), row.get("split"))
        seen[key] += 1
        if seen[key] <= limit:
            kept.append(row)
    return kept


def _collected_rows(workspace: Workspace, name: str, source: Source) -> list[dict[str, Any]]:
    """What `collect` brought for a source, under the same conditions as a list: where, exclude, licence, a limit."""
    table = read_table(workspace.table(COLLECTED))
    rows: list[dict[str, Any]] = table.filter(pc.field("source") == name).to_pylist()
    rows = [
        row
        for row in rows
        if (not source.where or matches(row, source.where, name))
        and not (source.exclude and matches(row, source.exclude, name))
    ]
    if source.licence:
        _keep_licences(rows, source)
    if not rows:
        raise UserError(
            f"{workspace.table(COLLECTED)}: nothing was collected for source '{name}'; run `omnisource collect`"
        )
    return _first_of_class(rows, source.max_per_class)


def _check_classes(recipe: Recipe, classes: list[str]) -> None:
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise UserError(f"recipe {recipe.name}: class '{twice[0]}' is listed twice")
    if len(classes) < 2:
        raise UserError(
            f"recipe {recipe.name}: {len(classes)} class found ({', '.join(classes)}); a recogniser needs two"
        )


def _settle_labels(recipe: Recipe, rows: list[dict[str, Any]], classes: list[str]) -> None:
    """Maps every label to a class name; spelling by case, underscores and dashes is forgiven, anything else is not."""
    plain = {_plain(name): name for name in classes}
    for row in rows:
        key = "label" if row["role"] == "target" else "query_label"
        label = row.get(key)
        if label is None:
            if row["role"] == "target":
                raise UserError(
                    f"{row['uri']}: no label (sources.{row['source']}); map it with columns: {{label: NAME}}"
                )
            continue
        if label in classes:
            continue
        if _plain(label) not in plain:
            close = difflib.get_close_matches(label, classes, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"classes are: {', '.join(classes[:12])}"
            raise UserError(
                f"{row['uri']}: label '{label}' (sources.{row['source']}) is not in the class list; {hint}; "
                f"say what it means with `labels: {{{label}: CLASS}}`, or leave such rows out with `where` or `exclude`"
            )
        row[key] = plain[_plain(label)]


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().lower()


def _check_unique(table: pa.Table) -> None:
    repeated = (
        table.group_by("sample_id").aggregate([("uri", "count"), ("uri", "min")]).filter(pc.field("uri_count") > 1)
    )
    if repeated.num_rows:
        raise UserError(
            f"{repeated['uri_min'][0]}: listed {repeated['uri_count'][0]} times in one source; "
            "choose one split of the list with `where: {fold: 1}`"
        )


def _check_target(recipe: Recipe, table: pa.Table, classes: list[str]) -> None:
    usable = table.filter((pc.field("role") == "target") & (pc.field("status") == "ok"))
    for split in ("train", "test"):
        have = set(usable.filter(pc.field("split") == split)["label"].to_pylist())
        names = ", ".join(recipe.target_sources)
        if split == "test" and not have:
            raise UserError(
                f"recipe {recipe.name}: target ({names}) has no test clips; "
                f"give sources.{recipe.target_sources[0]} a `test:` condition or a test_share"
            )
        absent = [name for name in classes if name not in have]
        if split == "train" and absent and recipe.unlabelled_classes == "refuse":
            raise UserError(
                f"recipe {recipe.name}: class '{absent[0]}' has no training clips in target ({names})"
                + (f", nor have {len(absent) - 1} more" if len(absent) > 1 else "")
                + "; add clips, take it out of `classes`, or set unlabelled_classes: allow"
            )


def _counts(table: pa.Table, classes: list[str]) -> dict[str, Any]:
    groups = table.group_by(["source", "split", "status"], use_threads=False).aggregate([([], "count_all")]).to_pylist()
    usable = table.filter((pc.field("role") == "target") & (pc.field("status") == "ok"))
    lists = {
        split: digest_table(usable.filter(pc.field("split") == split).select(["sample_id", "label"]))
        for split in ("train", "val", "test")
    }
    dropped = table.filter(pc.field("status") == "dropped")
    reasons = Counter(dropped["reason"].to_pylist())
    splits = {split: count for split, count in Counter(usable["split"].to_pylist()).items() if split}
    return {
        "rows": table.num_rows,
        "dropped": dropped.num_rows,
        "reasons": dict(sorted(reasons.items())),
        **dict(sorted(splits.items())),
        "test_list": lists["test"],
        "classes": classes,
        "sources": groups,
        "list_hash": lists,
    }
