"""Taking something out again: media and rows go, and it is not fetched another time."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.collect.addresses import Refused, canonical_url
from omnisource.collect.stage import open_state
from omnisource.errors import UserError
from omnisource.tables import read_table, write_table
from omnisource.workspace import Workspace

KINDS = ("url", "author", "host", "sha256")


@dataclass
class Forgotten:
    """What was taken out."""

    files: int = 0
    bytes: int = 0
    urls: int = 0
    rows: dict[str, int] = field(default_factory=dict)  # by table
    runs: list[str] = field(default_factory=list)  # trainings that used one of the samples


def forget(workspace: Workspace, kind: str, value: str) -> Forgotten:
    """Removes the media and every row of a URL, an author, a host or a content, and remembers not to fetch it again.

    Stages whose tables lose rows run again with the next `run`. Networks that were trained on the samples keep what
    they learned: `runs` lists them, to be trained again.

    Raises:
        UserError: not one of the four kinds, or not a URL.
    """
    if kind not in KINDS:
        raise UserError(f"forget what? one of {', '.join(f'--{name}' for name in KINDS)}")
    if kind == "url":
        try:
            value = canonical_url(value)
        except Refused as refused:
            raise UserError(f"--url {value}: {refused}") from None
    state = open_state(workspace)
    result = Forgotten()
    try:
        state.remember_forgotten(kind, value)
        ids = _sample_ids(workspace, kind, value)
        removed = state.remove(kind, value)
        result.urls = removed.urls
        media = workspace.media_dir("web")
        for relative in removed.paths:
            path = media / relative
            if path.exists():
                result.files += 1
                result.bytes += path.stat().st_size
                path.unlink()
        ids |= _ids_of_files(workspace, {str(media / relative) for relative in removed.paths})
    finally:
        state.close()
    result.runs = _runs_that_used(workspace, ids)
    for path in sorted((workspace.root / "tables").glob("*.parquet")):
        lost = _remove_rows(path, ids)
        if lost:
            result.rows[path.stem] = lost
    return result


def _samples(workspace: Workspace) -> list[pa.Table]:
    names = [name for name in ("samples", "collected") if workspace.table(name).exists()]
    return [read_table(workspace.table(name)) for name in names]


def _sample_ids(workspace: Workspace, kind: str, value: str) -> set[str]:
    """Samples whose own row names the URL, author, host or content, collected by us or not."""
    found: set[str] = set()
    for table in _samples(workspace):
        if kind == "host":
            fits = pc.match_substring_regex(pc.field("url"), rf"^https?://{_escaped(value)}(:\d+)?/")
        elif kind == "sha256":
            fits = pc.match_substring(pc.field("uri"), f"/{value}.")
        else:
            fits = pc.field(kind) == value
        found.update(table.filter(fits)["sample_id"].to_pylist())
    return found


def _ids_of_files(workspace: Workspace, uris: set[str]) -> set[str]:
    wanted = pa.array(sorted(uris), pa.string())
    return {
        sample_id
        for table in _samples(workspace)
        for sample_id in table.filter(pc.is_in(table["uri"], wanted))["sample_id"].to_pylist()
    }


def _remove_rows(path: Path, ids: set[str]) -> int:
    table = read_table(path)
    if "sample_id" not in table.column_names or not ids:
        return 0
    keep = table.filter(pc.invert(pc.is_in(table["sample_id"], pa.array(sorted(ids), pa.string()))))
    lost: int = table.num_rows - keep.num_rows
    if lost:
        write_table(path, keep)
    return lost


def _runs_that_used(workspace: Workspace, ids: set[str]) -> list[str]:
    """Trainings on the source of one of the samples, if a selection that stands kept it (or none was made)."""
    wanted = pa.array(sorted(ids), pa.string())
    decisions = [read_table(path) for path in sorted((workspace.root / "tables").glob("decisions*.parquet"))]
    if decisions:
        used = pc.field("keep") | pc.field("negative")
        kept = {one for table in decisions for one in table.filter(used)["sample_id"].to_pylist()}
        wanted = pa.array(sorted(ids & kept), pa.string())
    sources = {
        source
        for table in _samples(workspace)
        for source in table.filter(pc.is_in(table["sample_id"], wanted))["source"].to_pylist()
    }
    found = []
    for path in sorted((workspace.root / "runs").glob("*/run.json")):
        try:
            units = json.loads(path.read_text(encoding="utf-8"))["identity"]["units"]["sources"]
            used = any(units.get(source) for source in sources)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            used = True  # its record is damaged: it may have used them
        if used:
            found.append(path.parent.name)
    return found


def _escaped(host: str) -> str:
    return "".join(f"\\{character}" if not character.isalnum() else character for character in host.lower())
