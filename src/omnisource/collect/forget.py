"""Taking something out again: media and rows go, and it is not fetched another time."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.collect.addresses import Refused, canonical_url
from omnisource.collect.stage import open_state
from omnisource.errors import UserError
from omnisource.tables import read_batches, read_schema, read_table, write_batches
from omnisource.workspace import Workspace

KINDS = ("url", "author", "host", "sha256")
_SAMPLES = ("samples", "collected")  # tables that tell which samples are of a URL, an author, a host or a content
Row = dict[str, Any]


@dataclass
class Forgotten:
    """What was taken out."""

    files: int = 0
    bytes: int = 0
    urls: int = 0
    rows: dict[str, int] = field(default_factory=dict)  # by table
    runs: list[str] = field(default_factory=list)  # trainings that used one of the samples
    outside: list[str] = field(default_factory=list)  # files of the user's own, which stay where they are


def forget(workspace: Workspace, kind: str, value: str) -> Forgotten:
    """Removes the media and every row of a URL, an author, a host or a content, and remembers not to fetch it again.

    Their training forms go, too, a report, which shows pictures, and all that `ablate` made. Stages whose tables lose
    rows run again with the next `run`. Killed at any moment, the same call goes on. Networks that were trained on the
    samples keep what they learned: `runs` lists them, to be trained again.

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
    result = Forgotten()
    media = workspace.media_dir("web")
    with open_state(workspace) as state:
        state.remember_forgotten(kind, value)
        found = state.matching(kind, value)
        for content in found.contents:
            state.remember_forgotten("sha256", content)
        ids = _sample_ids(workspace, kind, value) | _ids_of_files(workspace, {str(media / p) for p in found.paths})
        result.urls = len(found.urls)
        result.runs = _runs_that_used(workspace, ids)
        result.outside = _uris_outside(workspace, ids)
        for relative in found.paths:
            _delete(media / relative, result)
        for content in found.contents:  # their training forms, which are named by content
            for path in workspace.media_dir("prepared").glob(f"*/{content[:2]}/{content}.*"):
                _delete(path, result)
        if ids:  # copies of rows and media; all else in it is figures
            shutil.rmtree(workspace.ablation_dir, ignore_errors=True)
        for path in sorted((workspace.root / "tables").glob("*.parquet"), key=_by_what_names_them):
            if lost := _remove_rows(path, ids):
                result.rows[path.stem] = lost
        if result.rows:
            workspace.report_path.unlink(missing_ok=True)  # it shows pictures
            shutil.rmtree(workspace.root / "partial", ignore_errors=True)  # no stage resumes from there any more
        state.remove(found.urls)  # last: killed before, the same command still finds all that is to go
    return result


def _by_what_names_them(path: Path) -> tuple[bool, str]:
    """The order in which tables lose rows: last those that tell which are meant, so that a killed call can go on."""
    return path.stem in _SAMPLES, path.stem


def _delete(path: Path, result: Forgotten) -> None:
    if path.exists():
        result.files += 1
        result.bytes += path.stat().st_size
        path.unlink()


def _samples(workspace: Workspace, columns: Sequence[str], which: pc.Expression) -> list[Row]:
    """These columns of the samples, collected ones and others, that satisfy `which`."""
    names = [name for name in _SAMPLES if workspace.table(name).exists()]
    return [row for name in names for row in read_table(workspace.table(name), columns, which).to_pylist()]


def _sample_ids(workspace: Workspace, kind: str, value: str) -> set[str]:
    """Samples whose own row names the URL, author, host or content, collected by us or not."""
    if kind == "host":
        fits = pc.match_substring_regex(pc.field("url"), rf"^https?://{_escaped(value)}(:\d+)?/")
    elif kind == "sha256":
        fits = pc.match_substring(pc.field("uri"), f"/{value}.")
    elif kind == "author":
        fits = pc.utf8_lower(pc.utf8_trim_whitespace(pc.field("author"))) == value.strip().lower()
    else:
        fits = pc.field("url") == value
    return {row["sample_id"] for row in _samples(workspace, ["sample_id"], fits)}


def _ids_of_files(workspace: Workspace, uris: set[str]) -> set[str]:
    wanted = pc.field("uri").isin(pa.array(sorted(uris), pa.string()))
    return {row["sample_id"] for row in _samples(workspace, ["sample_id"], wanted)}


def _uris_outside(workspace: Workspace, ids: set[str]) -> list[str]:
    """The files of these samples that are the user's own."""
    wanted = pc.field("sample_id").isin(pa.array(sorted(ids), pa.string()))
    uris = {row["uri"] for row in _samples(workspace, ["uri"], wanted)}
    return sorted(uri for uri in uris if not Path(uri).is_relative_to(workspace.media_dir("web")))


def _remove_rows(path: Path, ids: set[str]) -> int:
    """Takes the rows of these samples out of a table, which is read in pieces."""
    schema, wanted = read_schema(path), pa.array(sorted(ids), pa.string())
    if "sample_id" not in schema.names or not ids:
        return 0
    lost: int = read_table(path, ["sample_id"], pc.field("sample_id").isin(wanted)).num_rows
    if lost:
        left = (batch.filter(pc.invert(pc.is_in(batch["sample_id"], wanted))) for batch in read_batches(path))
        write_batches(path, schema, left)
    return lost


def _runs_that_used(workspace: Workspace, ids: set[str]) -> list[str]:
    """Trainings on the source of one of the samples, if a selection that stands kept it (or none was made)."""
    wanted = pc.field("sample_id").isin(pa.array(sorted(ids), pa.string()))
    decisions = sorted((workspace.root / "tables").glob("decisions*.parquet"))
    if decisions:
        used = wanted & (pc.field("keep") | pc.field("negative"))
        kept = {one for path in decisions for one in read_table(path, ["sample_id"], used)["sample_id"].to_pylist()}
        wanted = pc.field("sample_id").isin(pa.array(sorted(kept), pa.string()))
    sources = {row["source"] for row in _samples(workspace, ["source"], wanted)}
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
