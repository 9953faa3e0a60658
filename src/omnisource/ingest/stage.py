"""`ingest`: the recipe's sources become the samples table."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from omnisource.errors import UserError
from omnisource.ingest import listings
from omnisource.ingest.conditions import matches, wanted
from omnisource.ingest.facts import BAD_ROW, look
from omnisource.ingest.listed import Group, listing
from omnisource.ingest.listings import Entry
from omnisource.ingest.values import by_plain_name, split_of
from omnisource.progress import meter, say
from omnisource.recipe import Recipe, Source
from omnisource.recipe.sources import Scalar
from omnisource.tables import SAMPLES, check_table, digest_file, digest_table, read_batches, read_table, sync_folder
from omnisource.workspace import StageRecord, Workspace

COLLECTED = "collected"  # table of the collect stage
_MOST_SAID = 5  # bad rows of a source that are named; the samples table has all
_PASSED_ON = ("url", "page_url", "query", "author", "licence")
_UCF101 = re.compile(r"([^/]*_g\d+)_c\d+\.\w+$")  # v_Archery_g03_c07.avi: clip 7 of film 3

Row = dict[str, Any]


def ingest(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Lists every source, checks labels and splits, and writes the `samples` table.

    The listing is always read anew (it is cheap); when it comes out the same, the stage counts as current. It lies on
    disk meanwhile, so memory does not grow with the number of rows.

    Raises:
        UserError: a missing or empty source, one in which the workspace lies, one of which most rows are wrong (of a
            few, each is dropped and named), an unknown label, a class without training clips, no test split.
    """
    path = workspace.table("samples")
    for name, source in recipe.sources.items():
        if source.layout != "collected":
            _check_apart(recipe, name, workspace)
    with listing(workspace.root / "partial", recipe.sources) as listed:
        for name, source in recipe.sources.items():
            listed.add(name, _source_rows(recipe, workspace, name, source))
        classes = recipe.class_list() or listed.labels()
        _check_classes(recipe, classes)
        listed.settle(classes)
        found = listed.folder / path.name
        listed.write(found)
        groups = listed.groups()
        _check_target(recipe, groups, classes)
        counts = _counts(groups, found, classes)

        def work(_: str) -> Mapping[str, Any]:
            found.replace(path)
            sync_folder(path.parent)
            return counts

        settings = {"table": digest_file(found), "classes": classes}
        return workspace.run_stage("ingest", settings=settings, after=[], outputs=[path], work=work)


def _source_rows(recipe: Recipe, workspace: Workspace, name: str, source: Source) -> Iterator[Row]:
    if source.layout == "collected":
        yield from _collected_rows(workspace, name, source)
        return
    path, layout = source_place(recipe, name)
    root = _root(recipe, source, path)
    names = _class_names(recipe, source)
    entries = _used(entries_of(path, root, source, layout), source, name, path)
    count, absent, first = 0, 0, ""
    with meter(f"listing {name}") as bar:
        for group in look(root, name, entries, path):
            for entry, fact in group:
                if fact["reason"] == "missing":
                    absent, first = absent + 1, first or entry.path
                count += fact["reason"] != BAD_ROW
                yield _row(entry, fact, name, source, names)
            bar.advance(len(group))
    if not count:
        raise UserError(
            f"{path}: source '{name}' has no files here; expected <class>/<file> folders or a list of paths"
        )
    if absent == count or (absent and source.missing == "refuse"):
        raise UserError(
            f"{path}: {absent} of {count} listed files are missing below {root}, first {first!r}; "
            f"set sources.{name}.root to where they are"
            + ("" if absent == count else f", or sources.{name}.missing: drop")
        )


def _check_apart(recipe: Recipe, name: str, workspace: Workspace) -> None:
    """Raises UserError where the workspace lies in a folder all files of which are a source's; a hidden one may."""
    path, layout = source_place(recipe, name)
    inside = path.resolve()
    if layout in ("folders", "files") and workspace.root.is_relative_to(inside):
        below = workspace.root.relative_to(inside).parts
        if not any(part.startswith(".") for part in below):
            raise UserError(
                f"{workspace.root}: lies in sources.{name} ({path}), so what is written there would be taken for data; "
                "choose another --workspace"
            )


def _used(entries: Iterable[Entry], source: Source, name: str, path: Path) -> Iterator[Entry]:
    """The entries that a source called `name` uses, with their splits; those in which something is wrong say so.

    Raises:
        UserError: at the end, if most of all entries are wrong.
    """
    count, bad, named = 0, 0, list[str]()
    for entry in entries:
        count += 1
        place, fault, used = entry.place or f"{path}/{entry.path}", entry.fault, None
        if fault is None:
            try:
                if wanted(entry.columns, source, name):
                    used = replace(entry, split=_split(entry, source, name) if source.role == "target" else None)
            except UserError as error:
                fault = f"{place}: {error}"
        if fault is not None:
            bad, used = bad + 1, listings.faulty(place, fault)
            named += [fault] if bad <= _MOST_SAID else []
        if used is not None:
            yield used
    if bad > count - bad:
        raise UserError(named[0] if count == 1 else f"{named[0]} ({bad} of {count} rows are wrong)")
    for fault in named:
        say(f"left out ({BAD_ROW}): {fault}")
    if bad > len(named):
        say(f"left out ({BAD_ROW}): {bad} rows of sources.{name} in all; the samples table says which")


def _row(entry: Entry, fact: Row, name: str, source: Source, names: Mapping[str, str]) -> Row:
    """The row of SAMPLES that an entry and what was found out about its file make."""
    label = names.get(entry.label or "", entry.label)
    row = {
        "source": name,
        "role": source.role,
        "format": source.format,
        "label" if source.role == "target" else "query_label": source.labels.get(label or "", label),
        "split": entry.split,
        "fold": entry.fold,
        "group": _group_of(entry),
        "start_s": entry.start_s,
        "end_s": entry.end_s,
        **{key: str(value) for key in _PASSED_ON if (value := entry.columns.get(key)) is not None},
        **fact,
    }
    return _licensed(row, source)


def _group_of(entry: Entry) -> str | None:
    """What must not be split: as the list says, else pieces of one film, and clips that are named as UCF101's are."""
    if entry.group or (entry.start_s, entry.end_s) != (None, None):
        return entry.group or entry.path
    named = _UCF101.search(entry.path)
    return named[1] if named else None


def _split(entry: Entry, source: Source, name: str) -> str:
    if source.test and matches(entry.columns, source.test, name):
        return "test"
    if source.val and matches(entry.columns, source.val, name):
        return "val"
    return source.split or (split_of(entry.split) if entry.split else "train")


def _licensed(row: Row, source: Source) -> Row:
    if source.licence and row["status"] == "ok":
        allowed = {licence.lower() for licence in source.licence}
        if (row.get("licence") or "").lower() not in allowed:
            row.update(status="dropped", reason="licence")
    return row


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


def column_values(recipe: Recipe, name: str, column: str) -> set[Scalar]:
    """What stands in a column of the list of the source `name`; nothing where it has no such column.

    Raises:
        UserError: the source is not there, or its list cannot be read.
    """
    return {value for entry in _listed(recipe, name) if (value := entry.columns.get(column)) is not None}


def is_labelled(recipe: Recipe, name: str) -> bool:
    """Whether the source `name` says of a file what it shows or, web data, what was asked for.

    Raises:
        UserError: as `column_values`.
    """
    return recipe.sources[name].layout == "collected" or any(entry.label for entry in _listed(recipe, name))


def _listed(recipe: Recipe, name: str) -> Iterator[Entry]:
    source = recipe.sources[name]
    path, layout = source_place(recipe, name)
    return entries_of(path, _root(recipe, source, path), source, layout)


def _root(recipe: Recipe, source: Source, path: Path) -> Path:
    """Where the paths of a list start."""
    return recipe.resolve(source.root) if source.root else path if path.is_dir() else path.parent


def entries_of(path: Path, root: Path, source: Source, layout: str) -> Iterator[Entry]:
    """What a folder or list says, as it stands there. `root`: where the paths of a list start."""
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
            return listings.read_table_rows(path, source.columns, source.role == "web")
        case "lines":
            return listings.read_lines(path, root)
        case "kinetics":
            return listings.read_kinetics(path, root)
        case _:
            return listings.read_json(path, root, source.columns, source.role == "web")


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


def _collected_rows(workspace: Workspace, name: str, source: Source) -> Iterator[Row]:
    """What `collect` brought for a source, under the same conditions as a list: where, exclude, licence, a limit."""
    path, count = workspace.table(COLLECTED), 0
    check_table(path, SAMPLES)
    for batch in read_batches(path):
        for row in batch.filter(pc.field("source") == name).to_pylist():
            if wanted(row, source, name):
                count += 1
                yield _licensed(row, source)
    if not count:
        raise UserError(f"{path}: nothing was collected for source '{name}'; run `omnisource collect`")


def _check_classes(recipe: Recipe, classes: list[str]) -> None:
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise UserError(f"recipe {recipe.name}: class '{twice[0]}' is listed twice")
    if not all(map(str.strip, classes)):
        raise UserError(
            f"recipe {recipe.name}: a class has an empty name; take it out of `classes`, or name its folder"
        )
    one_of = dict[str, str]()
    for name in classes:
        other = one_of.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise UserError(
                f"recipe {recipe.name}: two classes look like '{name}' but are written in different bytes "
                f"({other!a} and {name!a}); rename one, or map it with `labels`"
            )
    if not classes:
        raise UserError(
            f"recipe {recipe.name}: no target sample has a label; say which column has the labels with "
            f"sources.{recipe.target_sources[0]}.columns: {{label: NAME}}"
        )
    for alike in by_plain_name(classes).values():
        if len(alike) > 1:
            say(
                f"note: the classes {' and '.join(map(repr, alike))} differ only in case, spaces, _ or -; if they are "
                f"one, map them: labels: {{{alike[1]}: {alike[0]}}}"
            )
    if len(classes) < 2:
        raise UserError(
            f"recipe {recipe.name}: {len(classes)} class found ({', '.join(classes)}); a recogniser needs two"
        )


def _check_target(recipe: Recipe, groups: Sequence[Group], classes: list[str]) -> None:
    usable = [group for group in groups if group.role == "target" and group.status == "ok"]
    for split in ("train", "test"):
        have = {group.label for group in usable if group.split == split}
        names = ", ".join(recipe.target_sources)
        if split == "test" and not have:
            shared = next((name for name in recipe.target_sources if recipe.sources[name].test_share), None)
            cure = f"give sources.{recipe.target_sources[0]} a `test:` condition or a test_share"
            if shared:
                cure = f"no group fell into the share: raise sources.{shared}.test_share or take another test_part"
            raise UserError(f"recipe {recipe.name}: target ({names}) has no test clips; {cure}")
        absent = [name for name in classes if name not in have]
        if split == "test" and absent:
            say(f"note: no test clips of {', '.join(absent)}: how well they are recognised is not measured")
        if split == "train" and absent and recipe.unlabelled_classes == "refuse":
            raise UserError(
                f"recipe {recipe.name}: class '{absent[0]}' has no training clips in target ({names})"
                + (f", nor have {len(absent) - 1} more" if len(absent) > 1 else "")
                + "; add clips, take it out of `classes`, or set unlabelled_classes: allow"
            )


def _counts(groups: Sequence[Group], path: Path, classes: list[str]) -> dict[str, Any]:
    """For the record of the table at `path`: rows, dropped, reasons, splits, and what identifies the target's lists."""
    sources, reasons, splits = Counter[tuple[str, str | None, str]](), Counter[str | None](), Counter[str]()
    for group in groups:
        sources[group.source, group.split, group.status] += group.rows
        if group.status == "dropped":
            reasons[group.reason] += group.rows
        elif group.role == "target" and group.split:
            splits[group.split] += group.rows
    usable = (pc.field("role") == "target") & (pc.field("status") == "ok")
    target = read_table(path, ["sample_id", "label", "split"], usable)
    lists = {
        split: digest_table(target.filter(pc.field("split") == split).select(["sample_id", "label"]))
        for split in ("train", "val", "test")
    }
    return {
        "rows": sources.total(),
        "dropped": reasons.total(),
        "reasons": dict(sorted(reasons.items())),
        **dict(sorted(splits.items())),
        "test_list": lists["test"],
        "classes": classes,
        "sources": [
            {"source": source, "split": split, "status": status, "count_all": rows}
            for (source, split, status), rows in sources.items()
        ],
        "list_hash": lists,
    }
